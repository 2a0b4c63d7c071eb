"""Reading BIDS datasets and fMRIPrep derivatives; nothing here writes."""
