"""The options of the command line."""

HRF_MODELS = (
    "glover",
    "glover + derivative",
    "glover + derivative + dispersion",
    "spm",
    "spm + derivative",
    "spm + derivative + dispersion",
)
DRIFT_MODELS = ("cosine", "polynomial", "none")
NOISE_MODELS = ("ar1", "ols")
FIXED_EFFECTS_WEIGHTINGS = ("equal", "precision")
FIXED_EFFECTS_DOF_METHODS = ("satterthwaite", "sum")
SUBJECT_EFFECTS = ("auto", "indicator", "linear", "none")
MIXED_DOF_METHODS = ("satterthwaite", "kenward-roger")
VARIANCES = ("auto", "pooled", "groups")
SESSION_COVARIATE_EFFECTS = ("split", "mixture")
CORRECTIONS = ("fdr", "bonferroni", "none")
LEVELS = ("participant", "group")
EXECUTORS = ("local", "dask")

STRATEGY_NAMES = (
    "session-model",
    "summary-statistics",
    "marginal",
    "mixed",
    "meta",
)  # the registry of strategies is checked against this
