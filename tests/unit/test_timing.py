"""When volumes were acquired: repetition times, and the times of single volumes of sparse acquisition."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import nibabel as nib
import numpy as np
import pandas as pd
import pytest
from nilearn.glm.first_level import compute_regressor, make_first_level_design_matrix
from numpy.typing import NDArray

from program import run_command
from sessionfx.ask.contrasts import parse_contrast
from sessionfx.bids.runs import RunInputs
from sessionfx.errors import ParticipantError
from sessionfx.options import FirstLevelModel
from sessionfx.participant.conditions import Events
from sessionfx.participant.confounds import Confounds
from sessionfx.participant.design import make_design
from sessionfx.participant.run import analyse_run
from sessionfx.participant.timing import Timing, run_timing

SHAPE = (3, 4, 2)
# three volumes two seconds apart, then six seconds of silence
SPARSE = [12.0 * cluster + 2.0 * volume for cluster in range(20) for volume in range(3)]
N_VOLUMES = len(SPARSE)
AFFINE = np.diag([8.0, 8.0, 8.0, 1.0])


def image_of(n_volumes: int = N_VOLUMES, *, seconds: float = 2.0, unit: str = "sec") -> nib.Nifti1Image:
    image = nib.Nifti1Image(np.zeros((*SHAPE, n_volumes), np.float32), AFFINE)
    image.header.set_zooms((8, 8, 8, seconds))
    image.header.set_xyzt_units("mm", unit)
    return image


def run_with(**metadata: Any) -> RunInputs:
    return RunInputs({"sub": "01", "task": "a"}, Path("bold.nii"), None, None, None, metadata)


def timing_of(image: nib.Nifti1Image | None = None, **metadata: Any) -> Timing:
    return run_timing(run_with(**metadata), image or image_of())


def events_with(onsets: list[float], names: list[str]) -> Events:
    return Events(pd.DataFrame({"onset": onsets, "duration": 1.0, "trial_type": names}), ())


EVENTS = events_with([5.0, 17.3, 31.0, 52.9, 77.7, 101.0, 130.2, 160.0], ["go", "stop"] * 4)
NO_CONFOUNDS = Confounds(pd.DataFrame(index=range(N_VOLUMES)))


# Volumes at times of their own ------------------------------------------------------------------------------


def test_volume_timing_gives_the_times_and_the_end(tmp_path: Path) -> None:
    timing = timing_of(VolumeTiming=SPARSE, AcquisitionDuration=1.5)
    np.testing.assert_array_equal(timing.times, SPARSE)
    assert timing.repetition_time is None
    assert timing.end == SPARSE[-1] + 1.5
    assert not timing.is_regular
    assert timing_of(VolumeTiming=SPARSE).end == SPARSE[-1] + 2, "no volume lasts longer than to the closest next one"


def test_start_time_is_added_to_the_times_of_volumes() -> None:
    timing = timing_of(VolumeTiming=SPARSE, StartTime=0.75, RepetitionTime=None)
    np.testing.assert_allclose(timing.times, np.array(SPARSE) + 0.75)
    assert (timing.start_time, timing.end) == (0.75, SPARSE[-1] + 2)


@pytest.mark.parametrize(
    ("metadata", "reason"),
    [
        ({"VolumeTiming": SPARSE[:-1]}, "VolumeTiming in the JSON has 59 times, but the run has 60 volumes"),
        ({"VolumeTiming": [*SPARSE[:-2], 230, 229]}, r"does not increase at place 60 \(230 s, then 229 s\)"),
        ({"VolumeTiming": [*SPARSE[:-1], SPARSE[-2]]}, "does not increase at place 60"),
        ({"VolumeTiming": [*SPARSE[:-1], "232"]}, "holds '232' at place 60, expected seconds"),
        ({"VolumeTiming": [*SPARSE[:-1], float("nan")]}, "holds nan at place 60"),
        ({"VolumeTiming": [*SPARSE[:-1], True]}, "holds True at place 60"),
        ({"VolumeTiming": [*SPARSE[:-1], 10**400]}, "holds 1000.*… at place 60"),
        ({"VolumeTiming": [time * 1000 for time in SPARSE]}, "expected seconds from the beginning"),
        ({"VolumeTiming": [time - 2 for time in SPARSE]}, "begins at -2 .* expected seconds from the beginning"),
        ({"VolumeTiming": [time + 1.7e9 for time in SPARSE]}, "expected seconds from the beginning"),
        ({"VolumeTiming": 12}, "is 12, expected a list of seconds"),
        ({"VolumeTiming": SPARSE, "RepetitionTime": 2.0}, r"both RepetitionTime \(2.0\) and VolumeTiming"),
        ({"VolumeTiming": SPARSE, "AcquisitionDuration": 1500}, "AcquisitionDuration is 1500 .* no more than the 2 s"),
        ({"VolumeTiming": SPARSE, "AcquisitionDuration": "2"}, "AcquisitionDuration is '2' in the JSON"),
    ],
)
def test_times_of_volumes_that_cannot_be_are_refused_by_name(metadata: dict[str, Any], reason: str) -> None:
    with pytest.raises(ParticipantError, match=rf"sub-01_task-a.*{reason}.*(Correct|Remove)"):
        timing_of(**metadata)


def finely(condition: str, times: list[float], hrf_model: str = "glover") -> NDArray[np.float64]:
    """Give nilearn's response to the events, on a grid of a fiftieth of a second, at these times."""
    rows = EVENTS.table[EVENTS.table["trial_type"] == condition]
    grid = np.arange(0, times[-1] + 1, 0.02)
    blocks = (rows["onset"].to_numpy(), rows["duration"].to_numpy(), np.ones(len(rows)))
    fine, _ = compute_regressor(blocks, hrf_model, grid, oversampling=1)
    return np.asarray(np.interp(times, grid, fine[:, 0]))


def test_responses_are_taken_at_the_times_of_the_volumes() -> None:
    design = make_design(timing_of(VolumeTiming=SPARSE), EVENTS, NO_CONFOUNDS, FirstLevelModel())
    assert design.condition_columns == ("go", "stop")
    for condition in design.condition_columns:
        truth = finely(condition, SPARSE)
        np.testing.assert_allclose(design.matrix[condition], truth, atol=0.01 * truth.max())


def test_confounds_stand_beside_the_responses_of_irregular_volumes() -> None:
    confounds = Confounds(pd.DataFrame({"rot_x": np.random.default_rng(0).normal(size=N_VOLUMES)}))
    design = make_design(timing_of(VolumeTiming=SPARSE), EVENTS, confounds, FirstLevelModel())
    assert list(design.matrix) == ["go", "stop", "rot_x", "drift_1", "drift_2", "drift_3", "drift_4", "constant"]
    np.testing.assert_array_equal(design.matrix["rot_x"], confounds.table["rot_x"])
    named = Confounds(confounds.table.rename(columns={"rot_x": "go"}))
    with pytest.raises(ParticipantError, match=r"called go.*rename it in the events file"):
        make_design(timing_of(VolumeTiming=SPARSE), EVENTS, named, FirstLevelModel())


def test_nilearn_by_itself_stretches_responses_where_volumes_are_not_equally_spaced() -> None:
    """Why its design is not taken as it is: should this fail, nilearn was corrected, and ours can go."""
    theirs = make_first_level_design_matrix(np.array(SPARSE), EVENTS.table, drift_model=None)
    assert np.corrcoef(theirs["go"], finely("go", SPARSE))[0, 1] < 0.5


@pytest.mark.parametrize("hrf_model", ["glover", "spm + derivative", "glover + derivative + dispersion"])
@pytest.mark.parametrize("drift_model", ["cosine", "polynomial", "none"])
def test_the_way_for_irregular_volumes_gives_nilearns_design_where_they_are_regular(
    hrf_model: str, drift_model: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    timing = timing_of(RepetitionTime=2.0, StartTime=1.0)
    model = FirstLevelModel(hrf_model=hrf_model, drift_model=drift_model)
    theirs = make_design(timing, EVENTS, NO_CONFOUNDS, model).matrix
    monkeypatch.setattr(Timing, "is_regular", property(lambda _: False))
    ours = make_design(timing, EVENTS, NO_CONFOUNDS, model).matrix
    assert list(ours) == list(theirs)
    scale = theirs.abs().max()
    # onsets fall on samples of 40 ms there, of 20 ms here
    assert ((ours - theirs).abs().max() / scale < 0.05).all()
    drifts = [name for name in theirs if name.startswith(("drift", "constant"))]
    np.testing.assert_allclose(ours[drifts], theirs[drifts], atol=1e-9)


def test_volumes_at_equal_times_have_nilearns_very_design() -> None:
    regular = [2.0 * volume for volume in range(N_VOLUMES)]
    model = FirstLevelModel()
    ours = make_design(timing_of(VolumeTiming=regular), EVENTS, NO_CONFOUNDS, model)
    pd.testing.assert_frame_equal(ours.matrix, make_first_level_design_matrix(np.array(regular), EVENTS.table))


def test_a_sparse_run_gives_back_the_effect_that_is_in_it(tmp_path: Path) -> None:
    go, stop = finely("go", SPARSE), finely("stop", SPARSE)
    rng = np.random.default_rng(0)
    data = 1000 + rng.standard_normal((*SHAPE, N_VOLUMES)) + 30 * go + 10 * stop
    header = image_of().header
    nib.Nifti1Image(data.astype(np.float32), AFFINE, header).to_filename(tmp_path / "bold.nii")
    nib.Nifti1Image(np.ones(SHAPE, np.uint8), AFFINE).to_filename(tmp_path / "mask.nii")
    EVENTS.table.to_csv(tmp_path / "events.tsv", sep="\t", index=False)
    files = (tmp_path / "bold.nii", tmp_path / "mask.nii", tmp_path / "events.tsv", None)
    run = RunInputs({"sub": "01", "task": "a"}, *files, {"VolumeTiming": SPARSE})
    contrast = parse_contrast("go - stop")
    model = FirstLevelModel()
    fitted = analyse_run(run, [contrast], model)
    estimate = fitted.estimates[contrast.label].estimate
    assert abs(estimate.effect.mean() - 2.0) < 4 * np.sqrt(estimate.variance.mean() / estimate.effect.size)
    (warning,) = [warning for warning in fitted.warnings if "not equally spaced" in warning]
    for fragment in ("2 to 8 s apart", "at the time of each volume", "--noise-model ols assumes no such thing"):
        assert fragment in warning
    quiet = analyse_run(run, [contrast], FirstLevelModel(noise_model="ols"))
    assert not any("autoregressive" in warning for warning in quiet.warnings), "the remedy that the warning names"


@pytest.mark.slow
def test_times_in_the_raw_json_alone_reach_outputs_and_page_and_changed_ones_redo_the_work(
    small_dataset: Path, tmp_path: Path
) -> None:
    start, n_volumes = "sub-01/ses-01/func/sub-01_ses-01_task-stroop_run-01", 60
    raw, derivatives = tmp_path / "bids", tmp_path / "bids/derivatives/fmriprep"
    copy_run(small_dataset, raw, start)
    space = "_space-MNI152NLin2009cAsym_desc-preproc_bold.json"
    sidecar = json.loads((derivatives / f"{start}{space}").read_text())
    (derivatives / f"{start}{space}").write_text(json.dumps({**sidecar, "RepetitionTime": None}))
    times = [2.0 * volume + 10 * (volume // 20) for volume in range(n_volumes)]
    (raw / f"{start}_bold.json").write_text(json.dumps({"TaskName": "stroop", "VolumeTiming": times}))
    call = (raw, tmp_path / "out", "participant", "--contrast", "incongruent - congruent", "--noise-model", "ols")
    planned = run_command(*call, "--dry-run")
    assert "volume timing: 60 times from 0.0 to 138.0 s" in planned.stdout, planned.stdout + planned.stderr
    done = run_command(*call)
    assert done.returncode == 0, done.stderr
    facts = json.loads((tmp_path / "out" / f"{start}_space-MNI152NLin2009cAsym_design.json").read_text())
    assert facts["RepetitionTime"] is None
    assert facts["VolumeTiming"] == times
    assert facts["RunDuration"] == 140
    assert "own" in (tmp_path / "out" / "sub-01.html").read_text()
    assert "finished before" in run_command(*call).stderr
    assert run_command(*call, "--reports-only").returncode == 0, "the page is drawn from files too"
    (raw / f"{start}_bold.json").write_text(json.dumps({"TaskName": "stroop", "VolumeTiming": [*times[:-1], 139]}))
    assert "finished before" not in run_command(*call).stderr


def copy_run(source: Path, target: Path, start: str) -> None:
    """Copy a run with all that belongs to it, and the descriptions."""
    for path in source.rglob("*"):
        relative = path.relative_to(source)
        if path.is_file() and ((start in str(relative)) or path.name == "dataset_description.json"):
            (target / relative).parent.mkdir(parents=True, exist_ok=True)
            (target / relative).write_bytes(path.read_bytes())
    (target / "derivatives/truth/dataset_description.json").unlink(missing_ok=True)


# Repetition times -------------------------------------------------------------------------------------------


@pytest.mark.parametrize("seconds", [1e-4, 1e-9, 0, -2, 2000, 10**300, "2", True, [2.0], float("inf")])
def test_a_repetition_time_that_no_scan_has_is_refused(seconds: Any) -> None:
    with pytest.raises(ParticipantError, match=r"RepetitionTime is .* in the JSON, expected seconds \(0.01 to 100\)"):
        timing_of(RepetitionTime=seconds)


@pytest.mark.parametrize("start", [1e9, -1e9, 450, "0", float("nan"), 10**400])
def test_a_start_time_that_cannot_be_is_refused(start: Any) -> None:
    with pytest.raises(ParticipantError, match=r"StartTime is .* in the JSON, expected seconds"):
        timing_of(RepetitionTime=2.0, StartTime=start)


@pytest.mark.parametrize(
    ("metadata", "said"),
    [
        ({"SliceTimingCorrected": True}, "Slices were corrected for their times, and no JSON says to which"),
        ({"SliceTiming": [0.0, 1.0]}, "Slices may have been corrected for their times (SliceTiming), and no JSON"),
        ({"SliceTiming": [0.0, 1.0], "SliceTimingCorrected": None}, "Slices may have been corrected"),
        ({"SliceTimingCorrected": True, "StartTime": 0.0}, ""),
        ({"SliceTiming": [0.0, 1.0], "StartTime": 0.97}, ""),
        ({"SliceTiming": [0.0, 1.0], "SliceTimingCorrected": False}, ""),
        ({"SliceTiming": [0.0]}, ""),
        ({}, ""),
    ],
)
def test_slices_that_were_corrected_to_an_unknown_time_are_said(metadata: dict[str, Any], said: str) -> None:
    for spacing in ({"RepetitionTime": 2.0}, {"VolumeTiming": SPARSE}):
        timing = timing_of(**spacing, **metadata)
        assert timing.start_time == metadata.get("StartTime", 0.0)
        assert [warning[: len(said)] for warning in timing.warnings] == ([said] if said else [])


@pytest.mark.parametrize(("start", "n_removed"), [(0.0, 0), (0.97, 0), (-0.5, 0), (8.0, 4), (8.97, 4)])
def test_a_run_whose_first_volumes_were_removed_ends_as_late_as_before(start: float, n_removed: int) -> None:
    timing = timing_of(RepetitionTime=2.0, StartTime=start)
    np.testing.assert_allclose(timing.times, start + 2.0 * np.arange(N_VOLUMES))
    assert timing.end == 2.0 * (n_removed + N_VOLUMES)


def test_null_is_absent() -> None:
    timing = timing_of(RepetitionTime=None, VolumeTiming=None, StartTime=None)
    assert (timing.repetition_time, timing.start_time) == (2.0, 0.0)
    assert "No JSON gives RepetitionTime" in timing.warnings[0]


def test_a_header_in_milliseconds_without_unit_is_refused_or_said() -> None:
    image = image_of(seconds=2000)
    with pytest.raises(ParticipantError, match=r"header says 2000 s.*milliseconds, 2 s.*Add RepetitionTime"):
        timing_of(image)
    (warning,) = timing_of(image, RepetitionTime=2.0).warnings
    assert "milliseconds without their unit" in warning
    assert timing_of(image_of(seconds=2000, unit="msec")).repetition_time == 2.0


@pytest.mark.parametrize("axis", [3, 4])
def test_the_header_gives_the_repetition_time_of_the_axis_of_time(axis: int) -> None:
    shape = [*SHAPE, 1, 1]
    shape[axis] = N_VOLUMES
    image = nib.Nifti1Image(np.zeros(shape, np.float32), AFFINE)
    zooms = [8.0, 8.0, 8.0, 9.0, 9.0]
    zooms[axis] = 1.5
    image.header.set_zooms(zooms)
    image.header.set_xyzt_units("mm", "sec")
    assert timing_of(image).repetition_time == 1.5


def test_a_header_with_an_unknown_unit_of_time_gives_no_repetition_time() -> None:
    image = image_of()
    image.header["xyzt_units"] = 95
    assert timing_of(image, RepetitionTime=2.0).repetition_time == 2.0
    with pytest.raises(ParticipantError, match="neither a JSON sidecar nor the image header gives the repetition time"):
        timing_of(image)


def test_more_conditions_than_volumes_are_refused_before_they_are_modelled() -> None:
    names = [f"item{number}" for number in range(100_000)]
    events = Events(pd.DataFrame({"onset": 1.0, "duration": 1.0, "trial_type": names}), ())
    with pytest.raises(ParticipantError, match=r"60 volumes .* 100000 conditions \(item0, .*more\)") as caught:
        make_design(timing_of(RepetitionTime=2.0), events, NO_CONFOUNDS, FirstLevelModel())
    assert len(str(caught.value)) < 600
