"""What is found by all analyses so far, for programs and colleagues: a JSON of each contrast, and one table of answers.

Both are put together from the verdicts and tables of the questions that lie in `group/`, like the page from its
sections: so they are right whichever calls made these, and several calls may do it at once.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, TypeVar

import pandas as pd

from sessionfx.bids.dataset import as_list
from sessionfx.bids.derivatives import SOFTWARE
from sessionfx.bids.names import file_name, parse_name
from sessionfx.bids.reading import UnreadableFileError, read_json_object, read_text
from sessionfx.bids.tables import read_table, table_text
from sessionfx.bids.writing import is_inside, json_text, list_outputs, locked, write_text
from sessionfx.errors import LevelError, ParticipantError
from sessionfx.execution import say
from sessionfx.space.described import KINDS, described_in
from sessionfx.space.grid import Grid
from sessionfx.tasks.task import Chain

Content = TypeVar("Content")
_OF_QUESTIONS = ("contrast", "sessions", "covariate", "atlas")
# Of the answers in the regions of an atlas, what it repeats
_OF_REGIONS = (
    "Atlas", "SessionContrast", "GroupContrast", "Verdict", "Finding", "Recommended", "RecommendedWithCare", "File",
)  # fmt: skip
# Of a verdict, what the JSON of a contrast repeats
_OF_VERDICT = (
    "SessionContrast", "GroupContrast", "Verdict", "Finding", "Recommended", "RecommendedWithCare", "Result",
)  # fmt: skip
_BF = "Bayes factor for an effect against none"
_PLACES: tuple[tuple[str, str, dict[str, str]], ...] = (
    ("hemisphere", "Hemisphere", {}), ("structure", "Structure", {}), ("vertex", "Number of the vertex", {}),
    *((axis, axis, {"Units": "mm"}) for axis in "xyz"),
)  # fmt: skip
# Of the table of answers, in their order
COLUMNS: dict[str, dict[str, Any]] = {
    # not `contrast`: pybids takes that for the entity of the same name, with another value
    "first_level_contrast": {"Description": "As in file names"},
    "session_contrast": {"Description": "What is asked about the sessions"},
    "group_contrast": {"Description": "What is asked about the participants"},
    "strategy": {"Description": "Who answers"},
    "status": {"Levels": {"estimated": "There are maps", "declined": "There are none; see reason"}},
    "valid": {
        "Description": "Whether its p values can be taken at their word",
        "Levels": {"yes": "They can", "conditional": "Under a condition", "no": "They cannot", "declined": "No answer"},
    },
    "recommended": {"Description": "Place among the strategies to report: 1 is the first choice; n/a for none of them"},
    "n_participants": {"Description": "Participants who entered"},
    "n_maps": {"Description": "First-level maps that entered"},
    "dof": {"Description": "Degrees of freedom of t, or of the error of F; median over voxels"},
    **{f"n_{kind.features}": {"Description": f"{kind.features.capitalize()} of the map"} for kind in KINDS},
    "threshold": {
        "Description": "On |z|, two-sided; for F on z. inf where the false discovery rate is reached nowhere"
    },
    "correction": {"Description": "For many voxels: fdr, bonferroni or none"},
    "alpha": {"Description": "Error rate of the threshold"},
    "n_above": {"Description": "Voxels at or above the threshold"},
    "largest_z": {"Description": "Largest z"},
    **{f"largest_at_{key}": {"Description": f"{text} of the largest z", **units} for key, text, units in _PLACES},
    "smallest_z": {"Description": "Smallest z; n/a for F"},
    **{f"smallest_at_{key}": {"Description": f"{text} of the smallest z", **units} for key, text, units in _PLACES},
    "reason": {"Description": "Why declined, or why an estimate has no family-wise p values although asked for"},
    "equivalence_bound": {"Description": "Effects within plus or minus this are practically zero"},
    "equivalence_threshold": {"Description": "On the z of the equivalence map"},
    "n_equivalent": {"Description": "Voxels shown to be equivalent to zero"},
    "n_equivalent_and_above": {"Description": "Of these, suprathreshold ones"},
    "interval_half_width": {"Description": "Half of the 1 - 2 alpha interval of the effect, median over voxels"},
    "bayes_factor_scale": {"Description": "Scale r of the Cauchy prior"},
    "effective_n": {"Description": f"N of the formula of the {_BF}"},
    "smallest_bf10": {"Description": f"{_BF}, of t = 0"},
    "n_bf10_below_third": {"Description": f"Voxels with a {_BF} below 1/3"},
    "n_bf10_above_3": {"Description": f"Voxels with a {_BF} above 3"},
    "absence_reason": {"Description": "Why a test for no effect was declined"},
    "z_map": {"Description": "Map of z, relative to the output folder"},
}


def verdicts_of(chain: Chain) -> list[Path]:
    """Paths of the verdicts about the questions of a contrast, in their order."""
    return [path for task in chain.tasks for path in task.outputs if path.name.endswith("_validity.json")]


def findings(verdicts: Sequence[Path]) -> Iterator[str]:
    """Say what each verdict recommends, what that finds, and in which map."""
    for path in verdicts:
        content = read_json_object(path)
        try:
            lines = [content["Finding"]]
            if content["Result"] is not None:
                lines += [f"  {file}" for file in as_list(content["Result"]["Files"]["z"])]
        except (KeyError, TypeError):
            raise LevelError(f"{path} is damaged. Run the group level again with --force.") from None
        yield from lines


def write_summaries(output_dir: Path, entities: Mapping[str, str | None]) -> None:
    """Put together the table of all answers, and the JSON of each contrast, of the analyses of one task and space.

    Parameters
    ----------
    output_dir : Path
        Absolute.
    entities : mapping
        Of the analyses.
    """
    folder = output_dir / "group"
    table = folder / file_name({**entities, "desc": "answers"}, "metrics", ".tsv")
    with locked(output_dir, table.name):
        tables = _of_questions(output_dir, {**entities, "desc": "answers"}, "metrics.tsv", read_table)
        rows = [row for found in tables.values() for answers in found for row in answers.to_dict("records")]
        # where no answer can be read, which is said, the table has all columns and no row
        columns = [name for name in COLUMNS if any(name in row for row in rows)] or list(COLUMNS)
        _keep(table, table_text(pd.DataFrame(rows, columns=columns)))
        kind = next((kind for kind in KINDS if f"n_{kind.features}" in columns), Grid)
        _keep(table.with_suffix(".json"), json_text(described_in(kind, {name: COLUMNS[name] for name in columns})))
        of_regions = {**entities, "desc": "regionAnswers"}
        regions = _of_questions(output_dir, of_regions, "metrics.json", read_json_object)
        for contrast, verdicts in _of_questions(output_dir, entities, "validity.json", read_json_object).items():
            in_regions = [{name: found.get(name) for name in _OF_REGIONS} for found in regions.get(contrast, [])]
            content = {
                "Description": "What each session contrast finds by the strategy to report.",
                "Contrast": verdicts[0].get("Contrast"),
                "SessionContrasts": [{name: verdict.get(name) for name in _OF_VERDICT} for verdict in verdicts],
                **({"Regions": in_regions} if in_regions else {}),
                "Software": SOFTWARE,
            }
            name = file_name({**entities, "contrast": contrast, "desc": "summary"}, "results", ".json")
            _keep(folder / name, json_text(content))


def _of_questions(
    output_dir: Path, entities: Mapping[str, str | None], end: str, read: Callable[[Path], Content]
) -> dict[str, list[Content]]:
    """Read the files of one kind of all questions, by the contrast that they are of."""
    of_contrasts: dict[str, list[Content]] = {}
    wanted = {key: label for key, label in entities.items() if label}
    for path in list_outputs(output_dir / "group"):
        parsed = parse_name(path.name)
        if parsed is None or f"{parsed.suffix}{parsed.extension}" != end or not is_inside(path, output_dir):
            continue
        contrast = parsed.entities.get("contrast")
        of_analysis = {key: label for key, label in parsed.entities.items() if key not in _OF_QUESTIONS}
        if contrast is not None and of_analysis == wanted:
            try:
                of_contrasts.setdefault(contrast, []).append(read(path))
            except ParticipantError as error:
                say(f"{error} It is left out of the summaries until the group level is run again with --force.")
    return of_contrasts


def _keep(path: Path, text: str) -> None:
    """Write a file, unless that is what it says."""
    try:
        same = read_text(path) == text
    except UnreadableFileError:
        same = False
    if not same:
        write_text(path, text)
