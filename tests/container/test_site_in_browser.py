"""The documentation site as a reader opens it, served from this machine, in Chromium."""

from __future__ import annotations

import functools
import shutil
import threading
from collections.abc import Iterator
from http.server import SimpleHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import pytest
from playwright.sync_api import Page, expect, sync_playwright

from docs_site import build_site

pytestmark = pytest.mark.container


class Quiet(SimpleHTTPRequestHandler):
    """Serves files and says nothing."""

    def log_message(self, *_: object) -> None:
        pass


@pytest.fixture(scope="module")
def site(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return build_site(tmp_path_factory.mktemp("site"))


@pytest.fixture(scope="module")
def address(site: Path) -> Iterator[str]:
    with ThreadingHTTPServer(("127.0.0.1", 0), functools.partial(Quiet, directory=site)) as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        yield f"http://127.0.0.1:{server.server_port}/"
        server.shutdown()


@pytest.fixture(scope="module")
def page() -> Iterator[Page]:
    if shutil.which("chromium") is None:
        pytest.skip("needs Chromium")
    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=shutil.which("chromium"))
        yield browser.new_page()
        browser.close()


def test_pages_load_only_from_here_without_complaint_and_fit_a_telephone(site: Path, address: str, page: Page) -> None:
    requests: list[str] = []
    complaints: list[str] = []
    page.on("request", lambda request: requests.append(request.url))
    page.on("requestfailed", lambda request: complaints.append(request.url))
    page.on("pageerror", lambda error: complaints.append(str(error)))
    page.on("console", lambda line: complaints.append(line.text))
    for name in sorted(path.name for path in site.glob("*.html")):
        page.goto(address + name, wait_until="load")
        for width in (1280, 390):
            page.set_viewport_size({"width": width, "height": 800})
            page.wait_for_function("document.documentElement.scrollWidth <= innerWidth")
    assert not complaints
    assert not [url for url in requests if not url.startswith((address, "data:", "blob:"))]


def test_search_finds_a_strategy(address: str, page: Page) -> None:
    page.set_viewport_size({"width": 1280, "height": 800})
    page.goto(address + "options.html")
    # key by key: the page answers keys, and on a busy machine it may hear none of a text put in at once
    page.get_by_role("textbox", name="Search").press_sequentially("marginal", delay=100)
    results = page.locator(".md-search-result__item")
    expect(results.first).to_be_visible(timeout=300_000)
    assert "statistics.html" in " ".join(link.get_attribute("href") or "" for link in results.locator("a").all())
