"""Which maps enter the group level: one of each participant and session, everybody else named."""

from __future__ import annotations

import json
import shutil
import tracemalloc
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import pytest

from bids_trees import filters_named_in
from calls import QUICK, GroupCaller
from group_study import GroupStudy, empty_study, group_map, group_path, read, sidecar_of
from sessionfx.ask.session_contrasts import MOST_DEFAULT_DIFFERENCES, default_pairs
from sessionfx.bids.first_level_maps import find_first_level_maps, select_maps
from sessionfx.options import Selection

SHAPE = (3, 3, 3)
TASK = ("--task", "x", "--space", "MNI152NLin2009cAsym")


def fill(
    study: GroupStudy,
    value: float,
    *,
    sessions: Sequence[str] = ("01", "02"),
    participants: Sequence[str] = ("01", "02", "03", "04"),
    folder: str = "",
    start: str = "task-x_space-MNI152NLin2009cAsym_",
    end: str = "",
    extra: str = "",
    contrast: str = "aMinusB",
) -> None:
    """Write maps whose voxels are about one value, named as others name them."""
    rng = np.random.default_rng(int(10 * value))
    for participant in participants:
        for session in sessions:
            own = empty_name(participant, session, start, extra, contrast, end)
            path = study.maps / folder / f"sub-{participant}" / (f"ses-{session}" if session else "") / own
            study_path = study.map_path(participant, session or "")
            study.write(participant, session, value + 0.01 * rng.standard_normal(SHAPE), None)
            path.parent.mkdir(parents=True, exist_ok=True)
            study_path.rename(path)
            study_path.with_name(study_path.name.replace(".nii.gz", ".json")).unlink()
            study_path.parent.rmdir()


def empty_name(participant: str, session: str, start: str, extra: str, contrast: str, end: str) -> str:
    ses = f"_ses-{session}" if session else ""
    return f"sub-{participant}{ses}_{start}{extra}contrast-{contrast}_stat-effect{end}_statmap.nii.gz"


def mean_of(output: Path) -> float:
    return float(group_map(output, "summaryStatistics", "effect").mean())


def left_out(output: Path) -> dict[str, str]:
    found = sidecar_of(group_path(output, "summaryStatistics", "effect"))["LeftOutParticipants"]
    assert isinstance(found, dict)
    return found


# Two maps of one thing ---------------------------------------------------------------------------------------


@pytest.mark.slow
@pytest.mark.parametrize("entity", ["dir", "acq", "rec", "echo", "ce", "part", "hemi", "desc"])
def test_maps_that_differ_in_an_entity_are_refused_and_both_filters_named_choose(
    tmp_path: Path, call: GroupCaller, entity: str
) -> None:
    study = empty_study(tmp_path)
    labels = ("1", "2") if entity == "echo" else ("AP", "PA")
    for value, label in zip((1.0, 2.0), labels, strict=True):
        at_end = {"end": f"_desc-{label}"} if entity == "desc" else {"extra": f"{entity}-{label}_"}
        fill(study, value, **at_end)  # type: ignore[arg-type]
    called = call(study, tmp_path / "out", *QUICK)
    called.refused(2, "Two maps stand for the same participant", f"{entity}-{labels[0]}", f"{entity}-{labels[1]}")
    filters = filters_named_in(called.error.replace('{"maps"', '{"bold"'))
    assert len(filters) == 2
    for number, (value, named) in enumerate(zip((1.0, 2.0), filters, strict=True)):
        path = tmp_path / f"filter{number}.json"
        path.write_text(json.dumps({"maps": named["bold"]}))
        output = call.done(study, tmp_path / f"out{number}", *QUICK, "--bids-filter-file", str(path))
        assert mean_of(output) == pytest.approx(value, abs=0.02)


def test_index_entities_that_differ_in_padding_are_no_choice(tmp_path: Path, call: GroupCaller) -> None:
    study = empty_study(tmp_path)
    for label in ("1", "01"):
        fill(study, 1.0, extra=f"echo-{label}_")
    call(study, tmp_path / "out", *QUICK).refused(2, "Two maps stand for the same", "Leave only one")


def test_cohorts_are_chosen_and_named_in_the_outputs(tmp_path: Path, call: GroupCaller) -> None:
    study = empty_study(tmp_path)
    for value, cohort in ((1.0, "1"), (2.0, "2")):
        fill(study, value, start=f"task-x_space-MNIInfant_cohort-{cohort}_")
    call(study, tmp_path / "out", *QUICK).refused(2, "several cohorts: 1, 2", "'maps' entry of --bids-filter-file")
    path = tmp_path / "filter.json"
    path.write_text('{"maps": {"cohort": 2}}')
    output = call.done(study, tmp_path / "out", *QUICK, "--bids-filter-file", str(path))
    assert list(output.glob("group/task-x_space-MNIInfant_cohort-2_contrast-*"))


def test_maps_that_enter_and_are_not_named_alike_are_warned_of(tmp_path: Path, call: GroupCaller) -> None:
    study = empty_study(tmp_path)
    fill(study, 1.0, participants=("01", "02"), extra="acq-mb_")
    fill(study, 1.0, participants=("03",), extra="acq-sb_")
    called = call(study, tmp_path / "out", *QUICK)
    assert called.code == 0
    assert "not all named alike: 4 maps acq-mb, 2 maps acq-sb" in called.error


@pytest.mark.parametrize(
    ("option", "other"), [("--res 2", "task-x_space-MNI152NLin2009cAsym_res-2_"), ("--space T1w", "task-x_space-T1w_")]
)
def test_maps_with_and_without_a_space_or_resolution_are_chosen_by_its_option(
    tmp_path: Path, call: GroupCaller, option: str, other: str
) -> None:
    study = empty_study(tmp_path)
    without = "task-x_space-MNI152NLin2009cAsym_" if option.startswith("--res") else "task-x_"
    fill(study, 1.0, start=without, participants=("01", "02"))
    fill(study, 2.0, start=other, participants=("03", "04"))
    key, label = option.removeprefix("--").split()
    mixed = call(study, tmp_path / "out", *QUICK)
    assert mixed.code == 0
    assert f"not all named alike: 4 maps without {key}-, 4 maps {key}-{label}." in mixed.error
    fill(study, 2.0, start=other)
    call(study, tmp_path / "out", *QUICK).refused(2, "stand for the same participant", f"--{key} none or {option}.")
    for wanted, value in ((option, 2.0), (f"--{key} none", 1.0)):
        output = call.done(study, tmp_path / f"out-{value:g}", *QUICK, *wanted.split())
        (effect,) = output.glob("group/*sessions-mean_strategy-summaryStatistics_stat-effect_statmap.nii.gz")
        assert (f"_{key}-{label}_" in effect.name) == (value == 2.0)
        assert read(effect).mean() == pytest.approx(value, abs=0.02)


def test_who_has_maps_of_another_resolution_alone_is_left_out_for_that(tmp_path: Path, call: GroupCaller) -> None:
    study = empty_study(tmp_path)
    fill(study, 1.0, start="task-x_space-MNI152NLin2009cAsym_res-2_")
    fill(study, 1.0, participants=("05",))
    called = call(study, tmp_path / "out", *QUICK, "--res", "2")
    assert called.code == 0
    assert "sub-05 is left out: it has no map of contrast aMinusB for this task, space and resolution." in called.error


# FitLins' nodes ----------------------------------------------------------------------------------------------


@pytest.mark.slow
@pytest.mark.parametrize("run_node", ["runLevel", "run", "Run"])
@pytest.mark.parametrize("session_node", ["sessionLevel", "Session"])
def test_nodes_of_runs_are_passed_over_in_any_case(
    tmp_path: Path, call: GroupCaller, run_node: str, session_node: str
) -> None:
    study = empty_study(tmp_path)
    fill(study, 1.0, folder=f"node-{run_node}", start="")
    fill(study, 2.0, folder=f"node-{session_node}", start="")
    fill(study, 3.0, folder="node-subjectLevel", sessions=("",), start="")
    fill(study, 4.0, folder="node-datasetLevel", start="")
    assert mean_of(call.done(study, tmp_path / "out", *QUICK, *TASK)) == pytest.approx(2.0, abs=0.02)


def test_nodes_that_cannot_be_told_apart_are_refused_and_the_folders_named_choose(
    tmp_path: Path, call: GroupCaller
) -> None:
    study = empty_study(tmp_path)
    fill(study, 1.0, folder="node-firstLevel", start="")
    fill(study, 2.0, folder="node-combined", start="")
    called = call(study, tmp_path / "out", *QUICK, *TASK)
    called.refused(
        2, f"--derivatives {study.maps / 'node-combined'}", f"--derivatives {study.maps / 'node-firstLevel'}"
    )
    study.maps = study.maps / "node-combined"
    assert mean_of(call.done(study, tmp_path / "out", *QUICK, *TASK)) == pytest.approx(2.0, abs=0.02)


# Who is left out ---------------------------------------------------------------------------------------------


@pytest.mark.slow
def test_whoever_could_have_entered_and_did_not_is_named_in_sidecar_page_and_on_screen(
    tmp_path: Path, call: GroupCaller
) -> None:
    study = empty_study(tmp_path)
    fill(study, 1.0)
    fill(study, 1.0, participants=("05",), sessions=("",))
    fill(study, 1.0, participants=("06",), extra="run-1_")
    fill(study, 1.0, participants=("07",), contrast="other")
    (study.maps / "sub-08").mkdir()
    (study.maps / "sub-08/anything.txt").touch()
    called = call(study, tmp_path / "out", *QUICK, "--contrast", "aMinusB", report=True)
    assert called.code == 0, called.error
    reasons = left_out(tmp_path / "out")
    assert list(reasons) == ["sub-05", "sub-06", "sub-07", "sub-08"]
    page = (tmp_path / "out/group.html").read_text(encoding="utf-8")
    for participant, part in {
        "sub-05": "names no session",
        "sub-06": "single runs only",
        "sub-07": "no map of contrast aMinusB",
        "sub-08": "has no first-level map",
    }.items():
        assert part in reasons[participant]
        assert f"{participant} {reasons[participant]}" in page
        assert f"{participant} is left out: it {reasons[participant]}" in called.error


@pytest.mark.slow
def test_participants_of_the_dataset_of_whom_there_is_nothing_are_named(tmp_path: Path, call: GroupCaller) -> None:
    """The participant level was not run for them, or stopped: the group level said nothing of them."""
    study = empty_study(tmp_path)
    fill(study, 1.0)
    for label in ("04", "9", "10"):
        (study.raw / f"sub-{label}").mkdir(exist_ok=True)
    said = "Participants of the dataset without a folder of first-level maps are left out: sub-9, sub-10."
    called = call(study, tmp_path / "out", *QUICK, report=True)
    assert called.code == 0, called.error
    assert said in called.error
    assert said in (tmp_path / "out/group.html").read_text(encoding="utf-8")
    chosen = call(study, tmp_path / "chosen", *QUICK, "--participant-label", "01", "02", "03")
    assert chosen.code == 0 and "without a folder" not in chosen.error


def test_participants_not_asked_for_are_not_called_left_out(tmp_path: Path, call: GroupCaller) -> None:
    study = empty_study(tmp_path)
    fill(study, 1.0)
    (study.maps / "sub-08").mkdir()
    (study.maps / "sub-08/anything.txt").touch()
    output = call.done(study, tmp_path / "out", *QUICK, "--participant-label", "01", "02", "03")
    assert left_out(output) == {}


def test_what_is_known_of_a_map_takes_little_memory(tmp_path: Path) -> None:
    """80,000 maps are to fit beside the program into 1 GB; paths of each, with their parts, would take 3 kB."""
    study, n_participants = empty_study(tmp_path), 500
    for number in range(n_participants):
        for session in ("01", "02"):
            effect = study.map_path(f"{number:05}", session)
            effect.parent.mkdir(parents=True)
            effect.touch()
            effect.with_name(effect.name.replace("stat-effect", "stat-variance")).touch()
    tracemalloc.start()
    try:
        found = find_first_level_maps([study.maps])
        selection = select_maps(found, Selection(), (), [study.maps], study.raw)
        held, most = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    (maps,) = selection.maps.values()
    assert len(maps) == 2 * n_participants
    assert all(stat_map.variance is not None for stat_map in maps)
    assert held < 1500 * len(maps)
    assert most < 2500 * len(maps)


# Order of sessions -------------------------------------------------------------------------------------------


def growth(folder: Path, sessions: Sequence[str]) -> GroupStudy:
    """Eight participants whose effect grows by 1 from each of these sessions to the next."""
    study, rng = empty_study(folder), np.random.default_rng(5)
    for participant in "12345678":
        level = rng.standard_normal(SHAPE)
        for order, session in enumerate(sessions):
            study.write(participant, session, level + order + 0.1 * rng.standard_normal(SHAPE), None)
    return study


@pytest.mark.slow
def test_a_trend_has_the_sign_of_the_order_in_time(tmp_path: Path, call: GroupCaller) -> None:
    study = growth(tmp_path, ("pre", "post", "fu"))
    for participant in "12345678":
        study.sessions_table(
            participant,
            {"session_id": ["ses-fu", "ses-post", "ses-pre"], "acq_time": ["2020-03-01", "2020-02-01", "2020-01-01"]},
        )
    called = call(study, tmp_path / "out", "--strategy", "marginal", report=True)
    assert called.code == 0, called.error
    assert group_map(tmp_path / "out", "marginal", "effect", "linear").mean() == pytest.approx(1, abs=0.1)
    assert group_map(tmp_path / "out", "marginal", "effect", "sesPostMinusSesPre").mean() == pytest.approx(1, abs=0.1)
    assert "ses-pre, ses-post, ses-fu (from acq_time)" in called.error
    fields = sidecar_of(group_path(tmp_path / "out", "marginal", "effect", "linear"))
    assert fields["SessionOrder"] == ["ses-pre", "ses-post", "ses-fu"]
    assert fields["SessionOrderSource"] == "acq_time"
    assert "ses-pre, ses-post, ses-fu (from: acq_time)" in (tmp_path / "out/group.html").read_text(encoding="utf-8")


@pytest.mark.slow
def test_without_a_known_order_no_trend_is_asked_for_and_the_remedy_gives_it(tmp_path: Path, call: GroupCaller) -> None:
    study = growth(tmp_path, ("pre", "post", "fu"))
    called = call(study, tmp_path / "out", "--strategy", "marginal")
    assert called.code == 0
    assert not list((tmp_path / "out/group").glob("*sessions-linear*"))
    assert "Warning: The order of the sessions in time is not known" in called.error
    assert "--session-label fu post pre" in called.error
    ordered = call.done(study, tmp_path / "2", "--strategy", "marginal", "--session-label", "pre", "post", "fu")
    assert group_map(ordered, "marginal", "effect", "linear").mean() == pytest.approx(1, abs=0.1)


def test_a_dry_run_states_the_order_and_its_warning(tmp_path: Path, call: GroupCaller) -> None:
    called = call(growth(tmp_path, ("pre", "post")), tmp_path / "out", "--dry-run")
    assert "ses-post, ses-pre (alphabet (assumed))" in called.output
    assert "warning: The order of the sessions" in called.output


@pytest.mark.parametrize(
    ("n_sessions", "n_pairs"), [(1, 0), (2, 1), (6, 15), (7, 11), (9, 15), (10, 9), (16, 15), (17, 1)]
)
def test_there_are_no_more_than_fifteen_differences_by_default(n_sessions: int, n_pairs: int) -> None:
    sessions = [f"{number:02d}" for number in range(n_sessions)]
    pairs = default_pairs(sessions)
    assert len(pairs) == n_pairs <= MOST_DEFAULT_DIFFERENCES
    assert all(sessions.index(earlier) < sessions.index(later) for earlier, later in pairs)
    if n_sessions > 1:
        assert (sessions[0], sessions[-1]) in pairs


@pytest.mark.slow
def test_which_differences_are_asked_for_is_said_and_how_to_ask_for_more(tmp_path: Path, call: GroupCaller) -> None:
    sessions = [f"{number:02d}" for number in range(1, 11)]
    study = growth(tmp_path, sessions)
    called = call(study, tmp_path / "out", "--strategy", "summary-statistics")
    assert called.code == 0
    assert "Of the 45 differences between 10 sessions 9 are asked for: ses-02 - ses-01" in called.error
    assert "--session-contrast 'ses-10 - ses-09'" in called.error.replace("such as ", "--session-contrast ").replace(
        "--session-contrast --session-contrast", "--session-contrast"
    )
    shutil.rmtree(tmp_path / "out")
    asked = call.done(
        study, tmp_path / "out", "--strategy", "summary-statistics", "--session-contrast", "ses-10 - ses-09"
    )
    assert group_map(asked, "summaryStatistics", "effect", "ses10MinusSes09").mean() == pytest.approx(1, abs=0.1)
