"""The participant level: runs are read, modelled and fitted, combined over runs and sessions, and shown."""
