"""Whole pages of the program as a reader uses them: in Chromium, on paper, by keyboard, on a narrow screen."""

from __future__ import annotations

import io
import shutil
import subprocess
import unicodedata
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path

import pytest
from axe_playwright_python.sync_playwright import Axe
from playwright.sync_api import Browser, Locator, Page, expect, sync_playwright
from pypdf import PdfReader

from program import CONTRAST, run_command, simulated

pytestmark = pytest.mark.container

PAGES = ("group.html", "sub-01.html")
QUESTIONS = ("mean", "ses-02 - ses-01")
CLOSED = "details:not([open])"
# of which the reader sees a part only
HIDDEN_SIDEWAYS = "[...document.querySelectorAll('.scroll')].filter((part) => part.scrollWidth > part.clientWidth)"


OPTIONS = ("--contrast", CONTRAST, "--permutations", 20, "--calibrate", 4, "--nprocs", 1)
SPACES = {"volumes": (), "surface": ("--space", "fsaverage5"), "grayordinates": ("--space", "fsLR")}


@pytest.fixture(scope="module")
def dataset(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Six participants with two sessions, one missing, in all spaces."""
    folder = tmp_path_factory.mktemp("study")
    return simulated(
        folder, n_participants=6, voxel_size=12.0, mean_effect=4.0, missing=(("05", "02"),), n_runs=1,
        surfaces=("fsaverage5", "fsLR"),
    )  # fmt: skip


def analysed(dataset: Path, output: Path, *options: object) -> Path:
    done = run_command(dataset, output, "participant", "group", *OPTIONS, *options)
    assert done.returncode == 0, done.stderr
    return output


@pytest.fixture(scope="module", params=SPACES)
def output(dataset: Path, tmp_path_factory: pytest.TempPathFactory, request: pytest.FixtureRequest) -> Path:
    """Both levels in one space, with everything the pages can show."""
    return analysed(dataset, tmp_path_factory.mktemp("pages") / "out", *SPACES[request.param])


@pytest.fixture(scope="module")
def browser() -> Iterator[Browser]:
    if shutil.which("chromium") is None:
        pytest.skip("Chromium is not installed (tests/container/tools/install).")
    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=shutil.which("chromium"))
        yield browser
        browser.close()


@dataclass
class Reader:
    """Somebody who reads a page, and what the browser complained of or asked for meanwhile."""

    page: Page
    complaints: list[str] = field(default_factory=list)
    requests: list[str] = field(default_factory=list)

    @property
    def shown(self) -> Locator:
        """The session contrast that is shown."""
        return self.page.locator(".question").filter(visible=True)

    @property
    def map(self) -> Locator:
        """The map that is shown."""
        return self.page.locator(".map").filter(visible=True)

    def opens_everything(self) -> None:
        self.page.evaluate("document.querySelectorAll('details').forEach((part) => { part.open = true; })")

    def questions(self) -> Iterator[str]:
        """Go through the session contrasts; a page without a choice has one view only."""
        choices = self.page.get_by_role("group", name="Session contrast").get_by_role("radio")
        for number in range(choices.count()):
            choices.nth(number).check(force=True)
            yield QUESTIONS[number]
        if not choices.count():
            yield ""

    def focused(self) -> str:
        return str(self.page.evaluate("document.activeElement.parentElement.textContent.trim()"))

    def sees(self, place: Locator) -> bool:
        """Whether the beginning of an element is in the window."""
        box, size = place.bounding_box(), self.page.viewport_size
        assert size is not None
        return box is not None and -1 <= box["y"] < size["height"]


@pytest.fixture
def read(browser: Browser, output: Path) -> Iterator[Callable[..., Reader]]:
    contexts = []

    def open_page(name: str, width: int = 1280, **options: object) -> Reader:
        contexts.append(browser.new_context(viewport={"width": width, "height": 800}, **options))  # type: ignore[arg-type]
        reader = Reader(contexts[-1].new_page())
        reader.page.on("request", lambda request: reader.requests.append(request.url))
        reader.page.on("pageerror", lambda error: reader.complaints.append(str(error)))
        reader.page.on("console", lambda line: reader.complaints.append(line.text))
        reader.page.goto((output / name).as_uri())
        return reader

    yield open_page
    for context in contexts:
        context.close()


@pytest.mark.parametrize("scheme", ["light", "dark"])
@pytest.mark.parametrize("name", PAGES)
def test_axe_finds_no_violation(read: Callable[..., Reader], name: str, scheme: str) -> None:
    reader = read(name, color_scheme=scheme)
    for _ in reader.questions():
        reader.opens_everything()
        found = Axe().run(reader.page)
        assert found.violations_count == 0, found.generate_report()


def test_the_checker_of_the_w3c_finds_no_error(output: Path) -> None:
    if shutil.which("vnu") is None:
        pytest.skip("vnu is not installed (tests/container/tools/install).")
    command = ["vnu", "--errors-only", *(output / name for name in PAGES)]
    done = subprocess.run(command, capture_output=True, text=True, timeout=600)
    assert done.returncode == 0, done.stderr[:3000]


@pytest.mark.parametrize("name", PAGES)
def test_no_request_leaves_the_file_and_every_link_leads_to_a_file(
    read: Callable[..., Reader], output: Path, name: str
) -> None:
    reader = read(name)
    for _ in reader.questions():
        reader.opens_everything()
        broken = "[...document.images].filter((image) => image.checkVisibility() && !image.naturalWidth).length"
        assert reader.page.evaluate(broken) == 0
    assert reader.requests.count((output / name).as_uri()) == 1
    assert [url for url in reader.requests if not url.startswith(("data:", "file:"))] == []
    assert reader.complaints == []
    links = reader.page.locator("a").evaluate_all("(links) => links.map((link) => link.getAttribute('href'))")
    for link in links:
        assert link.startswith("#") or (output / link).is_file(), link


@pytest.mark.parametrize("name", PAGES)
def test_every_entry_of_the_contents_leads_to_something_seen(read: Callable[..., Reader], name: str) -> None:
    reader = read(name)
    entries = reader.page.locator("nav a")
    contents = reader.page.locator("nav details")
    for entry in [*entries.all(), entries.first]:
        contents.evaluate("(part) => { part.open = true; }")
        target = reader.page.locator(str(entry.get_attribute("href")))
        entry.click()
        expect(target).to_be_visible()
        assert target.evaluate("(part) => part.tagName !== 'DETAILS' || part.open")
        assert reader.sees(target), entry.inner_text()


def test_every_session_contrast_and_strategy_is_in_the_contents(read: Callable[..., Reader]) -> None:
    reader = read("group.html")
    entries = reader.page.locator("nav a").evaluate_all("(links) => links.map((link) => link.getAttribute('href'))")
    parts = reader.page.locator("article[id], article details[id]").evaluate_all(
        "(parts) => parts.map(({id}) => '#' + id)"
    )
    assert len(parts) >= 2 * len(QUESTIONS)
    assert set(parts) <= set(entries)


def test_an_entry_of_the_contents_leads_there_a_second_time(read: Callable[..., Reader]) -> None:
    reader = read("group.html")
    entry = reader.page.locator("nav a").get_by_text(QUESTIONS[0], exact=True)
    for _ in range(2):
        reader.page.get_by_label(QUESTIONS[1], exact=True).check(force=True)
        reader.page.locator("nav details").evaluate("(part) => { part.open = true; }")
        entry.click()
        expect(reader.shown).to_have_attribute("data-title", QUESTIONS[0])


@pytest.mark.parametrize("width", [390, 768, 1280])
@pytest.mark.parametrize("name", PAGES)
def test_no_page_scrolls_sideways(
    read: Callable[..., Reader], name: str, width: int, report: Callable[[str], None]
) -> None:
    reader = read(name, width)
    assert reader.page.evaluate("document.documentElement.scrollWidth") <= width
    cut = set()
    for _ in reader.questions():
        reader.opens_everything()
        assert reader.page.evaluate("document.documentElement.scrollWidth") <= width
        cut |= set(reader.page.evaluate(f"{HIDDEN_SIDEWAYS}.map((part) => part.innerText.slice(0, 60))"))
    if width == 1280:
        report(f"{name} at 1280 px: a scroll bar under {sorted(cut) or 'nothing'}")
        assert cut == set()


def test_the_recommended_map_is_seen_without_scrolling(read: Callable[..., Reader]) -> None:
    reader = read("group.html")
    box = reader.map.locator("img").bounding_box()
    assert box is not None
    assert box["y"] + box["height"] <= 800
    assert box["x"] + box["width"] <= 1280


def test_keys_choose_the_map_and_the_focus_stays(read: Callable[..., Reader]) -> None:
    reader = read("group.html")
    keyboard = reader.page.keyboard
    reached: list[str] = []
    while len(reached) < 6 and not (reached and reached[-1] == "z"):
        keyboard.press("Tab")
        reached.append(reader.focused())
    assert reached[-3] == "mean", reached
    pictures = {reader.map.locator("img").get_attribute("src")}
    keyboard.press("ArrowRight")
    assert reader.focused() == "effect"
    pictures.add(reader.map.locator("img").get_attribute("src"))
    keyboard.press("ArrowLeft")
    keyboard.press("Shift+Tab")
    strategy = reader.focused()
    assert reader.map.get_attribute("data-strategy") == strategy
    keyboard.press("ArrowRight")
    assert reader.focused() != strategy
    assert reader.focused().startswith(str(reader.map.get_attribute("data-strategy")))
    pictures.add(reader.map.locator("img").get_attribute("src"))
    assert len(pictures) == 3
    keyboard.press("Shift+Tab")
    keyboard.press("ArrowRight")
    assert reader.focused() == QUESTIONS[1]
    expect(reader.shown).to_have_attribute("data-title", QUESTIONS[1])
    assert reader.map.count() == 1


def test_what_scrolls_sideways_is_reached_by_keyboard_and_nothing_else(read: Callable[..., Reader]) -> None:
    for width in (390, 1280):
        reader = read("group.html", width)
        reader.opens_everything()
        expect(reader.page.locator(".scroll[tabindex]").first).to_be_attached(attached=width == 390)
        assert reader.page.evaluate(f"{HIDDEN_SIDEWAYS}.every((part) => part.tabIndex === 0)")


def test_the_sentence_is_copied(read: Callable[..., Reader]) -> None:
    reader = read("group.html", permissions=["clipboard-read", "clipboard-write"])
    reader.page.get_by_role("button", name="Copy the sentence").click()
    expect(reader.page.get_by_role("button", name="Copied")).to_be_visible()
    copied = reader.page.evaluate("navigator.clipboard.readText()")
    assert copied.startswith("Report the ")
    assert copied == " ".join(reader.shown.locator(".answer p").first.inner_text().split())


@pytest.mark.parametrize("name", PAGES)
def test_without_javascript_everything_is_there_and_no_control_is_dead(read: Callable[..., Reader], name: str) -> None:
    reader = read(name, java_script_enabled=False)
    assert reader.page.locator("button, input, select, fieldset").filter(visible=True).count() == 0
    if name == "group.html":
        expect(reader.shown).to_have_count(len(QUESTIONS))
        expect(reader.page.locator(f".map:not({CLOSED} *)")).to_have_count(len(QUESTIONS))
    while (closed := reader.page.locator(f"{CLOSED}:not({CLOSED} *) > summary")).count():
        closed.first.click()
    pictures = reader.page.locator("img")
    expect(pictures.filter(visible=True)).to_have_count(pictures.count())


def paper_of(reader: Reader) -> str:
    pages = PdfReader(io.BytesIO(reader.page.pdf(format="A4"))).pages
    return " ".join(" ".join(page.extract_text() for page in pages).split())


def packed(text: str) -> str:
    """Without white space and ligatures, which a PDF does not keep."""
    return "".join(unicodedata.normalize("NFKC", text).split())


def test_paper_has_the_answer_to_every_session_contrast_and_what_is_shown(read: Callable[..., Reader]) -> None:
    reader = read("group.html")
    reader.page.get_by_role("radio", name="effect").check(force=True)
    chosen = reader.map.locator("figcaption").inner_text()
    answers = reader.page.locator(".answer > p:first-child").all_text_contents()
    closed = reader.page.locator("details:not(.paper, .caution) > :not(summary)").all_text_contents()
    paper = packed(paper_of(reader))
    assert len(answers) == len(QUESTIONS)
    for text in (*answers, chosen, *reader.shown.locator(f"td:not({CLOSED} *)").all_inner_texts()):
        assert packed(text) in paper
    for text in closed:
        assert len(packed(text)) < 40 or packed(text)[:200] not in paper
    of_cuts, of_cortex = (paper.lower().count(words) for words in ("leftisleft", "isinthefolds"))
    assert max(of_cuts, of_cortex) == len(QUESTIONS), "one map for each"
    expect(reader.page.locator(".question:not([hidden]) details.paper[open]")).to_have_count(1)


def test_paper_of_a_participant_has_the_maps_and_keeps_the_machinery_closed(read: Callable[..., Reader]) -> None:
    reader = read("sub-01.html")
    shown = reader.page.locator(f"figcaption:not({CLOSED} *), td:not({CLOSED} *)").all_inner_texts()
    paper = packed(paper_of(reader))
    for text in shown:
        assert packed(text) in paper
    assert "Methods,tobequoted" in paper
    assert packed(reader.page.locator(".methods p").first.text_content() or "")[:100] not in paper


def test_pages_are_small(output: Path, report: Callable[[str], None]) -> None:
    for name, most in zip(PAGES, (10e6, 4e6), strict=True):
        size = (output / name).stat().st_size
        report(f"{name} in {output.parent.name}: {size / 1e6:.1f} MB")
        assert size < most


def test_volumes_and_surfaces_of_a_study_are_sections_of_one_page_that_name_each_other(
    dataset: Path, browser: Browser, tmp_path: Path
) -> None:
    for options in SPACES.values():
        folder = analysed(dataset, tmp_path / "out", *options)
    for name in PAGES:
        page = browser.new_page(viewport={"width": 1280, "height": 800})
        page.goto((folder / name).as_uri())
        sections = page.locator("main > section").filter(has=page.get_by_text("Also in:"))
        titles = sections.locator("h2").all_inner_texts()
        assert [title.partition(" · ")[2].split()[0] for title in titles] == ["volume", "grayordinates", "surface"]
        headings = page.locator("h2").all_inner_texts()
        assert len(set(headings)) == len(headings)
        contents = page.locator("nav > details > ul > li > a").evaluate_all(
            "(all) => all.map((part) => part.textContent)"
        )
        assert contents == headings
        for number, features in enumerate(("voxel", "grayordinate", "vert")):
            facts = sections.nth(number).locator(".facts").first
            text = sections.nth(number).inner_text().replace(facts.inner_text(), "").lower()
            others = {"voxel", "grayordinate", "vert"} - {features}
            assert features in text
            # but for links to the others, and peaks, which are at a vertex
            assert not [other for other in others if f" {other}ices " in text or f" {other}s " in text]
            links = facts.locator("a")
            assert links.count() == 2
            for link in links.all():
                assert str(link.inner_text()) in " ".join(titles)
                expect(page.locator(str(link.get_attribute("href"))).locator("h2")).to_contain_text(link.inner_text())
        assert Axe().run(page).violations_count == 0
        page.close()
