"""Finding files: a folder that cannot be listed, a name or a description of another kind never loses data silently."""

from __future__ import annotations

import errno
import json
import os
import re
import shutil
import subprocess
import sys
import unicodedata
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from bids_trees import EVENTS, SPACE, make_tree, names, only_run, preproc, run_name, select
from other_user import AS_USER, needs_another_user, reachable_folder
from program import run_command
from real_layouts import derivatives, describe, write, write_bold, write_confounds, write_events, write_mask
from sessionfx.bids.dataset import check_raw_dataset, find_derivative_roots, preprocessing_programs
from sessionfx.bids.runs import participants_with_runs
from sessionfx.errors import DatasetError

FMRIPREP = "derivatives/fmriprep"


def study(root: Path) -> Path:
    """Two participants with two sessions each, with events."""
    runs = [(sub, ses) for sub in ("01", "02") for ses in ("1", "2")]
    files = {preproc(*run): "" for run in runs} | {f"{run_name(*run)}_events.tsv": EVENTS for run in runs}
    return make_tree(root, files)


# Folders that cannot be listed ------------------------------------------------------------------------------


@pytest.fixture
def failing_folders(monkeypatch: pytest.MonkeyPatch) -> Callable[..., None]:
    """Make folders that end in a name fail to be listed; root may list everything, so modes would not do."""
    real = os.scandir

    def fail(*endings: str, code: int = errno.EIO, after: int = 0) -> None:
        counts = dict.fromkeys(endings, 0)

        def scandir(path: Any = ".") -> Any:
            for ending in endings:
                if str(path).endswith(ending):
                    counts[ending] += 1
                    if counts[ending] > after:
                        raise OSError(code, os.strerror(code), path)
            return real(path)

        monkeypatch.setattr(os, "scandir", scandir)

    return fail


PLACES = ["", "/sub-01", "/sub-02", "/sub-02/ses-2", "/sub-02/ses-2/func"]


@pytest.mark.parametrize(
    ("place", "code"),
    [
        *((place, errno.EIO) for place in PLACES),
        *((f"/{FMRIPREP}{place}", errno.EACCES) for place in PLACES),
        ("/derivatives", errno.ESTALE),
    ],
)
def test_a_folder_that_cannot_be_listed_is_named(
    place: str, code: int, failing_folders: Callable[..., None], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    root = study(tmp_path / "bids")
    failing_folders(f"/bids{place}", code=code)
    with pytest.raises(DatasetError) as caught:
        select(root, database_dir=tmp_path / "kept")
    assert f"The folder {root}{place} cannot be listed ({os.strerror(code)})" in str(caught.value)
    kept = list((tmp_path / "kept").rglob("*.sqlite"))
    assert not [path for path in kept if ("fmriprep" in str(path)) == ("fmriprep" in place)], "no incomplete database"


@pytest.mark.slow
@pytest.mark.parametrize("kept", [False, True], ids=["no database", "database"])
@pytest.mark.parametrize("times", range(1, 6))
def test_a_folder_that_fails_at_any_time_loses_nothing(
    times: int, kept: bool, failing_folders: Callable[..., None], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Either all runs are found, or the folder is named; the next call, with a sound disk, finds all."""
    root, folder = study(tmp_path / "bids"), tmp_path / "kept" if kept else None
    failing_folders("/fmriprep/sub-02/ses-2/func", code=errno.ESTALE, after=times - 1)
    try:
        assert len(names(select(root, database_dir=folder))) == 4
    except DatasetError as error:
        assert "sub-02/ses-2/func" in str(error)
    monkeypatch.undo()
    assert len(names(select(root, database_dir=folder))) == 4


def test_a_participant_who_is_not_asked_for_may_be_unreadable(
    failing_folders: Callable[..., None], tmp_path: Path
) -> None:
    """The remedy of the message: others go on, where the sessions of the study are known without that folder."""
    root = study(tmp_path / "bids")
    failing_folders("/sub-02/ses-2/func")
    assert names(select(root, participant_label=("01",))) == ["sub-01_ses-1_task-a", "sub-01_ses-2_task-a"]
    with pytest.raises(DatasetError, match="--bids-database-dir is of all participants; without it"):
        select(root, participant_label=("01",), database_dir=tmp_path / "kept")


@pytest.mark.slow
@needs_another_user
@pytest.mark.parametrize("place", ["sub-02", f"{FMRIPREP}/sub-02/ses-2", "derivatives", FMRIPREP, ""])
@pytest.mark.parametrize("mode", [0o000, 0o444])
def test_folders_closed_by_their_mode_are_refused_in_one_paragraph(place: str, mode: int) -> None:
    with reachable_folder() as folder:
        root = study(folder / "bids")
        (root / place).chmod(mode)
        command = [*AS_USER, sys.executable, "-m", "sessionfx", root, folder / "out", "participant"]
        done = subprocess.run(
            [*command, "--contrast", "a", "--dry-run"], capture_output=True, text=True, timeout=600, check=False
        )
        (root / place).chmod(0o755)
    assert done.returncode == 16, done.stderr
    assert done.stderr.count("\n") == 1, done.stderr
    assert str(root / place) in done.stderr


def test_links_of_folders_that_lead_in_a_circle_are_named(tmp_path: Path) -> None:
    root = study(tmp_path / "bids")
    loop = root / FMRIPREP / "sub-01/ses-1/again"
    loop.symlink_to("..")
    with pytest.raises(DatasetError, match=r"ses-1/again is a link to a folder above it"):
        select(root)


def test_what_was_put_aside_in_folders_of_other_names_is_not_read(tmp_path: Path) -> None:
    root = study(tmp_path / "bids")
    for folder in ("sub-01/ses-1/func.old", "sub-01/ses-1/.trash", "sub-01.bak/ses-1/func"):
        (root / FMRIPREP / folder).mkdir(parents=True)
        shutil.copy(root / preproc("01", "1"), root / FMRIPREP / folder)
    assert len(names(select(root))) == 4


def test_a_session_that_links_to_nowhere_is_named(tmp_path: Path) -> None:
    root = study(tmp_path / "bids")
    (root / FMRIPREP / "sub-01/ses-3").symlink_to(tmp_path / "not-fetched")
    with pytest.raises(DatasetError, match=r"sub-01/ses-3 is a link to a folder that is not there"):
        select(root)


# Names ------------------------------------------------------------------------------------------------------


def test_a_name_that_is_no_text_is_named_in_hex(tmp_path: Path) -> None:
    root = study(tmp_path / "bids")
    folder = root / FMRIPREP / "sub-01/ses-1/func"
    Path(os.fsdecode(os.fsencode(folder) + b"/sub-01_ses-1_task-b\xff_desc-preproc_bold.nii.gz")).touch()
    with pytest.raises(DatasetError, match=r"task-b\\xff_desc-preproc_bold\.nii\.gz is not UTF-8 text"):
        select(root)


@pytest.mark.slow
def test_names_that_are_no_text_of_other_files_do_not_matter(tmp_path: Path) -> None:
    root = study(tmp_path / "bids")
    for place in (root, root / "sub-01", root / FMRIPREP / "sub-01/ses-1/func"):
        Path(os.fsdecode(os.fsencode(place) + b"/n\xf6tes.txt")).touch()
        Path(os.fsdecode(os.fsencode(place) + b"/f\xf6lder")).mkdir()
    assert len(names(select(root, database_dir=tmp_path / "kept"))) == 4


@pytest.mark.slow
@pytest.mark.parametrize("form", ["NFC", "NFD"])
def test_names_that_differ_in_unicode_form_are_never_taken_for_each_other(form: str, tmp_path: Path) -> None:
    """BIDS labels are letters and digits of ASCII: either form is said to be no name of BIDS."""
    label = unicodedata.normalize(form, "glück")
    root = make_tree(
        tmp_path / "bids",
        [
            preproc("01", "1"),
            preproc("01", "1", task=label),
            f"{run_name('01', '1', task=unicodedata.normalize('NFC', 'glück'))}_events.tsv",
        ],
    )
    selection = select(root)
    assert names(selection) == ["sub-01_ses-1_task-a"]
    assert "not named as BIDS names files" in selection.warnings[0]


def test_folders_above_the_dataset_may_have_names_in_either_form(tmp_path: Path) -> None:
    for form in ("NFC", "NFD"):
        root = study(tmp_path / unicodedata.normalize(form, f"é-{form}") / "bids")
        assert len(names(select(root, participant_label=("01",)))) == 2


@pytest.mark.parametrize("kept", [False, True], ids=["no database", "database"])
def test_a_participants_folder_may_be_a_link_to_elsewhere(kept: bool, tmp_path: Path) -> None:
    root = study(tmp_path / "bids")
    expected = names(select(root))
    for number, dataset in enumerate((root, root / FMRIPREP)):
        disk = tmp_path / f"disk{number}"
        (dataset / "sub-01").rename(disk)
        (dataset / "sub-01").symlink_to(disk)
    for _ in range(2):  # the database of the first serves the second
        selection = select(root, database_dir=tmp_path / "kept" if kept else None)
        assert names(selection) == expected
        assert all(run.events is not None for run in selection.runs["01"])


def test_a_dataset_may_be_named_through_other_folders(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    study(tmp_path / "bids")
    (tmp_path / "elsewhere").mkdir()
    monkeypatch.chdir(tmp_path / "elsewhere")
    assert len(names(select(check_raw_dataset(Path("../bids/")), participant_label=("01",)))) == 2


# What other software leaves ---------------------------------------------------------------------------------


def test_what_macos_leaves_beside_files_on_other_disks_is_not_read(tmp_path: Path) -> None:
    root = study(tmp_path / "bids")
    for path in list(root.rglob("*.*")):
        path.with_name(f"._{path.name}").touch()
    assert len(names(select(root))) == 4


@pytest.mark.parametrize("content", ["{broken", '{"name": "own", "entities": []}', "\0", "", "**\nsub-*/\n[\n"])
def test_configuration_files_in_the_dataset_change_nothing_and_a_bidsignore_hides_nothing(
    content: str, tmp_path: Path
) -> None:
    """fMRIPrep's own .bidsignore lists files that the validator does not know, not files that nobody should read."""
    root = study(tmp_path / "bids")
    for place in (root, root / "sub-01", root / FMRIPREP, root / FMRIPREP / "sub-01/ses-1/func"):
        for name in ("layout_config.json", "pybids_config.json", ".bidsignore"):
            (place / name).write_text(content)
    assert len(names(select(root))) == 4


@pytest.mark.slow
@pytest.mark.parametrize(
    "content", ["{broken", "[1]", '{"config_paths": {"bids": "/nowhere.json", "derivatives": "/nowhere.json"}}']
)
def test_settings_of_pybids_in_the_folder_of_the_call_change_nothing(content: str, tmp_path: Path) -> None:
    root = study(tmp_path / "bids")
    (root / "pybids_config.json").write_text(content)
    command = [sys.executable, "-m", "sessionfx", root, tmp_path / "out", "participant", "--contrast", "a", "--dry-run"]
    done = subprocess.run(command, capture_output=True, text=True, timeout=600, check=False, cwd=root)
    assert done.returncode == 0, done.stderr
    assert "2 participants, 4 runs" in done.stdout


@pytest.mark.parametrize(
    ("generated", "expected"),
    [
        ([{"Name": "fMRIPrep", "Version": "23.1.3"}, {"Name": "XCP-D"}], ("fMRIPrep 23.1.3", "XCP-D")),
        ({"Name": "fMRIPrep", "Version": "23.1.3"}, ("fMRIPrep 23.1.3",)),
        ({"name": "bidspm", "version": "v3.0.0"}, ("bidspm v3.0.0",)),
        ("fMRIPrep", ("fMRIPrep",)),
        (["fMRIPrep", 5, None], ("fMRIPrep",)),
        ([{"Version": "1"}], ()),
        ({}, ()),
        (None, ()),
        (7, ()),
    ],
)
def test_programs_that_made_derivatives_are_named_in_whatever_form(
    generated: object, expected: tuple[str, ...], tmp_path: Path
) -> None:
    description = json.dumps({"Name": "x", "BIDSVersion": "1.8.0", "GeneratedBy": generated})
    root = make_tree(tmp_path / "bids", {preproc("01", "1"): "", f"{FMRIPREP}/dataset_description.json": description})
    assert preprocessing_programs(find_derivative_roots(root, ())) == expected
    assert names(select(root)) == ["sub-01_ses-1_task-a"]


def test_a_byte_order_mark_in_descriptions_and_sidecars_does_not_matter(tmp_path: Path) -> None:
    root = make_tree(tmp_path / "bids", {preproc("01", "1"): "", "task-a_bold.json": '\ufeff{"RepetitionTime": 2}'})
    for place in (root, root / FMRIPREP):
        path = place / "dataset_description.json"
        path.write_text("\ufeff" + path.read_text())
    check_raw_dataset(root)
    assert only_run(root).metadata == {"RepetitionTime": 2}


@pytest.mark.parametrize(
    ("content", "reason"),
    [
        ("{broken", "cannot be read as JSON"),
        ("[1, 2]", "should hold a JSON object"),
        ('{"a": ' * 100_000 + "1" + "}" * 100_000, "nested too deeply"),
        (f'{{"RepetitionTime": {"9" * 5000}}}', "cannot be read as JSON"),
        ("/annex/objects/MD5E-s1--0.json\n", "git annex get"),
        ("version https://git-lfs.github.com/spec/v1\n", "git lfs pull"),
        (None, "not there, most likely not fetched"),
    ],
    ids=["broken", "list", "deep", "digits", "annex", "lfs", "link"],
)
def test_a_sidecar_that_cannot_be_read_is_that_runs_problem(content: str | None, reason: str, tmp_path: Path) -> None:
    root = study(tmp_path / "bids")
    sidecar = root / f"{run_name('01', '1')}_bold.json"
    sidecar.symlink_to("../../nowhere.json") if content is None else sidecar.write_text(content)
    broken, *sound = [run for runs in select(root).runs.values() for run in runs]
    assert broken.problem is not None
    assert str(sidecar) in broken.problem
    assert reason in broken.problem
    assert [run.problem for run in sound] == [None] * 3


@pytest.mark.parametrize(
    "content",
    ["{", "", "[]", '{"a": ' * 100_000 + "1" + "}" * 100_000, f'{{"Name": {"9" * 5000}}}'],
    ids=["broken", "empty", "list", "deep", "digits"],
)
def test_a_broken_description_of_derivatives_is_refused_by_name(content: str, tmp_path: Path) -> None:
    root = make_tree(tmp_path / "bids", {preproc("01", "1"): "", f"{FMRIPREP}/dataset_description.json": content})
    with pytest.raises(
        DatasetError, match=r"fmriprep/dataset_description\.json (cannot be read as|should hold a) JSON"
    ):
        select(root)


# Derivatives ------------------------------------------------------------------------------------------------


def test_derivatives_given_as_the_raw_dataset_are_recognised(tmp_path: Path) -> None:
    root = study(tmp_path / "bids")
    fmriprep = root / FMRIPREP
    description = {
        "Name": "x",
        "BIDSVersion": "1.4.0",
        "DatasetType": "derivative",
        "GeneratedBy": {"Name": "fMRIPrep"},
    }
    (fmriprep / "dataset_description.json").write_text(json.dumps(description))
    with pytest.raises(DatasetError, match=r"made by fMRIPrep.*not a raw dataset.*--derivatives") as caught:
        check_raw_dataset(fmriprep)
    assert f"--derivatives {fmriprep}" in str(caught.value)
    assert "--skip-bids-validation" in str(caught.value)
    # both remedies
    assert len(names(select(check_raw_dataset(root), given=(fmriprep,)))) == 4
    for sub in ("01", "02"):
        shutil.copytree(root / f"sub-{sub}", fmriprep / f"sub-{sub}", dirs_exist_ok=True)
    alone = select(check_raw_dataset(fmriprep, skip_validation=True), given=(fmriprep,))
    assert {run.events.is_relative_to(fmriprep) for runs in alone.runs.values() for run in runs if run.events} == {True}


@pytest.mark.parametrize(
    "described", [["", "fmriprep"], ["fmriprep"], ["fmriprep/23.1.3"], ["", "fmriprep/23.1.3"]], ids=str
)
def test_the_dataset_with_participants_counts_wherever_descriptions_lie(described: list[str], tmp_path: Path) -> None:
    pipeline = described[-1]
    root = tmp_path / "bids"
    make_tree(root, [preproc("01", "1", pipeline=pipeline)])
    (root / "derivatives" / pipeline.split("/")[0] / "dataset_description.json").unlink()
    for folder in described:
        shutil.copy(root / "dataset_description.json", root / "derivatives" / folder)
    expected = (root / "derivatives" / pipeline,)
    assert find_derivative_roots(root, ()) == expected
    assert find_derivative_roots(root, [root / "derivatives"]) == expected
    assert only_run(root).bold == root / preproc("01", "1", pipeline=pipeline)


def denoised_study(root: Path, *, program: str, desc: str, res_of_image: str | None, res_of_mask: str | None) -> Path:
    """A denoised image in a folder of its own; mask, confounds, and timing with those of fMRIPrep."""
    start = f"{FMRIPREP}/{run_name('01', '1', run='1')}"
    return make_tree(
        root,
        {
            preproc("01", "1", run="1", res=res_of_image, desc=desc, pipeline=program): "",
            preproc("01", "1", run="1", res=res_of_image, desc=desc, pipeline=program, suffix="bold.json"): (
                '{"RepetitionTime": 2}'
            ),
            preproc("01", "1", run="1", res=res_of_mask): "",
            preproc("01", "1", run="1", res=res_of_mask, suffix="bold.json"): '{"RepetitionTime": 9, "StartTime": 0.9}',
            preproc("01", "1", run="1", res=res_of_mask, desc="brain", suffix="mask.nii.gz"): "",
            preproc("01", "1", run="1", space="T1w", desc="brain", suffix="mask.nii.gz"): "",
            f"{start}_desc-confounds_timeseries.tsv": "",
            f"{run_name('01', '1', run='01')}_events.tsv": EVENTS,
        },
    )


@pytest.mark.parametrize(("res_of_image", "res_of_mask"), [("2", "2"), (None, None), ("2", None), (None, "2")])
@pytest.mark.parametrize(("program", "desc"), [("xcp_d", "denoised"), ("fmripost_aroma", "nonaggrDenoised")])
def test_a_denoised_image_takes_mask_confounds_and_timing_from_fmriprep(
    program: str, desc: str, res_of_image: str | None, res_of_mask: str | None, tmp_path: Path
) -> None:
    root = denoised_study(
        tmp_path / "bids", program=program, desc=desc, res_of_image=res_of_image, res_of_mask=res_of_mask
    )
    given = (root / "derivatives" / program, root / FMRIPREP)
    run = only_run(root, given=given, filters={"bold": {"desc": desc}})
    assert run.bold.is_relative_to(given[0])
    assert run.mask == root / preproc("01", "1", run="1", res=res_of_mask, desc="brain", suffix="mask.nii.gz")
    assert run.confounds is not None
    assert run.confounds.is_relative_to(given[1])
    assert run.events == root / f"{run_name('01', '1', run='01')}_events.tsv"
    assert run.metadata == {"RepetitionTime": 2, "StartTime": 0.9}
    assert run.problem is None


def test_a_mask_of_another_resolution_is_not_taken(tmp_path: Path) -> None:
    root = denoised_study(tmp_path / "bids", program="xcp_d", desc="denoised", res_of_image="2", res_of_mask="1")
    given = (root / "derivatives/xcp_d", root / FMRIPREP)
    assert only_run(root, given=given, filters={"bold": {"desc": "denoised"}}).mask is None


def test_an_anatomical_mask_does_not_stand_in_for_a_functional_one(tmp_path: Path) -> None:
    anat = f"{FMRIPREP}/sub-01/anat/sub-01_space-{SPACE}_desc-brain_mask.nii.gz"
    assert only_run(make_tree(tmp_path / "bids", [preproc("01", "1"), anat])).mask is None
    assert only_run(make_tree(tmp_path / "2", [preproc("01", None), anat])).mask is None


def test_events_that_lie_in_the_derivatives_only_are_used_with_a_warning(tmp_path: Path) -> None:
    events = f"{FMRIPREP}/{run_name('01', '1')}_events.tsv"
    root = make_tree(tmp_path / "bids", {preproc("01", "1"): "", events: EVENTS})
    run = only_run(root)
    assert run.events == root / events
    assert run.warnings == (
        f"The raw dataset has no events of this run; those of the derivatives are used: {root / events}.",
    )
    make_tree(root, {"task-a_events.tsv": EVENTS})
    raw = only_run(root)
    assert (raw.events, raw.warnings) == (root / "task-a_events.tsv", ())


@pytest.mark.slow
def test_xcp_d_beside_fmriprep_is_analysed_as_its_messages_say(tmp_path: Path) -> None:
    """Its names, in an infant template: the runs, a file of all of them together, and no mask."""
    space, task = "space-MNIInfant_cohort-2_res-2", "sub-01_task-imagery"
    root = tmp_path / "bids"
    describe(root, "imagery")
    fmriprep = derivatives(root / "derivatives/fmriprep", "NiBabies", "24.0.0")
    denoised = derivatives(root / "derivatives/xcp_d", "XCP-D", "0.10.7")
    for run in (1, 2):
        events = write_events(root / f"sub-01/func/{task}_run-{run:02d}_events.tsv", ("a", "b"), seed=run)
        name = f"sub-01/func/{task}_run-{run:02d}"
        write_bold(fmriprep / f"{name}_{space}_desc-preproc_bold.nii.gz", events, repetition_time=2.0, seed=run)
        for desc in ("denoised", "denoisedSmoothed"):
            write_bold(denoised / f"{name}_{space}_desc-{desc}_bold.nii.gz", events, repetition_time=2.0, seed=run + 9)
        write_mask(fmriprep / f"{name}_{space}_desc-brain_mask.nii.gz")
        write_confounds(fmriprep / f"{name}_desc-confounds_timeseries.tsv", seed=run)
        write(denoised / f"{name}_desc-preproc_design.tsv")
    shutil.copy(
        denoised / f"sub-01/func/{task}_run-01_{space}_desc-denoised_bold.nii.gz",
        denoised / f"sub-01/func/{task}_{space}_desc-denoised_bold.nii.gz",
    )
    filters = write(tmp_path / "filter.json", '{"bold": {"desc": "denoised"}}')
    call = [root, tmp_path / "out", "participant", "-d", denoised, fmriprep, "--contrast", "a - b", "--nprocs", "1",
            "--no-report", "--bids-filter-file", filters]  # fmt: skip
    refused = run_command(*call)
    assert refused.returncode == 2, refused.stderr
    (named,) = re.findall(r"{.*?}} for the runs", refused.stderr)
    filters.write_text(named.removesuffix(" for the runs"))
    done = run_command(*call)
    assert done.returncode == 0, done.stderr
    (path,) = (tmp_path / "out").rglob("*stat-effect_desc-fixedEffects_statmap.json")
    assert path.name.startswith(f"{task}_space-MNIInfant_cohort-2_res-2_contrast-aMinusB_")
    sidecar = json.loads(path.read_text())
    assert sidecar["NumberOfInputs"] == 2
    assert sorted(sidecar["Sources"]) == sorted(
        source
        for run in ("01", "02")
        for source in (
            f"bids:xcp_d:sub-01/func/{task}_run-{run}_{space}_desc-denoised_bold.nii.gz",
            f"bids:fmriprep:sub-01/func/{task}_run-{run}_{space}_desc-brain_mask.nii.gz",
            f"bids:fmriprep:sub-01/func/{task}_run-{run}_desc-confounds_timeseries.tsv",
            f"bids:raw:sub-01/func/{task}_run-{run}_events.tsv",
        )
    )
    (methods,) = (tmp_path / "out").rglob("*desc-participant_methods.txt")
    assert "XCP-D 0.10.7" in methods.read_text()
    assert "NiBabies 24.0.0" in methods.read_text()


# Entities ---------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(("raw", "derived"), [("01", "1"), ("1", "01"), ("001", "1"), ("10", "010")])
def test_padding_of_run_numbers_does_not_part_a_run_from_its_files(raw: str, derived: str, tmp_path: Path) -> None:
    start = f"{FMRIPREP}/{run_name('01', '1', run=raw)}"
    root = make_tree(
        tmp_path / "bids",
        {
            preproc("01", "1", run=derived): "",
            f"{start}_desc-confounds_timeseries.tsv": "",
            f"{start}_space-{SPACE}_desc-brain_mask.nii.gz": "",
            f"{run_name('01', '1', run=raw)}_events.tsv": EVENTS,
            f"{run_name('01', '1', run=raw)}_bold.json": '{"RepetitionTime": 2}',
            # less specific, and of other runs
            "task-a_events.tsv": EVENTS,
            "task-a_bold.json": '{"RepetitionTime": 7}',
            f"{run_name('01', '1', run='11')}_events.tsv": EVENTS,
        },
    )
    run = only_run(root)
    assert run.events == root / f"{run_name('01', '1', run=raw)}_events.tsv"
    assert run.metadata == {"RepetitionTime": 2}
    assert run.confounds == root / f"{start}_desc-confounds_timeseries.tsv"
    assert run.mask == root / f"{start}_space-{SPACE}_desc-brain_mask.nii.gz"
    assert run.name.endswith(f"run-{derived}")


def test_events_of_the_magnitude_serve_an_image_that_does_not_say_its_part(tmp_path: Path) -> None:
    start = run_name("01", "1")
    files = {f"{start}_part-{part}_events.tsv": EVENTS for part in ("mag", "phase")}
    files |= {
        f"{start}_part-mag_bold.json": '{"RepetitionTime": 2}',
        f"{start}_part-phase_bold.json": '{"Units": "rad"}',
    }
    run = only_run(make_tree(tmp_path / "bids", {preproc("01", "1"): "", **files}))
    assert run.events is not None
    assert run.events.name.endswith("part-mag_events.tsv")
    assert run.metadata == {"RepetitionTime": 2}
    assert run.problem is None


@pytest.mark.parametrize(
    ("wanted", "runs"),
    [
        ("²", []),
        ("１", []),  # a digit, but not of ASCII
        ("01", ["1"]),
        (1.0, ["1"]),
        ([1, None], ["", "1"]),
        (["*", None], ["", "1", "2"]),
        ([], []),
        (True, []),
    ],
)
def test_unusual_values_of_filters_match_what_they_say_or_nothing(
    wanted: object, runs: list[str], tmp_path: Path
) -> None:
    from sessionfx.bids.choosing import matches_filter
    from sessionfx.bids.dataset import IndexedFile

    files = [
        IndexedFile(tmp_path, tmp_path, {"sub": "01", **({"run": run} if run else {})}, "bold", ".nii.gz")
        for run in ("", "1", "2")
    ]
    assert [file.entities.get("run", "") for file in files if matches_filter(file, {"run": wanted})] == runs


def test_participants_are_listed_once_over_several_derivatives(tmp_path: Path) -> None:
    root = make_tree(tmp_path / "bids", [preproc(sub, "1", pipeline=name) for sub in "21" for name in ("a", "b")])
    assert participants_with_runs(find_derivative_roots(root, ())) == ["1", "2"]
