"""Time grows with the number of maps, not its square: what is applied to voxels is sparse or thin, and the same.

Counting numbers that meet a voxel is exact where a clock is not.
"""

from __future__ import annotations

import tracemalloc

import numpy as np
import pytest
from numpy.typing import NDArray
from scipy import linalg

from map_stacks import layout_of
from sessionfx.ask.session_contrasts import resolve_session_contrasts
from sessionfx.group.participant_evidence import DropoutCheck, ValueCheck
from sessionfx.group.strategies import STRATEGIES, session_model
from sessionfx.group.strategies.base import GroupOptions, MapLayout, Question
from sessionfx.group.strategies.participant_values import SummaryStatisticsPlan
from sessionfx.group.strategies.session_model import SessionModelPlan
from sessionfx.statistics import participant_spread
from sessionfx.statistics.cluster_robust import robust_contrast
from sessionfx.statistics.estimates import Estimate
from sessionfx.statistics.linear_algebra import membership_matrix
from sessionfx.statistics.ols import prepare_ols, prepare_within
from sessionfx.statistics.participant_variance import ParticipantSpectrum, participant_spectrum

SESSIONS = ("01", "02", "03")


def drawn_layout(n_participants: int, n_sessions: int, missing: float, *, with_age: bool = False) -> MapLayout:
    rng = np.random.default_rng(n_participants)
    there = rng.random((n_participants, n_sessions)) >= missing
    there[:, 0] |= ~there.any(axis=1)
    ages = rng.normal(size=n_participants)
    labels = [f"{owner:04d}" for owner in range(n_participants)]
    return layout_of(there, labels, **({"age": ages - ages.mean()} if with_age else {}))


def design_of(layout: MapLayout) -> NDArray[np.float64]:
    sessions = sorted(set(layout.sessions))
    cells = layout.session_columns(sessions)
    return np.hstack([cells, cells * layout.covariates]) if layout.covariate_names else cells


def numbers_per_voxel(spectrum: ParticipantSpectrum) -> int:
    """How many numbers of the spectrum each voxel is multiplied with."""
    of_spaces = [space.sums.nnz + space.other.size + space.vectors.size for space in spectrum.eigenspaces]
    return spectrum.fitted_basis.size + sum(of_spaces)


def squares_written_out(
    design: NDArray[np.float64], layout: MapLayout, values: NDArray[np.float64]
) -> NDArray[np.float64]:
    """Sum squares over the eigenspaces of the residual space, from matrices of maps by maps."""
    same = np.array([[float(a == b) for b in layout.participants] for a in layout.participants])
    residual = linalg.null_space(design.T)
    eigenvalues, vectors = np.linalg.eigh(residual.T @ same @ residual)
    groups = np.split(np.arange(len(eigenvalues)), np.nonzero(np.diff(eigenvalues) > 1e-8)[0] + 1)
    return np.array([(((residual @ vectors[:, group]).T @ values) ** 2).sum(axis=0) for group in groups])


CASES = [(2, 0.0, False), (3, 0.0, False), (3, 0.0, True), (3, 0.15, False), (3, 0.15, True), (1, 0.0, False)]


@pytest.mark.slow
@pytest.mark.parametrize(("n_sessions", "missing", "with_age"), CASES)
def test_sums_of_squares_are_those_of_the_eigenspaces_bases(n_sessions: int, missing: float, with_age: bool) -> None:
    layout = drawn_layout(60, n_sessions, missing, with_age=with_age)
    spectrum = participant_spectrum(design_of(layout), layout.participants)
    rng = np.random.default_rng(1)
    own = {label: rng.normal(size=50) for label in layout.unique_participants}
    values = np.array([own[label] for label in layout.participants]) + rng.normal(size=(len(layout.sessions), 50)) + 9
    values[:, 0] = design_of(layout)[:, 0]  # is explained: nothing is left
    values[:, 1] = 1e6 + rng.normal(size=len(values))  # nearly everything cancels
    found = spectrum.squares(values)
    written = squares_written_out(design_of(layout), layout, values)
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
        for layout in (drawn_layout(n, n_sessions, missing, with_age=with_age) for n in (60, 120))
    )
    assert many < 2.3 * few


@pytest.mark.slow
@pytest.mark.parametrize("n_participants", [40, 80])
@pytest.mark.parametrize("missing", [0.0, 0.2])
def test_every_default_strategy_is_thin(n_participants: int, missing: float) -> None:
    layout = drawn_layout(n_participants, 3, missing)
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
    layout = drawn_layout(30, 3, missing)
    units = np.array([[float(a == b) for b in layout.unique_participants] for a in layout.participants])
    design = np.hstack([design_of(layout), units[:, 1:]])
    contrast = np.append([-1.0, 1.0, 0.0], np.zeros(units.shape[1] - 1))
    values = np.random.default_rng(4).normal(size=(len(design), 40)) + 3
    fast = prepare_within(design_of(layout), contrast[:3], layout.participants)
    plain = prepare_ols(design, contrast)
    assert fast.basis.shape[1] == 2
    assert plain.basis.shape[1] == np.linalg.matrix_rank(design)
    fitted = design @ np.linalg.lstsq(design, values, rcond=None)[0]
    np.testing.assert_allclose(fast.residuals(values), values - fitted, atol=1e-12)
    np.testing.assert_allclose(fast.estimate(values).t, plain.estimate(values).t, rtol=1e-10)


def test_first_rows_are_those_of_the_first_map_of_each_participant() -> None:
    layout = drawn_layout(30, 3, 0.2)
    people = layout.unique_participants[::-1]
    assert layout.first_rows(people) == [layout.participants.index(label) for label in people]


@pytest.mark.slow
def test_ten_thousand_maps_are_planned_without_matrices_of_maps_by_maps() -> None:
    """One such matrix would take 800 MB, and one of participants by participants 200 MB."""
    layout = drawn_layout(5000, 2, 0.0, with_age=True)
    missing = layout.at_rows(np.delete(np.arange(10_000), np.arange(0, 10_000, 11)))
    values = np.random.default_rng(5).normal(size=(len(missing.participants), 64))
    tracemalloc.start()
    try:
        for text in ("mean", "ses-02 - ses-01"):
            (asked,) = resolve_session_contrasts([text], SESSIONS[:2])
            question = Question(asked)
            assert ValueCheck.of(missing, question, GroupOptions()) is not None
            for name in ("session-model", "summary-statistics", "marginal", "mixed"):
                plan = STRATEGIES[name].plan(missing, question, GroupOptions())
                if plan.pools:
                    plan = plan.informed(plan.pooled_sums(values))
                assert np.isfinite(plan.estimate(values, None).z).all()
        assert DropoutCheck.of(missing, missing.session_columns(SESSIONS[:2])) is not None
        peak = tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()
    assert peak < 150e6


def test_many_indicators_are_not_written_out_and_answer_alike(monkeypatch: pytest.MonkeyPatch) -> None:
    layout = drawn_layout(30, 3, 0.2, with_age=True)
    values = np.random.default_rng(6).normal(size=(len(layout.participants), 40)) + 3
    for asked in resolve_session_contrasts(["ses-02 - ses-01", "linear", "any"], SESSIONS):
        written = STRATEGIES["session-model"].plan(layout, Question(asked), GroupOptions())
        with monkeypatch.context() as patched:
            patched.setattr(session_model, "MOST_INDICATORS", 10)
            short = STRATEGIES["session-model"].plan(layout, Question(asked), GroupOptions())
        assert (written.design_matrix.shape[1], short.design_matrix.shape[1]) == (6 + 29 - 1, 6)
        found = short.estimate(values, None)
        np.testing.assert_allclose(found.z, written.estimate(values, None).z, rtol=1e-9)
        # the columns as they are in the file
        design = np.hstack([short.design_matrix.to_numpy(), membership_matrix(layout.participants).toarray()])
        contrast = np.hstack([np.atleast_2d(short.contrast), np.zeros((len(np.atleast_2d(short.contrast)), 30))])
        plain = prepare_ols(design, contrast)
        if isinstance(found, Estimate):
            np.testing.assert_allclose(found.t, plain.estimate(values).t, rtol=1e-9)
        else:
            np.testing.assert_allclose(found.f, plain.test(values)[0], rtol=1e-9)


@pytest.mark.slow
@pytest.mark.parametrize("n_responses", [1, 2])
def test_what_participants_share_is_found_without_all_pairs_of_them(
    n_responses: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    layout = drawn_layout(300, 3, 0.2, with_age=True)
    contrast = np.array([-1.0, 1.0, 0.0, 0.0, 0.0, 0.0])
    design = design_of(layout)
    values = np.random.default_rng(7).normal(size=(len(design) * n_responses, 50))
    found = []
    for most in (10_000, 100):
        monkeypatch.setattr(participant_spread, "_ALL_PAIRS", most)
        robust = robust_contrast(design, layout.participants, contrast, 0.5, n_responses=n_responses)
        assert robust.spread is not None
        found.append(robust.spread.degrees_of_freedom(robust.scores_of(values)))
    np.testing.assert_allclose(found[1], found[0], rtol=1e-6)
