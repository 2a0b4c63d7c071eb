"""The pictures of the reports: they are drawn for every input, and what they show is where it is."""

from __future__ import annotations

import io
from concurrent.futures import ThreadPoolExecutor

import numpy as np
import pandas as pd
import pytest
from PIL import Image

from sessionfx import wording
from sessionfx.report import brain, canvas, colours, plots

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


def design(n_rows: int, n_columns: int) -> pd.DataFrame:
    x = np.random.default_rng(3).standard_normal((n_rows, n_columns))
    x[:, -1] = 1.0
    return pd.DataFrame(x, columns=[f"{HOSTILE}{i}" for i in range(n_columns)])


class TestDesign:
    @pytest.mark.parametrize(("n_rows", "n_columns"), [(100, 1), (1, 3), (2000, 8), (120, 40), (120, 60), (90, 200)])
    def test_any_size(self, n_rows: int, n_columns: int) -> None:
        matrix = design(n_rows, n_columns)
        conditions = list(matrix.columns[:2])
        pixels(plots.draw_design_matrix(matrix, title=HOSTILE, row_label="volume", condition_columns=conditions))
        pixels(plots.draw_design_correlation(matrix, title=HOSTILE))

    @pytest.mark.parametrize("fill", [0.0, 1.0, np.nan, np.inf])
    def test_constant_columns(self, fill: float) -> None:
        matrix = pd.DataFrame({"constant": np.full(10, fill)})
        pixels(plots.draw_design_matrix(matrix, title="t", row_label="volume"))
        assert plots.draw_design_correlation(matrix, title="t") == canvas.message_png("t", "no column varies")

    def test_without_columns(self) -> None:
        pixels(plots.draw_design_matrix(pd.DataFrame(index=range(5)), title="t", row_label="volume"))
        pixels(plots.draw_design_correlation(pd.DataFrame(index=range(5)), title="t"))

    def test_missing_values_and_repeated_names(self) -> None:
        matrix = pd.DataFrame([[1.0, np.nan, 2.0], [2.0, 3.0, np.inf], [4.0, 5.0, 1.0]], columns=["a", "a", "b"])
        pixels(plots.draw_design_matrix(matrix, title="t", row_label="volume"))
        pixels(plots.draw_design_correlation(matrix, title="t"))

    def test_group_rows_are_named_up_to_sixty(self) -> None:
        def tall(n_rows: int) -> pd.DataFrame:
            return pd.DataFrame({"mean": 1.0}, index=[f"sub-{i:02d} {HOSTILE}" for i in range(n_rows)])

        assert plots._rows_are_named(tall(60))
        assert not plots._rows_are_named(tall(61))
        pixels(plots.draw_design_matrix(tall(60), title="t", row_label="subject"))

    def test_columns_are_scaled_to_one(self) -> None:
        scaled = plots._scaled_columns(pd.DataFrame({"a": [1.0, -4.0], "zero": [0.0, 0.0]}))
        np.testing.assert_array_equal(scaled, [[0.25, 0.0], [-1.0, 0.0]])

    def test_one_marked_volume_survives_in_a_long_run(self) -> None:
        spike = np.zeros((5000, 2))
        spike[1234, 0], spike[4321, 1] = 1.0, -1.0
        reduced = plots._extremes_of_row_blocks(spike, n_blocks=300)
        assert reduced.shape == (300, 2)
        assert reduced[:, 0].max() == 1.0
        assert reduced[:, 1].min() == -1.0

    def test_forty_columns_keep_all_names_and_conditions_keep_theirs_beyond(self) -> None:
        panel, fontsize = plots.MAX_WIDTH - 220, plots.SMALL_FONT * plots.MAX_WIDTH / plots.WIDTH
        assert plots._columns_with_room(40, panel, fontsize) == list(range(40))
        emphasised = [i in (7, 91) for i in range(200)]
        kept = plots._columns_with_room(200, panel, fontsize, emphasised)
        assert {7, 91} <= set(kept)
        assert min(np.diff(kept)) * panel / 200 >= fontsize


class TestEvents:
    @staticmethod
    def table(onsets: list[float], types: list[object] | None = None) -> pd.DataFrame:
        return pd.DataFrame({"onset": onsets, "duration": 2.0, "trial_type": types or ["face"] * len(onsets)})

    def test_runs_of_different_length(self) -> None:
        events = {f"run-{i} {HOSTILE}": self.table([1.0, 5.0 + i, 30.0], [HOSTILE, "b", "_c"]) for i in range(3)}
        pixels(plots.draw_events(events, title=HOSTILE, run_seconds=dict(zip(events, (40.0, 50.0, 20.0), strict=True))))

    def test_more_types_than_colours(self) -> None:
        types: list[object] = [f"type {i}" for i in range(30)]
        events = {"run-1": self.table([4.0 * i for i in range(30)], types)}
        pixels(plots.draw_events(events, title="t", run_seconds={"run-1": 120.0}))

    def test_types_beyond_the_palette_differ_by_hatch(self) -> None:
        samples = set()
        for index in range(48):
            drawn = canvas.Canvas(40, 20)
            plots._fill_event(drawn, 5, 5, 35, 15, index)
            samples.add(drawn.pixels.tobytes())
        assert len(samples) == 48

    def test_no_events_and_no_runs(self) -> None:
        pixels(plots.draw_events({"run-1": self.table([])}, title="t", run_seconds={"run-1": 100.0}))
        pixels(plots.draw_events({"run-1": pd.DataFrame()}, title="t", run_seconds={}))
        assert plots.draw_events({}, title="t", run_seconds={}) == canvas.message_png("t", "no runs")

    def test_unknown_onsets_durations_and_types(self) -> None:
        table = pd.DataFrame(
            {"onset": ["1.5", "n/a", "-2"], "duration": ["n/a", 1, np.inf], "trial_type": [np.nan, "a", "b"]}
        )
        clean = plots._clean_events(table)
        assert clean["onset"].tolist() == [1.5, -2.0]
        assert clean["duration"].tolist() == [0.0, 0.0]
        assert clean["trial_type"].tolist() == ["n/a", "b"]
        pixels(plots.draw_events({"run-1": table}, title="t", run_seconds={"run-1": np.nan}))


def agreement_of(a: np.ndarray, b: np.ndarray) -> dict[str, float]:
    difference = a - b
    spread = 1.96 * difference.std(ddof=1) if difference.size > 1 else np.nan
    bias = float(difference.mean())
    return {
        "bias": bias,
        "loa_lower": bias - spread,
        "loa_upper": bias + spread,
        "pearson_r": 0.9,
        "dice": np.nan,
    }


class TestComparison:
    @staticmethod
    def draw(a: np.ndarray, b: np.ndarray, **options: object) -> np.ndarray:
        arguments = {
            "label_a": HOSTILE,
            "label_b": "_b",
            "unit": "z",
            "agreement": agreement_of(a, b),
            **options,
        }
        return pixels(plots.draw_comparison(a, b, **arguments))  # type: ignore[arg-type]

    @pytest.mark.parametrize("n_voxels", [1, 2, 2999, 50_000])
    def test_any_number_of_voxels(self, n_voxels: int, noise: np.random.Generator) -> None:
        a = noise.standard_normal(n_voxels)
        self.draw(a, a + 0.1 * noise.standard_normal(n_voxels), thresholds=(1.0, np.inf))

    @pytest.mark.parametrize("n_voxels", [50, 5000])
    def test_identical_maps(self, n_voxels: int, noise: np.random.Generator) -> None:
        a = noise.standard_normal(n_voxels)
        self.draw(a, a)

    @pytest.mark.parametrize("n_voxels", [50, 5000])
    @pytest.mark.parametrize("fill", [0.0, 7.0])
    def test_constant_maps(self, n_voxels: int, fill: float) -> None:
        self.draw(np.full(n_voxels, fill), np.zeros(n_voxels))

    def test_unknown_agreement(self, noise: np.random.Generator) -> None:
        a = noise.standard_normal(100)
        self.draw(a, -a, agreement={})
        self.draw(a, -a, agreement={"bias": np.nan, "loa_lower": np.nan, "loa_upper": 1.0})

    def test_missing_values_are_left_out(self, noise: np.random.Generator) -> None:
        a, b = noise.standard_normal((2, 60))
        options = {"label_a": "a", "label_b": "b", "unit": "z", "agreement": {}}
        extended = plots.draw_comparison([*a, np.nan, 1.0], [*b, 1.0, np.inf], **options)  # type: ignore[arg-type]
        assert extended == plots.draw_comparison(a, b, **options)  # type: ignore[arg-type]
        pixels(plots.draw_comparison([np.nan], [1.0], **options))  # type: ignore[arg-type]

    def test_labels_of_close_lines_do_not_overlap(self) -> None:
        for heights in ([99.0, 100.0, 101.0], [10.0, 11.0, 12.0], [np.nan] * 3):
            upper, middle, lower = plots._spread(heights, top=0, bottom=200, distance=30)
            assert upper <= middle - 30
            assert lower >= middle + 30

    def test_every_voxel_is_counted_in_its_bin(self, noise: np.random.Generator) -> None:
        x, y = noise.uniform(-1, 1, (2, 20_000))
        panel = canvas.Panel(canvas.Canvas(100, 100), 0, 0, 40, 20)
        counts = plots._counts(panel, plots._Cloud(x, y, ((-1.0, 1.0), (-1.0, 1.0))))
        expected = np.histogram2d(-y, x, bins=(5, 10), range=((-1, 1), (-1, 1)))[0]
        # single precision puts a voxel in a thousand on the other side of an edge
        assert np.abs(counts - expected).max() <= 1
        assert counts.sum() == 20_000

    def test_the_line_of_identity_runs_from_corner_to_corner(self) -> None:
        a = np.linspace(-2, 2, 50)
        picture = self.draw(a, a[::-1])
        muted = np.abs(picture - colours.rgb(colours.MUTED) / 255).max(axis=-1) < 0.15
        dashes = [muted[429 - step, 75 + round(step * 355 / 340)] for step in range(20, 200)]
        assert 0.5 < np.mean(dashes) < 0.9


class TestDistribution:
    def test_normal_and_degenerate_samples(self, noise: np.random.Generator) -> None:
        samples = {
            HOSTILE: noise.standard_normal(5000),
            "_constant": np.zeros(10),
            "one voxel": np.array([40.0]),
            "missing": np.array([np.nan, 1.0]),
            "empty": np.array([]),
        }
        pixels(plots.draw_distribution(samples, title=HOSTILE))

    def test_nothing_to_show(self) -> None:
        expected = canvas.message_png("t", "no finite z value")
        assert plots.draw_distribution({}, title="t") == expected
        assert plots.draw_distribution({"a": np.array([np.nan])}, title="t") == expected

    def test_density_counts_what_lies_outside(self) -> None:
        edges = np.array([-1.0, 0.0, 1.0])
        np.testing.assert_allclose(plots._density(np.array([-0.5, 0.5, 0.6, 9.0]), edges), [0.25, 0.5])

    def test_steps_are_as_high_as_the_density(self) -> None:
        panel = canvas.Panel(canvas.Canvas(120, 110), 10, 5, 100, 100, (-1, 1), (0, 2))
        plots._draw_steps(panel, np.array([0.5, 1.5, 0.0, 1.0]), "#000000", None)
        for column, density in ((20, 0.5), (45, 1.5), (70, 0.0), (95, 1.0)):
            rows = np.flatnonzero((panel.canvas.pixels[:, column] == 0).all(axis=-1))
            assert rows.tolist() == [round(panel.y(density)) - 1, round(panel.y(density))]


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
    a, b = noise.standard_normal((2, 4000))
    events = {"run-1": TestEvents.table([1.0, 9.0])}

    def draw_all(_turn: int) -> list[bytes]:
        return [
            brain.draw_stat_map(values, mask, grid(shape, 25.0), title="t", unit="z", threshold=1.5),
            brain.draw_coverage(mask.astype(int), 1, grid(shape, 25.0), title="t", unit="runs"),
            plots.draw_design_matrix(design(50, 5), title="t", row_label="volume"),
            plots.draw_design_correlation(design(50, 5), title="t"),
            plots.draw_events(events, title="t", run_seconds={"run-1": 20.0}),
            plots.draw_comparison(a, b, label_a="a", label_b="b", unit="z", agreement=agreement_of(a, b)),
            plots.draw_distribution({"a": a}, title="t"),
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


def test_pictures_need_no_plotting_library() -> None:
    import subprocess
    import sys

    code = (
        "import sys, sessionfx.report.brain, sessionfx.report.plots, sessionfx.report.canvas as c;"
        "c.message_png('t', 'm'); sys.exit('matplotlib' in sys.modules)"
    )
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0


def test_levels_without_report_load_nothing_that_draws() -> None:
    import subprocess
    import sys

    code = (
        "import sys, sessionfx.participant.analysis, sessionfx.group.analysis;"
        "print([name for name in ('matplotlib', 'jinja2', 'PIL') if name in sys.modules])"
    )
    done = subprocess.run([sys.executable, "-c", code], check=True, capture_output=True, text=True)
    assert done.stdout.strip() == "[]"
