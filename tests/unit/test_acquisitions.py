"""One file of each acquisition is analysed: echoes, reconstructions and phase are no further runs."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import pytest

from bids_trees import SPACE, filters_named_in, make_tree, select
from sessionfx.bids.runs import RunSelection
from sessionfx.errors import CommandLineError, DatasetError

FUNC = "derivatives/fmriprep/sub-{sub}/ses-{ses}/func"


def image(
    entities: str, *, sub: str = "01", ses: str = "1", space: str = f"_space-{SPACE}", desc: str = "preproc"
) -> str:
    folder = FUNC.format(sub=sub, ses=ses)
    return f"{folder}/sub-{sub}_ses-{ses}_task-t{entities}{space}_desc-{desc}_bold.nii.gz"


def select_among(
    root: Path, files: list[str], bold_filter: dict[str, object] | None = None, **options: Any
) -> RunSelection:
    filters = None if bold_filter is None else {"bold": bold_filter}
    return select(make_tree(root / "bids", files), filters=filters, **options)


def bold_names(selection: RunSelection) -> list[str]:
    return [run.bold.name.split("_space-")[0] for runs in selection.runs.values() for run in runs]


@pytest.mark.slow
@pytest.mark.parametrize("space", [f"_space-{SPACE}", ""], ids=["MNI", "native"])
def test_the_combined_image_stands_for_its_echoes(tmp_path: Path, space: str) -> None:
    files = [image(f"_run-1{echo}", space=space) for echo in ("", "_echo-1", "_echo-2")]
    assert bold_names(select_among(tmp_path, files))[0].startswith("sub-01_ses-1_task-t_run-1")
    assert all("echo" not in name for name in bold_names(select_among(tmp_path, files)))


@pytest.mark.parametrize(
    ("entity", "labels"),
    [
        ("echo", ["1", "2"]),
        ("rec", ["moco", "norm"]),
        ("rec", ["", "norm"]),
        ("chunk", ["1", "2"]),
        ("proc", ["a", "b"]),
    ],
)
def test_versions_of_one_acquisition_are_refused_and_every_filter_named_chooses_one(
    tmp_path: Path, entity: str, labels: list[str]
) -> None:
    files = [
        image(f"{f'_{entity}-{label}' if label else ''}_run-1", sub=sub) for label in labels for sub in ("01", "02")
    ]
    with pytest.raises(CommandLineError) as caught:
        select_among(tmp_path / "all", files)
    message = str(caught.value)
    assert "not runs of their own" in message
    assert "2 acquisitions of sub-01, sub-02" in message
    filters = filters_named_in(message)
    assert len(filters) == len(labels)
    for number, (label, named) in enumerate(zip(labels, filters, strict=True)):
        chosen = bold_names(select_among(tmp_path / str(number), files, named["bold"]))
        assert len(chosen) == 2, "one file of each participant"
        assert all((f"{entity}-{label}_" in name) if label else (f"{entity}-" not in name) for name in chosen)


def test_magnitude_goes_before_phase(tmp_path: Path) -> None:
    files = [image(f"_run-1_part-{part}") for part in ("mag", "phase", "real", "imag")]
    assert bold_names(select_among(tmp_path, files)) == ["sub-01_ses-1_task-t_run-1_part-mag"]
    assert bold_names(select_among(tmp_path / "2", [image("_run-1"), image("_run-1_part-phase")])) == [
        "sub-01_ses-1_task-t_run-1"
    ]


def test_phase_alone_is_refused_and_the_filters_named_leave_it_out(tmp_path: Path) -> None:
    files = [image("_run-1_part-mag"), image("_run-2_part-phase"), image("_run-3")]
    with pytest.raises(CommandLineError, match="part-phase image") as caught:
        select_among(tmp_path / "all", files)
    without, magnitude = filters_named_in(str(caught.value))
    assert bold_names(select_among(tmp_path / "1", files, without["bold"])) == ["sub-01_ses-1_task-t_run-3"]
    assert bold_names(select_among(tmp_path / "2", files, magnitude["bold"])) == ["sub-01_ses-1_task-t_run-1_part-mag"]


@pytest.mark.parametrize(("entity", "long"), [("acq", "acquisition"), ("dir", "direction"), ("ce", "ceagent")])
def test_files_that_may_be_runs_are_runs_with_a_warning(tmp_path: Path, entity: str, long: str) -> None:
    files = [image(f"_{entity}-{label}_run-1") for label in ("a", "b")]
    selection = select_among(tmp_path, files)
    assert len(bold_names(selection)) == 2
    (warning,) = selection.warnings
    assert f"differ in {entity}- ({entity}-a, {entity}-b)" in warning
    assert "1 acquisition of sub-01" in warning
    (named,) = filters_named_in(warning)
    assert named == {"bold": {long: "b"}}
    chosen = select_among(tmp_path / "2", files, named["bold"])
    assert bold_names(chosen) == [f"sub-01_ses-1_task-t_{entity}-b_run-1"]
    assert chosen.warnings == ()


def test_names_that_differ_in_padding_only_stand_for_one_run(tmp_path: Path) -> None:
    with pytest.raises(DatasetError, match=r"same run.*leading zeros only\. Remove one"):
        select_among(tmp_path, [image("_run-1"), image("_run-01")])


@pytest.mark.slow
def test_a_filter_named_keeps_what_the_users_filter_chose(tmp_path: Path) -> None:
    files = [
        image(f"_rec-{rec}_echo-{echo}", desc=desc)
        for rec in ("moco", "norm")
        for echo in ("1", "02")
        for desc in ("preproc", "denoised")
    ]
    chosen: dict[str, object] = {"desc": "denoised"}
    for step, entity in enumerate(("echo", "rec")):
        with pytest.raises(CommandLineError, match=f"{entity}-") as caught:
            select_among(tmp_path / str(step), files, chosen)
        chosen = filters_named_in(str(caught.value))[-1]["bold"]
    assert chosen == {"desc": "denoised", "echo": "2", "reconstruction": "norm"}
    (run,) = select_among(tmp_path / "all", files, chosen).runs["01"]
    assert run.bold.name == f"sub-01_ses-1_task-t_rec-norm_echo-02_space-{SPACE}_desc-denoised_bold.nii.gz"


@pytest.mark.parametrize(("choice", "n_runs"), [(0, 2), (1, 1), (2, 3)])
def test_a_file_of_all_runs_together_is_not_a_further_run(choice: int, n_runs: int, tmp_path: Path) -> None:
    """XCP-D writes the denoised runs, and one file that holds them one after the other."""
    files = [image(run, desc="denoised") for run in ("_run-01", "_run-02", "")]
    with pytest.raises(CommandLineError, match=r"1 acquisition of sub-01") as caught:
        select_among(tmp_path / "all", files, {"desc": "denoised"})
    named = filters_named_in(str(caught.value))
    assert len(named) == 3
    assert len(bold_names(select_among(tmp_path / str(choice), files, named[choice]["bold"]))) == n_runs


def test_versions_that_differ_between_participants_are_named(tmp_path: Path) -> None:
    files = [image("_rec-moco"), image("_rec-moco", ses="2"), image("_rec-norm", sub="02"), image("", sub="03")]
    selection = select_among(tmp_path / "1", files)
    (warning,) = selection.warnings
    assert "Runs differ in rec- (without rec- in 1 run, rec-moco in 2 runs, rec-norm in 1 run)" in warning
    (named,) = filters_named_in(warning)
    chosen = select_among(tmp_path / "2", files, named["bold"])
    assert bold_names(chosen) == ["sub-02_ses-1_task-t_rec-norm"]
    assert chosen.warnings == ()


def test_a_session_of_single_echoes_beside_combined_ones_is_named(tmp_path: Path) -> None:
    files = [image(""), image("_echo-1"), image("_echo-2"), image("_echo-2", ses="2")]
    selection = select_among(tmp_path, files)
    assert bold_names(selection) == ["sub-01_ses-1_task-t", "sub-01_ses-2_task-t_echo-2"]
    (warning,) = selection.warnings
    assert "Runs differ in echo- (without echo- in 1 run, echo-2 in 1 run)" in warning


def test_part_mag_need_not_be_named(tmp_path: Path) -> None:
    selection = select_among(tmp_path, [image("_part-mag"), image("", ses="2")])
    assert len(bold_names(selection)) == 2
    assert selection.warnings == ()


def test_sessions_that_differ_in_padding_are_not_one(tmp_path: Path) -> None:
    selection = select_among(tmp_path, [image("", ses="1"), image("", ses="01")])
    assert selection.sessions == ("01", "1")


def test_a_cohort_is_part_of_the_space_and_of_the_outputs(tmp_path: Path) -> None:
    infant = [image("", space=f"_space-MNIInfant_cohort-{cohort}") for cohort in ("1", "2")]
    with pytest.raises(CommandLineError, match="several cohorts: 1, 2"):
        select_among(tmp_path / "all", infant)
    selection = select_among(tmp_path / "1", infant, {"cohort": 2})
    assert selection.entities == {"task": "t", "space": "MNIInfant", "cohort": "2", "res": None}


def test_none_means_without_the_entity(tmp_path: Path) -> None:
    files = [image("", space=space) for space in ("", "_space-T1w", f"_space-{SPACE}", f"_space-{SPACE}_res-2")]
    native = select_among(tmp_path / "1", files, space="none")
    assert bold_names(native)[0].startswith("sub-01_ses-1_task-t_desc-preproc")
    coarse = select_among(tmp_path / "2", files, space=SPACE, res="none")
    assert (coarse.entities["space"], coarse.entities["res"]) == (SPACE, None)


def test_a_file_that_names_another_session_than_its_folder_counts_by_its_name(tmp_path: Path) -> None:
    astray = image("", ses="3").replace("/ses-3/", "/ses-1/")
    selection = select_among(tmp_path, [image("", ses="1"), image("", ses="2"), astray])
    assert selection.sessions == ("1", "2", "3")
    assert [run.session for run in selection.runs["01"]] == ["1", "2", "3"]


RAW = "sub-01/ses-{ses}/func/sub-01_ses-{ses}_task-t{entities}_bold.nii.gz"


@pytest.mark.parametrize(
    "files",
    [
        [RAW.format(ses=2, entities="_run-02")],
        [image("_run-2", ses="2", space="_space-T1w")],
        [image("_run-2", ses="2", desc="denoised")],
        [
            RAW.format(ses=2, entities=f"_run-02_echo-{echo}_part-{part}")
            for echo in (1, 2)
            for part in ("mag", "phase")
        ],
    ],
    ids=["raw", "other space", "other desc", "raw versions"],
)
def test_a_run_without_an_image_among_those_chosen_is_named(tmp_path: Path, files: list[str]) -> None:
    there = [image("_run-1"), image("_run-2"), image("_run-1", ses="2")]
    raw = [RAW.format(ses=1, entities="_run-01"), RAW.format(ses=1, entities="_run-02_echo-1")]
    (warning,) = select_among(tmp_path, [*there, *raw, *files]).warnings
    named = re.fullmatch("1 run without a preprocessed image in this selection, and left out: (.*)[.]", warning)
    assert named is not None
    assert named[1] in ("sub-01_ses-2_task-t_run-2", "sub-01_ses-2_task-t_run-02")


@pytest.mark.parametrize(
    ("bold_filter", "options"),
    [({"run": 1}, {}), ({"run": [1]}, {}), (None, {"run_label": ("1",)}), ({"reconstruction": None}, {})],
)
def test_a_run_that_is_not_asked_for_is_not_named(
    tmp_path: Path, bold_filter: dict[str, object] | None, options: dict[str, Any]
) -> None:
    entities = "_rec-norm_run-02" if bold_filter == {"reconstruction": None} else "_run-02"
    files = [image("_run-1"), image("_run-1", ses="2"), RAW.format(ses=2, entities=entities)]
    assert not select_among(tmp_path, files, bold_filter, **options).warnings


def test_a_preprocessed_image_that_names_fewer_entities_stands_for_its_acquisition(tmp_path: Path) -> None:
    raw = [RAW.format(ses=1, entities=f"_acq-mb_dir-AP_run-0{run}") for run in (1, 2)]
    assert not select_among(tmp_path, [image("_run-1"), image("_run-2"), *raw]).warnings
