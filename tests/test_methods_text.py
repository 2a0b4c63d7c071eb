"""The methods text says what was done, and nothing else."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest

from sessionfx.inputs.confounds import PRESETS
from sessionfx.report.methods import participant_methods
from sessionfx.settings import Settings

SETTINGS = Settings(Path("/in"), Path("/out"), ("participant",))
AXES = PRESETS["motion6"]


def nuisance(*runs: tuple[str, ...]) -> str:
    """Give what the text says of nuisance regressors."""
    text = participant_methods(SETTINGS, runs, has_sessions=True, preprocessing=()).as_text()
    return text.split("nuisance regressors were ")[1].split("; the noise")[0]


@pytest.mark.parametrize(
    ("runs", "expected"),
    [
        ([(), ()], ""),
        ([AXES, AXES], "6 realignment parameters, "),
        ([AXES, ()], "6 realignment parameters (in 1 of 2 runs), "),
        (
            [PRESETS["motion24"]],
            "6 realignment parameters, 6 derivatives of realignment parameters, 6 squares of realignment parameters, "
            "6 squares of these derivatives, ",
        ),
        (
            [(*AXES, "motion_outlier00", "motion_outlier01"), AXES],
            "6 realignment parameters, one regressor for each volume marked as a motion outlier (in 1 of 2 runs), ",
        ),
        ([("non_steady_state_outlier00",)], "one regressor for each non-steady-state volume, "),
        ([("csf", "csf_derivative1")], "'csf', 'csf_derivative1', "),
        ([tuple(f"edge_comp_{number:02d}" for number in range(14))],
         "".join(f"'edge_comp_{number:02d}', " for number in range(12)) + "2 more columns of the confounds tables, "),
    ],
    ids=["none", "all", "some", "motion24", "outliers", "steady", "named", "many"],
)  # fmt: skip
def test_only_regressors_that_were_there_are_claimed(runs: list[tuple[str, ...]], expected: str) -> None:
    assert nuisance(*runs) == f"{expected}cosine drifts up to 0.01 Hz and a constant"


def test_compcor_is_counted_and_cited_where_it_was_used() -> None:
    runs = ((*AXES, *(f"a_comp_cor_{number}" for number in range(12, 17))), (*AXES, "a_comp_cor_12"))
    assert "1–5 anatomical CompCor components [" in nuisance(*runs)
    with_components = participant_methods(SETTINGS, runs, has_sessions=True, preprocessing=())
    assert any(work.startswith("Behzadi") for work in with_components.references)
    without = participant_methods(SETTINGS, (AXES,), has_sessions=True, preprocessing=())
    assert not any(work.startswith("Behzadi") for work in without.references)


@pytest.mark.parametrize(
    ("method", "expected", "is_cited"),
    [
        ("satterthwaite", "degrees of freedom were found at each voxel by Satterthwaite's approximation [", True),
        ("sum", "the degrees of freedom of the runs were added up.", False),
    ],
)
def test_degrees_of_freedom_are_described_as_they_were_found(method: str, expected: str, *, is_cited: bool) -> None:
    settings = replace(SETTINGS, fixed_effects_dof=method)
    text = participant_methods(settings, [()], has_sessions=True, preprocessing=())
    assert expected in text.as_text()
    assert any(work.startswith("Satterthwaite FE.") for work in text.references) == is_cited
