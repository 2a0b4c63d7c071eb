"""One rule says which columns of a design count and which contrasts its data determine, whatever the units."""

from __future__ import annotations

import numpy as np
import pandas as pd
import pytest
from nilearn.glm.first_level import make_first_level_design_matrix
from numpy.typing import NDArray

from sessionfx.ask.contrasts import parse_contrasts
from sessionfx.options import FirstLevelModel
from sessionfx.participant.conditions import Events
from sessionfx.participant.confounds import Confounds
from sessionfx.participant.design import Design, make_design
from sessionfx.participant.glm import fit_run
from sessionfx.participant.run import _estimable_contrasts
from sessionfx.participant.timing import Timing
from sessionfx.statistics.linear_algebra import TOLERANCE, independent_columns, is_estimable, pseudo_inverse, rank_of

FloatArray = NDArray[np.float64]
N_VOLUMES, REPETITION_TIME = 200, 2.0
TIMES = REPETITION_TIME * np.arange(N_VOLUMES)
TIMING = Timing(TIMES, REPETITION_TIME, 0.0, N_VOLUMES * REPETITION_TIME)
MODEL = FirstLevelModel()


def events_where_a_is_b(seed: int, **modulation: float) -> Events:
    """Conditions a and b always together, c seven seconds later."""
    onsets = np.sort(np.random.default_rng(seed).uniform(5, 360, 15))
    rows = [(onset + 7 * (name == "c"), 1.0, name, modulation.get(name, 1.0)) for name in "abc" for onset in onsets]
    return Events(pd.DataFrame(rows, columns=["onset", "duration", "trial_type", "modulation"]), ())


def confounds_of_size(size: float, seed: int) -> Confounds:
    """A signal in a scanner's units with its square, and a rotation in rad."""
    rng = np.random.default_rng(seed)
    csf = size * (1 + 0.02 * rng.standard_normal(N_VOLUMES))
    rotation = 1e-3 * rng.standard_normal(N_VOLUMES)
    return Confounds(pd.DataFrame({"csf": csf, "csf_power2": csf**2, "rot_x": rotation}))


def design_of(size: float, seed: int, **modulation: float) -> Design:
    return make_design(TIMING, events_where_a_is_b(seed, **modulation), confounds_of_size(size, seed), MODEL)


# --- designs


@pytest.mark.parametrize("size", [1e-4, 1.0, 1e3, 1e4, 3e4, 1e6])
@pytest.mark.parametrize("seed", range(5))
def test_conditions_that_are_the_same_are_not_told_apart_beside_any_confound(size: float, seed: int) -> None:
    design = design_of(size, seed)
    vectors, left_out = _estimable_contrasts(design, parse_contrasts(["a", "b", "a - b", "c", "0.5*a + 0.5*b"]))
    assert set(left_out) == {"a", "b", "aMinusB"}
    assert len(vectors) == 2
    # of a and b one alone counts, and every confound does
    assert rank_of(design.matrix.to_numpy()) == design.matrix.shape[1] - 1


@pytest.mark.parametrize("size", [1.0, 1e4, 1e6])
def test_what_a_and_b_have_in_common_is_estimated_beside_any_confound(size: float) -> None:
    design = design_of(size, 0)
    matrix = design.matrix.to_numpy()
    rng = np.random.default_rng(1)
    signal = 1000 + 10 * rng.standard_normal((N_VOLUMES, 400)) + 20 * matrix[:, :1]
    vectors, _ = _estimable_contrasts(design, parse_contrasts(["both=a + b"]))
    found = fit_run(signal, matrix, vectors, "ols")["both"]
    assert abs(found.effect.mean() - 2.0) < 4 * np.sqrt(found.variance.mean() / found.effect.size)


def test_nilearn_by_itself_makes_them_differ() -> None:
    """Why its columns are put together here: should this fail, nilearn was corrected."""
    confounds = confounds_of_size(1e4, 0).table.set_axis(TIMES)
    with pytest.warns(UserWarning, match="Matrix is singular"):
        theirs = make_first_level_design_matrix(TIMES, events_where_a_is_b(0).table, add_regs=confounds)
    assert (theirs["a"] - theirs["b"]).abs().max() > 1e-7
    ours = design_of(1e4, 0).matrix
    np.testing.assert_array_equal(ours["a"], ours["b"])


@pytest.mark.slow
@pytest.mark.parametrize("hrf_model", ["glover", "spm + derivative", "glover + derivative + dispersion"])
@pytest.mark.parametrize("drift_model", ["cosine", "polynomial", "none"])
def test_a_design_of_full_rank_is_nilearns_to_the_last_bit(hrf_model: str, drift_model: str) -> None:
    rng = np.random.default_rng(2)
    rows = [(onset, 1.5, name, rng.uniform(0.5, 2)) for name in "yxz" for onset in rng.uniform(-10, 390, 12)]
    events = Events(pd.DataFrame(rows, columns=["onset", "duration", "trial_type", "modulation"]), ())
    confounds = confounds_of_size(10.0, 3)
    theirs = make_first_level_design_matrix(
        TIMES, events.table, hrf_model=hrf_model, drift_model=None if drift_model == "none" else drift_model,
        add_regs=confounds.table.set_axis(TIMES),
    )  # fmt: skip
    ours = make_design(TIMING, events, confounds, FirstLevelModel(hrf_model=hrf_model, drift_model=drift_model))
    pd.testing.assert_frame_equal(ours.matrix, theirs, check_exact=True)
    assert ours.condition_columns == tuple(theirs.columns[: 3 * (1 + hrf_model.count("+"))])


def test_a_condition_of_no_height_is_not_estimated_from_rounding() -> None:
    design = design_of(1.0, 0, c=0.0)
    assert not design.matrix["c"].any()
    _, left_out = _estimable_contrasts(design, parse_contrasts(["c"]))
    assert set(left_out) == {"c"}


def test_heights_of_very_different_size_hide_no_dependence() -> None:
    design = design_of(1.0, 0, c=1e9)
    vectors, left_out = _estimable_contrasts(design, parse_contrasts(["a", "c"]))
    assert (set(vectors), set(left_out)) == ({"c"}, {"a"})


def test_an_f_test_is_left_out_where_one_of_its_rows_cannot_be_estimated() -> None:
    design = design_of(1.0, 0)
    asked = parse_contrasts(["F:same = a; c", "F:lacking = c; d", "F:both = a + b; c"])
    vectors, left_out = _estimable_contrasts(design, asked)
    assert set(vectors) == {"c", "aPlusB", "both"}
    assert vectors["both"].shape == (2, design.matrix.shape[1])
    assert left_out["same"] == left_out["a"] == "its regressors cannot be told apart in this run's design"
    assert left_out["lacking"] == left_out["d"] == "condition d does not occur in it"


# --- the rule


def nearly_equal_columns(distance: float) -> FloatArray:
    """Two unit columns of which the second has this length outside the first, a third one and a constant."""
    rng = np.random.default_rng(4)
    basis = np.linalg.qr(rng.standard_normal((60, 3)))[0]
    return np.column_stack([basis[:, 0], basis[:, 0] + distance * basis[:, 1], basis[:, 2], np.ones(60)])


@pytest.mark.parametrize("distance", [0.0, 1e-12, 1e-9, 3e-8, 0.9e-7, 1.2e-7, 2e-7, 1e-6, 1e-3])
@pytest.mark.parametrize("units", [(1, 1, 1, 1), (1e6, 1e-6, 1, 1e3), (1e-9, 1e9, 1e9, 1)])
def test_all_functions_take_the_same_columns_for_determined(distance: float, units: tuple[float, ...]) -> None:
    design = nearly_equal_columns(distance) * np.array(units)
    counts = distance > TOLERANCE
    assert independent_columns(design) == ([0, 1, 2, 3] if counts else [0, 2, 3])
    assert rank_of(design) == 3 + counts
    assert is_estimable(design, np.array([1.0, 0, 0, 0])) == counts
    assert is_estimable(design, np.array([0.0, 1, 0, 0])) == counts
    # the sum of both in units of their lengths, and what has no part in them, are determined in any case
    assert is_estimable(design, np.array([units[0], units[1], 0, 0]))
    assert is_estimable(design, np.array([0, 0, 1.0, 0]))
    assert np.trace(design @ pseudo_inverse(design)) == pytest.approx(3 + counts, abs=1e-6)


@pytest.mark.parametrize("seed", range(20))
def test_rank_and_columns_do_not_depend_on_units(seed: int) -> None:
    rng = np.random.default_rng(seed)
    design = rng.standard_normal((40, 8))
    for copied in rng.choice(8, size=3, replace=False):
        design[:, copied] = design @ (rng.integers(-2, 3, size=8) * (np.arange(8) != copied))
    scaled = design * 10.0 ** rng.uniform(-9, 9, size=8)
    kept = independent_columns(scaled)
    assert kept == independent_columns(design)
    assert rank_of(scaled) == rank_of(scaled[:, kept]) == len(kept) == np.linalg.matrix_rank(design)
    within = scaled @ pseudo_inverse(scaled) @ scaled
    np.testing.assert_allclose(within, scaled, rtol=1e-6, atol=1e-7 * np.abs(scaled).max())


def test_more_columns_than_rows_and_no_columns_have_a_rank() -> None:
    wide = np.random.default_rng(5).standard_normal((4, 9))
    assert independent_columns(wide) == [0, 1, 2, 3]
    assert rank_of(np.empty((4, 0))) == rank_of(np.empty((0, 4))) == rank_of(np.zeros((4, 3))) == 0
    assert not is_estimable(np.zeros((4, 3)), np.array([1.0, 0, 0]))


# --- what rounding leaves


@pytest.mark.parametrize("noise_model", ["ols", "ar1"])
@pytest.mark.parametrize("kind", [np.float32, np.float64])
def test_a_voxel_that_spikes_explain_fully_has_no_variance(noise_model: str, kind: type) -> None:
    n_volumes = 120
    response = np.convolve(np.arange(n_volumes) % 20 < 3, np.exp(-np.arange(12) / 3))[:n_volumes]
    design = np.column_stack([response, np.eye(n_volumes)[:, [37, 80]], np.ones(n_volumes)])
    signal = np.zeros((n_volumes, 5))
    signal[37, :2] = 300
    signal[80, 1] = 50
    signal[:, 2] = 1000
    signal[37, 2] = 1300
    signal[:, 3] = 1000 + np.random.default_rng(0).standard_normal(n_volumes)
    signal[:, 4] = 1000 + 1e-3 * np.random.default_rng(1).standard_normal(n_volumes)
    found = fit_run(signal.astype(kind), design, {"a": np.array([1.0, 0, 0, 0])}, noise_model)["a"]
    assert list(found.is_determined) == [False, False, False, True, True]
    np.testing.assert_array_equal(found.variance[:3], 0.0)
    np.testing.assert_array_equal(found.t[:3], 0.0)
