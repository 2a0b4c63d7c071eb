"""BIDS Stats Models: read, turned into options and designs, and written."""
