"""Make the pictures of docs/tutorial.md from the pages that its commands have written.

usage: tutorial_pictures.py [FOLDER]  (writes docs/tutorial/*.webp; needs Chromium and the extra `test`)

FOLDER is where the tutorial was run (default: this repository); see tools/tutorial_run.py.
"""

from __future__ import annotations

import io
import shutil
import sys
from pathlib import Path

from PIL import Image, ImageChops
from playwright.sync_api import Locator, Page, sync_playwright

ROOT = Path(__file__).parents[1]
PICTURES = ROOT / "docs" / "tutorial"
WIDTH = 1000  # pixels of a page
SHARPNESS = 1.5  # dots for a pixel


def save(page: Page, name: str, *parts: Locator) -> None:
    """Save the rectangle around some parts of a page, without white edges."""
    boxes = [box for part in parts if (box := part.bounding_box())]
    if len(boxes) < len(parts):
        sys.exit(f"{name}: a part of {page.url} is not there or not visible")
    left, top = (min(box[edge] for box in boxes) for edge in ("x", "y"))
    right = max(box["x"] + box["width"] for box in boxes)
    bottom = max(box["y"] + box["height"] for box in boxes)
    png = page.screenshot(full_page=True, clip={"x": left, "y": top, "width": right - left, "height": bottom - top})
    path = PICTURES / f"{name}.webp"
    image = Image.open(io.BytesIO(png)).convert("RGB")
    inked = ImageChops.difference(image, Image.new("RGB", image.size, "white")).getbbox()
    image.crop(inked).save(path, quality=80, method=6)
    print(f"{path.relative_to(ROOT)}: {path.stat().st_size / 1000:.0f} kB")


def of_participant(page: Page) -> None:
    """Picture the maps and a design of the participant's page."""
    figures = {name: page.locator("figure").filter(has=page.get_by_alt_text(name, exact=True)) for name in (
        "z map, mean", "z map, ses-1", "z map, ses-2", "Design matrix: sub-02_ses-1_task-oneback",
    )}  # fmt: skip
    mean, first, second, design = figures.values()
    save(page, "mean", mean)
    save(page, "sessions", first, second)
    save(page, "design", design.get_by_role("img"))


def of_group(page: Page) -> None:
    """Picture the result, the peaks and the strategies' differences on the group's page, then the trend."""
    shown = page.locator(".question").filter(visible=True)
    the_map = page.locator("figure.map").filter(visible=True)
    save(page, "result", page.get_by_role("heading", name="incongruent - congruent"), shown.locator(".answer"), the_map)
    save(page, "peaks", shown.locator(".beside"))
    save(page, "differ", shown.locator(".legend"), shown.locator("details.paper[open]"))
    page.get_by_role("radio", name="ses-03 - ses-01").check(force=True)
    save(page, "trend", shown.locator(".answer"), the_map)


def main(folder: Path) -> None:
    """Take all pictures."""
    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=shutil.which("chromium"))
        page = browser.new_page(viewport={"width": WIDTH, "height": 900}, device_scale_factor=SHARPNESS)
        for path, take in (("real-results/sub-02.html", of_participant), ("study-results/group.html", of_group)):
            page.goto((folder / "tutorial" / path).resolve().as_uri())
            take(page)
        browser.close()


if __name__ == "__main__":
    main(Path(sys.argv[1]) if len(sys.argv) > 1 else ROOT)
