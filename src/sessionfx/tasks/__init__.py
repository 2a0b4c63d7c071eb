"""What is to be done and what is finished, for both levels."""
