"""Charts are drawn for every input, hold together by themselves, and what they show is where it is."""

from __future__ import annotations

import itertools
import re
import subprocess
import sys
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from xml.etree import ElementTree

import numpy as np
import pandas as pd
import pytest
from matplotlib.collections import LineCollection, PolyCollection
from matplotlib.colors import to_hex
from matplotlib.figure import Figure

from sessionfx.report import charts, style
from sessionfx.report.charts import SessionPanel, draw_calibration
from sessionfx.report.style import Picture
from sessionfx.statistics.agreement import Agreement, compare
from sessionfx.statistics.intervals import session_intervals

HOSTILE = "_$\\frac{x_1$ <b> \x00\ud800 $y$_"
"""Would crash or vanish if it were read as a formula, as markup or as a private legend label."""
SHOWN = "_$\\frac{x_1$ <b> $y$_"


def texts(picture: Picture) -> list[str]:
    """Read the texts of an SVG, and check that a browser can show it by itself, with words for who cannot see it."""
    assert picture.kind == "svg+xml"
    assert picture.alt
    assert len(picture.content) < 150_000
    root = ElementTree.fromstring(picture.content)  # noqa: S314 - our own
    for element in root.iter():
        for key, value in element.attrib.items():
            assert not key.endswith("href") or value.startswith(("#", "data:image/png")), value
    identifiers = [element.get("id") for element in root.iter() if element.get("id")]
    assert len(identifiers) == len(set(identifiers))
    return ["".join(element.itertext()).strip() for element in root.iter("{http://www.w3.org/2000/svg}text")]


@pytest.fixture
def noise() -> np.random.Generator:
    return np.random.default_rng(20)


@pytest.fixture
def figures(monkeypatch: pytest.MonkeyPatch) -> list[Figure]:
    """Collect the figures that are drawn; all of what is on them is inside."""
    collected: list[Figure] = []

    def collect(figure: Figure, *words: str) -> Picture:
        collected.append(figure)
        figure.draw_without_rendering()
        drawn, (width, height) = figure.get_tightbbox(), figure.get_size_inches()
        assert min(drawn.x0, drawn.y0, width - drawn.x1, height - drawn.y1) > -0.01, drawn
        return style.as_svg(figure, *words)

    monkeypatch.setattr("sessionfx.report.charts.as_svg", collect)
    return collected


def design(n_rows: int, n_columns: int) -> pd.DataFrame:
    x = np.random.default_rng(3).standard_normal((n_rows, n_columns))
    x[:, -1] = 1.0
    return pd.DataFrame(x, columns=[f"{HOSTILE}{i}" for i in range(n_columns)])


def group_design(n_rows: int) -> pd.DataFrame:
    return pd.DataFrame({"mean": 1.0, "age": 0.5}, index=[f"sub-{i:02d} {HOSTILE}" for i in range(n_rows)])


def events_of(n_runs: int, n_events: int, n_types: int) -> dict[str, pd.DataFrame]:
    noise = np.random.default_rng(4)
    types = np.array([f"{HOSTILE}{i:03d}" for i in range(n_types)], dtype=object)
    return {
        f"sub-01_ses-01_task-{HOSTILE}_run-{run}": pd.DataFrame(
            {
                "onset": noise.uniform(0, 400, n_events),
                "duration": noise.choice([0.0, 2.0], n_events),
                "trial_type": noise.choice(types, n_events),
            }
        )
        for run in range(n_runs)
    }


def draw_events(events: dict[str, pd.DataFrame], seconds: float = 400.0) -> Picture:
    return charts.draw_events(events, title=HOSTILE, run_seconds=dict.fromkeys(events, seconds))


def draw_agreement(
    a: np.ndarray, b: np.ndarray, thresholds: tuple[float, float] = (1.0, np.inf), agreement: Agreement | None = None
) -> Picture:
    return charts.draw_agreement(
        a, b, label_a=HOSTILE, label_b="_b" * 60, agreement=agreement or compare(a, b, *thresholds),
        thresholds=thresholds, title=HOSTILE,
    )  # fmt: skip


def draw_sessions(n: int, k: int, n_panels: int, *, contrast: str = "") -> Picture:
    noise = np.random.default_rng(5)
    effects = np.where(noise.random((n_panels, n, k)) < 0.1, np.nan, noise.standard_normal((n_panels, n, k)))
    sessions = [f"ses-{i + 1:02d}" for i in range(k)]
    estimates = dict.fromkeys(sessions, (0.5, 0.2, 0.8)) | ({contrast: (1.0, 0.5, 1.5)} if contrast else {})
    return charts.draw_sessions(
        [SessionPanel(f"{HOSTILE} {panel}", own, estimates) for panel, own in enumerate(effects)], sessions,
        unit=HOSTILE, title=HOSTILE,
    )  # fmt: skip


def participants(n: int) -> pd.DataFrame:
    noise = np.random.default_rng(6)
    labels = [f"{i:03d}" for i in range(n)]
    return pd.DataFrame(
        {
            "participant": labels,
            "correlation": noise.normal(0.4, 0.05, n),
            "mean": noise.standard_normal(n),
            "spread": noise.normal(1, 0.1, n),
        }
    )


LIMITS = {0.05: 0.058, 0.001: 0.002}


def rates(*strategies: str, rate: float = 0.05, power: float = 0.5) -> pd.DataFrame:
    row = {"question": HOSTILE, "label": "q", "n_voxels": 20_000}
    for alpha in (0.05, 0.001):
        name = f"rate_{alpha:g}"
        row |= {name: rate, f"{name}_lower": 0.9 * rate, f"{name}_upper": 1.1 * rate, f"power_{alpha:g}": power}
    return pd.DataFrame([{"strategy": strategy, **row} for strategy in strategies])


def normal(n: int, seed: int = 7) -> np.ndarray:
    return np.random.default_rng(seed).standard_normal(n)


CASES: dict[str, Callable[[], Picture]] = {
    **{
        f"design {rows} {columns}": lambda rows=rows, columns=columns: charts.draw_design_matrix(
            design(rows, columns), title=HOSTILE, row_label="volume", condition_columns=[f"{HOSTILE}0"]
        )
        for rows, columns in [(100, 1), (1, 3), (2000, 8), (120, 60), (2000, 200)]
    },
    **{
        f"group design {rows}": lambda rows=rows: charts.draw_design_matrix(
            group_design(rows), title=HOSTILE, row_label="observation"
        )
        for rows in (2, 60, 61)
    },
    **{
        f"correlation {columns}": lambda columns=columns: charts.draw_design_correlation(
            design(300, columns), title=HOSTILE
        )
        for columns in (2, 15, 40, 150)
    },
    **{
        f"events {shape}": lambda shape=shape: draw_events(events_of(*shape))
        for shape in [(1, 3, 1), (4, 60, 2), (8, 60, 12), (100, 40, 3), (2, 90, 90)]
    },
    **{f"agreement {n}": lambda n=n: draw_agreement(normal(n), normal(n, 8)) for n in (1, 2, 2999, 200_000)},
    "agreement of equal maps": lambda: draw_agreement(normal(5000), normal(5000)),
    "agreement of constant maps": lambda: draw_agreement(np.full(50, 7.0), np.zeros(50)),
    "distribution": lambda: charts.draw_distribution(
        {
            HOSTILE: normal(5000), "_constant": np.zeros(10), "one": np.array([40.0]),
            "missing": np.array([np.nan, 1.0]), "none": np.array([]),
        },
        title=HOSTILE,
    ),
    **{
        f"sessions {shape} {contrast}": lambda shape=shape, contrast=contrast: draw_sessions(*shape, contrast=contrast)
        for shape in [(1, 1, 1), (12, 3, 1), (12, 2, 5), (200, 10, 2)]
        for contrast in ("", "ses-02 − ses-01")
    },
    **{f"participants {n}": lambda n=n: draw_participants(participants(n), "001") for n in (3, 12, 150)},
    "calibration": lambda: draw_calibration(rates(*(f"{HOSTILE}{i}" for i in range(7))), LIMITS),
    "calibration of refusals": lambda: draw_calibration(rates(HOSTILE, rate=np.nan, power=np.nan), LIMITS),
    "no event": lambda: draw_events({HOSTILE: pd.DataFrame()}, np.nan),
    "no column varies": lambda: charts.draw_design_correlation(pd.DataFrame({"a": [1.0, 1.0]}), title=HOSTILE),
    "no voxel is finite in both maps": lambda: draw_agreement(np.array([np.nan]), np.ones(1), agreement=NOTHING),
    "no finite z": lambda: charts.draw_distribution({"a": np.array([np.nan])}, title=HOSTILE),
    "no effect": lambda: charts.draw_sessions(
        [SessionPanel("", np.full((3, 2), np.nan))], ["a", "b"], unit="%", title=HOSTILE
    ),
}  # fmt: skip
NOTHING = Agreement(*[np.nan] * 7, 0, 0, 0)


@pytest.mark.slow
@pytest.mark.parametrize("case", CASES)
def test_every_input_gives_a_small_picture_with_all_its_text_inside(case: str, figures: list[Figure]) -> None:
    shown = texts(CASES[case]())
    assert len(figures) == 1
    if not case.startswith("participants"):
        assert any(SHOWN in text for text in shown)
    assert not any("\\mathdefault" in text or re.fullmatch(r"-[\d.]+", text) for text in shown)


@pytest.mark.slow
def test_equal_input_gives_equal_bytes_in_any_thread() -> None:
    def draw_all(_turn: int) -> list[bytes]:
        return [draw().content for name, draw in CASES.items() if not name.endswith("00")]

    with ThreadPoolExecutor(2) as pool:
        first, second = pool.map(draw_all, range(2))
    assert first == second


@pytest.mark.slow
def test_no_global_figures_are_kept() -> None:
    code = "import sys, sessionfx.report.charts; sys.exit('matplotlib.pyplot' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0


def test_a_character_of_no_font_is_no_warning(recwarn: pytest.WarningsRecorder) -> None:
    assert "記憶" in texts(charts.draw_design_correlation(pd.DataFrame({"\U0001f9e0": [1.0]}), title="記憶"))
    assert not recwarn


def test_categories_keep_apart_without_colour() -> None:
    assert len(set(map(str, charts.DASHES))) == 4
    lightness = np.array([style.SEQUENTIAL(step)[:3] for step in np.linspace(0, 1, 20)]) @ [0.299, 0.587, 0.114]
    assert (np.diff(lightness) < 0).all()


class TestDesign:
    def test_one_marked_volume_survives_in_a_long_run(self) -> None:
        spike = np.zeros((5000, 2))
        spike[1234, 0], spike[4321, 1] = 1.0, -1.0
        reduced = charts._extremes_of_row_blocks(spike, n_blocks=300)
        assert reduced.shape == (300, 2)
        assert reduced[:, 0].max() == 1.0
        assert reduced[:, 1].min() == -1.0

    def test_columns_are_scaled_to_one(self, figures: list[Figure]) -> None:
        matrix = pd.DataFrame({"a": [1.0, -4.0], "zero": [0.0, 0.0], "unknown": [np.nan, np.nan]})
        charts.draw_design_matrix(matrix, title="t", row_label="volume")
        (image,) = figures[0].axes[0].images
        np.testing.assert_array_equal(image.get_array().filled(9), [[0.25, 0.0, 9], [-1.0, 0.0, 9]])

    def test_rows_are_named_up_to_sixty(self) -> None:
        def named(n_rows: int) -> bool:
            picture = charts.draw_design_matrix(group_design(n_rows), title="t", row_label="observation")
            return any(text.startswith("sub-59") for text in texts(picture)) or n_rows < 60

        assert named(60)
        assert not named(61)

    def test_forty_columns_keep_all_names_and_conditions_keep_theirs_beyond(self) -> None:
        def named(n_columns: int) -> set[str]:
            matrix = pd.DataFrame(np.eye(n_columns), columns=[f"c{i}" for i in range(n_columns)])
            return set(texts(charts.draw_design_matrix(
                matrix, title="t", row_label="volume", condition_columns=["c7", "c91"]
            )))  # fmt: skip

        assert {f"c{i}" for i in range(40)} <= named(40)
        assert {"c7", "c91"} <= named(200)
        assert len(named(200)) < 80

    def test_conditions_are_bold(self, figures: list[Figure]) -> None:
        matrix = pd.DataFrame(np.eye(3), columns=["a", "b", "c"])
        charts.draw_design_matrix(matrix, title="t", row_label="volume", condition_columns=["b"])
        weights = {text.get_text(): text.get_weight() for text in figures[0].axes[0].texts}
        assert weights == {"a": "normal", "b": "bold", "c": "normal"}

    def test_correlations_are_those_of_the_columns(self) -> None:
        matrix = pd.DataFrame({"a": [1.0, 2, 3, 4], "b": [-1.0, -2, -3, -4], "one": 1.0, "c": [1, 0, np.nan, 1]})
        shown = texts(charts.draw_design_correlation(matrix, title="t"))
        assert "3 of 4 columns vary; yellow 1, grey 0, blue −1" in shown
        assert {"−1.00", ".19", "−.19"} <= set(shown)
        assert "one" not in shown


class TestEvents:
    def test_a_short_event_is_seen_and_a_type_has_its_lane(self, figures: list[Figure]) -> None:
        table = pd.DataFrame({"onset": [1.0, 50.0], "duration": [0.0, 10.0], "trial_type": ["a", "b"]})
        charts.draw_events({"run-1": table}, title="t", run_seconds={"run-1": 100.0})
        bars = figures[0].axes[0].collections[-1]
        (first, second), colours = bars.get_segments(), list(map(to_hex, bars.get_colors()))
        assert [colour.upper() for colour in colours] == list(charts.CATEGORIES[:2])
        assert first[0, 1] < second[0, 1]
        assert first[:, 0].tolist() == [1.0, pytest.approx(1.1)], "as a hairline"
        assert second[:, 0].tolist() == [50.0, 60.0]

    def test_runs_without_events_or_length(self) -> None:
        assert "0 events in 1 run" in texts(draw_events({"run-1": pd.DataFrame()}, np.nan))

    def test_types_beyond_the_lanes_share_the_last(self) -> None:
        events = events_of(2, 90, 90)
        types = set(pd.concat(events.values())["trial_type"])
        assert f"{len(types) - 23} more types" in texts(draw_events(events))


class TestAgreement:
    def test_lines_are_where_they_are_said_to_be(self, figures: list[Figure]) -> None:
        a, b = normal(500), normal(500, 8)
        agreement = compare(a, b, 1.5, np.inf)
        draw_agreement(a, b, (1.5, np.inf), agreement)
        left, right = figures[0].axes
        upright = [line.get_xdata()[0] for line in left.lines if np.ptp(line.get_xdata()) == 0]
        assert upright == [-1.5, 1.5]
        level = {line.get_ydata()[0] for line in right.lines if np.ptp(line.get_ydata()) == 0}
        assert level == {0, agreement.bias, agreement.loa_lower, agreement.loa_upper}
        for value, (low, high) in [*((x, left.get_xlim()) for x in upright), *((y, right.get_ylim()) for y in level)]:
            assert low < value < high

    @pytest.mark.slow
    @pytest.mark.parametrize("threshold", [np.inf, np.nan, 50.0])
    def test_a_threshold_beyond_the_axes_is_not_drawn(self, threshold: float, figures: list[Figure]) -> None:
        draw_agreement(normal(50), normal(50, 8), (threshold, threshold))
        identity, cloud = figures[0].axes[0].lines
        assert len(cloud.get_xdata()) == 50
        np.testing.assert_array_equal(identity.get_xdata(), identity.get_ydata())

    def test_every_voxel_is_counted(self, figures: list[Figure]) -> None:
        draw_agreement(normal(20_000), normal(20_000, 8))
        for axes in figures[0].axes:
            assert np.ma.sum(axes.collections[0].get_array()) == 20_000

    def test_missing_values_are_left_out(self) -> None:
        a, b = normal(60), normal(60, 8)
        agreement = compare(a, b, 1.0, 1.0)
        extended = draw_agreement(np.r_[a, np.nan, 1.0], np.r_[b, 1.0, np.inf], agreement=agreement)
        assert extended.content == draw_agreement(a, b, agreement=agreement).content

    def test_density_counts_what_lies_outside(self, figures: list[Figure]) -> None:
        charts.draw_distribution({"a": np.array([-0.5, 0.5, 0.6, 99.0])}, title="t")
        values, edges, _ = figures[0].axes[0].patches[0].get_data()
        assert (values * np.diff(edges)).sum() == pytest.approx(0.75)

    @pytest.mark.parametrize(("n_voxels", "n_bins"), [(5, 12), (100, 20), (3000, 90)])
    def test_few_voxels_are_counted_in_wide_bins(self, n_voxels: int, n_bins: int, figures: list[Figure]) -> None:
        """The z of a hundred voxels in 90 bins were a comb."""
        charts.draw_distribution({"a": normal(n_voxels), "b": normal(n_voxels, 8)}, title="t")
        values, _, _ = figures[0].axes[0].patches[0].get_data()
        assert len(values) == n_bins

    def test_names_beyond_the_dashes_differ_by_colour(self, figures: list[Figure]) -> None:
        charts.draw_distribution({str(i): normal(100) for i in range(8)}, title="t")
        looks = [(patch.get_edgecolor(), patch.get_linestyle()) for patch in figures[0].axes[0].patches]
        assert len(set(map(str, looks))) == 8


class TestSessions:
    def test_sessions_have_a_band_of_their_own_intervals_and_whiskers_of_all_at_once(
        self, figures: list[Figure]
    ) -> None:
        effects = normal(36).reshape(12, 3)
        found = session_intervals(effects)
        picture = charts.draw_sessions(
            [SessionPanel("here", effects, {"mean": (0.0, -1.0, 1.0)}, found)], list("abc"), unit="%", title="t"
        )
        axes = figures[0].axes[0]
        band = next(part for part in axes.collections if isinstance(part, PolyCollection)).get_paths()[0].vertices
        assert {tuple(point) for point in band} >= {(x, end) for x, ends in enumerate(found.of_each) for end in ends}
        whiskers = next(lines for lines in axes.collections if isinstance(lines, LineCollection)).get_segments()
        np.testing.assert_allclose(np.array(whiskers)[:, :, 1], found.of_all)
        assert "in a band of its 95 % interval" in picture.caption and "all sessions at once" in picture.caption

    def test_a_line_per_participant_goes_on_over_a_missing_session(self, figures: list[Figure]) -> None:
        effects = np.array([[1.0, np.nan, 3.0], [4.0, 5.0, np.nan]])
        panel = SessionPanel("here", effects, {"b": (2.0, 1.0, 3.0), "mean": (2.5, 2.0, 3.5)})
        charts.draw_sessions([panel], ["a", "b", "c"], unit="%", title="t")
        axes = figures[0].axes[0]
        grey = next(line for line in axes.lines if line.get_color() == "#A6A6A6")
        np.testing.assert_array_equal(grey.get_xydata(), [[0, 1], [2, 3], [np.nan] * 2, [0, 4], [1, 5], [np.nan] * 2])
        red = [line for line in axes.lines if line.get_color() == charts.ACCENT and line.get_marker() in "oD"]
        assert [line.get_ydata().tolist() for line in red] == [[2.0], [2.5]]
        assert red[0].get_xdata()[0] == 1
        assert red[1].get_xdata()[0] > 3, "a session contrast stands apart"
        intervals = np.concatenate([lines.get_segments() for lines in axes.collections])[:, :, 1]
        np.testing.assert_array_equal(intervals, [[1.0, 3.0], [2.0, 3.5]])
        low, high = axes.get_ylim()
        assert low < 0 < 5 < high, "zero is shown"

    def test_an_estimate_in_units_of_its_own_has_them_in_the_caption(self) -> None:
        panel = SessionPanel("here", normal(6).reshape(3, 2), {"mean": (0.0, -1.0, 1.0)})
        found = [
            charts.draw_sessions([panel], ["a", "b"], unit="%", title="t", unit_of_estimate=unit).caption
            for unit in ("", "%", "% per unit of 'days'")
        ]
        assert found[0] == found[1]
        assert "estimate and its 95 % interval, in % per unit of 'days'. " in found[2]

    def test_panels_share_their_axis_of_effects_and_are_as_wide_as_a_telephone(self, figures: list[Figure]) -> None:
        panels = [SessionPanel("", np.full((2, 2), value)) for value in (1.0, -5.0, 2.0)]
        charts.draw_sessions(panels, ["a", "b"], unit="%", title="t")
        assert {axes.get_ylim() for axes in figures[0].axes} == {figures[0].axes[0].get_ylim()}
        assert figures[0].get_size_inches()[0] * 96 <= 423


def draw_participants(table: pd.DataFrame, *marked: str) -> Picture:
    strips = {"correlation": "r", "mean": "mean effect", "spread": "spread"}
    return charts.draw_participants(table, strips, marked=marked, title="t", caption="Diamond: far from all others.")


class TestParticipants:
    def test_those_who_are_named_are_marked_and_nobody_else(self, figures: list[Figure]) -> None:
        """It marked somebody in a quarter of ordinary studies of twelve, by a rule of its own."""
        table = participants(20)
        table.loc[4, "mean"] = 30.0
        picture = draw_participants(table, "003")
        assert picture.alt == "t; marked: sub-003"
        bold = [text.get_text() for text in figures[0].axes[0].texts if text.get_weight() == "bold"]
        assert bold == ["sub-003"]
        diamonds = [np.flatnonzero(np.isfinite(axes.lines[-1].get_xdata())).tolist() for axes in figures[0].axes]
        assert diamonds == [[3], [3], [3]]
        assert draw_participants(table).alt == "t; marked: nobody"

    def test_numbers_of_voxels_have_whole_ticks_where_one_is_missing_too(self, figures: list[Figure]) -> None:
        table = participants(8).assign(correlation=[2.0, 6.0, 3.0, np.nan, 2.0, 3.0, 5.0, 2.0])
        draw_participants(table)
        ticks, others = (figures[0].axes[index].get_xticks() for index in (0, 2))
        assert not (ticks % 1).any()
        assert (others % 1).any()

    def test_hundreds_are_named_only_where_they_are_marked(self) -> None:
        shown = texts(draw_participants(participants(300), "007"))
        assert [text for text in shown if text.startswith("sub-")] == ["sub-007"]


class TestCalibration:
    @pytest.mark.slow
    def test_a_bar_is_as_long_as_the_power(self, figures: list[Figure]) -> None:
        for power in (0.25, 1.0, np.nan):
            draw_calibration(rates("marginal", power=power), LIMITS)
        widths = [figure.axes[-1].patches[-1].get_width() for figure in figures]
        assert widths == [25, 100, 0]

    @pytest.mark.parametrize(("limit", "is_open"), [(0.058, True), (0.2, False)])
    def test_a_rate_above_its_limit_is_open(self, limit: float, is_open: bool, figures: list[Figure]) -> None:
        draw_calibration(rates("session-model", rate=0.1), {0.05: limit})
        rate, power = figures[0].axes[0].collections[-1], figures[0].axes[1].patches[-1]
        assert rate.get_offsets()[:, 0].tolist() == [0.1]
        assert [to_hex(found.get_facecolor()) == "#ffffff" for found in (rate, power)] == [is_open] * 2

    def test_a_rate_beyond_the_axis_is_at_its_end_and_in_numbers(self, figures: list[Figure]) -> None:
        assert "0.01 %" in texts(draw_calibration(rates("marginal", rate=1e-4), LIMITS))
        axes = figures[0].axes[0]
        assert axes.collections[-1].get_offsets()[0, 0] == axes.get_xlim()[0]

    def test_a_question_is_named_once_and_who_declines_has_no_number(self) -> None:
        table = pd.concat([rates("a", "b"), rates("b", rate=np.nan, power=np.nan).assign(label="r", question="other")])
        shown = texts(draw_calibration(table, LIMITS))
        assert sum(text.endswith(": a") or text.endswith(": b") for text in shown) == 2
        assert {"b", "other: b"} <= set(shown)
        assert shown.count("n/a") == 3


def test_titles_take_one_line_and_long_names_keep_both_ends() -> None:
    (title,) = (text for text in texts(charts.draw_distribution({}, title="word " * 200 + "end")) if "word" in text)
    assert title.endswith("end")
    assert len(title) < 80
    assert charts.plain("a" * 30 + "_run-2", 12) == "aaaaa…_run-2"
    assert charts.plain("two\nlines\tand\x1b[0m") == "two lines and [0m"


@pytest.mark.slow
def test_labels_of_lines_do_not_lie_on_each_other(figures: list[Figure]) -> None:
    for case in ("design 120 60", "correlation 40", "events (100, 40, 3)"):
        CASES[case]()
        axes = figures[-1].axes[0]
        upright = sorted(
            (text.get_window_extent() for text in axes.texts if text.get_rotation()), key=lambda box: box.x0
        )
        level = sorted(
            (text.get_window_extent() for text in axes.texts if not text.get_rotation()), key=lambda box: box.y0
        )
        assert all(first.x1 <= second.x0 + 2 for first, second in itertools.pairwise(upright))
        assert all(first.y1 <= second.y0 + 2 for first, second in itertools.pairwise(level))
