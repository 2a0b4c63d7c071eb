"""F tests within a participant: what may be written, the covariance of rows, and how runs and sessions are combined."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from nilearn.glm.contrasts import compute_contrast
from nilearn.glm.first_level import mean_scaling, run_glm
from numpy.typing import NDArray
from scipy import stats

from sessionfx.ask.contrasts import parse_contrast, parse_contrasts, selected_labels
from sessionfx.bids.stat_maps import read_wald_test, write_statmaps
from sessionfx.errors import CommandLineError
from sessionfx.participant.glm import fit_run
from sessionfx.space.grid import Grid
from sessionfx.space.stat_map import StatMap
from sessionfx.statistics.estimates import Estimate, WaldTest, symmetric_matrices
from sessionfx.statistics.fixed_effects import weighted_sum, weighted_tests

FloatArray = NDArray[np.float64]
N_VOXELS = 200_000
CORRELATED = np.array([[1.0, 0.5], [0.5, 1.0]])
MOSTLY_FIRST, MOSTLY_SECOND = np.diag([1.0, 0.05]), np.diag([0.05, 1.0])


# What is written --------------------------------------------------------------------------------------------


def test_rows_are_contrasts_of_their_own_and_come_first() -> None:
    first, second, test = parse_contrasts(["F:any = a - b; b - c"])
    assert (first.label, first.weights) == ("aMinusB", {"a": 1.0, "b": -1.0})
    assert (second.label, second.weights) == ("bMinusC", {"b": 1.0, "c": -1.0})
    assert (test.label, test.expression, test.tested) == ("any", "a - b; b - c", (first, second))
    assert test.conditions == ("a", "b", "c")
    assert test.missing_from(["a", "c"]) == ["b"]
    np.testing.assert_array_equal(test.matrix(["c", "b", "a", "drift"]), [[0, -1, 1, 0], [-1, 1, 0, 0]])


def test_a_row_that_is_asked_for_by_itself_is_estimated_once() -> None:
    contrasts = parse_contrasts(["F:any=a - b; b - c", "diff=a-b", "b - c"])
    assert [contrast.label for contrast in contrasts] == ["diff", "bMinusC", "any"]
    assert [row.label for row in contrasts[-1].tested] == ["diff", "bMinusC"]


def test_rows_may_have_names_and_semicolons_within_backticks() -> None:
    test = parse_contrast("F:effects of faces = faces=`a;b` - c; `é` - c")
    assert test.label == "effectsOfFaces"
    assert [(row.label, row.weights) for row in test.tested] == [
        ("faces", {"a;b": 1.0, "c": -1.0}), ("eMinusC", {"é": 1.0, "c": -1.0}),
    ]  # fmt: skip


def test_a_row_is_no_f_test_of_its_own() -> None:
    assert [row.label for row in parse_contrast("F:x = F:y = a; b").tested] == ["FY", "b"]


def test_one_row_is_a_two_sided_test() -> None:
    assert parse_contrast("F:x = a - b").is_f_test
    assert not parse_contrast("x = a - b").is_f_test


@pytest.mark.parametrize(
    ("texts", "message"),
    [
        (["F: a; b"], "without a name"),
        (["F:=a; b"], "without a name"),
        (["F:x = a - b; b - c; a - c"], "depend on each other"),
        (["F:x = a; 2*a"], "depend on each other"),
        (["F:x = a; "], "--contrast '' cannot be read"),
        (["F:x = a; b*c"], "multiplies two names"),
        (["F:x = a; b", "x = a - b"], "would both be called 'x'"),
        (["F:x = a; b", "F:x = a; c"], "would both be called 'x'"),
        (["F:a = a; b"], "would both be called 'a'"),
    ],
)
def test_what_cannot_be_asked_is_refused_in_a_sentence(texts: list[str], message: str) -> None:
    with pytest.raises(CommandLineError, match=message):
        parse_contrasts(texts)


def test_at_the_group_level_an_f_test_selects_its_rows() -> None:
    assert selected_labels(["task", "F:any = a - b; b - c", "x=b - c"]) == ("task", "x", "aMinusB")


# One run ----------------------------------------------------------------------------------------------------


def run_of_noise(seed: int, n_volumes: int = 90, n_columns: int = 6) -> tuple[FloatArray, FloatArray]:
    """An autocorrelated signal of 300 voxels, and a design of smooth regressors and a constant."""
    rng = np.random.default_rng(seed)
    design = np.column_stack([rng.normal(size=(n_volumes, n_columns - 1)).cumsum(axis=0), np.ones(n_volumes)])
    signal = rng.normal(size=(n_volumes, 300))
    for t in range(1, n_volumes):
        signal[t] += np.linspace(-0.3, 0.8, 300) * signal[t - 1]
    return 700 + 8 * signal, design


ROWS = np.array([[1.0, -1, 0, 0, 0, 0], [0, 1, -1, 0, 0, 0], [0, 0, 0, 1, 0, 0]])


@pytest.mark.parametrize("model", ["ar1", "ols"])
def test_one_run_equals_nilearn(model: str) -> None:
    signal, design = run_of_noise(0)
    ours = fit_run(signal, design, {"f": ROWS}, model)["f"]
    theirs = compute_contrast(*run_glm(mean_scaling(signal, 0)[0], design, noise_model=model), ROWS, stat_type="F")
    np.testing.assert_allclose(ours.f, theirs.stat(), rtol=1e-10)
    np.testing.assert_allclose(ours.p, theirs.p_value(), rtol=1e-8)
    assert (ours.dof_numerator, ours.dof) == (3.0, theirs.dof)


@pytest.mark.parametrize("model", ["ar1", "ols"])
def test_contrasts_do_not_change_by_a_bit_with_what_else_is_asked(model: str) -> None:
    signal, design = run_of_noise(1)
    design = np.column_stack([design, design[:, 1] + design[:, 4]])  # and a redundant column
    rows = np.column_stack([ROWS, np.zeros(3)])[2:]
    alone = fit_run(signal, design, {"a": rows[0]}, model)["a"]
    rng = np.random.default_rng(2)
    others = {"g": rng.normal(size=(3, 6)) @ np.eye(6, 7) * [1, 0, 1, 1, 0, 1, 0], "b": np.eye(7)[0], "a": rows[0]}
    found = fit_run(signal, design, others, model)["a"]
    np.testing.assert_array_equal(found.effect, alone.effect)
    np.testing.assert_array_equal(found.variance, alone.variance)


def test_rows_of_an_f_test_are_their_contrasts_to_the_last_bit() -> None:
    signal, design = run_of_noise(3)
    found = fit_run(signal, design, {"f": ROWS} | {str(row): weights for row, weights in enumerate(ROWS)}, "ar1")
    covariance = symmetric_matrices(found["f"].covariance, 3)
    for row in range(3):
        np.testing.assert_array_equal(found["f"].effects[row], found[str(row)].effect)
        np.testing.assert_array_equal(covariance[:, row, row], found[str(row)].variance)


def test_f_of_one_row_is_the_square_of_t() -> None:
    signal, design = run_of_noise(4)
    found = fit_run(signal, design, {"f": ROWS[:1], "t": ROWS[0]}, "ar1")
    np.testing.assert_allclose(found["f"].f, found["t"].t ** 2, rtol=1e-12)


def test_a_voxel_without_noise_has_no_f() -> None:
    signal, design = run_of_noise(5)
    signal[:, 0] = 500.0
    found = fit_run(signal, design, {"f": ROWS}, "ar1")["f"]
    assert not found.is_determined[0]
    assert found.is_determined[1:].all()


# Runs and sessions combined ---------------------------------------------------------------------------------


def wald(rng: np.random.Generator, covariance: FloatArray, dof: int, n_voxels: int = N_VOXELS) -> WaldTest:
    """A run without an effect whose residual variance has `dof` degrees of freedom."""
    effects = np.linalg.cholesky(covariance) @ rng.standard_normal((len(covariance), n_voxels))
    pairs = covariance[np.triu_indices(len(covariance))]
    return WaldTest.of(effects, pairs[:, None] * rng.chisquare(dof, n_voxels) / dof, float(dof))


def test_a_weighted_sum_is_tested_by_its_covariance() -> None:
    """The closed form of Wald, voxel by voxel; nilearn's F of several runs sums whitened effects and is another."""
    rng = np.random.default_rng(6)
    runs = [wald(rng, 3 * CORRELATED, 30, 50), wald(rng, MOSTLY_FIRST, 40, 50), wald(rng, MOSTLY_SECOND, 20, 50)]
    weights = [0.5, -0.25, 2.0]
    found = weighted_tests(runs, weights)
    for voxel in range(50):
        effect = sum(weight * run.effects[:, voxel] for weight, run in zip(weights, runs, strict=True))
        parts = [
            weight**2 * symmetric_matrices(run.covariance, 2)[voxel] for weight, run in zip(weights, runs, strict=True)
        ]
        inverse = np.linalg.inv(sum(parts))
        assert found.f[voxel] == pytest.approx(effect @ inverse @ effect / 2, rel=1e-12)
        shares = [np.trace(inverse @ part @ inverse @ part) for part in parts]
        dof = 2 / sum(share / run.dof for share, run in zip(shares, runs, strict=True))
        assert np.asarray(found.dof)[voxel] == pytest.approx(dof, rel=1e-12)
    assert weighted_tests(runs, weights, "sum").dof == 90.0
    assert weighted_tests(runs, [0.0, 1.0, 0.0]).dof == 40.0


def test_equal_runs_have_the_sum_of_dof_and_all_lie_between_the_least_and_the_sum() -> None:
    rng = np.random.default_rng(7)
    run = wald(rng, CORRELATED, 30, 100)
    np.testing.assert_allclose(weighted_tests([run, run, run], [1 / 3] * 3).dof, 90.0)
    unlike = weighted_tests([wald(rng, MOSTLY_FIRST, 12, 100), wald(rng, 9 * MOSTLY_SECOND, 40, 100)], [1, -1])
    assert np.all((unlike.dof >= 12) & (unlike.dof <= 52))


def test_one_row_is_combined_as_estimates_are() -> None:
    rng = np.random.default_rng(8)
    runs = [wald(rng, np.array([[sd]]), dof, 100) for sd, dof in ((1.0, 10), (9.0, 30))]
    found = weighted_tests(runs, [0.5, 0.5])
    same = weighted_sum([Estimate(run.effects[0], run.covariance[0], run.dof) for run in runs], [0.5, 0.5])
    np.testing.assert_allclose(found.f, same.t**2, rtol=1e-12)
    np.testing.assert_allclose(found.dof, same.dof, rtol=1e-12)


def test_how_the_rows_are_written_does_not_matter() -> None:
    rng = np.random.default_rng(9)
    runs = [wald(rng, 3 * CORRELATED, 30, 50), wald(rng, MOSTLY_FIRST, 20, 50)]
    turn = np.array([[1.0, 2.0], [300.0, -1.0]])

    def turned(run: WaldTest) -> WaldTest:
        covariance = turn @ symmetric_matrices(run.covariance, 2) @ turn.T
        return WaldTest.of(turn @ run.effects, covariance[:, [0, 0, 1], [0, 1, 1]].T, run.dof)

    plain, other = weighted_tests(runs, [1, -1]), weighted_tests([turned(run) for run in runs], [1, -1])
    np.testing.assert_allclose(other.f, plain.f, rtol=1e-9)
    np.testing.assert_allclose(other.dof, plain.dof, rtol=1e-9)


@pytest.mark.slow
@pytest.mark.parametrize(
    ("covariances", "dofs", "one_per_mille"),
    [
        # the sum of dof has 5.7 % and 1.7 ‰
        ((MOSTLY_FIRST, MOSTLY_SECOND), (20, 20), 0.0012),
        # 6.4 % and 2.5 ‰
        ((CORRELATED, 9 * CORRELATED), (10, 10), 0.0017),
        # 8.4 % and 8.2 ‰
        ((9 * CORRELATED, CORRELATED), (10, 300), 0.0021),
        # 6.0 % and 2.1 ‰
        ((np.eye(4), 9 * np.eye(4)), (20, 20), 0.0015),
    ],
)
def test_runs_that_differ_keep_the_nominal_rate(
    covariances: tuple[FloatArray, ...], dofs: tuple[int, ...], one_per_mille: float
) -> None:
    rng = np.random.default_rng(10)
    runs = [wald(rng, covariance, dof) for covariance, dof in zip(covariances, dofs, strict=True)]
    found = weighted_tests(runs, [1 / len(runs)] * len(runs))
    assert 0.045 <= np.mean(found.p <= 0.05) <= 0.056
    assert np.mean(found.p <= 0.001) <= one_per_mille
    exact = stats.f.sf(found.f, 2 if len(covariances[0]) == 2 else 4, found.dof)
    np.testing.assert_allclose(found.p, exact, rtol=1e-9)


# Files ------------------------------------------------------------------------------------------------------


def test_what_is_written_is_read_back_to_the_last_bit(tmp_path: Path) -> None:
    mask = np.random.default_rng(11).random((5, 6, 4)) < 0.6
    runs = [wald(np.random.default_rng(seed), CORRELATED, 20, int(mask.sum())) for seed in (1, 2)]
    test = StatMap(weighted_tests(runs, [0.5, 0.5]), mask, Grid(mask.shape, np.eye(4)))
    paths = {path.name: path for path in write_statmaps(tmp_path, {"sub": "01", "contrast": "any"}, test, {})}
    name = "sub-01_contrast-any_stat-{}_statmap.nii.gz".format
    found = read_wald_test(*(paths[name(statistic)] for statistic in ("effects", "covariance", "dof")))
    np.testing.assert_array_equal(found.mask, mask)
    for attribute in ("effects", "covariance", "dof", "f"):
        np.testing.assert_array_equal(getattr(found.estimate, attribute), getattr(test.estimate, attribute))
