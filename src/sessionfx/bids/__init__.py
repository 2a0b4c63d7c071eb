"""BIDS datasets and derivatives: names, finding and reading files, statistical maps, writing whole files."""
