"""Reports: pictures (``brain``, ``plots``) and the pages that hold them."""
