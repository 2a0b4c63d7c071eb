"""SessionFX: fixed effects over sessions and group strategies for multi-session task fMRI."""

__version__ = "0.1.0"
