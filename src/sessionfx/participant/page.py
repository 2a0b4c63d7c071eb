"""Where the report of one participant, `sub-XX.html`, is and what it is made of; `section` draws its sections."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

from sessionfx.bids.names import entity_string, figures_folder
from sessionfx.report.page import ReportPage, section_path


def participant_page(output_dir: Path, participant: str) -> ReportPage:
    """Give `sub-XX.html`, made of the sections of all analyses of a participant."""
    return ReportPage(
        path=output_dir / f"sub-{participant}.html",
        folder=output_dir / figures_folder(participant),
        title=f"Participant sub-{participant}",
        lead="Runs were fitted one by one; runs, then sessions, were combined by fixed effects.",
    )


def runs_section(output_dir: Path, participant: str, entities: Mapping[str, str | None]) -> Path:
    """Path of the section about the runs of an analysis."""
    return section_path(
        output_dir / figures_folder(participant), entity_string({"sub": participant, **entities}) + "_runs"
    )


def contrast_section(output_dir: Path, participant: str, entities: Mapping[str, str | None], contrast: str) -> Path:
    """Path of the section about a contrast."""
    name = entity_string({"sub": participant, **entities}) + f"_contrast-{contrast}"
    return section_path(output_dir / figures_folder(participant), name)
