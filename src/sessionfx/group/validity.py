"""How often the strategies are wrong in simulated null studies: the figures that sentences quote, in one place.

Worst false-positive rates in percent at a nominal 5 %, over the designs of docs/validity.md: those without covariates
and groups where nothing else is said. `make validity` makes docs/validity.tsv, and a test compares that table with
these figures, and these figures with the sentences of README, docs and warnings.
"""

from __future__ import annotations

# the starred answer where the report has no warning, in all designs; the second in per mille at a nominal 1 ‰
SILENT_STAR = 5.5
SILENT_STAR_PER_MILLE = 1.7
# marginal; and summary-statistics but for means and trends where participants drop out
KEPT = 5.4
DROPOUT_MEAN = 38.9  # summary-statistics, a true change
DROPOUT_TREND = 44.4  # summary-statistics, a change that is no straight line
FEW_AND_UNEQUAL = 7.5  # marginal, dropout and unequal variances together
POOLED_MEAN = 37.4  # session-model
# session-model and mixed, three or more sessions, without sphericity
DIFFERENCE = 20.3
TREND = 24.4
MIXED_MEAN = 5.6
MIXED_DIFFERENCE_OF_TWO = 8.2
SESSION_MODEL_DIFFERENCE_OF_TWO = 5.4
SESSION_MODEL_ANY = 5.3

# The mean of the session-model may be reported, with care, where the median ICC is below: pooling the maps of one
# participant then inflates t by less than 5 % for three sessions
NEGLIGIBLE_ICC = 0.05

WITHOUT_SPHERICITY = (
    f"up to {DIFFERENCE:g} % for differences and {TREND:g} % for trends at a nominal 5 % in simulations"
)
