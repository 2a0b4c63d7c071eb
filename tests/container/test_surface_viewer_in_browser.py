"""The viewer of surfaces as a reader uses it: in Chromium, its graphics computed in software."""

from __future__ import annotations

import shutil
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from playwright.sync_api import Page, expect, sync_playwright

from sessionfx.report.brain import template
from sessionfx.report.cortex import cortex_of
from sessionfx.report.nilearn_files import fsaverage5_arrays
from sessionfx.report.page import ReportPage, section_path, write_section
from sessionfx.report.viewer import ViewerMap, surface_viewer_data, viewer_data
from sessionfx.space.grid import Grid
from sessionfx.space.surface import Surface

pytestmark = pytest.mark.container

N = 10242
SPACE = Surface("fsaverage5", {"L": N, "R": N})
PLACES = np.concatenate([fsaverage5_arrays(f"infl_{side}")[0] for side in ("left", "right")])
STRATEGIES = ("Summary statistics", "Marginal model")
OUTERMOST = int(PLACES[:N, 0].argmin())
INNERMOST = N + int(PLACES[N:, 0].argmin())


def made_map(number: int, strategy: str) -> ViewerMap:
    """Red in front and blue behind, with a wall that has no values."""
    noise = np.random.default_rng(number).normal(size=2 * N)
    values = np.where(np.arange(2 * N) % N < 100, np.nan, PLACES[:, 1] / 20 + noise)
    return ViewerMap(
        key=f"mean {strategy}", session_contrast="mean", strategy=strategy, values=values, threshold=3.0, vmax=9.0
    )


MAPS = [made_map(number, strategy) for number, strategy in enumerate(STRATEGIES)]


GRID = Grid((12, 14, 10), np.array([[3.0, 0, 0, -18], [0, 3, 0, -30], [0, 0, 3, -12], [0, 0, 0, 1]]))
BELOW = [
    replace(shown, values=np.random.default_rng(number).normal(scale=3, size=GRID.shape))
    for number, shown in enumerate(MAPS)
]


@pytest.fixture(scope="module")
def page(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Page]:
    if shutil.which("chromium") is None:
        pytest.skip("Chromium is not installed (tests/container/tools/install).")
    cortex = cortex_of(SPACE)
    assert cortex is not None
    jumps = "".join(
        f"<p><span data-viewer-at='{vertex} 0 0'>{name}</span></p>"
        for name, vertex in (("outermost", OUTERMOST), ("innermost", INNERMOST))
    )
    folder = tmp_path_factory.mktemp("page")
    jumps += "<p><span data-viewer-at='3 -6 9' data-viewer-of='below'>voxel</span></p>"
    below = viewer_data(BELOW, template().values, template().affine, GRID, below_cortex=True)
    html = f"{surface_viewer_data(MAPS, cortex, has_more=True)}{below}{jumps}"
    write_section(section_path(folder / "figures", "section"), "Contrast", html)
    path: Path = folder / "group.html"
    ReportPage(path=path, folder=folder / "figures", title="Group", lead="Made maps").assemble()
    with sync_playwright() as playwright:
        flags = ["--use-angle=swiftshader", "--enable-unsafe-swiftshader"]
        browser = playwright.chromium.launch(executable_path=shutil.which("chromium"), args=flags)
        page = browser.new_page()
        page.complaints = []  # type: ignore[attr-defined]
        page.on("pageerror", lambda error: page.complaints.append(str(error)))  # type: ignore[attr-defined]
        page.on("request", lambda request: page.complaints.append(request.url))  # type: ignore[attr-defined]
        page.goto(path.as_uri())
        page.complaints.clear()  # type: ignore[attr-defined]
        page.get_by_role("button", name="Explore the cortex").click()
        page.wait_for_selector(".viewer-panel[aria-busy=false]", timeout=300_000)
        yield page
        browser.close()


def shown(page: Page) -> tuple[int, list[str]]:
    """The vertex, by its place on the axis, and what the table says of both maps."""
    page.locator(".viewer-vertex").wait_for()
    number = int(page.locator(".viewer-vertex").input_value())
    start = N * int(page.locator(".viewer-hemisphere").input_value())
    return start + number, page.locator(".viewer-values tbody td").filter(visible=True).all_inner_texts()


def check_values(feature: int | tuple[int, ...], texts: list[str], maps: list[ViewerMap] = MAPS) -> None:
    for stat_map, text in zip(maps, texts, strict=True):
        expected = stat_map.values[feature]
        if np.isnan(expected):
            assert text == "no value here"
            continue
        value, unit, *rest = text.replace("\u2212", "-").split()
        assert unit.startswith("z")
        assert bool(rest) == (abs(expected) >= stat_map.threshold)
        assert abs(float(value) - expected) <= (0.01 if abs(expected) >= 2 else 0.05) + 1e-6


def test_values_at_vertices_are_those_of_the_maps(page: Page) -> None:
    vertices = np.random.default_rng(3).choice(2 * N, 30, replace=False)
    for vertex in [*vertices, 5, N + 5]:
        page.locator(".viewer-hemisphere").select_option(str(vertex // N))
        page.locator(".viewer-vertex").fill(str(vertex % N))
        page.locator(".viewer-vertex").press("Enter")
        found, texts = shown(page)
        assert found == vertex
        check_values(vertex, texts)


def test_a_row_jumps_to_its_vertex_and_hides_what_is_in_front(page: Page) -> None:
    for name, vertex, sees_both in (("outermost", OUTERMOST, True), ("innermost", INNERMOST, False)):
        page.get_by_role("button", name=name).click()
        page.wait_for_function(
            "number => Number(document.querySelector('.viewer-vertex').value) === number", arg=vertex % N
        )
        assert shown(page)[0] == vertex
        assert page.locator(".viewer-both").is_checked() == sees_both


def test_a_click_shows_the_value_at_the_vertex_that_is_seen_there(page: Page) -> None:
    """From the left the front is left: there values are high, and low behind."""
    page.get_by_role("button", name="outermost").click()
    page.wait_for_function(
        "number => Number(document.querySelector('.viewer-vertex').value) === number", arg=OUTERMOST % N
    )
    canvas = page.locator(".viewer-stage canvas")
    box = canvas.bounding_box()
    assert box is not None
    y_of = []
    for share in (-0.25, 0.25):
        before = shown(page)[0]
        canvas.click(position={"x": box["width"] / 2 + share * box["height"], "y": box["height"] / 2})
        page.wait_for_function(
            "number => Number(document.querySelector('.viewer-vertex').value) !== number", arg=before % N
        )
        vertex, texts = shown(page)
        check_values(vertex, texts)
        assert PLACES[vertex, 0] < 0
        assert vertex < N, "the left hemisphere"
        y_of.append(PLACES[vertex, 1])
    assert y_of[0] > 20
    assert y_of[1] < -20


def test_voxels_below_the_cortex_take_its_place_and_give_it_back(page: Page) -> None:
    page.locator(".viewer-strategy").filter(visible=True).select_option(label=STRATEGIES[1])
    page.get_by_role("button", name="voxel").click()
    panels = page.locator(".viewer-panel").filter(visible=True)
    expect(panels.locator(".viewer-values caption")).to_contain_text("3 \u22126 9 mm", timeout=300_000)
    expect(panels).to_have_count(1)
    expect(panels.locator(".viewer-strategy option:checked")).to_have_text(STRATEGIES[1])
    for voxel in [(7, 8, 7), *np.random.default_rng(5).integers(0, GRID.shape, (15, 3))]:
        place = GRID.affine @ [*voxel, 1]
        for value, field in zip(place[:3], panels.locator(".viewer-mm").all(), strict=True):
            field.fill(str(value))
            field.press("Enter")
        check_values(tuple(voxel), panels.locator("tbody td").all_inner_texts(), BELOW)
    page.get_by_role("button", name="outermost").click()
    expect(panels.locator(".viewer-vertex")).to_have_value(str(OUTERMOST % N), timeout=300_000)
    expect(panels).to_have_count(1)
    check_values(*shown(page))


def test_without_webgl_the_cortex_is_not_offered_and_why_is_said(page: Page) -> None:
    other = page.context.browser
    assert other is not None
    bare = other.new_page()
    bare.add_init_script("HTMLCanvasElement.prototype.getContext = () => null")
    bare.goto(page.url)
    bare.get_by_role("button", name="Explore the cortex").click()
    expect(bare.get_by_role("status").filter(visible=True)).to_contain_text("no WebGL 2")
    assert bare.locator(".viewer-controls").filter(visible=True).count() == 0
    bare.close()


def test_nothing_is_asked_for_and_nothing_fails(page: Page) -> None:
    assert page.complaints == []  # type: ignore[attr-defined]
