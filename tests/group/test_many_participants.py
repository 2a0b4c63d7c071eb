"""Time grows with the number of maps, not its square: what is applied to voxels is sparse or thin, and the same.

Counting numbers that meet a voxel is exact where a clock is not.
"""

from __future__ import annotations

import numpy as np
import pytest
from numpy.typing import NDArray

from sessionfx.ask.session_contrasts import resolve_session_contrasts
from sessionfx.group.strategies import STRATEGIES
from sessionfx.group.strategies.base import GroupOptions, MapLayout, Question
from sessionfx.group.strategies.participant_values import SummaryStatisticsPlan
from sessionfx.group.strategies.session_model import SessionModelPlan
from sessionfx.statistics.cluster_robust import robust_contrast
from sessionfx.statistics.ols import prepare_ols
from sessionfx.statistics.participant_variance import ParticipantSpectrum, participant_spectrum

SESSIONS = ("01", "02", "03")


def layout_of(n_participants: int, n_sessions: int, missing: float, *, with_age: bool = False) -> MapLayout:
    rng = np.random.default_rng(n_participants)
    there = rng.random((n_participants, n_sessions)) >= missing
    there[:, 0] |= ~there.any(axis=1)
    owners, sessions = np.nonzero(there)
    ages = rng.normal(size=n_participants)
    return MapLayout(
        tuple(f"{owner:04d}" for owner in owners), tuple(SESSIONS[session] for session in sessions),
        ("age",) if with_age else (), (ages - ages.mean())[owners][:, None] if with_age else np.empty((0, 0)),
    )  # fmt: skip


def design_of(layout: MapLayout) -> NDArray[np.float64]:
    sessions = sorted(set(layout.sessions))
    cells = layout.session_columns(sessions)
    return np.hstack([cells, cells * layout.covariates]) if layout.covariate_names else cells


def numbers_per_voxel(spectrum: ParticipantSpectrum) -> int:
    """How many numbers of the spectrum each voxel is multiplied with."""
    dense = [basis.size for index, basis in enumerate(spectrum.bases) if index not in spectrum.sums]
    thin = [sums.scaled.nnz + sums.other.size for sums in spectrum.sums.values()]
    return spectrum.fitted_basis.size + sum(dense) - max(dense, default=0) + sum(thin)


CASES = [(2, 0.0, False), (3, 0.0, False), (3, 0.0, True), (3, 0.15, False), (3, 0.15, True), (1, 0.0, False)]


@pytest.mark.slow
@pytest.mark.parametrize(("n_sessions", "missing", "with_age"), CASES)
def test_sums_of_squares_are_those_of_the_eigenspaces_bases(n_sessions: int, missing: float, with_age: bool) -> None:
    layout = layout_of(60, n_sessions, missing, with_age=with_age)
    spectrum = participant_spectrum(design_of(layout), layout.participants)
    rng = np.random.default_rng(1)
    own = {label: rng.normal(size=50) for label in layout.unique_participants}
    values = np.array([own[label] for label in layout.participants]) + rng.normal(size=(len(layout.sessions), 50)) + 9
    values[:, 0] = design_of(layout)[:, 0]  # is explained: nothing is left
    values[:, 1] = 1e6 + rng.normal(size=len(values))  # nearly everything cancels
    found = spectrum.squares(values)
    written = np.array([((basis.T @ values) ** 2).sum(axis=0) for basis in spectrum.bases])
    np.testing.assert_allclose(found[:, 2:], written[:, 2:], rtol=1e-10)
    np.testing.assert_allclose(found[:, 1], written[:, 1], rtol=1e-6)
    assert (found[:, 0] == 0).all()


@pytest.mark.slow
@pytest.mark.parametrize(("n_sessions", "missing", "with_age"), CASES[:5])
def test_twice_the_participants_are_twice_the_numbers_per_voxel(
    n_sessions: int, missing: float, with_age: bool
) -> None:
    few, many = (
        numbers_per_voxel(participant_spectrum(design_of(layout), layout.participants))
        for layout in (layout_of(n, n_sessions, missing, with_age=with_age) for n in (60, 120))
    )
    assert many < 2.3 * few


@pytest.mark.slow
@pytest.mark.parametrize("n_participants", [40, 80])
@pytest.mark.parametrize("missing", [0.0, 0.2])
def test_every_default_strategy_is_thin(n_participants: int, missing: float) -> None:
    layout = layout_of(n_participants, 3, missing)
    n_maps = len(layout.participants)
    for asked in resolve_session_contrasts(["mean", "ses-02 - ses-01", "linear", "any"], SESSIONS):
        question = Question(asked)
        model = STRATEGIES["session-model"].plan(layout, question, GroupOptions())
        assert isinstance(model, SessionModelPlan)
        assert model.prepared.basis.shape[1] <= 3
        assert (model.prepared.means is not None) == asked.is_within_participant
        fixed = STRATEGIES["summary-statistics"].plan(layout, question, GroupOptions())
        if isinstance(fixed, SummaryStatisticsPlan):
            values = np.random.default_rng(2).normal(size=(n_maps, 7))
            np.testing.assert_allclose(
                fixed.participant_values(values, None), fixed.combination @ values, rtol=1e-12, atol=1e-14
            )
        design = design_of(layout)
        contrast = np.array([[-1.0, 1.0, 0.0], [0.0, -1.0, 1.0]])
        robust = robust_contrast(design, layout.participants, contrast, 0.7)
        assert robust.own.nnz <= 2 * n_maps
        values = np.random.default_rng(3).normal(size=(n_maps, 7)) + 5
        np.testing.assert_allclose(
            robust.scores_of(values), robust.scores @ values, rtol=1e-9, atol=1e-12 * np.abs(values).max()
        )


@pytest.mark.parametrize("missing", [0.0, 0.2])
def test_least_squares_with_participants_taken_out_first_is_least_squares(missing: float) -> None:
    layout = layout_of(30, 3, missing)
    units = np.array([[float(a == b) for b in layout.unique_participants] for a in layout.participants])
    design = np.hstack([design_of(layout), units[:, 1:]])
    contrast = np.append([-1.0, 1.0, 0.0], np.zeros(units.shape[1] - 1))
    values = np.random.default_rng(4).normal(size=(len(design), 40)) + 3
    fast = prepare_ols(design, contrast, layout.participants)
    plain = prepare_ols(design, contrast)
    assert fast.basis.shape[1] == 2
    assert plain.basis.shape[1] == np.linalg.matrix_rank(design)
    fitted = design @ np.linalg.lstsq(design, values, rcond=None)[0]
    np.testing.assert_allclose(fast.residuals(values), values - fitted, atol=1e-12)
    np.testing.assert_allclose(fast.estimate(values).t, plain.estimate(values).t, rtol=1e-10)
    # designs that do not span the participants' means have nothing taken out
    assert prepare_ols(design_of(layout), contrast[:3], layout.participants).means is None
