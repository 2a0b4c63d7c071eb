"""Writing BIDS derivatives, and reading them back."""
