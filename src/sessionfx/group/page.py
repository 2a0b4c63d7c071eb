"""Where the report of the group level, `group.html`, is and what it is made of; `section` draws its sections."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

from sessionfx.bids.names import entity_string
from sessionfx.bids.writing import remove
from sessionfx.report.page import ReportPage, render, section_path, write_section


def group_page(output_dir: Path) -> ReportPage:
    """Give `group.html`, made of the sections of all contrasts and analyses."""
    return ReportPage(
        path=output_dir / "group.html",
        folder=_figures(output_dir),
        title="Group results",
        lead="Every strategy answers the same session contrast on the same voxels or vertices.",
    )


def contrast_section(output_dir: Path, entities: Mapping[str, str | None], contrast: str) -> Path:
    """Path of the section about a contrast."""
    return section_path(_figures(output_dir), entity_string({**entities, "contrast": contrast}))


def write_group_refusal(output_dir: Path, entities: Mapping[str, str | None], refusal: str) -> None:
    """Say in the report why there is no group analysis."""
    html = render("group_refusal.html.j2", sentence=refusal)
    write_section(_refusal_section(output_dir, entities), "No group analysis", html)
    group_page(output_dir).assemble()


def remove_group_refusal(output_dir: Path, entities: Mapping[str, str | None]) -> None:
    """Take back what `write_group_refusal` said, once there is an analysis."""
    remove(_refusal_section(output_dir, entities))


def _refusal_section(output_dir: Path, entities: Mapping[str, str | None]) -> Path:
    return section_path(_figures(output_dir), (entity_string(entities) or "all") + "_a-refusal")


def _figures(output_dir: Path) -> Path:
    return output_dir / "group" / "figures"
