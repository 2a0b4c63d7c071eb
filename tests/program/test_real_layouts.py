"""Real datasets, as they lie on disk, are analysed with the files that belong together.

Each layout is a small copy of a public one (`real_layouts`); the program is run on it as users do, and one run of each
is compared with nilearn's answer from the files that a reader of BIDS would choose.
"""

from __future__ import annotations

import json
import re
import subprocess
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import nibabel as nib
import numpy as np
import pytest

from program import run_command
from real_layouts import (
    derivatives,
    describe,
    nilearn_answer,
    preprocess,
    write,
    write_bold,
    write_confounds,
    write_events,
    write_mask,
)

MNI = "MNI152NLin2009cAsym"
# pseudo-random numbers of a run: every run differs from every other
BOLD, MOTION = 1000, 2000


@dataclass(frozen=True)
class Layout:
    """A dataset on disk, how it is analysed, and what a reader of it expects.

    Attributes
    ----------
    root : Path
        The raw dataset.
    options : tuple of str
        Beyond the two folders and levels.
    runs : dict of str to str
        Name of each run in the output, and the events file it belongs to, from the root.
    sessions : tuple of str
        In time order; empty without `ses-`.
    weights : dict of str to float
        The contrast, by regressor.
    repetition_time : float
    bold, confounds : Path
        Of the first run.
    """

    root: Path
    options: tuple[str, ...]
    runs: dict[str, str]
    sessions: tuple[str, ...]
    weights: dict[str, float]
    repetition_time: float
    bold: Path
    confounds: Path | None


def ds000001(root: Path) -> Layout:
    """fMRIPrep 20.2 LTS: raw `run-01`, derivatives `run-1`; surfaces, AROMA's files and copies `… 2.json` between."""
    task, runs = "balloonanalogrisktask", {}
    describe(root, "Balloon Analog Risk-taking Task")
    write(root / f"task-{task}_bold.json", '{"RepetitionTime": 2.0, "TaskName": "balloon analog risk task"}')
    prep = derivatives(root / "derivatives" / "fmriprep", "fMRIPrep", "20.2.0rc0")
    write(prep / ".bidsignore", "*.html\nlogs/\nfigures/\n*_xfm.*\n*.surf.gii\n*_boldref.nii.gz\n*_bold.func.gii\n")
    write(prep / "desc-aseg_dseg.tsv", "index\tname\n")
    for number, sub in enumerate(("10", "11")):
        write(prep / f"sub-{sub}.html")
        write_mask(prep / f"sub-{sub}/anat/sub-{sub}_space-{MNI}_res-2_desc-brain_mask.nii.gz")
        for run in (1, 2, 3):
            seed = 10 * number + run
            raw = f"sub-{sub}/func/sub-{sub}_task-{task}_run-{run:02d}_events.tsv"
            write_events(root / raw, ("cash_demean", "pumps_demean"), seed=seed)
            write(root / raw.replace("events.tsv", "bold.nii.gz"))
            start = prep / f"sub-{sub}/func/sub-{sub}_task-{task}_run-{run}"
            preprocess(
                prep, str(start.relative_to(prep)), root / raw, space=f"space-{MNI}_res-2", repetition_time=2.0,
                seed=BOLD + seed, confounds_seed=MOTION + seed,
            )  # fmt: skip
            for other in (
                "AROMAnoiseICs.csv",
                "desc-MELODIC_mixing.tsv",
                "desc-confounds_timeseries 2.json",
                "from-T1w_to-scanner_mode-image_xfm.txt",
                f"space-{MNI}_res-2_boldref.nii.gz",
                f"space-{MNI}_res-2_desc-aseg_dseg.nii.gz",
                f"space-{MNI}_res-2_desc-preproc_bold 2.json",
                "space-MNI152NLin6Asym_desc-smoothAROMAnonaggr_bold.nii.gz",
                "space-fsaverage5_hemi-L_bold.func.gii",
            ):
                write(start.with_name(f"{start.name}_{other}"))
            runs[f"sub-{sub}_task-{task}_run-{run}"] = raw
    first = prep / f"sub-10/func/sub-10_task-{task}_run-1"
    return Layout(
        root, ("--contrast", "cash_demean - pumps_demean"), runs, (), {"cash_demean": 1, "pumps_demean": -1}, 2.0,
        first.with_name(f"{first.name}_space-{MNI}_res-2_desc-preproc_bold.nii.gz"),
        first.with_name(f"{first.name}_desc-confounds_timeseries.tsv"),
    )  # fmt: skip


def ds007(root: Path) -> Layout:
    """Three tasks of two runs; conditions with spaces; a first row with `n/a` where the response was not scored."""
    task, runs = "stopsignalwithmanualresponse", {}
    describe(root, "Stop-signal task with unselective and selective stopping")
    prep = derivatives(root / "derivatives" / "fmriprep", "fMRIPrep", "23.1.3")
    conditions = ("go", "successful stop", "failed stop")
    for number, name in enumerate((task, "stopsignalwithletternaming", "stopsignalwithpseudowordnaming")):
        write(root / f"task-{name}_bold.json", json.dumps({"RepetitionTime": 2.0, "TaskName": name}))
        for sub in ("01", "03"):
            for run in ("01", "02"):
                seed = 100 * number + 10 * int(sub) + int(run)
                start = f"sub-{sub}/func/sub-{sub}_task-{name}_run-{run}"
                unscored = "0.000\tn/a\t0.000\tn/a" if (sub, run) == ("03", "01") else ""
                events = root / f"{start}_events.tsv"
                write_events(events, conditions, seed=seed, first=unscored, more="SSD=0.113")
                preprocess(
                    prep, start, events, space=f"space-{MNI}", repetition_time=2.0, seed=BOLD + seed,
                    confounds_seed=MOTION + seed,
                )  # fmt: skip
                if name == task:
                    runs[Path(start).name] = f"{start}_events.tsv"
    start = f"sub-01/func/sub-01_task-{task}_run-01"
    return Layout(
        root, ("--task", task, "--contrast", "`successful stop` - go"), runs, (), {"successful_stop": 1, "go": -1}, 2.0,
        prep / f"{start}_space-{MNI}_desc-preproc_bold.nii.gz", prep / f"{start}_desc-confounds_timeseries.tsv",
    )  # fmt: skip


def ds114(root: Path) -> Layout:
    """Sessions `test` and `retest`, which the alphabet puts the wrong way round; one task's events at the root only."""
    task, runs = "fingerfootlips", {}
    describe(root, "ds114")
    write_events(root / f"task-{task}_events.tsv", ("Finger", "Foot", "Lips"), seed=1, more="weight=1")
    for name in (task, "linebisection"):
        slices = {"SliceTiming": [0.0, 1.25], "RepetitionTime": 2.5, "TaskName": name}
        write(root / f"task-{name}_bold.json", json.dumps(slices))
    prep = derivatives(root / "derivatives" / "fmriprep", "fMRIPrep", "1.5.8")
    for sub in ("01", "02"):
        for number, ses in enumerate(("test", "retest")):
            seed = 10 * int(sub) + number
            folder = f"sub-{sub}/ses-{ses}/func"
            write_events(
                root / folder / f"sub-{sub}_ses-{ses}_task-linebisection_events.tsv", ("Correct", "Wrong"), seed=seed
            )
            write_mask(prep / f"sub-{sub}/anat/sub-{sub}_space-{MNI}_desc-brain_mask.nii.gz")
            for name in (task, "linebisection"):
                start = f"{folder}/sub-{sub}_ses-{ses}_task-{name}"
                write(root / f"{start}_bold.nii.gz")
                write_bold(
                    prep / f"{start}_space-{MNI}_desc-preproc_bold.nii.gz",
                    root / f"task-{task}_events.tsv",
                    repetition_time=2.5,
                    seed=BOLD + seed,
                )
                write_mask(prep / f"{start}_space-{MNI}_desc-brain_mask.nii.gz")
                # the name of fMRIPrep before 20.2
                write_confounds(prep / f"{start}_desc-confounds_regressors.tsv", seed=MOTION + seed)
            runs[f"sub-{sub}_ses-{ses}_task-{task}"] = f"task-{task}_events.tsv"
    start = f"sub-01/ses-test/func/sub-01_ses-test_task-{task}"
    return Layout(
        root, ("--task", task, "--session-label", "test", "retest", "--contrast", "Finger - Foot"), runs,
        ("test", "retest"), {"Finger": 1, "Foot": -1}, 2.5,
        prep / f"{start}_space-{MNI}_desc-preproc_bold.nii.gz", prep / f"{start}_desc-confounds_regressors.tsv",
    )  # fmt: skip


def ds003(root: Path) -> Layout:
    """One run without `run-`; images that fMRIPost-AROMA denoised, masks and confounds in fMRIPrep's folder."""
    task, runs, space = "rhymejudgment", {}, "space-MNI152NLin6Asym_res-2"
    describe(root, "Rhyme judgment")
    write(root / f"task-{task}_bold.json", '{"RepetitionTime": 2.0, "TaskName": "rhyme judgment"}')
    prep = derivatives(root / "derivatives" / "fmriprep", "fMRIPrep", "24.1.1")
    aroma = derivatives(root / "derivatives" / "fmripost_aroma", "fMRIPost-AROMA", "0.0.12")
    for number, sub in enumerate(("01", "02")):
        start = f"sub-{sub}/func/sub-{sub}_task-{task}"
        events = write_events(root / f"{start}_events.tsv", ("word", "pseudoword"), seed=number)
        for folder, desc in ((prep, "preproc"), (aroma, "nonaggrDenoised"), (aroma, "aggrDenoised")):
            write_bold(
                folder / f"{start}_{space}_desc-{desc}_bold.nii.gz", events, repetition_time=2.0,
                seed=BOLD + number + 10 * len(desc),
            )  # fmt: skip
        write_mask(prep / f"{start}_{space}_desc-brain_mask.nii.gz")
        write_confounds(prep / f"{start}_desc-confounds_timeseries.tsv", seed=MOTION + number)
        write(aroma / f"{start}_desc-melodic_mixing.tsv")
        runs[Path(start).name] = f"{start}_events.tsv"
    chosen = write(root.parent / "aroma.json", '{"bold": {"desc": "nonaggrDenoised"}}')
    start = f"sub-01/func/sub-01_task-{task}"
    return Layout(
        root, ("--bids-filter-file", str(chosen), "--contrast", "pseudoword - word"), runs, (),
        {"pseudoword": 1, "word": -1}, 2.0,
        aroma / f"{start}_{space}_desc-nonaggrDenoised_bold.nii.gz", prep / f"{start}_desc-confounds_timeseries.tsv",
    )  # fmt: skip


def ds210(root: Path) -> Layout:
    """Three echoes: fMRIPrep writes their combination in MNI space, and each echo in the run's own."""
    task, runs = "cuedSGT", {}
    describe(root, "Cued stop-go task")
    prep = derivatives(root / "derivatives" / "fmriprep", "fMRIPrep", "24.0.0")
    for echo in (1, 2, 3):
        write(root / f"task-{task}_echo-{echo}_bold.json", json.dumps({"RepetitionTime": 3.0, "EchoTime": echo / 70}))
    for sub in ("02", "04"):
        for run in ("01", "02"):
            seed = 10 * int(sub) + int(run)
            start = f"sub-{sub}/func/sub-{sub}_task-{task}_run-{run}"
            events = write_events(root / f"{start}_events.tsv", ("cued", "uncued"), seed=seed)
            combined = f"{start}_space-{MNI}_desc-preproc_bold.nii.gz"
            names = [f"{start}_echo-{echo}_desc-preproc_bold.nii.gz" for echo in (1, 2, 3)]
            for number, name in enumerate([combined, *names]):
                write_bold(prep / name, events, repetition_time=3.0, seed=BOLD + 100 * number + seed)
            write(root / f"{start}_echo-1_bold.nii.gz")
            write_mask(prep / f"{start}_desc-brain_mask.nii.gz")
            write_mask(prep / f"{start}_space-{MNI}_desc-brain_mask.nii.gz")
            write(prep / f"{start}_space-{MNI}_T2starmap.nii.gz")
            write_confounds(prep / f"{start}_desc-confounds_timeseries.tsv", seed=MOTION + seed)
            runs[Path(start).name] = f"{start}_events.tsv"
    start = f"sub-02/func/sub-02_task-{task}_run-01"
    return Layout(
        root, ("--contrast", "cued - uncued"), runs, (), {"cued": 1, "uncued": -1}, 3.0,
        prep / f"{start}_space-{MNI}_desc-preproc_bold.nii.gz", prep / f"{start}_desc-confounds_timeseries.tsv",
    )  # fmt: skip


def synthetic(root: Path) -> Layout:
    """Uncompressed images, masks of before `desc-brain`, no confounds; numbered sessions, two spaces, a resting task."""
    task, runs = "nback", {}
    describe(root, "Synthetic")
    write_events(root / f"task-{task}_events.tsv", ("scene_target", "scene_nontarget"), seed=5)
    prep = derivatives(root / "derivatives" / "fmriprep", "fMRIPrep", "1.0.6")
    write(prep / ".bidsignore", "*.html\n")
    for sub in ("01", "02"):
        for ses in ("01", "02"):
            for name in (f"{task}_run-01", f"{task}_run-02", "rest"):
                start = f"sub-{sub}/ses-{ses}/func/sub-{sub}_ses-{ses}_task-{name}"
                for number, space in enumerate((MNI, "T1w")):
                    seed = 100 * number + 10 * int(sub) + int(ses)
                    write_bold(
                        prep / f"{start}_space-{space}_desc-preproc_bold.nii", root / f"task-{task}_events.tsv",
                        repetition_time=2.5, seed=BOLD + seed + len(runs),
                    )  # fmt: skip
                    write_mask(prep / f"{start}_space-{space}_label-brain_mask.nii")
                if name != "rest":
                    runs[Path(start).name] = f"task-{task}_events.tsv"
    start = f"sub-01/ses-01/func/sub-01_ses-01_task-{task}_run-01"
    chosen = write(root.parent / "masks.json", '{"mask": {"desc": null, "label": "brain"}}')
    return Layout(
        root, ("--task", task, "--confounds", "none", "--bids-filter-file", str(chosen),
               "--contrast", "scene_target - scene_nontarget"), runs,
        ("01", "02"), {"scene_target": 1, "scene_nontarget": -1}, 2.5,
        prep / f"{start}_space-{MNI}_desc-preproc_bold.nii", None,
    )  # fmt: skip


@dataclass(frozen=True)
class Analysed:
    """A layout after the program was run on it."""

    layout: Layout
    output: Path
    done: subprocess.CompletedProcess[str]

    def design(self, run: str) -> dict[str, object]:
        """What is written of a run's design."""
        (path,) = self.output.glob(f"sub-*/**/{run}_*design.json")
        content: dict[str, object] = json.loads(path.read_text())
        return content


QUICK = (ds000001, ds007, ds114)
LAYOUTS = [
    pytest.param(make, id=make.__name__, marks=() if make in QUICK else pytest.mark.slow)
    for make in (*QUICK, ds003, ds210, synthetic)
]


@pytest.fixture(scope="module", params=LAYOUTS)
def analysed(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Analysed:
    """Both levels, as a user runs them."""
    make: Callable[[Path], Layout] = request.param
    folder = tmp_path_factory.mktemp(make.__name__)
    layout = make(folder / make.__name__)
    output = folder / "out"
    done = run_command(
        layout.root, output, "participant", "group", "--no-report", "--keep-run-maps", "--nprocs", "1", *layout.options
    )
    return Analysed(layout, output, done)


def test_everything_is_done(analysed: Analysed) -> None:
    assert analysed.done.returncode == 0, analysed.done.stderr
    assert "FAILED" not in analysed.done.stderr


def test_every_run_is_analysed_once_with_its_own_events(analysed: Analysed) -> None:
    found = {re.split("_space-|_design", path.name)[0] for path in analysed.output.glob("sub-*/**/*_design.json")}
    assert found == set(analysed.layout.runs)
    for run, events in analysed.layout.runs.items():
        sources = analysed.design(run)["Sources"]
        assert [source for source in sources if source.endswith("events.tsv")] == [f"bids:raw:{events}"]


def test_sessions_are_combined_in_time_order(analysed: Analysed) -> None:
    layout = analysed.layout
    participants = sorted({run.split("_")[0] for run in layout.runs})
    for sub in participants:
        for ses in layout.sessions or ("",):
            place = f"{sub}_ses-{ses}" if ses else sub
            own = [run for run in layout.runs if run.startswith(f"{place}_")]
            folder = analysed.output / sub / (f"ses-{ses}" if ses else "") / "func"
            (path,) = folder.glob("*stat-t_desc-fixedEffects_statmap.json")
            sidecar = json.loads(path.read_text())
            assert sidecar["NumberOfInputs"] == len(own)
            inputs = [analysed.design(run)["DegreesOfFreedom"] for run in own]
            assert sidecar["InputDegreesOfFreedom"] == inputs
            assert min(inputs) <= sidecar["DegreesOfFreedom"] <= sum(inputs), "Satterthwaite's bounds"
    if layout.sessions:
        shown = ", ".join(f"ses-{ses}" for ses in layout.sessions)
        assert f"{len(layout.sessions)} sessions in time order: {shown}" in analysed.done.stderr
        early, late = (ses[0].upper() + ses[1:] for ses in layout.sessions)
        assert list(analysed.output.rglob(f"*sessions-ses{late}MinusSes{early}_stat-t*"))


def test_the_first_run_has_nilearns_effects_and_degrees_of_freedom(analysed: Analysed) -> None:
    layout = analysed.layout
    run, events = next(iter(layout.runs.items()))
    theirs, dof = nilearn_answer(
        layout.bold, layout.root / events, layout.confounds, layout.weights, layout.repetition_time
    )
    (path,) = [path for path in analysed.output.rglob(f"{run}_*stat-effect*.nii.gz") if "fixedEffects" not in path.name]
    np.testing.assert_allclose(nib.load(path).get_fdata(), theirs, rtol=1e-5)
    assert analysed.design(run)["DegreesOfFreedom"] == dof
    assert f"bids:{layout.bold.relative_to(layout.root / 'derivatives').parts[0]}:" in str(
        analysed.design(run)["Sources"]
    )


def test_the_group_has_everybody(analysed: Analysed) -> None:
    paths = list(analysed.output.rglob("*strategy-*stat-t*statmap.json"))
    assert paths
    n_participants = len({run.split("_")[0] for run in analysed.layout.runs})
    assert {json.loads(path.read_text())["NumberOfParticipants"] for path in paths} == {n_participants}


@pytest.mark.slow
def test_echoes_are_no_runs_and_the_filter_named_analyses_one(tmp_path: Path) -> None:
    layout = ds210(tmp_path / "ds210")
    arguments = [layout.root, tmp_path / "out", "participant", "--space", "none", "--no-report", "--nprocs", "1"]
    refused = run_command(*arguments, "--dry-run", *layout.options)
    assert refused.returncode == 2, refused.stderr
    assert "(echo-1, echo-2, echo-3), which are not runs of their own" in refused.stderr
    (chosen,) = re.findall(r'{"bold": {"echo": "2"}}', refused.stderr)
    file = write(tmp_path / "filter.json", chosen)
    done = run_command(
        *arguments, "--participant-label", "02", "--bids-filter-file", file, "--keep-run-maps", *layout.options
    )
    assert done.returncode == 0, done.stderr
    first = "sub-02_task-cuedSGT_run-01"
    bold = layout.root / f"derivatives/fmriprep/sub-02/func/{first}_echo-2_desc-preproc_bold.nii.gz"
    theirs, dof = nilearn_answer(bold, layout.root / layout.runs[first], layout.confounds, layout.weights, 3.0)
    (path,) = (tmp_path / "out").rglob(f"{first}_*stat-effect_statmap.nii.gz")
    np.testing.assert_allclose(nib.load(path).get_fdata(), theirs, rtol=1e-5)
    (session,) = (tmp_path / "out").rglob("*stat-t_desc-fixedEffects_statmap.json")
    sidecar = json.loads(session.read_text())
    assert sidecar["InputDegreesOfFreedom"] == [dof, dof], "two runs of one echo each"
    assert sidecar["DegreesOfFreedom"] <= 2 * dof


@pytest.mark.slow
def test_a_runs_own_events_go_before_those_at_the_root_whatever_the_padding(tmp_path: Path) -> None:
    """Raw `run-01`, preprocessed `run-1`, and its mask and confounds again `run-01`."""
    layout = ds000001(tmp_path / "ds000001")
    first = "sub-10_task-balloonanalogrisktask_run-1"
    own = layout.root / layout.runs[first]
    swapped = own.read_text().replace("cash", "other").replace("pumps", "cash").replace("other", "pumps")
    write(layout.root / "task-balloonanalogrisktask_events.tsv", swapped)
    for path in (layout.bold.parent).glob(f"{first}_*"):
        if "desc-brain_mask" in path.name or "desc-confounds" in path.name:
            path.rename(path.with_name(path.name.replace("_run-1_", "_run-01_")))
    confounds = layout.bold.with_name(f"{first.replace('run-1', 'run-01')}_desc-confounds_timeseries.tsv")
    chosen = write(tmp_path / "filter.json", '{"bold": {"run": 1}}')
    output = tmp_path / "out"
    done = run_command(
        layout.root, output, "participant", "--participant-label", "10", "--no-report", "--keep-run-maps",
        "--nprocs", "1", "--bids-filter-file", chosen, *layout.options,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    theirs, dof = nilearn_answer(layout.bold, own, confounds, layout.weights, 2.0)
    (path,) = output.rglob(f"{first}_*stat-effect_statmap.nii.gz")
    np.testing.assert_allclose(nib.load(path).get_fdata(), theirs, rtol=1e-5)
    (design,) = output.glob("sub-10/**/*_design.json")
    facts = json.loads(design.read_text())
    assert design.name.startswith(f"{first}_")
    assert facts["DegreesOfFreedom"] == dof
    names = [source.split("/")[-1].split("_space")[0] for source in facts["Sources"]]
    padded = first.replace("run-1", "run-01")
    assert names == [first, padded, f"{padded}_events.tsv", f"{padded}_desc-confounds_timeseries.tsv"]
    written = {found for path in output.rglob("sub-10*") for found in re.findall(r"_run-\w+?_", path.name)}
    assert written == {"_run-1_"}, "one spelling, the preprocessed image's"


@pytest.mark.slow
def test_a_run_whose_mask_is_not_named_brain_says_how_to_choose_it(tmp_path: Path) -> None:
    """No mask can be computed from these images, which are brain up to their edges."""
    layout = synthetic(tmp_path / "synthetic")
    options = [option for option in layout.options if option != "--bids-filter-file" and not option.endswith(".json")]
    done = run_command(layout.root, tmp_path / "out", "participant", "--no-report", "--nprocs", "1", *options)
    assert done.returncode == 1, done.stderr
    assert "has no brain mask in the derivatives and none can be computed from it (it would be empty)" in done.stderr
    assert "under 'mask' in --bids-filter-file" in done.stderr
