"""The methods text says what was done, and nothing else."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from sessionfx.ask.confounds import PRESETS
from sessionfx.group.strategies import STRATEGIES
from sessionfx.group.strategies.base import GroupOptions
from sessionfx.options import FirstLevelModel, GroupModel
from sessionfx.options.table import choices_of
from sessionfx.report import references
from sessionfx.report.methods import GroupWork, MethodsText, group_methods, participant_methods
from sessionfx.report.references import Citations, read_references
from sessionfx.space.grayordinates import Grayordinates
from sessionfx.space.space import Space
from sessionfx.space.surface import Surface

MODEL = FirstLevelModel()
AXES = PRESETS["motion6"]


def nuisance(*runs: tuple[str, ...]) -> str:
    """Give what the text says of nuisance regressors."""
    text = participant_methods(MODEL, runs, has_sessions=True, preprocessing=()).as_text()
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
    with_components = participant_methods(MODEL, runs, has_sessions=True, preprocessing=())
    assert any(work.startswith("Behzadi") for work in with_components.references)
    without = participant_methods(MODEL, (AXES,), has_sessions=True, preprocessing=())
    assert not any(work.startswith("Behzadi") for work in without.references)


@pytest.mark.parametrize(
    ("method", "expected", "is_cited"),
    [
        ("satterthwaite", "degrees of freedom were found at each voxel by Satterthwaite's approximation [", True),
        ("sum", "the degrees of freedom of the runs were added up.", False),
    ],
)
def test_degrees_of_freedom_are_described_as_they_were_found(method: str, expected: str, *, is_cited: bool) -> None:
    text = participant_methods(FirstLevelModel(fixed_effects_dof=method), [()], has_sessions=True, preprocessing=())
    assert expected in text.as_text()
    assert any(work.startswith("Satterthwaite FE.") for work in text.references) == is_cited


def test_events_are_described_where_options_change_them() -> None:
    asked = FirstLevelModel(
        condition_column=("stim", "response"), recode=("miss=",), event_filter=("rt!=n/a",), duration_column="rt",
        modulator=("rt", "x=go: rt - 3"),
    )  # fmt: skip
    text = participant_methods(asked, [()], has_sessions=True, preprocessing=()).as_text()
    for words in (
        "Conditions were the values of 'stim' and 'response' in the events, crossed.",
        "renamed, merged or left out ('miss=')",
        "Only events with 'rt!=n/a' were modelled.",
        "in the column 'rt' of the events",
        "parametric modulators were 'rt' and 'x=go: rt - 3', without orthogonalisation and, unless a constant is "
        "written, centred within run and condition; nuisance",
    ):
        assert words in text
    assert "vents with" not in (
        plain := participant_methods(MODEL, [()], has_sessions=True, preprocessing=()).as_text()
    )
    assert "modulat" not in plain


# References -------------------------------------------------------------------------------------------------


def check_numbers(text: MethodsText) -> None:
    """Works are numbered as they are cited first, and none is listed that is not cited."""
    cited = [
        int(number) for found in re.findall(r"\[([\d, ]+)\]", " ".join(text.paragraphs)) for number in found.split(", ")
    ]
    assert list(dict.fromkeys(cited)) == list(range(1, len(text.references) + 1))


def test_works_of_the_participant_level_are_numbered_in_the_order_of_the_text() -> None:
    runs = [(*AXES, "a_comp_cor_00")]
    check_numbers(participant_methods(MODEL, runs, has_sessions=True, preprocessing=("fMRIPrep 24.0", "other")))


@pytest.mark.slow
@pytest.mark.parametrize("correction", choices_of("correction"))
def test_works_of_the_group_level_are_numbered_in_the_order_of_the_text(correction: str) -> None:
    work = GroupWork(resampled=frozenset({"sign-flipping", "wild-bootstrap"}), compared=True, f_tests=True, any_session=True,
                     groups=True, reliability=True, adjusted_for=("mood",), equivalence=True, bayes_factors=True)  # fmt: skip
    strategies = [strategy.methods(GroupOptions(), work) for strategy in STRATEGIES.values()]
    model = GroupModel(correction=correction, covariates=("age",), permutations=100,
                       equivalence=0.1, bayes_factor=0.7)  # fmt: skip
    check_numbers(group_methods(model, strategies, work))


@pytest.mark.parametrize("is_done", [True, False])
@pytest.mark.parametrize("name", ["session-model", "summary-statistics", "marginal"])
def test_tests_over_all_sessions_and_variances_of_groups_are_claimed_where_they_were_there(
    name: str, *, is_done: bool
) -> None:
    text, works = STRATEGIES[name].methods(GroupOptions(), GroupWork(any_session=is_done, groups=is_done))
    assert ("test over all sessions" in text) == (is_done and name != "marginal")
    assert ("Groups of participants" in text) == (is_done and name != "session-model")
    assert len(works) == text.count("{cite}") + (name == "marginal")


def test_every_entry_of_the_bibliography_is_read() -> None:
    text = (Path(references.__file__).parent / "references.bib").read_text(encoding="utf-8")
    assert len(read_references()) == text.count("@") > 20
    assert not [work for work in read_references().values() if re.search(r"[{}\\]|  | ,|\.\.", work)]


def test_references_read_as_in_a_journal() -> None:
    works = read_references()
    assert works["welch"] == (
        "Welch BL. The generalization of ‘Student's’ problem when several different population variances are involved. "
        "Biometrika 1947;34:28–35. doi:10.1093/biomet/34.1-2.28"
    )
    assert works["lmertest"].startswith("Kuznetsova A, Brockhoff PB, Christensen RHB. lmerTest package: ")
    assert works["lmertest"].endswith("J Stat Softw 2017;82(13). doi:10.18637/jss.v082.i13")
    assert works["bids"].startswith("Gorgolewski KJ, et al. The brain")
    assert works["bell_mccaffrey"].endswith("Surv Methodol 2002;28:169–181.")
    assert works["nilearn"] == "Nilearn contributors. nilearn. doi:10.5281/zenodo.8397156"
    assert works["pymare"].endswith("& Regression Engine. github.com/neurostuff/PyMARE")


def test_works_are_shared_out_over_the_places_of_a_text() -> None:
    cite = Citations()
    assert (
        cite.within("a {cite}, b {cite}, again {cite}.", ("welch", "lin", "bids", "welch"))
        == "a [1], b [2], again [3, 1]."
    )
    assert cite.within("nothing", ()) == "nothing"


@pytest.mark.parametrize("kind", [Surface, Grayordinates])
@pytest.mark.parametrize("fwhm", [None, 6.0])
def test_on_surfaces_methods_say_vertices_and_grayordinates(kind: type[Space], fwhm: float | None) -> None:
    model = FirstLevelModel(smoothing_fwhm=fwhm)
    text = participant_methods(model, [()], has_sessions=True, has_f_tests=True, preprocessing=(), kind=kind).as_text()
    assert "voxel" not in text
    assert f"in percent of each {kind.feature}'s mean" in text
    assert ("6 mm" in text) == (fwhm is not None)
