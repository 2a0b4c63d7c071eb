"""The pictures of the reports: they are drawn for every input, and what they show is where it is."""

from __future__ import annotations

import io
from concurrent.futures import ThreadPoolExecutor

import numpy as np
import pandas as pd
import pytest
from matplotlib import image

from sessionfx.report import brain, plots

HOSTILE = "_$\\frac{x_1$ $y$_"
"""Would crash or vanish if it were read as a formula or as a private legend label."""


def pixels(png: bytes) -> np.ndarray:
    """Decode a PNG into (rows, columns, RGB) and check that a reader could see it."""
    assert png.startswith(b"\x89PNG")
    picture = image.imread(io.BytesIO(png), format="png")[..., :3]
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
        _, box = brain._displayed_box([mask], affine)
        assert box.shape == (3, 3, 4)
        np.testing.assert_allclose([box.centre(2, k) for k in range(4)], [-4.0, 0.0, 4.0, 8.0])
        assert box.extent(0) == (-6.0, 6.0)
        assert not box.oblique

    def test_rotated_grid_is_marked_oblique(self) -> None:
        angle = np.deg2rad(15)
        affine = np.eye(4)
        affine[:2, :2] = [[np.cos(angle), -np.sin(angle)], [np.sin(angle), np.cos(angle)]]
        _, box = brain._displayed_box([np.ones((4, 4, 4), bool)], affine)
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


class TestOutline:
    def test_of_one_voxel_is_its_four_edges(self) -> None:
        region = np.zeros((3, 3), bool)
        region[1, 1] = True
        segments = {tuple(map(tuple, segment)) for segment in brain.outline(region)}
        assert segments == {((1, 1), (1, 2)), ((2, 1), (2, 2)), ((1, 1), (2, 1)), ((1, 2), (2, 2))}

    def test_has_the_length_of_the_perimeter(self, noise: np.random.Generator) -> None:
        region = noise.random((9, 11)) < 0.5
        padded = np.pad(region, 1)
        perimeter = sum(int((padded != np.roll(padded, 1, axis)).sum()) for axis in (0, 1))
        segments = brain.outline(region)
        assert np.abs(segments[:, 1] - segments[:, 0]).sum() == perimeter

    def test_of_nothing_is_empty(self) -> None:
        assert brain.outline(np.zeros((3, 4), bool)).shape == (0, 2, 2)


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
        assert empty == plots.message_png("t", "empty mask")
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
        assert empty == plots.message_png("t", "no voxel is covered")

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
        assert plots.draw_design_correlation(matrix, title="t") == plots.message_png("t", "no column varies")

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
        panel, fontsize = plots.MAX_WIDTH - 2.2, plots.SMALL_FONT * plots.MAX_WIDTH / plots.WIDTH
        assert plots._columns_with_room(40, panel, fontsize) == list(range(40))
        emphasised = [i in (7, 91) for i in range(200)]
        kept = plots._columns_with_room(200, panel, fontsize, emphasised)
        assert {7, 91} <= set(kept)
        assert min(np.diff(kept)) * panel / 200 >= fontsize / 72


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
        styles = {(s["facecolor"], s["hatch"]) for s in map(plots._event_style, range(48))}
        assert len(styles) == 48

    def test_no_events_and_no_runs(self) -> None:
        pixels(plots.draw_events({"run-1": self.table([])}, title="t", run_seconds={"run-1": 100.0}))
        pixels(plots.draw_events({"run-1": pd.DataFrame()}, title="t", run_seconds={}))
        assert plots.draw_events({}, title="t", run_seconds={}) == plots.message_png("t", "no runs")

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
        figure = plots.new_figure(5, 5)
        axes = plots.axes_in_inches(figure, 1, 1, 3, 3)
        axes.set_ylim(-1, 1)
        for heights in ([0.01, 0.0, -0.01], [0.9, 0.89, 0.88], [np.nan] * 3):
            upper, middle, lower = plots._spread(axes, heights, distance=0.1)
            assert upper - middle >= 0.0999
            assert middle - lower >= 0.0999


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
        expected = plots.message_png("t", "no finite z value")
        assert plots.draw_distribution({}, title="t") == expected
        assert plots.draw_distribution({"a": np.array([np.nan])}, title="t") == expected

    def test_density_counts_what_lies_outside(self) -> None:
        edges = np.array([-1.0, 0.0, 1.0])
        np.testing.assert_allclose(plots._density(np.array([-0.5, 0.5, 0.6, 9.0]), edges), [0.25, 0.5])


class TestText:
    @pytest.mark.parametrize(
        ("value", "expected"),
        [(-0.5, "−0.5"), (np.nan, "n/a"), (1234.5678, "1.23e+03"), (0.0, "0"), (np.inf, "inf")],
    )
    def test_numbers_for_people(self, value: float, expected: str) -> None:
        assert plots.number(value) == expected

    def test_shortened_names_keep_both_ends(self) -> None:
        short = plots.shorten("a" * 30 + "_run-2", 12)
        assert len(short) == 12
        assert short.startswith("aaaaa")
        assert short.endswith("_run-2")

    def test_long_titles_take_two_lines_at_most(self) -> None:
        assert len(plots._title_lines("word " * 200, plots.WIDTH)) == 2


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


def test_png_holds_no_metadata() -> None:
    png = plots.message_png("t", "m")
    assert b"Software" not in png
    assert b"tEXt" not in png


def test_pyplot_is_never_imported() -> None:
    import subprocess
    import sys

    code = "import sys, sessionfx.report.brain; sys.exit('matplotlib.pyplot' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0
