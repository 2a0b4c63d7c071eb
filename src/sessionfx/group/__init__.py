"""The group level: maps of all participants to answers, their comparison, and which to trust."""
