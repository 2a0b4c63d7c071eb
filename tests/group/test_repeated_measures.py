"""Random participant intercepts: R's answers, and the same formulas written out with full matrices."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cache
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from hypothesis import assume, given
from hypothesis import strategies as st
from numpy.typing import NDArray
from scipy import linalg, optimize

from properties import examples
from sessionfx.ask.session_contrasts import resolve_session_contrasts
from sessionfx.group.strategies import STRATEGIES
from sessionfx.group.strategies.base import GroupOptions, MapLayout, Question
from sessionfx.group.strategies.marginal import MarginalPlan, WorkingCovariance
from sessionfx.statistics.cluster_robust import estimate_robust, robust_contrast
from sessionfx.statistics.estimates import Estimate
from sessionfx.statistics.participant_variance import (
    ParticipantSpectrum,
    PooledRatio,
    deviance,
    estimate_ratio,
    participant_spectrum,
)
from sessionfx.statistics.random_intercept import KENWARD_ROGER, SATTERTHWAITE, estimate_mixed, spectral_contrast

R_ANSWERS = Path(__file__).parents[1] / "data" / "repeated_measures"
N_R_VOXELS = 20
CASES = dict.fromkeys(("bal", "unb", "slope"), ("mean", "diff", "linear")) | {
    "unbcov": ("mean", "diff", "linear", "age")
}
CASES_AND_CONTRASTS = [(case, contrast) for case, contrasts in CASES.items() for contrast in contrasts]


# R's answers ------------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class RCase:
    """R's model of one data set: a column per session, and age where it is a covariate."""

    participants: tuple[str, ...]
    sessions: tuple[str, ...]
    effects: NDArray[np.float64]
    design: NDArray[np.float64]
    spectrum: ParticipantSpectrum

    def contrast(self, name: str) -> NDArray[np.float64]:
        n_sessions = len(set(self.sessions))
        times = np.arange(n_sessions) - (n_sessions - 1) / 2
        over_sessions = {
            "mean": np.full(n_sessions, 1 / n_sessions),
            "diff": np.eye(n_sessions)[-1] - np.eye(n_sessions)[0],
            "linear": times / (times @ times),
            "age": np.zeros(n_sessions),
        }[name]
        return np.append(over_sessions, float(name == "age"))[: self.design.shape[1]]


@cache
def r_case(case: str) -> RCase:
    maps = pd.read_csv(R_ANSWERS / f"ref_{case}.csv", dtype={"sub": str, "ses": str})
    sessions = sorted(set(maps["ses"]))
    columns = [(maps["ses"] == session).to_numpy(float) for session in sessions]
    design = np.column_stack([*columns, maps["age"].to_numpy()] if case == "unbcov" else columns)
    effects = maps[[f"y{voxel}" for voxel in range(N_R_VOXELS)]].to_numpy()
    participants = tuple(maps["sub"])
    return RCase(participants, tuple(maps["ses"]), effects, design, participant_spectrum(design, participants))


def r_answers(case: str, contrast: str) -> pd.DataFrame:
    table = pd.read_csv(R_ANSWERS / "r_reference.csv", skipinitialspace=True)
    chosen = table[(table["case"] == case) & (table["con"] == contrast)].sort_values("vox")
    assert chosen["vox"].tolist() == list(range(N_R_VOXELS))
    return chosen.drop(columns=["case", "con"]).astype(float)


def test_every_answer_of_r_is_looked_at() -> None:
    table = pd.read_csv(R_ANSWERS / "r_reference.csv", skipinitialspace=True)
    there = set(map(tuple, table.loc[table["con"] != "meta", ["case", "con"]].to_numpy()))
    assert there == set(CASES_AND_CONTRASTS)  # test_meta_analysis.py looks at metafor's


@pytest.mark.parametrize(("case", "contrast"), CASES_AND_CONTRASTS)
def test_mixed_is_lmertests(case: str, contrast: str) -> None:
    data, expected = r_case(case), r_answers(case, contrast)
    prepared = spectral_contrast(data.spectrum, data.contrast(contrast))
    found, _ = estimate_mixed(data.spectrum, prepared, data.effects, SATTERTHWAITE)
    np.testing.assert_allclose(found.effect, expected["est"], rtol=1e-6)
    np.testing.assert_allclose(np.sqrt(found.variance), expected["se"], rtol=1e-6)
    np.testing.assert_allclose(found.dof, expected["dof"], rtol=1e-5)


@pytest.mark.parametrize(("case", "contrast"), CASES_AND_CONTRASTS)
def test_kenward_roger_is_pbkrtests(case: str, contrast: str) -> None:
    data, expected = r_case(case), r_answers(case, contrast)
    prepared = spectral_contrast(data.spectrum, data.contrast(contrast))
    found, _ = estimate_mixed(data.spectrum, prepared, data.effects, KENWARD_ROGER)
    np.testing.assert_allclose(np.sqrt(found.variance), expected["kr_se"], rtol=1e-6)
    np.testing.assert_allclose(found.dof, expected["kr_dof"], rtol=1e-5)


@pytest.mark.parametrize(("case", "contrast"), CASES_AND_CONTRASTS)
def test_cluster_robust_errors_are_clubsandwichs(case: str, contrast: str) -> None:
    data, expected = r_case(case), r_answers(case, contrast)
    prepared = robust_contrast(data.design, data.participants, data.contrast(contrast), 0.0)
    found = estimate_robust(prepared, data.effects)
    np.testing.assert_allclose(found.effect, expected["cr_est"], rtol=1e-10)
    np.testing.assert_allclose(np.sqrt(found.variance), expected["cr_se"], rtol=1e-10)
    np.testing.assert_allclose(prepared.dof, expected["cr_dof"], rtol=1e-10)
    assert np.all(found.dof <= prepared.dof)  # those of the voxel, where they are fewer


@pytest.mark.parametrize("case", list(CASES))
def test_no_optimum_of_r_is_better_and_none_is_another(case: str) -> None:
    """REML can have two optima; where R stopped in the worse one its deviance would stand above ours."""
    data = r_case(case)
    theirs = r_answers(case, "mean")["lam"].to_numpy()
    squares = data.spectrum.squares(data.effects)
    ours = estimate_ratio(data.spectrum, squares)
    excess = deviance(data.spectrum, squares, theirs) - deviance(data.spectrum, squares, ours)
    assert excess.min() > -1e-12
    assert excess.max() < 1e-12  # at present R finds the global one everywhere
    np.testing.assert_allclose(ours, theirs, rtol=1e-5, atol=1e-7)


STRATEGY_CASES = [
    (case, contrast) for case in ("bal", "unb", "slope") for contrast in ("mean", "diff", "linear")
]  # the strategies' model of a covariate is richer than R's, see test_strategies.py


@pytest.mark.parametrize(("case", "contrast"), STRATEGY_CASES)
def test_strategies_give_the_answers_of_r(case: str, contrast: str) -> None:
    data, expected = r_case(case), r_answers(case, contrast)
    sessions = sorted(set(data.sessions))
    text = {"diff": f"ses-{sessions[-1]} - ses-{sessions[0]}"}.get(contrast, contrast)
    layout = MapLayout(data.participants, data.sessions)
    asked = Question(resolve_session_contrasts([text], sessions)[0])

    mixed = STRATEGIES["mixed"].plan(layout, asked, GroupOptions()).estimate(data.effects, None)
    np.testing.assert_allclose(mixed.effect, expected["est"], rtol=1e-6)
    np.testing.assert_allclose(np.sqrt(mixed.variance), expected["se"], rtol=1e-6)
    np.testing.assert_allclose(mixed.dof, expected["dof"], rtol=1e-5)

    options = GroupOptions(mixed_dof="kenward-roger")
    adjusted = STRATEGIES["mixed"].plan(layout, asked, options).estimate(data.effects, None)
    np.testing.assert_allclose(np.sqrt(adjusted.variance), expected["kr_se"], rtol=1e-6)
    np.testing.assert_allclose(adjusted.dof, expected["kr_dof"], rtol=1e-5)

    plan = STRATEGIES["marginal"].plan(layout, asked, GroupOptions())
    assert isinstance(plan, MarginalPlan)
    independent = plan.with_working(WorkingCovariance(0.0))
    marginal = independent.estimate(data.effects, None)
    np.testing.assert_allclose(marginal.effect, expected["cr_est"], rtol=1e-10)
    np.testing.assert_allclose(np.sqrt(marginal.variance), expected["cr_se"], rtol=1e-10)
    assert independent.prepared is not None
    np.testing.assert_allclose(independent.prepared.dof, expected["cr_dof"], rtol=1e-10)


# The same written out ---------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Written:
    """A model with full matrices, one voxel at a time."""

    design: NDArray[np.float64]
    participants: tuple[str, ...]

    @property
    def same_participant(self) -> NDArray[np.float64]:
        """ZZ′."""
        labels = np.array(self.participants)
        return (labels[:, None] == labels).astype(float)

    def covariance(self, between: float, within: float) -> NDArray[np.float64]:
        return between * self.same_participant + within * np.eye(len(self.design))

    def restricted_deviance(self, values: NDArray[np.float64], between: float, within: float) -> float:
        """Minus twice the restricted log likelihood but for constants (Patterson & Thompson 1971)."""
        factor = linalg.cho_factor(self.covariance(between, within))
        precise = linalg.cho_solve(factor, np.column_stack([self.design, values]))
        information = self.design.T @ precise[:, :-1]
        coefficients = np.linalg.solve(information, self.design.T @ precise[:, -1])
        quadratic = values @ precise[:, -1] - coefficients @ information @ coefficients
        return float(2 * np.log(np.diag(factor[0])).sum() + np.linalg.slogdet(information)[1] + quadratic)

    def profile_deviance(self, values: NDArray[np.float64], ratio: float) -> float:
        """The same with σ² at its best for a ratio λ."""
        x, inverse = self.design, np.linalg.inv(self.covariance(ratio, 1.0))
        information = x.T @ inverse @ x
        projection = inverse - inverse @ x @ np.linalg.solve(information, x.T @ inverse)
        m = len(x) - x.shape[1]
        determinants = np.linalg.slogdet(self.covariance(ratio, 1.0))[1] + np.linalg.slogdet(information)[1]
        return float(m * np.log(values @ projection @ values) + determinants)

    def generalised_least_squares(
        self, values: NDArray[np.float64], between: float, within: float
    ) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
        inverse = np.linalg.inv(self.covariance(between, within))
        covariance = np.linalg.inv(self.design.T @ inverse @ self.design)
        return covariance @ self.design.T @ inverse @ values, covariance


@st.composite
def models(draw: st.DrawFn) -> tuple[Written, NDArray[np.float64], NDArray[np.float64]]:
    """An unbalanced design, with a covariate or without, a contrast, and values of 4 voxels of any correlation."""
    n, k = draw(st.integers(3, 10)), draw(st.integers(2, 5))
    rng = np.random.default_rng(draw(st.integers(0, 2**32 - 1)))
    attendance = rng.random((n, k)) < draw(st.sampled_from([0.5, 0.75, 1.0]))
    attendance[:2] = True
    attendance[:, 0] |= ~attendance.any(axis=1)
    owners, sessions = np.nonzero(attendance)
    columns = [(sessions == session).astype(float) for session in range(k)]
    if draw(st.booleans()):
        columns.append(rng.normal(size=n)[owners])
    design = np.column_stack(columns)
    ratio = draw(st.sampled_from([0.0, 0.3, 2.0, 20.0]))
    values = np.sqrt(ratio) * rng.normal(size=(n, 4))[owners] + rng.normal(size=(len(owners), 4))
    written = Written(design, tuple(str(owner) for owner in owners))
    assume(len(design) - np.linalg.matrix_rank(design) >= 3)
    assume(participant_spectrum(design, written.participants).separates)
    contrast = rng.normal(size=design.shape[1])
    return written, contrast, values + design @ rng.normal(size=(design.shape[1], 4))


def spectrum_of(written: Written) -> ParticipantSpectrum:
    return participant_spectrum(written.design, written.participants)


@given(models(), st.floats(0, 50))
@examples(60)
def test_deviance_is_the_restricted_likelihood_of_the_full_matrices(
    model: tuple[Written, NDArray[np.float64], NDArray[np.float64]], ratio: float
) -> None:
    written, _, values = model
    spectrum = spectrum_of(written)
    squares = spectrum.squares(values)
    ours, at_zero = (deviance(spectrum, squares, np.full(4, at)) for at in (ratio, 0.0))
    expected = [written.profile_deviance(own, ratio) - written.profile_deviance(own, 0.0) for own in values.T]
    np.testing.assert_allclose(ours - at_zero, expected, rtol=1e-9, atol=1e-9)


@pytest.mark.slow
@given(models())
@examples(40)
def test_ratio_is_the_global_optimum_of_a_dense_search(
    model: tuple[Written, NDArray[np.float64], NDArray[np.float64]],
) -> None:
    written, _, values = model
    spectrum = spectrum_of(written)
    found = estimate_ratio(spectrum, spectrum.squares(values))
    grid = np.concatenate([[0.0], np.geomspace(1e-4, 1e4, 200)])
    for ours, own in zip(found, values.T, strict=True):
        curve = [written.profile_deviance(own, ratio) for ratio in grid]
        best = int(np.argmin(curve))
        bounds = np.log1p([grid[max(best - 1, 0)], grid[min(best + 1, len(grid) - 1)]])
        refined = optimize.minimize_scalar(
            lambda kappa, own=own: written.profile_deviance(own, np.expm1(kappa)),
            bounds=bounds,
            method="bounded",
            options={"xatol": 1e-12},
        )
        lowest = min(float(refined.fun), min(curve))
        assert written.profile_deviance(own, ours) <= lowest + 1e-8
        if 0 < best < len(grid) - 1 and ours > 1e-3:
            # likelihoods are flat at their optimum: half of the digits of the deviance
            assert np.expm1(refined.x) == pytest.approx(ours, rel=1e-4, abs=1e-5)


def local_minima(curve: NDArray[np.float64]) -> NDArray[np.int_]:
    """Count the minima along axis 0, the ends included."""
    padded = np.pad(curve, ((1, 1), (0, 0)), constant_values=np.inf)
    return ((curve < padded[:-2]) & (curve < padded[2:])).sum(axis=0)


@pytest.mark.parametrize("counts", [[2, 2, 1, 1, 1, 1, 1, 1], [6, 6, 1, 1, 1], [6, 6, 6, 1, 1]])
def test_of_two_optima_the_better_is_taken(counts: list[int]) -> None:
    """Where few participants have several maps, those alone and all together can speak for different ratios."""
    participants = [str(i) for i, count in enumerate(counts) for _ in range(count)]
    spectrum = participant_spectrum(np.ones((len(participants), 1)), participants)
    rng = np.random.default_rng(3)
    # over eight orders of magnitude: about one voxel in a hundred has two optima then
    squares = spectrum.multiplicities[:, None] * 10 ** rng.uniform(-4, 4, size=(len(spectrum.multiplicities), 10_000))
    ratios = np.concatenate([[0.0], np.geomspace(1e-5, 1e6, 400)])
    curve = np.concatenate([deviance(spectrum, squares, part[:, None]) for part in np.array_split(ratios, 10)])
    two = local_minima(curve) > 1
    assert two.sum() > 50
    curve, squares = curve[:, two], squares[:, two]
    excess = deviance(spectrum, squares, estimate_ratio(spectrum, squares)) - curve.min(axis=0)
    assert excess.max() < 1e-12
    # the better one is now the smaller, now the larger: no search from one end finds it always
    best = ratios[np.argmin(curve, axis=0)]
    assert (best == 0).any()
    assert (best > 1).any()


@given(models())
@examples(40)
def test_effect_and_variance_are_generalised_least_squares(
    model: tuple[Written, NDArray[np.float64], NDArray[np.float64]],
) -> None:
    written, contrast, values = model
    spectrum = spectrum_of(written)
    found, ratio = estimate_mixed(spectrum, spectral_contrast(spectrum, contrast), values)
    for voxel, own in enumerate(values.T):
        coefficients, covariance = written.generalised_least_squares(own, ratio[voxel], 1.0)
        inverse = np.linalg.inv(written.covariance(ratio[voxel], 1.0))
        residuals = own - written.design @ coefficients
        dispersion = residuals @ inverse @ residuals / spectrum.n_residual
        scale = np.abs(contrast) @ np.abs(coefficients)
        assert found.effect[voxel] == pytest.approx(contrast @ coefficients, rel=1e-9, abs=1e-9 * scale)
        assert found.variance[voxel] == pytest.approx(dispersion * contrast @ covariance @ contrast, rel=1e-8)


def hessian(function: object, at: NDArray[np.float64], step: float) -> NDArray[np.float64]:
    """Second derivatives by central differences, extrapolated (Richardson)."""

    def plain(h: float) -> NDArray[np.float64]:
        found = np.empty((2, 2))
        for i in range(2):
            for j in range(2):
                e, f = h * np.eye(2)[i], h * np.eye(2)[j]
                found[i, j] = (
                    function(at + e + f) - function(at + e - f) - function(at - e + f) + function(at - e - f)  # type: ignore[operator]
                ) / (4 * h**2)
        return found

    return (4 * plain(step) - plain(2 * step)) / 3


def gradient(function: object, at: NDArray[np.float64], step: float) -> NDArray[np.float64]:
    def plain(h: float) -> NDArray[np.float64]:
        return np.array([(function(at + h * e) - function(at - h * e)) / (2 * h) for e in np.eye(2)])  # type: ignore[operator]

    return (4 * plain(step) - plain(2 * step)) / 3


@given(models())
@examples(40)
def test_satterthwaites_dof_are_those_of_a_numerical_hessian(
    model: tuple[Written, NDArray[np.float64], NDArray[np.float64]],
) -> None:
    """2f² / g′Ag, A = 2H⁻¹, over the logarithms of both variances: at an optimum any parameters give the same."""
    written, contrast, values = model
    spectrum = spectrum_of(written)
    found, ratio = estimate_mixed(spectrum, spectral_contrast(spectrum, contrast), values)
    for voxel, own in enumerate(values.T):
        if not 0.02 < ratio[voxel] < 200:
            continue  # differences of the deviance over log λ have no digits there
        covariance = written.generalised_least_squares(own, ratio[voxel], 1.0)[1]
        within = found.variance[voxel] / (contrast @ covariance @ contrast)
        at = np.log([ratio[voxel] * within, within])

        def variance_of(logs: NDArray[np.float64], own: NDArray[np.float64] = own) -> float:
            covariance = written.generalised_least_squares(own, *np.exp(logs))[1]
            return float(contrast @ covariance @ contrast)

        def deviance_of(logs: NDArray[np.float64], own: NDArray[np.float64] = own) -> float:
            return written.restricted_deviance(own, *np.exp(logs))

        second = hessian(deviance_of, at, 2e-2)
        slope = gradient(variance_of, at, 1e-2)
        expected = 2 * variance_of(at) ** 2 / (slope @ np.linalg.solve(second / 2, slope))
        if np.linalg.cond(second) < 1e4:
            assert found.dof[voxel] == pytest.approx(expected, rel=1e-4)


def test_satterthwaites_dof_without_variance_between_participants_are_those_of_the_residuals() -> None:
    rng = np.random.default_rng(4)
    spectrum = participant_spectrum(np.ones((12, 1)), list("aaabbbcccddd"))
    values = rng.normal(size=(12, 200))
    found, ratio = estimate_mixed(spectrum, spectral_contrast(spectrum, np.ones(1)), values)
    assert (ratio == 0).sum() > 50
    np.testing.assert_array_equal(np.asarray(found.dof)[ratio == 0], 11)
    assert np.all(np.asarray(found.dof)[ratio > 0] < 11)


def kenward_roger(
    written: Written, contrast: NDArray[np.float64], between: float, within: float
) -> tuple[float, float, float]:
    """Adjusted variance, dof and F scale of one contrast, from the general formulas of Kenward & Roger 1997."""
    x, precision = written.design, np.linalg.inv(written.covariance(between, within))
    parts = (written.same_participant, np.eye(len(x)))
    phi = np.linalg.inv(x.T @ precision @ x)
    p = [-x.T @ precision @ part @ precision @ x for part in parts]
    q = [[x.T @ precision @ a @ precision @ b @ precision @ x for b in parts] for a in parts]
    information = np.empty((2, 2))
    for i, a in enumerate(parts):
        for j, b in enumerate(parts):
            information[i, j] = (
                np.trace(precision @ a @ precision @ b)
                - 2 * np.trace(phi @ q[i][j])
                + np.trace(phi @ p[i] @ phi @ p[j])
            ) / 2
    w = np.linalg.inv(information)
    middle = sum(w[i, j] * (q[i][j] - p[i] @ phi @ p[j]) for i in range(2) for j in range(2))
    adjusted = phi + 2 * phi @ middle @ phi
    length = 1
    theta = np.outer(contrast, contrast) / (contrast @ phi @ contrast)
    a1 = a2 = 0.0
    for i in range(2):
        for j in range(2):
            first, second = theta @ phi @ p[i] @ phi, theta @ phi @ p[j] @ phi
            a1 += w[i, j] * np.trace(first) * np.trace(second)
            a2 += w[i, j] * np.trace(first @ second)
    b = (a1 + 6 * a2) / (2 * length)
    g = ((length + 1) * a1 - (length + 4) * a2) / ((length + 2) * a2)
    denominator = 3 * length + 2 * (1 - g)
    c1, c2, c3 = g / denominator, (length - g) / denominator, (length + 2 - g) / denominator
    expectation = 1 / (1 - a2 / length)
    variance = 2 / length * (1 + c1 * b) / ((1 - c2 * b) ** 2 * (1 - c3 * b))
    rho = variance / (2 * expectation**2)
    dof = 4 + (length + 2) / (length * rho - 1)
    return float(contrast @ adjusted @ contrast), float(dof), float(dof / (expectation * (dof - 2)))


@given(models())
@examples(40)
def test_kenward_roger_is_its_general_formulas(model: tuple[Written, NDArray[np.float64], NDArray[np.float64]]) -> None:
    written, contrast, values = model
    spectrum = spectrum_of(written)
    prepared = spectral_contrast(spectrum, contrast)
    plain, ratio = estimate_mixed(spectrum, prepared, values, SATTERTHWAITE)
    found, same_ratio = estimate_mixed(spectrum, prepared, values, KENWARD_ROGER)
    np.testing.assert_array_equal(same_ratio, ratio)
    np.testing.assert_array_equal(found.effect, plain.effect)
    for voxel, own in enumerate(values.T):
        if ratio[voxel] > 1e4:
            continue  # full matrices lose their digits there
        covariance = written.generalised_least_squares(own, ratio[voxel], 1.0)[1]
        within = plain.variance[voxel] / (contrast @ covariance @ contrast)
        variance, dof, scale = kenward_roger(written, contrast, ratio[voxel] * within, within)
        assert found.variance[voxel] == pytest.approx(variance, rel=1e-6)
        if abs(dof - 2) > 0.01:  # the general formulas are 0 / 0 at two dof
            assert found.dof[voxel] == pytest.approx(dof, rel=1e-6)
            assert scale == pytest.approx(1, rel=1e-6)


def test_a_design_that_spans_the_participants_does_not_separate_the_variances() -> None:
    """All eigenvalues are zero but for rounding, which once passed for structure."""
    rng = np.random.default_rng(8)
    owners = np.repeat(np.arange(3), 4)
    for between in (np.eye(3), np.column_stack([np.ones(3), rng.normal(size=(3, 2))])):
        spectrum = participant_spectrum(between[owners], [str(owner) for owner in owners])
        np.testing.assert_array_equal(spectrum.eigenvalues, [0])
        assert not spectrum.separates
        assert spectrum.n_residual == 9


# One ratio for all voxels -----------------------------------------------------------------------------------


@st.composite
def spectra(draw: st.DrawFn) -> tuple[ParticipantSpectrum, NDArray[np.float64]]:
    """An unbalanced design with voxels of like correlation."""
    written, _, _ = draw(models())
    rng = np.random.default_rng(draw(st.integers(0, 2**32 - 1)))
    ratio = draw(st.sampled_from([0.1, 0.5, 2.0, 20.0]))
    n_maps, n_voxels = len(written.participants), draw(st.sampled_from([1, 37, 200]))
    own = {label: rng.normal(size=n_voxels) for label in written.participants}
    values = np.sqrt(ratio) * np.array([own[label] for label in written.participants])
    scale = 10 ** rng.uniform(-3, 3, size=n_voxels)
    return spectrum_of(written), (values + rng.normal(size=(n_maps, n_voxels))) * scale


@given(spectra())
@examples(60)
def test_pooled_ratio_minimises_the_summed_deviance(case: tuple[ParticipantSpectrum, NDArray[np.float64]]) -> None:
    spectrum, values = case
    pooled = PooledRatio(spectrum)
    found = pooled.estimate(pooled.sums(values))
    squares = spectrum.squares(values)
    xi, m = spectrum.eigenvalues[:, None], spectrum.multiplicities

    def slope(kappa: float) -> float:
        """Derivative of the mean deviance with respect to λ: no digits are lost to its flat optimum."""
        shrunk = 1 / (1 + np.expm1(kappa) * xi)
        return float(
            m @ (xi * shrunk)[:, 0]
            - m.sum() * ((squares * xi * shrunk**2).sum(axis=0) / (squares * shrunk).sum(axis=0)).mean()
        )

    kappas = np.linspace(0, np.log1p(1e3), 400)
    best = int(np.argmin(deviance(spectrum, squares, np.expm1(kappas)[:, None]).mean(axis=1)))
    if best == 0 and slope(0.0) >= 0:
        assert found == 0
        return
    if best == len(kappas) - 1:
        return
    low, high = kappas[max(best - 1, 0)], kappas[best + 1]
    expected = float(np.expm1(optimize.brentq(slope, low, high, xtol=1e-15)))
    assert found == pytest.approx(expected, rel=1e-6, abs=1e-8)


@given(spectra(), st.integers(1, 36))
@examples(40)
def test_sums_of_blocks_add_up(case: tuple[ParticipantSpectrum, NDArray[np.float64]], cut: int) -> None:
    spectrum, values = case
    pooled = PooledRatio(spectrum)
    whole = pooled.sums(values)
    parts = pooled.sums(values[:, :cut]) + pooled.sums(values[:, cut:])
    np.testing.assert_allclose(parts, whole, rtol=1e-10, atol=1e-9)
    assert whole[-1] == values.shape[1]


@given(spectra())
@examples(30)
def test_voxels_without_variation_and_their_units_do_not_count(
    case: tuple[ParticipantSpectrum, NDArray[np.float64]],
) -> None:
    spectrum, values = case
    pooled = PooledRatio(spectrum)
    constant = np.tile([0.0, 3.7, 1e12], (len(values), 1))
    with_empty = pooled.sums(np.column_stack([values, constant]))
    np.testing.assert_allclose(with_empty, pooled.sums(values), rtol=1e-10, atol=1e-9)
    np.testing.assert_allclose(pooled.sums(1e6 * values), pooled.sums(values), rtol=1e-8, atol=1e-7)
    assert pooled.estimate(pooled.sums(np.zeros((len(values), 3)))) == 0


def test_pooled_ratio_at_its_ends() -> None:
    participants = [str(i) for i in range(10) for _ in range(3)][:-1]
    spectrum = participant_spectrum(np.ones((29, 1)), participants)
    pooled, rng = PooledRatio(spectrum), np.random.default_rng(5)
    levels = rng.normal(size=(10, 500))[np.array(participants, dtype=int)]
    noise = rng.normal(size=(29, 500))
    within = np.array(participants) == np.array(participants)[:, None]
    without_levels = noise - (within / within.sum(axis=1)) @ noise
    assert pooled.estimate(pooled.sums(without_levels)) == 0
    assert pooled.estimate(pooled.sums(levels)) == pytest.approx(1e3, rel=0.01)
    assert pooled.estimate(pooled.sums(levels + 0.1 * noise)) == pytest.approx(100, rel=0.1)
    assert pooled.estimate(pooled.sums(levels + 10 * noise)) == pytest.approx(0.01, abs=0.01)


def test_balanced_pooled_ratio_of_equal_voxels_is_their_own() -> None:
    """One voxel repeated: the pooled optimum is that voxel's, max(0, (MSB/MSW − 1)/k)."""
    rng = np.random.default_rng(6)
    participants = [str(i) for i in range(8) for _ in range(4)]
    spectrum = participant_spectrum(np.ones((32, 1)), participants)
    cube = rng.normal(size=(8, 1)) + rng.normal(size=(8, 4))
    own = cube.mean(axis=1)
    between = 4 * ((own - own.mean()) ** 2).sum() / 7
    within = ((cube - own[:, None]) ** 2).sum() / 24
    values = np.tile(cube.reshape(32, 1), (1, 50))
    pooled = PooledRatio(spectrum)
    assert pooled.estimate(pooled.sums(values)) == pytest.approx((between / within - 1) / 4, rel=1e-7)
    np.testing.assert_allclose(
        estimate_ratio(spectrum, spectrum.squares(values)), (between / within - 1) / 4, rtol=1e-9
    )


def test_an_estimate_may_have_dof_at_every_voxel() -> None:
    rng = np.random.default_rng(7)
    whole = Estimate(rng.normal(size=50), rng.uniform(0.5, 2, size=50), rng.uniform(2, 40, size=50))
    for voxel in range(50):
        single = Estimate(
            whole.effect[voxel : voxel + 1], whole.variance[voxel : voxel + 1], float(np.asarray(whole.dof)[voxel])
        )
        assert (whole.t[voxel], whole.p[voxel], whole.z[voxel]) == (single.t[0], single.p[0], single.z[0])
    chosen = whole.at(whole.effect > 0)
    np.testing.assert_array_equal(chosen.dof, np.asarray(whole.dof)[whole.effect > 0])
    joined = Estimate.joined([whole.at(np.arange(20)), whole.at(np.arange(20, 50))])
    np.testing.assert_array_equal(joined.dof, whole.dof)
    assert whole.typical_dof == np.median(whole.dof)
    assert "dof" in whole.maps()
    assert "dof" not in Estimate(whole.effect, whole.variance, 5.0).maps()
