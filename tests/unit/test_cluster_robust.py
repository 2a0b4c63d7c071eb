"""CR2 and HTZ: written out with full matrices, unbiased under the working model, and what they become when balanced."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import assume, given
from hypothesis import strategies as st
from numpy.typing import NDArray
from scipy import linalg, stats

from properties import examples
from sessionfx.group.strategies.designs import difference_contrasts
from sessionfx.statistics.cluster_robust import RobustContrast, estimate_robust, robust_contrast, wald_robust
from sessionfx.statistics.multivariate import hotelling

Model = tuple[NDArray[np.float64], tuple[str, ...], float, np.random.Generator]


@st.composite
def models(draw: st.DrawFn) -> Model:
    """Design of session columns and perhaps a covariate, participants, λ, and a source of data."""
    n, k = draw(st.integers(4, 10)), draw(st.integers(2, 5))
    rng = np.random.default_rng(draw(st.integers(0, 2**32 - 1)))
    attendance = rng.random((n, k)) < draw(st.sampled_from([0.5, 0.8, 1.0]))
    attendance[: draw(st.sampled_from([1, 3]))] = True
    attendance[:, 0] |= ~attendance.any(axis=1)
    owners, sessions = np.nonzero(attendance)
    columns = [(sessions == session).astype(float) for session in range(k)]
    if draw(st.booleans()):
        columns.append(rng.normal(size=n)[owners])
    participants = tuple(str(owner) for owner in owners)
    assume(len(owners) - len(columns) >= 3)
    return np.column_stack(columns), participants, draw(st.sampled_from([0.0, 0.2, 1.0, 9.0])), rng


def working_covariance(participants: tuple[str, ...], ratio: float) -> NDArray[np.float64]:
    labels = np.array(participants)
    return np.eye(len(labels)) + ratio * (labels[:, None] == labels)


def pseudo_root(matrix: NDArray[np.float64]) -> NDArray[np.float64]:
    """Moore–Penrose inverse of the symmetric square root, by its definition."""
    u, singular, vt = linalg.svd((matrix + matrix.T) / 2)
    return np.asarray(u @ np.diag([1 / np.sqrt(s) if s > 1e-10 else 0.0 for s in singular]) @ vt)


class WrittenOut:
    """Bell & McCaffrey's estimator on whitened rows, participant by participant, constraint by constraint."""

    def __init__(
        self, design: NDArray[np.float64], participants: tuple[str, ...], contrasts: NDArray[np.float64], ratio: float
    ) -> None:
        whitening = np.real(linalg.inv(linalg.sqrtm(working_covariance(participants, ratio))))
        x = whitening @ design
        inverse = np.linalg.inv(x.T @ x)
        residual = np.eye(len(x)) - x @ inverse @ x.T
        labels = np.array(participants)
        self.labels = list(dict.fromkeys(participants))
        self.labels_of_rows = labels
        self.whitening, self.x, self.inverse, self.contrasts = whitening, x, inverse, contrasts
        # g[i][s]: with white data e ~ N(0, I), the score of participant i for constraint s is g′e
        self.g = []
        for label in self.labels:
            own = np.eye(len(x))[labels == label]
            adjusted = pseudo_root(own @ residual @ own.T)
            self.g.append(contrasts @ inverse @ (own @ x).T @ adjusted @ own @ residual)

    def variance(self, values: NDArray[np.float64]) -> NDArray[np.float64]:
        """V of one voxel, of shape (Q, Q)."""
        white = self.whitening @ values
        return np.asarray(sum(np.outer(g @ white, g @ white) for g in self.g))

    def effects(self, values: NDArray[np.float64]) -> NDArray[np.float64]:
        return np.asarray(self.contrasts @ self.inverse @ self.x.T @ self.whitening @ values)

    def satterthwaite(self) -> float:
        """2 E[V]² / Var V for normal data: V = e′Ae, E = tr A, Var = 2 tr A²."""
        a = sum(g.T @ g for g in self.g)
        return float(np.trace(a) ** 2 / np.trace(a @ a))

    def voxel_dof(self, scores: NDArray[np.float64]) -> float:
        """The same where a participant's variance is what the score says, whose square is three times too large."""
        gram = np.array([[float(a[0] @ b[0]) for b in self.g] for a in self.g])
        usable = np.diag(gram) > 1e-10 * np.diag(gram).max()
        s = np.where(usable, scores**2 / np.where(usable, np.diag(gram), 1.0), 0.0)
        blocks = []
        for label in self.labels:
            own = [g[0][self.labels_of_rows == label] for g in self.g]
            blocks.append(np.array([[float(a @ b) for b in own] for a in own]))
        trace = sum(own * np.trace(block) for own, block in zip(s, blocks, strict=True))
        square, cross = trace**2, 0.0
        for k, one in enumerate(blocks):
            square -= 2 / 3 * (s[k] * np.trace(one)) ** 2
            for m, other in enumerate(blocks):
                cross += s[k] * s[m] * float(np.sum(one * other)) / (3 if k == m else 1)
        return float(square / cross)

    def htz(self) -> float:
        """η = q(q + 1) / Σ Var D_st, each element of D = Ω^-½ V Ω^-½ a quadratic form e′Ae."""
        q = len(self.contrasts)
        expected = sum(g @ g.T for g in self.g)
        root = pseudo_root(np.asarray(expected))
        total = 0.0
        for s in range(q):
            for t in range(q):
                a = sum(np.outer(root[s] @ g, root[t] @ g) for g in self.g)
                symmetric = (a + np.transpose(a)) / 2
                total += 2 * np.trace(symmetric @ symmetric)
        return float(q * (q + 1) / total)


@given(models())
@examples(60)
def test_estimate_variance_and_dof_are_those_written_out(model: Model) -> None:
    design, participants, ratio, rng = model
    contrast = rng.normal(size=(1, design.shape[1]))
    values = rng.normal(size=(len(design), 5))
    written = WrittenOut(design, participants, contrast, ratio)
    prepared = robust_contrast(design, participants, contrast[0], ratio)
    assume(prepared.seen > 1e-6)
    found = estimate_robust(prepared, values)
    for voxel, one in enumerate(values.T):
        assert found.effect[voxel] == pytest.approx(written.effects(one)[0], rel=1e-8, abs=1e-10)
        assert found.variance[voxel] == pytest.approx(written.variance(one)[0, 0], rel=1e-8)
    assert prepared.dof == pytest.approx(written.satterthwaite(), rel=1e-8)
    scores = np.array([[g[0] @ written.whitening @ values for g in written.g]])
    for voxel, dof in enumerate(np.broadcast_to(found.dof, 5)):
        assert dof == pytest.approx(
            min(prepared.dof, max(written.voxel_dof(scores[0, :, voxel]), 1.0))
            if prepared.spread is not None
            else prepared.dof,
            rel=0.04,  # what the smallest shared parts add is left out
        )


@given(models())
@examples(40)
def test_wald_test_is_that_written_out(model: Model) -> None:
    design, participants, ratio, rng = model
    q = int(rng.integers(2, design.shape[1] + 1)) if design.shape[1] > 2 else 2
    contrasts = rng.normal(size=(q, design.shape[1]))
    values = rng.normal(size=(len(design), 5))
    written = WrittenOut(design, participants, contrasts, ratio)
    prepared = robust_contrast(design, participants, contrasts, ratio)
    found = wald_robust(prepared, values)
    if prepared.seen < 1e-6:
        assert np.isnan(found.f).all() or prepared.seen > 1e-10
        return
    eta = written.htz()
    assert prepared.dof == pytest.approx(eta, rel=1e-7)
    assert found.dof_numerator == q
    assert np.all(found.dof <= eta - q + 1 + 1e-7)
    for voxel, one in enumerate(values.T):
        effects, variance = written.effects(one), written.variance(one)
        own = float(np.broadcast_to(found.dof, 5)[voxel])
        if np.linalg.cond(variance) < 1e6 and own > 0.01:  # with none left F is zero but for rounding
            expected = own / ((own + q - 1) * q) * effects @ np.linalg.solve(variance, effects)
            assert found.f[voxel] == pytest.approx(expected, rel=1e-5)


@given(models())
@examples(60)
def test_variance_is_unbiased_when_the_working_correlation_holds(model: Model) -> None:
    """E Σ u u′ = Σ S_i Φ S_i′ over participants must be c′(X′Φ⁻¹X)⁻¹c, the true variance: no data are needed to see it."""
    design, participants, ratio, rng = model
    contrasts = rng.normal(size=(min(2, design.shape[1]), design.shape[1]))
    prepared = robust_contrast(design, participants, contrasts, ratio)
    covariance = working_covariance(participants, ratio)
    truth = contrasts @ np.linalg.inv(design.T @ np.linalg.inv(covariance) @ design) @ contrasts.T
    expectation = np.einsum("sin,nm,tim->st", prepared.scores, covariance, prepared.scores)
    np.testing.assert_allclose(prepared.expected, expectation, rtol=1e-8, atol=1e-10 * np.abs(truth).max())
    if _fits_no_rows_exactly(design, participants, ratio):
        np.testing.assert_allclose(expectation, truth, rtol=1e-8, atol=1e-10 * np.abs(truth).max())
        assert prepared.seen == pytest.approx(1, abs=1e-8)
    else:
        assert prepared.seen == pytest.approx(linalg.eigh(expectation, truth)[0][0], abs=1e-7)
    # and the weights are those of generalised least squares
    weights = contrasts @ np.linalg.solve(
        design.T @ np.linalg.inv(covariance) @ design, design.T @ np.linalg.inv(covariance)
    )
    np.testing.assert_allclose(prepared.weights, weights, rtol=1e-8, atol=1e-10)


def _fits_no_rows_exactly(design: NDArray[np.float64], participants: tuple[str, ...], ratio: float) -> bool:
    """Whether no combination of a participant's rows is fitted exactly whatever the data: CR2 does not see its variance."""
    white = np.real(linalg.inv(linalg.sqrtm(working_covariance(participants, ratio)))) @ design
    hat = white @ np.linalg.pinv(white)
    labels = np.array(participants)
    return all(
        np.linalg.eigvalsh(hat[np.ix_(labels == label, labels == label)]).max() < 1 - 1e-9
        for label in set(participants)
    )


@given(models())
@examples(40)
def test_a_single_constraint_gives_t_squared_with_the_same_dof(model: Model) -> None:
    design, participants, ratio, rng = model
    contrast = rng.normal(size=design.shape[1])
    values = rng.normal(size=(len(design), 7))
    t = estimate_robust(robust_contrast(design, participants, contrast, ratio), values)
    f = wald_robust(robust_contrast(design, participants, contrast[None], ratio), values)
    np.testing.assert_allclose(f.f, t.t**2, rtol=1e-9)
    assert f.dof_numerator == 1
    np.testing.assert_allclose(f.dof, t.dof, rtol=1e-10)
    np.testing.assert_allclose(f.p, 2 * stats.t.sf(np.abs(t.t), t.dof), rtol=1e-7, atol=1e-12)


@given(st.integers(2, 6), st.integers(0, 20), st.floats(0, 100), st.integers(0, 2**32 - 1))
@examples(50)
def test_balanced_wald_test_is_hotellings_t2_whatever_the_working_correlation(
    k: int, more: int, ratio: float, seed: int
) -> None:
    n = k + more
    rng = np.random.default_rng(seed)
    cube = rng.normal(size=(n, k, 5)) + rng.normal(size=(n, 1, 5))
    contrasts = difference_contrasts(k)
    design = np.tile(np.eye(k), (n, 1))
    participants = tuple(str(i) for i in range(n) for _ in range(k))
    ours = wald_robust(robust_contrast(design, participants, contrasts, ratio), cube.reshape(n * k, 5))
    differences = np.einsum("qs,nsv->qnv", contrasts, cube)
    theirs = hotelling(differences, np.ones((n, 1)), np.ones(1))
    np.testing.assert_allclose(ours.f, theirs.f, rtol=1e-6)
    assert (ours.dof_numerator, ours.dof) == pytest.approx((theirs.dof_numerator, theirs.dof), rel=1e-7, abs=1e-7)


@given(models(), st.floats(1e-3, 1e3))
@examples(30)
def test_units_of_the_data_do_not_matter(model: Model, factor: float) -> None:
    design, participants, ratio, rng = model
    contrasts = difference_contrasts(2)
    contrasts = np.pad(contrasts, ((0, 0), (0, design.shape[1] - 2)))
    values = rng.normal(size=(len(design), 6))
    prepared = robust_contrast(design, participants, contrasts, ratio)
    np.testing.assert_allclose(wald_robust(prepared, -factor * values).f, wald_robust(prepared, values).f, rtol=1e-8)


def test_voxels_that_do_not_vary_have_no_statistic_and_disturb_no_other() -> None:
    design = np.tile(np.eye(3), (6, 1))
    participants = tuple(str(i) for i in range(6) for _ in range(3))
    values = np.random.default_rng(1).normal(size=(18, 4))
    holes = values.copy()
    holes[:, 1] = 0.0
    holes[:, 2] = 5.5
    prepared = robust_contrast(design, participants, difference_contrasts(3), 0.5)
    whole, found = wald_robust(prepared, values), wald_robust(prepared, holes)
    assert np.isnan(found.f[1:3]).all()
    assert not found.is_determined[1:3].any()
    np.testing.assert_allclose(found.f[[0, 3]], whole.f[[0, 3]], rtol=1e-12)
    single = estimate_robust(robust_contrast(design, participants, np.array([1.0, -1.0, 0.0]), 0.5), holes)
    np.testing.assert_array_equal(single.is_determined, [True, False, False, True])
    nothing = wald_robust(prepared, np.zeros((18, 3)))
    assert np.isnan(nothing.f).all()


@pytest.mark.parametrize("k", [2, 3, 5])
def test_sessions_that_are_copies_of_each_other_have_no_test_rather_than_one_of_rounding_errors(k: int) -> None:
    rng = np.random.default_rng(2)
    values = np.repeat(rng.normal(size=(9, 300)), k, axis=0)
    participants = tuple(str(i) for i in range(9) for _ in range(k))
    prepared = robust_contrast(np.tile(np.eye(k), (9, 1)), participants, difference_contrasts(k), 0.5)
    assert not wald_robust(prepared, values).is_determined.any()
    if k > 2:  # two are copies, the others are not: their difference is not determined, so that no joint test is
        values[1::k] = values[::k]
        values[2::k] = rng.normal(size=(9, 300))
        assert not wald_robust(prepared, values).is_determined.any()


@pytest.mark.parametrize("ratio", [0.0, 1.0])
def test_a_contrast_that_participants_have_coefficients_of_their_own_for_has_no_dof(ratio: float) -> None:
    """Three participants, each with a level and a slope of their own: nothing is left to see how slopes vary."""
    rng = np.random.default_rng(3)
    owners = np.repeat(np.arange(3), 4)
    between = np.column_stack([np.ones(3), rng.normal(size=(3, 2))])[owners]
    design = np.hstack([between, between * rng.normal(size=(12, 1))])
    participants = tuple(map(str, owners))
    for contrast in (np.eye(6)[3], np.eye(6)[[3, 4]]):
        prepared = robust_contrast(design, participants, contrast, ratio)
        assert np.isnan(prepared.dof)
        assert prepared.seen == pytest.approx(0, abs=1e-10)


# Size under the null, on a design with missing sessions ------------------------------------------------------

SIZE_VOXELS = 40_000


def unbalanced(seed: int) -> tuple[NDArray[np.float64], tuple[str, ...], NDArray[np.int_]]:
    rng = np.random.default_rng(seed)
    attendance = rng.random((14, 3)) < 0.75
    attendance[:, 0] |= ~attendance.any(axis=1)
    owners, sessions = np.nonzero(attendance)
    return np.eye(3)[sessions], tuple(str(owner) for owner in owners), owners


def rejections(prepared: RobustContrast, values: NDArray[np.float64], alpha: float) -> float:
    if len(prepared.weights) > 1:
        return float((wald_robust(prepared, values).p < alpha).mean())
    found = estimate_robust(prepared, values)
    return float((2 * stats.t.sf(np.abs(found.t), found.dof) < alpha).mean())


@pytest.mark.slow
@pytest.mark.parametrize("truth", ["working", "slopes"])
@pytest.mark.parametrize("question", ["mean", "difference", "any"])
def test_false_positives_stay_at_the_nominal_rate_without_balance(truth: str, question: str) -> None:
    """Also where the working correlation is wrong: participants change at different rates."""
    design, participants, owners = unbalanced(3)
    rng = np.random.default_rng(4)
    sessions = design.argmax(axis=1)
    values = rng.normal(size=(14, SIZE_VOXELS))[owners] + rng.normal(size=(len(owners), SIZE_VOXELS))
    if truth == "slopes":
        values += (sessions - 1)[:, None] * rng.normal(size=(14, SIZE_VOXELS))[owners]
    contrast = {
        "mean": np.full((1, 3), 1 / 3),
        "difference": np.array([[-1.0, 0.0, 1.0]]),
        "any": difference_contrasts(3),
    }[question]
    rate = rejections(robust_contrast(design, participants, contrast, 1.0), values, 0.05)
    # 40,000 voxels tell 5 % from 5.5 %: four binomial standard errors are 0.44 %; the approximations are allowed to be
    # a little conservative, and not to be liberal
    assert 0.040 < rate < 0.05 + 4 * np.sqrt(0.05 * 0.95 / SIZE_VOXELS)


def test_variance_averages_to_the_truth() -> None:
    """The trace identity once more, with data."""
    design, participants, owners = unbalanced(5)
    rng = np.random.default_rng(6)
    values = rng.normal(size=(14, SIZE_VOXELS))[owners] + rng.normal(size=(len(owners), SIZE_VOXELS))
    found = estimate_robust(robust_contrast(design, participants, np.array([-1.0, 0.0, 1.0]), 1.0), values)
    assert found.variance.mean() == pytest.approx(found.effect.var(), rel=0.03)
