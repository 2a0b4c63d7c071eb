"""What speaks for no effect: equivalence tests and Bayes factors of the answers, where they are asked for."""

from __future__ import annotations

from dataclasses import replace

import numpy as np

from sessionfx.errors import NotEstimableError
from sessionfx.group.results import Answer, StrategyResult
from sessionfx.group.strategies.base import Question
from sessionfx.options import GroupModel
from sessionfx.statistics.bayes_factor import bayes_factors, bayes_factors_by_n
from sessionfx.statistics.equivalence import two_one_sided_tests
from sessionfx.statistics.estimates import Estimate

F_TEST = (
    "A test that several contrasts are all zero has no equivalence test and no Bayes factor here; ask for them one by "
    "one."
)
UNEQUAL_N = (
    "Where voxels differ in who has them there are Bayes factors of one-sample t tests only: of all participants' mean "
    "and changes by summary-statistics. --min-coverage 1 has others."
)


def with_absence(found: StrategyResult, question: Question, model: GroupModel) -> StrategyResult:
    """Add to an answer what `--equivalence` and `--bayes-factor` ask for, or say why it has none."""
    bound, scale = model.equivalence, model.bayes_factor
    if not isinstance(found, Answer) or (bound is None and scale is None):
        return found
    plan, estimate = found.plan, found.stat_map.estimate
    if not isinstance(estimate, Estimate):
        return replace(found, absence_refusal=F_TEST)
    if bound is not None:
        tests = two_one_sided_tests(estimate, bound, model.alpha, model.correction)
        found = replace(found, equivalence=tests)
    if scale is None:
        return found
    try:
        n = plan.effective_n(question)
    except NotEstimableError as refusal:
        return replace(found, absence_refusal=str(refusal))
    if estimate.n is not None:
        is_one_sample = np.isclose(n, len(plan.design_matrix)) and np.allclose(estimate.dof, estimate.n - 1)
        if not is_one_sample:
            return replace(found, absence_refusal=UNEQUAL_N)
        return replace(found, bayes_factors=bayes_factors_by_n(estimate.t, estimate.n, scale))
    assert isinstance(estimate.dof, float)  # noqa: S101 - a t test with one variance for all has the design's
    return replace(found, bayes_factors=bayes_factors(estimate.t, estimate.dof, n, scale))
