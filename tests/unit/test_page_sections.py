"""In which order a page shows its sections."""

from __future__ import annotations

from pathlib import Path

from pages import parse
from sessionfx.report.page import ReportPage, section_path, write_section

IN_ORDER = (
    "space-MNI_contrast-a2", "space-MNI_contrast-a10", "space-fsaverage5_contrast-a",
    "space-MNI_runs", "space-fsaverage5_runs",
)  # fmt: skip


def test_results_of_all_spaces_come_before_their_runs(tmp_path: Path) -> None:
    for name in sorted(IN_ORDER):
        write_section(section_path(tmp_path / "figures", f"sub-01_{name}"), name, f"<p>{name}</p>")
    ReportPage(
        path=tmp_path / "sub-01.html", folder=tmp_path / "figures", title="Participant", lead="Made sections."
    ).assemble()
    assert (
        tuple(found.text for found in parse(tmp_path / "sub-01.html").iter("p") if found.text in IN_ORDER) == IN_ORDER
    )
