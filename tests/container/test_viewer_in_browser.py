"""The viewer of a page as a reader uses it: in Chromium, its graphics computed in software."""

from __future__ import annotations

import dataclasses
import io
import shutil
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import nibabel as nib
import numpy as np
import pytest
from axe_playwright_python.sync_playwright import Axe
from matplotlib import colormaps
from PIL import Image
from playwright.sync_api import Browser, Locator, Page, Playwright, expect, sync_playwright
from scipy.ndimage import gaussian_filter
from scipy.spatial.transform import Rotation

from sessionfx.report.page import ReportPage, section_path, write_section
from sessionfx.report.viewer import ViewerMap, viewer_data
from sessionfx.space.grid import Grid

pytestmark = pytest.mark.container

SHAPE = (40, 46, 38)
# x runs from right to left, as in many files
AFFINE = np.array([[-4.0, 0, 0, 78], [0, 4, 0, -92], [0, 0, 4, -60], [0, 0, 0, 1]])
TURN = np.eye(4)
TURN[:3, :3] = Rotation.from_euler("zyx", [25, 10, -5], degrees=True).as_matrix()


def places_of(affine: np.ndarray) -> np.ndarray:
    """Where the voxels of a grid lie, in mm."""
    return np.moveaxis(np.einsum("ij,jxyz->ixyz", affine[:3, :3], np.indices(SHAPE)), 0, -1) + affine[:3, 3]


PLACES = places_of(AFFINE)
BRAIN = np.linalg.norm(PLACES / [66, 80, 62] - [0, -0.1, 0.15], axis=-1) < 1
BLOB = (-42, 8, 28)
STRATEGIES = ("Summary statistics", "Marginal model", "Mixed model")
SOFTWARE = ("--use-angle=swiftshader", "--enable-unsafe-swiftshader")


def made_map(seed: int, threshold: float = 3.0, strategy: str = STRATEGIES[0], contrast: str = "mean") -> ViewerMap:
    values = gaussian_filter(np.random.default_rng(seed).standard_normal(SHAPE), 1.5)
    values = values / values.std() + 7 * np.exp(-np.sum((PLACES - BLOB) ** 2, axis=-1) / 100)
    known = BRAIN & (PLACES[..., 2] > -30 + 10 * (seed % 3))  # maps differ in where they have values
    return ViewerMap(
        key=f"{contrast} {strategy}",
        session_contrast=contrast,
        strategy=strategy,
        values=np.where(known, values, np.nan),
        threshold=threshold,
        vmax=9.0,
    )


MAPS = [
    made_map(seed, threshold, strategy, contrast)
    for seed, (contrast, strategy, threshold) in enumerate(
        (contrast, strategy, threshold)
        for contrast in ("mean", "ses-02 - ses-01")
        for strategy, threshold in zip(STRATEGIES, (3.0, 2.7, np.inf), strict=True)
    )
]
ROWS = """<table><thead><tr><th scope="col">Peak</th><th scope="col">z</th></tr></thead><tbody>
<tr data-viewer-at="-42 8 28"><td>−42 8 28</td><td>7.2</td></tr>
<tr data-viewer-at="30 -40 12" data-viewer-map="ses-02 - ses-01 Mixed model"><td>30 −40 12</td><td>1.0</td></tr>
</tbody></table><p>Also <span data-viewer-at="2 4 8">in the middle</span>.</p>"""


def write_page(folder: Path, *sections: str) -> Path:
    for number, html in enumerate(sections):
        write_section(
            section_path(folder / "figures", f"section-{number}"),
            f"Contrast {number}",
            html,
        )
    ReportPage(path=folder / "group.html", folder=folder / "figures", title="Group", lead="Made maps").assemble()
    return folder / "group.html"


@pytest.fixture(scope="module")
def page_file(tmp_path_factory: pytest.TempPathFactory) -> Path:
    anatomy = np.where(BRAIN, 100 + PLACES[..., 0] / 2, 0)
    first, second = (viewer_data(maps, anatomy, AFFINE, Grid(SHAPE, AFFINE)) for maps in (MAPS, MAPS[:2]))
    end = "<p>The end of it.</p>"
    closed = (
        f"<details><summary>More</summary>{second}</details><p><span data-viewer-at='10 20 12'>Closed</span></p>{end}"
    )
    return write_page(tmp_path_factory.mktemp("page"), f"{first}{ROWS}{end}", closed)


@pytest.fixture(scope="module")
def playwright() -> Iterator[Playwright]:
    if shutil.which("chromium") is None:
        pytest.skip("Chromium is not installed (tests/container/tools/install).")
    with sync_playwright() as playwright:
        yield playwright


def launch(playwright: Playwright, *flags: str) -> Browser:
    return playwright.chromium.launch(executable_path=shutil.which("chromium"), args=list(flags))


@pytest.fixture(scope="module")
def browser(playwright: Playwright) -> Iterator[Browser]:
    browser = launch(playwright, *SOFTWARE)
    yield browser
    browser.close()


@dataclasses.dataclass
class Reader:
    """Somebody who reads the page, and what the browser complained of or asked for meanwhile."""

    page: Page
    complaints: list[str] = dataclasses.field(default_factory=list)
    requests: list[str] = dataclasses.field(default_factory=list)

    def opens(self) -> float:
        """Open the first viewer that is closed and wait until it shows values; give the seconds."""
        before = time.monotonic()
        self.page.get_by_role("button", name="Explore in 3-D viewer").first.click()
        self.waits()
        return time.monotonic() - before

    def waits(self) -> None:
        expect(self.page.locator(".viewer-panel[aria-busy=false]").filter(visible=True)).to_be_attached(timeout=300_000)

    def goes_to(self, mm: np.ndarray) -> None:
        for name, value in zip("xyz", mm, strict=True):
            box = self.control(name)
            box.fill(f"{value:.2f}")
            box.press("Enter")

    def control(self, label: str) -> Locator:
        """A control of the viewer that is open."""
        return self.page.get_by_label(label, exact=len(label) == 1).filter(visible=True)

    @property
    def place(self) -> list[float]:
        return [float(self.control(name).input_value()) for name in "xyz"]

    @property
    def values(self) -> dict[str, str]:
        rows = self.page.locator(".viewer-values tbody tr").filter(visible=True).all_inner_texts()
        return {row.split("\t")[0]: row.split("\t")[1] for row in rows}

    @property
    def picture(self) -> np.ndarray:
        """The canvas in RGB, once it no longer changes."""
        canvas, last = self.page.locator(".viewer-stage canvas"), b""
        while (png := canvas.screenshot()) != last:
            last = png
        return np.asarray(Image.open(io.BytesIO(png)).convert("RGB")).astype(int)


@pytest.fixture
def new_reader(browser: Browser, page_file: Path) -> Iterator[Callable[..., Reader]]:
    contexts = []

    def make(browser: Browser = browser, path: Path = page_file, **options: object) -> Reader:
        contexts.append(browser.new_context(**options))  # type: ignore[arg-type]
        reader = Reader(contexts[-1].new_page())
        reader.page.on("request", lambda request: reader.requests.append(request.url))
        reader.page.on("pageerror", lambda error: reader.complaints.append(str(error)))
        reader.page.on(
            "console", lambda line: reader.complaints.append(line.text) if line.type in {"error", "warning"} else None
        )
        reader.page.goto(path.as_uri())
        return reader

    yield make
    for context in contexts:
        context.close()


@pytest.fixture
def reader(new_reader: Callable[..., Reader]) -> Reader:
    return new_reader()


def test_values_at_100_places_are_those_of_the_files(reader: Reader, tmp_path: Path) -> None:
    for number, stat_map in enumerate(MAPS[:3]):
        nib.save(nib.Nifti1Image(stat_map.values.astype(np.float32), AFFINE), tmp_path / f"{number}.nii.gz")
    files = [nib.load(tmp_path / f"{number}.nii.gz") for number in range(3)]
    inside = np.argwhere(BRAIN)
    rng = np.random.default_rng(7)
    reader.opens()
    compared = 0
    for voxel in rng.choice(inside, 100, replace=False) + rng.uniform(-0.45, 0.45, (100, 3)):
        mm = np.round(AFFINE[:3, :3] @ voxel + AFFINE[:3, 3], 2)
        reader.goes_to(mm)
        shown = reader.values
        index = tuple(np.rint(np.linalg.solve(files[0].affine, [*mm, 1])[:3]).astype(int))
        for image, strategy in zip(files, STRATEGIES, strict=True):
            expected = float(image.dataobj[index])
            if np.isnan(expected):
                assert shown[strategy] == "no value here"
                continue
            value, unit, *rest = shown[strategy].replace("\u2212", "-").split()
            assert unit.startswith("z")
            assert bool(rest) == (abs(expected) >= MAPS[STRATEGIES.index(strategy)].threshold)
            assert abs(float(value) - expected) <= (0.01 if abs(expected) >= 2 else 0.05) + 1e-6
            compared += 1
    assert compared > 150
    assert reader.complaints == []


def test_the_viewer_opens_at_the_peak_and_asks_for_nothing(
    reader: Reader, page_file: Path, report: Callable[[str], None]
) -> None:
    seconds = reader.opens()
    report(f"viewer opened in {seconds:.1f} s (software graphics)")
    peak = PLACES[np.unravel_index(np.nanargmax(np.abs(MAPS[0].values)), SHAPE)]
    assert reader.place == pytest.approx(peak.tolist())
    reader.control("3-D view").check()
    assert reader.picture.max() > 100
    assert reader.requests == [page_file.as_uri()]
    assert reader.complaints == []


def test_left_is_on_the_left_in_the_colours_of_the_pictures(reader: Reader) -> None:
    reader.opens()
    reader.goes_to(np.array([2.0, 40.0, 28.0]))
    picture = reader.picture
    z = float(MAPS[0].values[tuple(np.rint(np.linalg.solve(AFFINE, [*BLOB, 1])[:3]).astype(int))])
    colour = np.array(colormaps["RdBu_r"](0.5 + z / 18, bytes=True)[:3]).astype(int)
    rows, columns = np.nonzero(np.abs(picture - colour).max(axis=-1) <= 3)
    assert rows.size > 20, "the peak is drawn in the colour of its value"
    green = (picture[..., 1] > 200) & (picture[..., 0] < 80)
    crosshair = np.flatnonzero(green.mean(axis=0) > 0.3)[0]  # the first of three slices: axial
    assert columns.max() < crosshair


@pytest.mark.parametrize("anatomy_affine", [AFFINE, TURN @ AFFINE], ids=["straight anatomy", "oblique anatomy"])
def test_the_crosshair_lies_on_the_peak_of_an_oblique_map(
    new_reader: Callable[..., Reader], tmp_path: Path, anatomy_affine: np.ndarray
) -> None:
    affine = TURN @ AFFINE
    away = np.linalg.norm(places_of(affine) - BLOB, axis=-1)
    stat_map = dataclasses.replace(MAPS[0], values=np.where(away < 9, 9 - away / 10, 0.0))
    anatomy = (np.linalg.norm(places_of(anatomy_affine), axis=-1) < 70).astype(float)
    page = write_page(tmp_path, viewer_data([stat_map], anatomy, anatomy_affine, Grid(SHAPE, affine)))
    reader = new_reader(path=page)
    reader.opens()
    assert np.linalg.norm(np.array(reader.place) - BLOB) < 4
    picture = reader.picture
    picture = picture[:, : picture.shape[1] // 3]  # axial
    rows, columns = np.nonzero((picture[..., 0] > 80) & (picture[..., 1] < 60) & (picture[..., 2] < 80))
    green = (picture[..., 1] > 200) & (picture[..., 0] < 80)
    assert rows.size > 20
    assert abs(rows.mean() - green.mean(axis=1).argmax()) < 5
    assert abs(columns.mean() - green.mean(axis=0).argmax()) < 5


def test_threshold_and_opacity_change_the_picture(reader: Reader) -> None:
    def red(picture: np.ndarray) -> int:
        return int(((picture[..., 0] > picture[..., 2] + 90) & (picture[..., 1] < 130)).sum())

    reader.opens()
    usual = red(reader.picture)
    slider = reader.control("Threshold")
    slider.press("End")
    expect(reader.page.locator(".viewer-shown").first).to_have_text("9.00 z")
    assert red(reader.picture) < usual / 2
    slider.press("Home")
    assert red(reader.picture) >= usual > 50
    reader.control("Opacity").press("Home")
    assert red(reader.picture) == 0


def test_lists_choose_the_map_and_its_threshold(reader: Reader) -> None:
    reader.opens()
    reader.goes_to(np.array([30.0, -40.0, 12.0]))
    first, rows = reader.values, reader.page.locator(".viewer-values tbody").filter(visible=True)
    before = rows.inner_text()
    reader.control("Session contrast").select_option("ses-02 - ses-01")
    expect(rows).not_to_have_text(before, use_inner_text=True)  # the map is unpacked first
    assert reader.values.keys() == first.keys()
    reader.control("Strategy").select_option("Marginal model")
    expect(reader.page.locator(".viewer-shown").first).to_have_text("2.70 z")
    reader.control("Strategy").select_option("Mixed model")
    expect(reader.page.locator(".viewer-shown").first).to_have_text("none passed")


def test_a_click_into_a_slice_moves_the_crosshair_to_a_voxel(reader: Reader) -> None:
    reader.opens()
    before = reader.place
    box = reader.page.locator(".viewer-stage canvas").bounding_box()
    assert box is not None
    reader.page.mouse.click(box["x"] + box["width"] / 6 + 31, box["y"] + box["height"] / 2 + 17)
    place = np.array(reader.place)
    assert np.abs(place - before).max() > 4
    voxel = np.linalg.solve(AFFINE, [*place, 1])[:3]
    assert np.allclose(voxel, np.rint(voxel), atol=0.03)
    value = MAPS[0].values[tuple(np.rint(voxel).astype(int))]
    shown = reader.values[STRATEGIES[0]]
    assert (
        shown == "no value here"
        if np.isnan(value)
        else abs(float(shown.split()[0].replace("\u2212", "-")) - value) <= 0.05
    )


def test_rows_open_the_viewer_at_their_place_and_map(reader: Reader) -> None:
    page = reader.page
    page.get_by_text("in the middle").click()
    reader.waits()
    expect(page.locator(".viewer-values caption").first).to_have_text("mean at 2 4 8 mm")
    page.get_by_role("cell", name="1.0").click()  # anywhere in the row
    expect(page.locator(".viewer-values caption").first).to_have_text("ses-02 - ses-01 at 30 \u221240 12 mm")
    assert page.locator(".viewer-strategy option:checked").first.inner_text() == "Mixed model"


def test_everything_is_reached_by_keyboard(reader: Reader) -> None:
    page = reader.page
    page.get_by_role("button", name="\u221242 8 28").focus()
    page.keyboard.press("Enter")
    reader.waits()
    assert reader.place == [-42, 8, 28]
    canvas = page.get_by_role("application")
    canvas.focus()
    for key in ("ArrowRight", "ArrowUp", "ArrowUp", "PageDown"):
        page.keyboard.press(key)
    assert reader.place == [-38, 16, 24]
    page.get_by_role("button", name="Close 3-D viewer").focus()
    reached = []
    for _ in range(9):
        page.keyboard.press("Tab")
        reached.append(page.evaluate("document.activeElement.className || document.activeElement.tagName"))
    assert reached == [
        f"viewer-{name}" for name in ("contrast", "strategy", "threshold", "opacity", "mm", "mm", "mm", "render")
    ] + ["CANVAS"]
    page.keyboard.press("Shift+Tab")
    page.keyboard.press("Space")
    expect(reader.control("3-D view")).to_be_checked()


def test_one_viewer_is_open_at_a_time(reader: Reader) -> None:
    reader.opens()
    reader.goes_to(np.array([2.0, 4.0, 8.0]))
    reader.page.get_by_role("button", name="Closed").click()  # of the other section, where its viewer is folded away
    reader.waits()
    assert reader.place == [10, 20, 12]
    assert reader.page.locator(".viewer-stage canvas").count() == 1
    assert reader.values.keys() == set(STRATEGIES[:2])
    reader.page.get_by_role("button", name="Close 3-D viewer").click()
    assert reader.page.locator(".viewer-stage canvas").count() == 0
    reader.opens()
    assert reader.place == [2, 4, 8]
    assert reader.complaints == []


@pytest.mark.parametrize("width", [390, 1280])
def test_axe_finds_no_violation_with_the_viewer_open(new_reader: Callable[..., Reader], width: int) -> None:
    reader = new_reader(viewport={"width": width, "height": 800})
    reader.opens()
    found = Axe().run(reader.page)
    assert found.violations_count == 0, found.generate_report()
    assert reader.page.evaluate("document.documentElement.scrollWidth") <= width


def test_paper_shows_places_but_no_viewer(reader: Reader) -> None:
    reader.opens()
    reader.page.emulate_media(media="print")
    expect(reader.page.get_by_text("in the middle")).to_be_visible()
    assert reader.page.locator(".viewer-panel, .viewer-open").filter(visible=True).count() == 0


def test_without_webgl_a_sentence_stands_in_its_place(
    playwright: Playwright, new_reader: Callable[..., Reader]
) -> None:
    browser = launch(playwright, "--disable-3d-apis")
    reader = new_reader(browser)
    reader.page.get_by_role("button", name="Explore in 3-D viewer").first.click()
    expect(reader.page.get_by_role("status").first).to_contain_text("no WebGL 2")
    assert reader.page.locator("canvas").filter(visible=True).count() == 0
    assert reader.control("Strategy").count() == 0
    reader.page.get_by_text("in the middle").click()
    expect(reader.page.get_by_text("The end of it.").first).to_be_visible()
    assert Axe().run(reader.page).violations_count == 0
    assert reader.complaints == []
    browser.close()


def test_without_javascript_the_page_is_complete_and_has_no_button(new_reader: Callable[..., Reader]) -> None:
    reader = new_reader(java_script_enabled=False)
    assert reader.page.locator("button, input, select, canvas").filter(visible=True).count() == 0
    text = reader.page.locator("main").inner_text()
    expected = "Contrast 0 Peak z −42 8 28 7.2 30 −40 12 1.0 Also in the middle. The end of it. Contrast 1 More Closed The end of it."
    assert " ".join(text.split()) == expected


def test_scripts_that_are_not_the_page_s_own_are_refused(reader: Reader) -> None:
    reader.page.evaluate(
        "() => { const script = document.createElement('script'); script.textContent = 'window.intruder = 1'; document.head.append(script); }"
    )
    assert reader.page.evaluate("window.intruder") is None
    assert "Content Security Policy" in reader.complaints[0]
