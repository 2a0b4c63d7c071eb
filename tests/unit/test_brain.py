"""Maps on anatomy: cuts go through the peaks, colours say what their bar says, and every pixel is its voxel's value."""

from __future__ import annotations

import io
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from nilearn.datasets import load_mni152_template
from PIL import Image

from properties import examples
from sessionfx.report import canvas
from sessionfx.report.brain import N_CUTS, Anatomy, axial_cuts, choose_cuts, template
from sessionfx.report.canvas import LABEL, WIDTH, Scale
from sessionfx.report.style import DIVERGING
from sessionfx.space.grid import Grid

SHAPE = (20, 24, 18)
AFFINE = np.array([[3.0, 0, 0, -30], [0, 3, 0, -40], [0, 0, 3, -20], [0, 0, 0, 1]])


@pytest.fixture
def mask() -> Any:
    mask = np.zeros(SHAPE, dtype=bool)
    mask[2:18, 2:22, 2:16] = True
    return mask


def pixels(content: bytes) -> Any:
    return np.asarray(Image.open(io.BytesIO(content)).convert("RGB")).astype(float)


def of_cuts(sampled: Any) -> Any:
    """Take the cuts of a canvas, without their labels: shape (cuts, rows, columns)."""
    return np.stack(np.split(sampled[:-LABEL], N_CUTS, axis=1))


# cuts


def test_cuts_go_through_the_first_peaks_and_then_fill_the_brain() -> None:
    cuts = choose_cuts([46.0, 44.0, -10.0], -40, 70, 5)
    assert 46.0 in cuts
    assert -10.0 in cuts
    assert 44.0 not in cuts  # too near
    assert list(cuts) == sorted(cuts)
    assert len(cuts) == 5
    assert max(np.diff([-40, *cuts, 70])) < 40


@given(st.lists(st.floats(-60, 80), max_size=20), st.floats(-60, 0), st.floats(3, 140))
def test_any_peaks_give_as_many_cuts_as_asked_for(peaks: list[float], low: float, size: float) -> None:
    cuts = choose_cuts(peaks, low, low + size, 7)
    assert len(cuts) == 7
    assert list(cuts) == sorted(set(cuts)) or size < 7


# scale


@examples(60)
@given(
    st.integers(0, 10_000), st.floats(0.01, 50), st.one_of(st.floats(0.01, 200), st.just(float("inf"))), st.booleans()
)
def test_the_threshold_is_always_on_the_bar(seed: int, size: float, threshold: float, two_sided: bool) -> None:
    values = np.random.default_rng(seed).normal(0, size, 50)
    scale = Scale.of([values], "z", [threshold], two_sided=two_sided).with_threshold(threshold, values)
    if np.isfinite(threshold):
        assert scale.threshold is not None
        assert scale.threshold < scale.vmax
        assert threshold in scale.marks
    assert scale.vmax >= np.abs(values).max()
    low = -scale.vmax if two_sided else 0.0
    assert all(low <= mark <= scale.vmax for mark in scale.marks)
    assert scale.marks == sorted(set(scale.marks))


def test_one_scale_reaches_the_largest_of_all_maps() -> None:
    assert Scale.of([np.array([1.0, -7.0]), np.array([3.0])], "z", [2.0]).vmax == 7.0
    assert Scale.of([np.zeros(3)], "z").vmax == 1.0
    assert Scale.of([], "z").vmax == 1.0


def test_suprathreshold_values_have_their_full_colour_and_others_a_part_of_it() -> None:
    scale = Scale(vmax=6.0, unit="z", threshold=3.0)
    under = np.full(5, 0.5)
    painted = scale.paint(np.array([4.0, -4.0, 2.0, 0.0, np.nan]), under)
    np.testing.assert_allclose(painted[0], DIVERGING(4 / 12 + 0.5)[:3], atol=1e-6)
    np.testing.assert_allclose(painted[1], DIVERGING(-4 / 12 + 0.5)[:3], atol=1e-6)
    full = np.asarray(DIVERGING(2 / 12 + 0.5)[:3])
    share = (painted[2] - 0.5) / (full - 0.5)
    np.testing.assert_allclose(share, 0.55 * (2 / 3) ** 2, atol=1e-5)
    np.testing.assert_allclose(painted[3:], 0.5)


def test_where_no_value_passes_the_largest_is_as_faint_as_one_just_below_a_threshold() -> None:
    values = np.array([2.0, -1.0])
    of_many = Scale.of([values, np.array([12.0])], "z", [np.inf])
    painted = of_many.with_threshold(np.inf, values).paint(values, np.full(2, 0.5))
    full = np.asarray([DIVERGING(value / 24 + 0.5)[:3] for value in values])
    share = (painted - 0.5) / (full - 0.5)
    np.testing.assert_allclose(share, 0.55 * np.array([[1.0], [1 / 4]]) * np.ones(3), atol=1e-5)


def test_of_an_f_test_only_large_values_count() -> None:
    scale = Scale(vmax=6.0, unit="z", threshold=3.0, two_sided=False)
    assert scale.passes(np.array([-5.0, 5.0])).tolist() == [False, True]
    np.testing.assert_allclose(scale.paint(np.array([-5.0]), np.array([0.5])), 0.5)


# pixels


@pytest.mark.parametrize("flip", [False, True])
def test_every_pixel_shows_the_voxel_at_its_place(mask: Any, flip: bool) -> None:
    """Independent of the grid's axes: the same field, sampled on a flipped grid, gives the same cuts."""
    affine = (
        AFFINE @ np.array([[-1.0, 0, 0, SHAPE[0] - 1], [0, 1, 0, 0], [0, 0, 1, 0], [0, 0, 0, 1]]) if flip else AFFINE
    )
    index = np.argwhere(np.ones(SHAPE, dtype=bool))
    places = index @ affine[:3, :3].T + affine[:3, 3]
    field = (places[:, 0] + 100 * places[:, 1]).reshape(SHAPE)
    drawn = axial_cuts(mask[::-1] if flip else mask, Grid(SHAPE, affine), peaks=[1.0])
    sampled = of_cuts(drawn.sample(field))
    rows, columns = sampled.shape[1:]
    middle, upright = sampled[:, rows // 2], sampled[:, :, columns // 2]
    assert np.isfinite(middle).mean() > 0.8
    assert np.isfinite(upright).mean() > 0.8
    assert not (np.diff(middle, axis=1) < 0).any(), "left is on the left"
    assert not (np.diff(upright, axis=1) > 0).any(), "the front is up"


def test_an_oblique_grid_is_sampled_where_it_lies(mask: Any) -> None:
    angle = np.radians(20)
    turn = np.eye(4)
    turn[:2, :2] = [[np.cos(angle), -np.sin(angle)], [np.sin(angle), np.cos(angle)]]
    affine = turn @ AFFINE
    heights = np.argwhere(np.ones(SHAPE, dtype=bool)) @ affine[:3, :3].T + affine[:3, 3]
    field = heights[:, 2].reshape(SHAPE)
    drawn = axial_cuts(mask, Grid(SHAPE, affine))
    places = field[mask]
    for cut, sampled in zip(choose_cuts([], places.min(), places.max()), of_cuts(drawn.sample(field)), strict=True):
        known = sampled[np.isfinite(sampled)]
        assert known.size
        assert np.abs(known - cut).max() <= 1.5 + 1e-9  # half a voxel


def test_a_hot_spot_is_red_and_outlined_and_a_cold_one_blue(mask: Any) -> None:
    values = np.where(mask, 0.0, np.nan)
    values[6:9, 10:13, 8:11], values[13:16, 10:13, 8:11] = 5.0, -5.0
    drawn = axial_cuts(mask, Grid(SHAPE, AFFINE), peaks=[AFFINE[2, 3] + 3 * 9])
    picture = drawn.draw_map(values, Scale(vmax=6.0, unit="z", threshold=3.0), "a map", "caption")
    assert (picture.kind, picture.alt, picture.caption) == ("webp", "a map", "caption")
    shown = pixels(picture.content)[:, :WIDTH]
    red = (shown[..., 0] > shown[..., 2] + 60).sum(axis=0)
    blue = (shown[..., 2] > shown[..., 0] + 60).sum(axis=0)
    assert red.any()
    assert blue.any()
    assert np.flatnonzero(red).mean() < np.flatnonzero(blue).mean()  # lower x is left
    grey = shown.mean(axis=2)
    assert grey[:, red > 0].min() < 60, "a black outline above zero"


def test_a_map_that_exceeds_its_scale_has_an_arrow(mask: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    seen = []
    draw_bar = canvas._colour_bar

    def spy(height: int, scale: Scale, extend: str) -> canvas.Pixels:
        seen.append(extend)
        return draw_bar(height, scale, extend)

    monkeypatch.setattr(canvas, "_colour_bar", spy)
    drawn = axial_cuts(mask, Grid(SHAPE, AFFINE))
    values = np.where(mask, 1.0, np.nan)
    for height, low in ((1.0, 1.0), (9.0, 1.0), (1.0, -9.0), (9.0, -9.0)):
        values[5, 5, 5], values[6, 6, 6] = height, low
        drawn.draw_map(values, Scale(vmax=3.0, unit="z"), "a")
    assert seen == ["neither", "max", "min", "both"]


def test_equal_maps_give_equal_bytes(mask: Any) -> None:
    values = np.where(mask, np.random.default_rng(1).normal(size=SHAPE), np.nan)
    scale = Scale.of([values[mask]], "z", [2.0]).with_threshold(2.0, values[mask])
    first, second = (axial_cuts(mask, Grid(SHAPE, AFFINE)).draw_map(values, scale, "a").content for _ in range(2))
    assert first == second


def test_units_are_written_literally(mask: Any) -> None:
    """A unit is no formula."""
    drawn = axial_cuts(mask, Grid(SHAPE, AFFINE)).draw_map(
        np.where(mask, 1.0, np.nan), Scale(vmax=2.0, unit="$\\x_"), "a"
    )
    assert drawn.content


@pytest.mark.parametrize("values", [np.nan, 0.0])
def test_a_map_without_values_is_drawn(mask: Any, values: float) -> None:
    scale = Scale.of([np.zeros(0)], "z", [float("inf")]).with_threshold(float("inf"), np.zeros(0))
    assert axial_cuts(mask, Grid(SHAPE, AFFINE)).draw_map(np.full(SHAPE, values), scale, "a").content


def test_a_single_voxel_is_drawn() -> None:
    mask = np.zeros(SHAPE, dtype=bool)
    mask[3, 3, 3] = True
    assert axial_cuts(mask, Grid(SHAPE, AFFINE)).draw_map(mask.astype(int), Scale(vmax=1, unit="maps"), "a").content


# anatomy


@pytest.mark.slow
def test_template_is_the_brain_that_nilearn_ships() -> None:
    found = template()
    image = load_mni152_template(resolution=1)
    np.testing.assert_array_equal(found.affine, image.affine)
    np.testing.assert_allclose(found.values / found.values.max(), image.dataobj, atol=1e-6)
    inside = np.linalg.inv(found.affine) @ [0, -20, 10, 1]
    assert found.values[tuple(np.rint(inside[:3]).astype(int))] > 0


def test_anatomy_is_grey_where_it_is_and_white_elsewhere() -> None:
    values = np.zeros((4, 4, 4))
    values[1:3, 1:3, 1:3] = np.arange(8).reshape(2, 2, 2) + 10.0
    world = np.vstack([np.indices(values.shape).reshape(3, -1), np.ones(values.size)])
    grey = Anatomy(values, np.eye(4)).grey_at(world).reshape(values.shape)
    assert (grey[values == 0] == 1).all()
    assert ((grey[values > 0] >= 0.25) & (grey[values > 0] <= 0.95 + 1e-6)).all()
    assert (Anatomy(np.zeros((4, 4, 4)), np.eye(4)).grey_at(world) == 1).all()
    assert (Anatomy(values, np.eye(4)).grey_at(world + 9) == 1).all()


def test_anatomy_on_another_grid_is_shown_where_it_lies(mask: Any) -> None:
    """A bright half at x < 0 is on the left."""
    values = np.full((60, 70, 50), 0.2)
    affine = np.array([[1.0, 0, 0, -30], [0, 1, 0, -40], [0, 0, 1, -20], [0, 0, 0, 1]])
    values[:30] = 1.0
    drawn = axial_cuts(mask, Grid(SHAPE, AFFINE), Anatomy(values, affine))
    under = of_cuts(drawn.under)[3]
    columns = under.shape[1]
    assert under[20:-20, 15 : columns // 2 - 10].mean() > under[20:-20, columns // 2 + 10 : -15].mean() + 0.3


def test_regions_have_the_colours_of_their_legend_and_pictures_one_size(mask: Any) -> None:
    drawn = axial_cuts(mask, Grid(SHAPE, AFFINE))
    region = np.zeros(SHAPE, dtype=bool)
    region[5:12, 5:12, 3:15] = True
    shown = pixels(drawn.draw_regions([(region, "#1b7837")], "a").content)
    green = np.abs(shown - [0x1B, 0x78, 0x37]).max(axis=2) < 40
    assert green.sum() > 500
    counts = Scale(vmax=3, unit="maps", two_sided=False)
    assert pixels(drawn.draw_map(mask * 3, counts, "a").content).shape == shown.shape
