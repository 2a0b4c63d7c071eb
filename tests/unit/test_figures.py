"""The pictures of the reports: they are drawn for every input, and what they show is where it is."""

from __future__ import annotations

import io
from concurrent.futures import ThreadPoolExecutor

import numpy as np
import pytest
from PIL import Image

from sessionfx import wording
from sessionfx.report import brain, canvas, colours

HOSTILE = "_$\\frac{x_1$ $y$_"
"""Would crash or vanish if it were read as a formula or as a private legend label."""


def pixels(png: bytes) -> np.ndarray:
    """Decode a PNG into (rows, columns, RGB) and check that a reader could see it."""
    assert png.startswith(b"\x89PNG")
    with Image.open(io.BytesIO(png)) as image:
        image.verify()
    picture = np.asarray(Image.open(io.BytesIO(png)).convert("RGB")) / 255
    rows, columns = picture.shape[:2]
    assert 900 <= columns <= 1400
    assert 150 <= rows <= 2000
    assert picture[0].min() > 0.99, "the background is white"
    assert picture.min() < 0.5, "something is drawn"
    return picture


def red(picture: np.ndarray) -> np.ndarray:
    """Mark strongly red pixels."""
    return (picture[..., 0] > picture[..., 2] + 0.25) & (picture[..., 1] < 0.55)


def grid(shape: tuple[int, int, int], voxel_size: float, directions: str = "RAS") -> np.ndarray:
    """Affine of a grid centred on the origin whose axes run towards `directions`."""
    world = {
        letter: (axis, sign)
        for axis, pair in enumerate(("RL", "AP", "SI"))
        for letter, sign in zip(pair, (1, -1), strict=True)
    }
    affine = np.zeros((4, 4))
    affine[3, 3] = 1
    for voxel_axis, letter in enumerate(directions):
        axis, sign = world[letter]
        affine[axis, voxel_axis] = sign * voxel_size
    affine[:3, 3] = -affine[:3, :3] @ (np.array(shape) - 1) / 2
    return affine


def hot_voxel(position: tuple[float, float, float], affine: np.ndarray, shape: tuple[int, int, int]) -> np.ndarray:
    """Map of zeros with one value of 9 at `position` (mm)."""
    index = np.rint(np.linalg.solve(affine, [*position, 1.0])[:3]).astype(int)
    values = np.zeros(shape)
    values[tuple(index)] = 9.0
    return values


@pytest.fixture
def noise() -> np.random.Generator:
    return np.random.default_rng(20)


class TestOrientation:
    @pytest.mark.parametrize("directions", ["RAS", "LAS", "LPS", "SRP", "ALI"])
    def test_canonical_axes_run_right_anterior_superior(self, directions: str) -> None:
        shape = (6, 7, 8)
        affine = grid(shape, 10.0, directions)
        turned, canonical = brain.to_canonical(hot_voxel((-20.0, 10.0, 20.0), affine, shape), affine)
        place = canonical @ [*np.argwhere(turned)[0], 1]
        assert np.all(np.diag(canonical)[:3] > 0)
        assert place[0] < 0 < place[1]
        assert place[2] > 0

    @pytest.mark.parametrize("directions", ["RAS", "LAS", "LPI"])
    def test_left_is_left_in_the_axial_projection(self, directions: str) -> None:
        shape = (7, 7, 5)
        affine = grid(shape, 10.0, directions)
        turned, _ = brain.to_canonical(hot_voxel((-20.0, 20.0, 0.0), affine, shape), affine)
        x, y = np.argwhere(brain.signed_maximum_projection(turned, axis=2))[0]
        assert x < 3 < y

    @pytest.mark.parametrize("directions", ["RAS", "LAS"])
    def test_left_is_left_in_the_picture(self, directions: str) -> None:
        shape = (9, 9, 7)
        affine = grid(shape, 8.0, directions)
        mask = np.ones(shape, bool)
        columns = {}
        for side, x in (("left", -24.0), ("right", 24.0)):
            values = hot_voxel((x, 0.0, 0.0), affine, shape)
            picture = pixels(brain.draw_stat_map(values, mask, affine, title="side", unit="z", threshold=3.0))
            columns[side] = np.nonzero(red(picture[:, :840]))[1].mean()  # without the colour bar
        assert columns["left"] < columns["right"] - 20

    def test_anterior_is_up_in_slices(self) -> None:
        shape = (9, 9, 1)
        affine = grid(shape, 8.0)
        rows = {}
        for end, y in (("anterior", 24.0), ("posterior", -24.0)):
            counts = 1 + (hot_voxel((0.0, y, 0.0), affine, shape) > 0)
            picture = pixels(brain.draw_coverage(counts, 2, affine, title="end", unit="runs"))
            dark_blue = (picture[..., 2] > 0.4) & (picture[..., 0] < 0.3) & (picture[..., 1] < 0.4)
            rows[end] = np.nonzero(dark_blue[:, :840])[0].mean()
        assert rows["anterior"] < rows["posterior"]

    def test_slice_coordinates_are_those_of_the_affine(self) -> None:
        mask = np.zeros((5, 6, 7), bool)
        mask[1:4, 2:5, 2:6] = True
        affine = grid(mask.shape, 4.0, "LAS")
        box = brain._Box.around(mask, affine).grid
        assert box.shape == (3, 3, 4)
        np.testing.assert_allclose([box.centre(2, k) for k in range(4)], [-4.0, 0.0, 4.0, 8.0])
        assert box.extent(0) == (-6.0, 6.0)
        assert not box.oblique

    def test_rotated_grid_is_marked_oblique(self) -> None:
        angle = np.deg2rad(15)
        affine = np.eye(4)
        affine[:2, :2] = [[np.cos(angle), -np.sin(angle)], [np.sin(angle), np.cos(angle)]]
        box = brain._Box.around(np.ones((4, 4, 4), bool), affine).grid
        assert box.oblique
        np.testing.assert_allclose(box.voxel_size, 1.0)


class TestProjection:
    def test_keeps_the_sign_of_the_value_farthest_from_zero(self) -> None:
        line = np.array([1.0, -4.0, 3.0, np.nan])
        assert brain.signed_maximum_projection(line.reshape(4, 1, 1), axis=0)[0, 0] == -4.0

    def test_prefers_the_positive_of_two_equal_sizes(self) -> None:
        assert brain.signed_maximum_projection(np.array([-2.0, 2.0]).reshape(1, 1, 2), axis=2)[0, 0] == 2.0

    def test_line_without_data_is_nan(self) -> None:
        assert np.isnan(brain.signed_maximum_projection(np.full((2, 2, 2), np.nan), axis=1)).all()


class TestSlices:
    def test_are_spaced_evenly_through_the_box(self) -> None:
        assert brain.slice_indices(40, 4) == [5, 15, 25, 35]

    def test_thin_box_gives_each_plane_once(self) -> None:
        assert brain.slice_indices(3, 8) == [0, 1, 2]
        assert brain.slice_indices(1, 8) == [0]


class TestRim:
    def test_of_one_pixel_is_its_four_neighbours(self) -> None:
        assert brain.rim(np.ones((1, 1), bool)).astype(int).tolist() == [[0, 1, 0], [1, 0, 1], [0, 1, 0]]

    def test_is_whatever_touches_the_region_with_a_side_and_is_outside(self, noise: np.random.Generator) -> None:
        region = noise.random((9, 11)) < 0.3
        inside = np.pad(region, 2)
        touches = np.logical_or.reduce([np.roll(inside, step, axis) for step in (-1, 1) for axis in (0, 1)])
        np.testing.assert_array_equal(brain.rim(region), (touches & ~inside)[1:-1, 1:-1])

    def test_of_nothing_is_empty(self) -> None:
        assert not brain.rim(np.zeros((3, 4), bool)).any()

    def test_follows_the_edges_of_voxels_however_large_they_are(self) -> None:
        region = np.zeros((3, 2), bool)
        region[1, 0] = True  # middle column, lower row
        panel = canvas.Panel(canvas.Canvas(60, 50), 10, 5, 30, 20)
        brain._draw_rim(panel, region, "#000000")
        rows, columns = np.nonzero((panel.canvas.pixels == 0).all(axis=-1))
        # around the ten by ten pixels of that voxel, corners apart
        assert {*rows} == {14, *range(15, 25), 25}
        assert {*columns} == {19, *range(20, 30), 30}
        assert len(rows) == 40


class TestColourScale:
    def test_reaches_beyond_the_threshold(self) -> None:
        assert brain.colour_scale(np.array([0.5, 1.0]), 3.0, None).vmax == pytest.approx(3.3)

    def test_is_the_99_5th_percentile_of_sizes(self) -> None:
        values = np.array([np.nan, *np.linspace(-10, 0, 1001)])
        assert brain.colour_scale(values, None, None).vmax == pytest.approx(9.95)

    def test_of_zeros_is_not_degenerate(self) -> None:
        assert brain.colour_scale(np.zeros(4), None, None).vmax == 1.0

    def test_infinite_threshold_passes_nothing(self) -> None:
        scale = brain.colour_scale(np.array([1.0, 2.0]), np.inf, None)
        assert np.isfinite(scale.vmax)
        assert not scale.passes(np.array([1.0, -2.0, np.nan])).any()

    @pytest.mark.parametrize("threshold", [None, 0.0, 1.0])
    def test_missing_values_never_pass(self, threshold: float | None) -> None:
        passes = brain.colour_scale(np.array([1.0]), threshold, None).passes(np.array([np.nan, -1.0]))
        assert passes.tolist() == [False, True]


class TestStatMap:
    @pytest.mark.parametrize(
        ("shape", "threshold"),
        [
            ((20, 24, 18), 2.0),
            ((5, 6, 4), None),
            ((5, 6, 4), 0.0),
            ((5, 6, 4), np.inf),
            ((5, 6, 4), np.nan),
            ((5, 6, 1), 2.0),
            ((1, 1, 1), 2.0),
            ((1, 9, 3), None),
            ((40, 2, 2), 2.0),
        ],
    )
    def test_any_grid_and_threshold(
        self, shape: tuple[int, int, int], threshold: float | None, noise: np.random.Generator
    ) -> None:
        values = noise.standard_normal(shape)
        values.flat[0] = 5.0
        mask = np.ones(shape, bool)
        png = brain.draw_stat_map(
            values,
            mask,
            grid(shape, 25.0),
            title=HOSTILE,
            unit=HOSTILE,
            threshold=threshold,
            background=values,
        )
        pixels(png)

    @pytest.mark.parametrize("fill", [0.0, 3.0, np.nan, np.inf])
    def test_constant_or_missing_values(self, fill: float) -> None:
        shape = (5, 6, 4)
        values, mask = np.full(shape, fill), np.ones(shape, bool)
        pixels(brain.draw_stat_map(values, mask, np.eye(4), title="t", unit="z", threshold=2.0, background=values))

    def test_empty_mask_says_so(self) -> None:
        values = np.ones((5, 6, 4))
        empty = brain.draw_stat_map(values, values < 0, np.eye(4), title="t", unit="z")
        assert empty == canvas.message_png("t", "empty mask")
        pixels(empty)

    def test_values_outside_the_mask_are_not_data(self, noise: np.random.Generator) -> None:
        values = noise.standard_normal((5, 6, 4))
        mask = np.zeros(values.shape, bool)
        mask[1:4, 1:5, 1:3] = True
        mask[1, 1, :] = False  # not a box, which cropping alone would cut out
        drawn = [
            brain.draw_stat_map(np.where(mask, values, other), mask, np.eye(4), title="t", unit="z", threshold=1.0)
            for other in (0.0, 100.0, np.nan)
        ]
        assert drawn[0] == drawn[1] == drawn[2]

    def test_values_below_the_threshold_are_dimmed_not_hidden(self) -> None:
        scale = brain.ColourScale(vmax=4.0, threshold=3.0)
        below, above, missing = brain._blend(np.full(3, 0.9), np.array([2.9, 3.1, np.nan]), scale)
        np.testing.assert_allclose(above, scale.colours(np.array([3.1]))[0])
        np.testing.assert_allclose(below, 0.55 * 0.9 + 0.45 * scale.colours(np.array([2.9]))[0])
        np.testing.assert_allclose(missing, 0.9)

    def test_maps_of_one_view_are_those_drawn_one_by_one(self, noise: np.random.Generator) -> None:
        shape = (9, 8, 7)
        affine, mask, background = grid(shape, 6.0, "LPS"), noise.random(shape) < 0.8, noise.random(shape)
        view = brain.BrainView(mask, affine, background)
        for values in noise.standard_normal((2, *shape)):
            words = {"title": "t", "unit": "z", "threshold": 1.0}
            assert view.draw(values, **words) == brain.draw_stat_map(
                values, mask, affine, background=background, **words
            )

    def test_voxels_beyond_the_threshold_have_their_own_colour_and_a_black_rim(self) -> None:
        shape = (5, 5, 1)
        values = hot_voxel((0.0, 0.0, 0.0), grid(shape, 20.0), shape)
        picture = pixels(
            brain.draw_stat_map(values, values > -1, grid(shape, 20.0), title="t", unit="z", threshold=9.0, vmax=9.0)
        )
        slices = picture[-220:, :840]
        hottest = np.abs(slices - colours.DIVERGING[255]).max(axis=-1) < 0.01
        rows, columns = (np.unique(places) for places in np.nonzero(hottest))
        assert len(rows) > 20
        for row in (rows[0] - 1, rows[-1] + 1):
            assert (slices[row, columns] == 0).all()
        for column in (columns[0] - 1, columns[-1] + 1):
            assert (slices[rows, column] == 0).all()

    def test_many_slices_begin_a_new_row(self, noise: np.random.Generator) -> None:
        values = noise.standard_normal((8, 8, 20))
        heights = [
            len(pixels(brain.draw_stat_map(values, values > -9, np.eye(4), title="t", unit="z", n_slices=n)))
            for n in (8, 16)
        ]
        assert heights[1] > heights[0]


class TestCoverage:
    @pytest.mark.parametrize("n_inputs", [0, 1, 4, 60])
    @pytest.mark.parametrize("shape", [(20, 24, 18), (5, 6, 1), (1, 1, 1)])
    def test_any_number_of_inputs(self, n_inputs: int, shape: tuple[int, int, int], noise: np.random.Generator) -> None:
        counts = noise.integers(0, n_inputs + 1, shape)
        pixels(brain.draw_coverage(counts, n_inputs, grid(shape, 8.0, "LPS"), title=HOSTILE, unit="runs"))

    def test_no_coverage_says_so(self) -> None:
        empty = brain.draw_coverage(np.zeros((3, 3, 3), int), 2, np.eye(4), title="t", unit="runs")
        assert empty == canvas.message_png("t", "no voxel is covered")

    @pytest.mark.parametrize("n_inputs", [1, 2, 7, 40])
    def test_each_count_has_its_own_colour(self, n_inputs: int) -> None:
        palette = brain._count_colours(n_inputs)
        assert len(np.unique(palette, axis=0)) == n_inputs + 1


class TestText:
    @pytest.mark.parametrize(
        ("value", "expected"),
        [(-0.5, "−0.5"), (np.nan, "n/a"), (1234.5678, "1.23e+03"), (0.0, "0"), (np.inf, "inf")],
    )
    def test_numbers_for_people(self, value: float, expected: str) -> None:
        assert wording.number(value) == expected

    def test_shortened_names_keep_both_ends(self) -> None:
        short = wording.shorten("a" * 30 + "_run-2", 12)
        assert len(short) == 12
        assert short.startswith("aaaaa")
        assert short.endswith("_run-2")

    def test_long_titles_take_two_lines_at_most(self) -> None:
        assert len(canvas.title_lines("word " * 200, canvas.WIDTH)) == 2

    @pytest.mark.parametrize(
        "text", ["$x^2$", "<b>", "&amp;", "\\alpha", "_a", "z ≥ −3 ε Ü", "a\nb", "\x00", "\ud800", ""]
    )
    def test_is_written_literally_whatever_it_holds(self, text: str) -> None:
        def written(text: str) -> tuple[float, bytes]:
            drawn = canvas.Canvas(200, 40)
            drawn.text(5, 20, text)
            return canvas.text_width(text), drawn.pixels.tobytes()

        width, _ = written(text)
        assert width == pytest.approx(sum(written(character)[0] for character in text), abs=len(text) * 1.5)
        assert len({written(text)[1], written(text + "$")[1]}) == 2

    @pytest.mark.parametrize("across", ["left", "centre", "right"])
    @pytest.mark.parametrize("upright", [False, True])
    def test_stands_where_it_is_said_to(self, across: str, upright: bool) -> None:
        drawn = canvas.Canvas(200, 200)
        drawn.text(100, 100, "HHHHHHHH", size=12.0, across=across, upright=upright)
        dark = np.flatnonzero((drawn.pixels.min(axis=-1) < 128).any(axis=int(upright)))
        along = [200 - dark[-1], 200 - dark[0]] if upright else [dark[0], dark[-1]]
        place = {"left": along[0], "centre": (along[0] + along[-1]) / 2, "right": along[-1]}[across]
        assert place == pytest.approx(100, abs=2)
        thick = np.flatnonzero((drawn.pixels.min(axis=-1) < 128).any(axis=int(not upright)))
        assert (thick[0] + thick[-1]) / 2 == pytest.approx(100, abs=1)
        assert len(thick) < 12 < 60 < dark[-1] - dark[0]

    def test_beyond_the_edge_is_cut_off(self) -> None:
        drawn = canvas.Canvas(30, 10)
        for place in ((-20, 5), (25, 5), (5, -3), (5, 12), (500, 500), (-500, -500)):
            drawn.text(*place, "text beyond the edge")
            drawn.text(*place, "text beyond the edge", upright=True)
        assert drawn.pixels.shape == (10, 30, 3)
        assert drawn.pixels.min() < 128


class TestRectangles:
    def test_are_a_pixel_wide_at_least_and_cut_off_at_the_edge(self) -> None:
        drawn = canvas.Canvas(20, 10)
        drawn.fill(3.2, 2, 3.3, 4, "#000000")
        assert np.argwhere(drawn.pixels[..., 0] == 0).tolist() == [[2, 3], [3, 3]]
        before = drawn.pixels.copy()
        for left, top in ((-9, 2), (25, 2), (2, -9), (2, 12)):
            drawn.fill(left, top, left + 4, top + 4, "#000000")
        np.testing.assert_array_equal(drawn.pixels, before)
        drawn.fill(-2, 8, 1, 30, "#000000", 0.5)
        assert drawn.pixels[8:, 0].tolist() == [[128] * 3] * 2


class TestTicks:
    @pytest.mark.parametrize(
        ("low", "high", "most", "expected"),
        [
            (-4.9, 4.9, 6, ["−4", "−2", "0", "2", "4"]),
            (0, 0.42, 9, ["0.00", "0.05", "0.10", "0.15", "0.20", "0.25", "0.30", "0.35", "0.40"]),
            (-1, 1, 5, ["−1.0", "−0.5", "0.0", "0.5", "1.0"]),
            (0, 400, 10, ["0", "50", "100", "150", "200", "250", "300", "350", "400"]),
            (-0.11, 0.12, 5, ["−0.10", "−0.05", "0.00", "0.05", "0.10"]),
            (0, 2e7, 2, ["0", "1e+07", "2e+07"]),
        ],
    )
    def test_are_round_numbers_with_the_decimals_they_need(
        self, low: float, high: float, most: int, expected: list[str]
    ) -> None:
        assert canvas.tick_texts(canvas.round_ticks(low, high, most)) == expected

    @pytest.mark.parametrize("n_inputs", [1, 2, 3, 7, 12, 25, 60, 1000])
    def test_of_counts_are_whole(self, n_inputs: int) -> None:
        ticks = canvas.round_ticks(0, n_inputs, 8, whole=True)
        assert 2 <= len(ticks) <= 9
        assert all(tick == int(tick) for tick in ticks)

    def test_of_an_empty_range_are_none(self) -> None:
        assert canvas.round_ticks(1.0, 1.0, 5) == []
        assert canvas.round_ticks(0.0, np.inf, 5) == []


class TestColours:
    def test_diverge_from_a_pale_middle_to_blue_and_red(self) -> None:
        table = colours.DIVERGING
        assert table[127:129].min() > 0.94
        assert table[0].argmax() == 2
        assert table[255].argmax() == 0
        lightness = table @ [0.299, 0.587, 0.114]
        assert (np.diff(lightness[:128]) > 0).all()
        assert (np.diff(lightness[128:]) < 0).all()

    def test_of_counts_grow_darker(self) -> None:
        for table in (colours.DENSITY, colours.COUNTS):
            assert (np.diff(table @ [0.299, 0.587, 0.114]) < 0).all()

    def test_beyond_the_table_are_those_at_its_ends(self) -> None:
        np.testing.assert_array_equal(
            colours.look_up(colours.DENSITY, np.array([-5.0, 0.0, 1.0, 7.0])), colours.DENSITY[[0, 0, 255, 255]]
        )


def test_same_input_gives_same_bytes_in_any_thread(noise: np.random.Generator) -> None:
    shape = (6, 7, 5)
    values, mask = noise.standard_normal(shape), np.ones(shape, bool)

    def draw_all(_turn: int) -> list[bytes]:
        return [
            brain.draw_stat_map(values, mask, grid(shape, 25.0), title="t", unit="z", threshold=1.5),
            brain.draw_coverage(mask.astype(int), 1, grid(shape, 25.0), title="t", unit="runs"),
        ]

    with ThreadPoolExecutor(2) as pool:
        first, second = pool.map(draw_all, range(2))
    assert first == second


def test_png_holds_the_pixels_and_no_metadata(noise: np.random.Generator) -> None:
    drawn = canvas.Canvas(37, 21)
    drawn.pixels[:] = noise.integers(0, 256, drawn.pixels.shape)
    png = drawn.to_png()
    with Image.open(io.BytesIO(png)) as decoded:
        np.testing.assert_array_equal(np.asarray(decoded), drawn.pixels)
        assert decoded.info == {}
    assert b"tEXt" not in png


def test_levels_without_report_load_nothing_that_draws() -> None:
    import subprocess
    import sys

    code = (
        "import sys, sessionfx.participant.analysis, sessionfx.group.analysis;"
        "print([name for name in ('matplotlib', 'jinja2', 'PIL') if name in sys.modules])"
    )
    done = subprocess.run([sys.executable, "-c", code], check=True, capture_output=True, text=True)
    assert done.stdout.strip() == "[]"
