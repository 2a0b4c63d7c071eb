"""Where the report of one participant, `sub-XX.html`, is and what it is made of; `section` draws its sections."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from sessionfx.bids.names import entity_string, figures_folder
from sessionfx.report.page import assemble_page, is_whole_page, section_path


@dataclass(frozen=True)
class ParticipantPage:
    """`sub-XX.html`, made of the sections of all analyses of a participant."""

    output_dir: Path
    participant: str

    @property
    def _path(self) -> Path:
        return self.output_dir / f"sub-{self.participant}.html"

    @property
    def _folder(self) -> Path:
        return self.output_dir / figures_folder(self.participant)

    def is_whole(self) -> bool:
        """Whether it is there and shows the sections that are there."""
        return is_whole_page(self._path, self._folder)

    def assemble(self) -> None:
        """Write it."""
        assemble_page(
            self._path,
            self._folder,
            title=f"Participant sub-{self.participant}",
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
