"""How often the strategies are wrong in simulated null studies: the figures that sentences quote, in one place.

Worst false-positive rates in percent at a nominal 5 %, over the designs of docs/validity.md. `make validity` makes
docs/validity.tsv, and a test compares that table with these figures, and these figures with the sentences of README,
docs and cautions.
"""

from __future__ import annotations

# marginal; and fixed-effects but for means and trends where participants drop out
KEPT = 5.4
DROPOUT_MEAN = 40.0  # fixed-effects, a true change
DROPOUT_TREND = 44.0  # fixed-effects, a change that is no straight line
FEW_AND_UNEQUAL = 7.6  # marginal, dropout and unequal variances together
POOLED_MEAN = 37.6  # session-model
# session-model and mixed, three or more sessions, without sphericity
DIFFERENCE = 20.5
TREND = 24.8
MIXED_MEAN = 5.7
MIXED_DIFFERENCE_OF_TWO = 8.5
SESSION_MODEL_DIFFERENCE_OF_TWO = 5.4
SESSION_MODEL_ANY = 5.1

# The mean of the session-model may be reported, with care, where the median ICC is below: pooling the maps of one
# participant then inflates t by less than 5 % for three sessions
NEGLIGIBLE_ICC = 0.05

WITHOUT_SPHERICITY = (
    f"up to {DIFFERENCE:g} % for differences and {TREND:g} % for trends at a nominal 5 % in simulations"
)
