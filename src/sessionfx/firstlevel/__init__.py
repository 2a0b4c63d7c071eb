"""The first level: one run's design matrix, its fit, and its contrasts."""
