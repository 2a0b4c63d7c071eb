"""What users ask, parsed once from text: contrasts, session contrasts, covariates and group contrasts."""
