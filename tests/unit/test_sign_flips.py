"""What participants' values say of skewness and dropout: against closed forms, and by chance in smooth brains."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
from numpy.typing import NDArray
from scipy import ndimage, stats

from map_stacks import layout_of
from sessionfx.ask.covariates import GroupContrast
from sessionfx.ask.session_contrasts import resolve_session_contrasts
from sessionfx.group.evidence_tables import evidence_rows, evidence_table_row
from sessionfx.group.judgement import Dropout, Evidence, ValueEvidence
from sessionfx.group.participant_evidence import DropoutCheck, ValueCheck, voxel_step
from sessionfx.group.strategies.base import GroupOptions, MapLayout, Question
from sessionfx.statistics.sign_flips import (
    chance,
    effective_scores,
    outlying,
    random_signs,
    squared_skewness,
    standardised_scores,
)


def test_signs_begin_with_those_of_the_data_and_never_repeat_them() -> None:
    for n in (3, 8, 50):
        signs = random_signs(n)
        assert (signs[0] == 1).all()
        assert np.isin(signs, (-1.0, 1.0)).all()
        assert (np.abs(signs[1:].sum(axis=1)) < n).all()
        np.testing.assert_array_equal(signs, random_signs(n))


def test_effective_scores_are_those_of_the_model_without_the_regressor_and_blind_to_the_nuisance() -> None:
    rng = np.random.default_rng(1)
    owners = np.repeat(np.arange(9), [3, 3, 2, 3, 1, 3, 2, 3, 3])
    nuisance = np.column_stack([np.ones(len(owners)), rng.normal(size=(len(owners), 2))])
    tested, values = rng.normal(size=len(owners)), rng.normal(size=(len(owners), 6))
    same = owners[:, None] == owners
    inverse = np.linalg.inv(np.eye(len(owners)) + 0.7 * same)
    solved = np.linalg.solve(nuisance.T @ inverse @ nuisance, nuisance.T @ inverse)
    residuals, left = values - nuisance @ (solved @ values), tested - nuisance @ (solved @ tested)
    prepared = effective_scores(tested, nuisance, owners, 0.7)
    assert prepared is not None
    weights, signs = prepared.of(np.eye(len(owners))), random_signs(9)
    covariance = weights @ (np.eye(len(owners)) + 0.7 * same) @ weights.T
    flipped = ((signs @ covariance) * signs).sum(axis=1) / np.trace(covariance)
    np.testing.assert_allclose(prepared.expected_squares(signs), flipped, rtol=1e-10)
    expected = [left[owners == i] @ inverse[np.ix_(owners == i, owners == i)] @ residuals[owners == i]
                for i in range(9)]  # fmt: skip
    np.testing.assert_allclose(weights @ values, expected, atol=1e-12)
    np.testing.assert_allclose(weights @ nuisance, 0.0, atol=1e-12)
    # their sum is the score of generalised least squares: the estimate times its precision
    both = np.column_stack([tested, nuisance])
    estimate = np.linalg.solve(both.T @ inverse @ both, both.T @ inverse @ values)[0]
    np.testing.assert_allclose((weights @ values).sum(axis=0), estimate * (left @ inverse @ left), atol=1e-10)
    assert effective_scores(nuisance[:, 1], nuisance, owners, 0.7) is None


def test_standardised_scores_are_squares_of_their_sum_under_each_set_of_signs() -> None:
    rng = np.random.default_rng(2)
    scores, root = rng.normal(size=(10, 5)), rng.normal(size=(10, 10))
    covariance, signs = root @ root.T, random_signs(10, 4)
    relative = ((signs @ covariance) * signs).sum(axis=1) / np.trace(covariance)
    expected = [
        ((own[:, None] * scores).sum(axis=0) ** 2 / (scores**2).sum(axis=0)).sum()
        / (own @ covariance @ own / np.trace(covariance))
        for own in signs
    ]
    np.testing.assert_allclose(standardised_scores(scores, relative, signs), expected)
    assert chance(np.array([3.0, 1.0, 3.0, 4.0])) == 0.75


@pytest.mark.slow
def test_what_the_sessions_means_take_from_the_scores_does_not_look_like_dropout() -> None:
    """In thousands of independent voxels a bias of the statistic would show in every study."""
    rng = np.random.default_rng(8)
    attendance = rng.permutation(np.arange(60) >= 15).reshape(20, 3)
    attendance[~attendance.any(axis=1), 0] = True
    layout = layout_of(attendance)
    check = DropoutCheck.of(layout, layout.session_columns(["01", "02", "03"]))
    assert check is not None
    owners = np.nonzero(attendance)[0]
    for icc in (0.1, 0.5, 0.8):
        maps = np.sqrt(icc) * rng.normal(size=(20, 40_000))[owners]
        maps += np.sqrt(1 - icc) * rng.normal(size=(len(owners), 40_000))
        for statistic in check.look(maps):
            assert statistic is not None
            # up to 2 % are left where the working correlation is not the true one; flips vary by 2 %
            assert statistic[0] / statistic[1:].mean() == pytest.approx(1, abs=0.04)


@pytest.mark.slow
def test_squared_skewness_is_zero_on_average_without_skewness_and_tends_to_the_true_one() -> None:
    rng = np.random.default_rng(2)
    for draw, truth in ((rng.standard_normal, 0.0), (lambda size: rng.chisquare(8, size), 1.0)):
        values = draw(size=(400, 3000))
        found = squared_skewness(values - values.mean(axis=0), np.ones((1, 400)))[0] / 3000
        # the skewness of 200 χ² values is some 5 % too small
        assert found == pytest.approx(truth, abs=0.02 if not truth else 0.12)
    heavy = rng.standard_t(4, size=(12, 20_000))
    found = squared_skewness(heavy - heavy.mean(axis=0), np.ones((1, 12)))[0] / 20_000
    assert abs(found) < 0.02  # where the plain square is 0.8


def test_outliers_are_found_as_often_as_chance_gives_and_named() -> None:
    rng = np.random.default_rng(3)
    residual, free = np.eye(15) - 1 / 15, np.full(15, 14 / 15)
    values = rng.normal(size=(15, 20_000))
    limit = float(stats.t.isf(0.05 / 2 / 15, 13))
    counts, n_any = outlying(residual @ values, free, limit)
    assert n_any / 20_000 == pytest.approx(0.05, abs=0.006)  # four standard errors
    values[4] *= 4
    counts, n_any = outlying(residual @ values, free, limit)
    assert np.argmax(counts) == 4
    assert counts[4] / 20_000 > 0.3
    # the limit is on the t of a participant against the others
    voxel = int(np.argmax(np.abs(values[4])))
    alone, others = values[4, voxel], np.delete(values[:, voxel], 4)
    t = (alone - others.mean()) / (others.std(ddof=1) * np.sqrt(1 + 1 / 14))
    single, _ = outlying(residual @ values[:, [voxel]], free, abs(t) - 1e-6)
    none, _ = outlying(residual @ values[:, [voxel]], free, abs(t) + 1e-6)
    assert (single[4], none[4]) == (1, 0)


def smooth(rng: np.random.Generator, n_maps: int) -> NDArray[np.float64]:
    fields = ndimage.gaussian_filter(rng.normal(size=(n_maps, 10, 10, 6)), (0, 2, 2, 2))
    return (fields / fields.std()).reshape(n_maps, -1)


DROPOUT = {
    "half of two sessions": [(i, 1) for i in range(10)],
    "some of three": [(i, 2) for i in range(8)] + [(i, 1) for i in range(3)],
}


@pytest.mark.slow
@pytest.mark.parametrize("pattern", list(DROPOUT))
def test_in_smooth_brains_skewness_and_dropout_are_called_notable_as_rarely_as_chance_says(pattern: str) -> None:
    """300 null studies with some ten independent places each: a share of voxels beyond a limit would often be large."""
    rng = np.random.default_rng(4)
    attendance = np.ones((20, 2 if "two" in pattern else 3), dtype=bool)
    attendance[tuple(np.transpose(DROPOUT[pattern]))] = False
    sessions = [f"{j + 1:02d}" for j in range(attendance.shape[1])]
    layout = layout_of(attendance)
    check = ValueCheck.of(layout, Question(resolve_session_contrasts(["mean"], sessions)[0]), GroupOptions())
    dropout = DropoutCheck.of(layout, layout.session_columns(sessions))
    assert check is not None
    assert dropout is not None
    assert (dropout.change is None) == ("two" in pattern)
    owners = np.nonzero(attendance)[0]
    notable = np.zeros(3)
    for _ in range(300):
        effects = smooth(rng, 20)[owners] + smooth(rng, len(owners))
        parts = [*(part for part in dropout.look(effects) if part is not None), check.look(effects).skewness]
        notable[: len(parts)] += [chance(part) <= 0.05 for part in parts]
    # about 5 % of 300, and three standard errors
    assert (notable <= 27).all(), notable
    assert (notable[: len(parts)] >= 4).all(), notable


def test_levels_and_changes_that_go_with_dropout_are_seen() -> None:
    rng = np.random.default_rng(6)
    attendance = np.ones((20, 3), dtype=bool)
    attendance[:8, 2] = False
    layout = layout_of(attendance)
    check = DropoutCheck.of(layout, layout.session_columns(["01", "02", "03"]))
    assert check is not None
    owners, sessions = np.nonzero(attendance)
    noise = rng.normal(size=(20, 300))[owners] + rng.normal(size=(len(owners), 300)) + 3.0 * sessions[:, None]
    leaves = (owners < 8)[:, None]
    nothing, level, change = (
        DropoutCheck.found([check.look(noise + added)])
        for added in (0.0, 1.0 * leaves, 1.0 * leaves * (sessions == 1)[:, None])
    )
    assert nothing.level_p is not None and nothing.level_p > 0.05
    assert nothing.change_p is not None and nothing.change_p > 0.05
    assert level.level_p is not None and level.level_p <= 0.02
    assert level.change_p == nothing.change_p  # a level is no change
    assert change.change_p is not None and change.change_p <= 0.02


def test_what_reaches_the_estimate_is_one_over_n_for_a_mean_and_nothing_for_groups_of_equal_size() -> None:
    layout = layout_of(np.ones((12, 2), dtype=bool))
    mean = resolve_session_contrasts(["mean"], ["01", "02"])[0]
    check = ValueCheck.of(layout, Question(mean), GroupOptions())
    assert check is not None
    assert check.carried == pytest.approx(1 / 12)
    codes = np.repeat([1.0] * 6 + [-1.0] * 6, 2)[:, None]
    grouped = MapLayout(layout.participants, layout.sessions, ("group[a]",), codes)
    difference = GroupContrast("group", "group", (0.0, 2.0))
    check = ValueCheck.of(grouped, Question(mean, difference), GroupOptions())
    assert check is not None
    assert check.carried == pytest.approx(0.0, abs=1e-20)
    assert set(check.groups) == {"group[a]", "group"}


def test_few_participants_and_questions_without_values_have_no_evidence() -> None:
    mean, change = resolve_session_contrasts(["mean", "ses-02 - ses-01"], ["01", "02"])
    assert ValueCheck.of(layout_of(np.ones((7, 2), dtype=bool)), Question(mean), GroupOptions()) is None
    one_each = np.zeros((20, 2), dtype=bool)
    one_each[:10, 0] = one_each[10:, 1] = True
    assert ValueCheck.of(layout_of(one_each), Question(change), GroupOptions()) is None
    assert DropoutCheck.of(layout_of(one_each), layout_of(one_each).session_columns(["01", "02"])) is None


def test_some_thousand_voxels_are_looked_at_and_fewer_with_many_participants() -> None:
    assert voxel_step(3000, 20) == 1
    assert 235_000 / voxel_step(235_000, 20) == pytest.approx(4000, rel=0.02)
    assert 235_000 / voxel_step(235_000, 1000) == pytest.approx(200, rel=0.02)


def test_the_page_says_what_the_data_say() -> None:
    found = ValueEvidence(0.25, 0.02, 0.1, 0.151, "09", 0.068, 2.04)
    values = evidence_table_row(found)
    assert values["skewness of participants' values"] == "0.500"
    assert values["most often"] == "sub-09 (6.8 %)"
    assert evidence_table_row(replace(found, most_outlying=None))["most often"] == "nobody"
    assert values["groups' SD, largest : smallest"] == "2.0"
    rows = evidence_rows(Evidence(*(None,) * 5, n_complete=3, missingness=None, covariance=np.diag([1.0, 4.0]),
                                  dropout=Dropout(0.02, None)))  # fmt: skip
    told = {row["of all maps"]: row["value"] for row in rows}
    assert told["standard deviation of each session, in their order, relative to the smallest"] == "1.00, 2.00"
    assert [value for what, value in told.items() if "changes go with" in what] == ["cannot be seen in these data"]
