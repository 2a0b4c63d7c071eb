"""The files of a simulated dataset; those that are always the same are copied from the folder `files`."""

from __future__ import annotations

import gzip
import json
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import nibabel as nib
import numpy as np
import pandas as pd
from nilearn.glm.first_level import make_first_level_design_matrix
from numpy.typing import NDArray
from tqdm import tqdm

from sessionfx import __version__
from sessionfx.simulate import signals
from sessionfx.simulate.confounds import make_confounds
from sessionfx.simulate.cortex import Cortex, make_cortex
from sessionfx.simulate.head import ATLAS, Anatomy, Tissue, atlas_labels, make_anatomy, make_session_mask
from sessionfx.simulate.options import SURFACES, SimulationOptions, label
from sessionfx.simulate.signals import CONDITIONS, EFFECT_REGIONS, stream
from sessionfx.simulate.surfaces import atlas_files, map_files, mesh_files, series_files

FILES = Path(__file__).parent / "files"
SPACE = "space-MNI152NLin2009cAsym"
REPETITION_TIME = 2.0  # s
HIGH_PASS = 1 / 128  # Hz; cut-off of fMRIPrep's cosine columns
_PREPROCESSED = {
    "RepetitionTime": REPETITION_TIME,
    "StartTime": REPETITION_TIME / 2,
    "SliceTimingCorrected": True,
    "SkullStripped": False,
    "TaskName": "stroop",
}
NON_STEADY_STATE_GAIN = 1.2  # the first volume is brighter: T1 has not reached its steady state yet


def write_dataset(root: Path, options: SimulationOptions, *, progress: bool) -> None:
    """Write everything into an empty folder; see `sessionfx.simulate.simulate_dataset`."""
    anatomy = make_anatomy(options.voxel_size)
    for path in FILES.rglob("*"):
        if path.is_file():
            _write(root / path.relative_to(FILES), path.read_text(encoding="utf-8").replace("{version}", __version__))
    _write_participants(root, options)
    _write_truth(root / "derivatives/truth", anatomy, options)
    acquisition = root / "task-stroop_bold.json"
    if options.write_raw_bold:
        described = json.loads(acquisition.read_text(encoding="utf-8"))
        # All slices in the middle of the volume: the simulated data has no slice timing differences.
        described["SliceTiming"] = [REPETITION_TIME / 2] * anatomy.head.shape[2]
        _write(acquisition, described)
    else:
        acquisition.unlink()
    runs = [(*scanned, run) for scanned in options.scanned_sessions() for run in range(options.n_runs)]
    cortices = [make_cortex(name) for name in options.surfaces]
    for cortex in cortices:
        _write_truth_of_surface(root / "derivatives/truth", cortex, options)
    if "fsLR" in options.surfaces:
        for file, content in mesh_files().items():
            _write(root / "derivatives/fmriprep" / file, content)
    for key in tqdm(runs, desc="Simulating", unit="run", disable=None if progress else True):
        _write_run(root, options, key, anatomy, cortices)


def _write_run(
    root: Path, options: SimulationOptions, key: tuple[int, int, int], anatomy: Anatomy, cortices: Sequence[Cortex]
) -> None:
    """Simulate the run with these zero-based participant, session and run indices, and write its files."""
    n_volumes = options.n_volumes
    events = signals.make_events(n_volumes * REPETITION_TIME, stream(options, signals.EVENTS, *key))
    times = REPETITION_TIME * (0.5 + np.arange(n_volumes))  # the middle of each volume
    trials = events.drop(columns="response_time")
    design = make_first_level_design_matrix(times, trials, "glover", "cosine", HIGH_PASS)
    noise = signals.make_noise(n_volumes, len(anatomy.depth), options.noise_sd, stream(options, signals.NOISE, *key))
    percent = signals.make_percent(anatomy, options, key, events=events, design=design, noise=noise)
    data = _intensities(anatomy, percent)
    # The confounds are computed from the numbers that the image file holds.
    stored = np.clip(np.rint(data), 0, np.iinfo(np.int16).max).astype(np.int16)
    mask = make_session_mask(anatomy, stream(options, signals.SESSION_MASK, *key[:2]))
    motion = signals.make_motion(n_volumes, signals.motion_jump(n_volumes, *key), stream(options, signals.MOTION, *key))
    cosines = design.drop(columns=list(CONDITIONS)).to_numpy()
    confounds, confounds_sidecar = make_confounds(stored.astype(np.float64), anatomy, mask, motion, cosines)

    entities = _entities(options, *key[:2])
    start = Path(*entities, "func", "_".join([*entities, f"task-stroop_run-{label(key[2])}"]))
    raw, preprocessed = f"{root / start}", f"{root / 'derivatives/fmriprep' / start}"
    bold = _nifti(anatomy, stored.T, REPETITION_TIME)
    _write(f"{raw}_events.tsv", events)
    if options.write_raw_bold:
        _write(f"{raw}_bold.nii.gz", bold)
    _write(f"{preprocessed}_{SPACE}_desc-preproc_bold.nii.gz", bold)
    _write(f"{preprocessed}_{SPACE}_desc-preproc_bold.json", _PREPROCESSED)
    _write(f"{preprocessed}_{SPACE}_desc-brain_mask.nii.gz", _nifti(anatomy, mask.astype(np.uint8)))
    _write(f"{preprocessed}_{SPACE}_desc-brain_mask.json", {"Type": "Brain"})
    _write(f"{preprocessed}_desc-confounds_timeseries.tsv", confounds)
    _write(f"{preprocessed}_desc-confounds_timeseries.json", confounds_sidecar)
    for cortex in cortices:
        noise_rng = stream(options, signals.CORTICAL_NOISE, SURFACES.index(cortex.name), *key)
        noise = cortex.spread @ signals.make_noise(n_volumes, len(cortex.coordinates), options.noise_sd, noise_rng).T
        percent = signals.make_percent(cortex, options, key, events=events, design=design, noise=noise.T)
        for end, content in series_files(cortex, _intensities(cortex, percent), REPETITION_TIME).items():
            _write(f"{preprocessed}_{end}", content)
            _write(f"{preprocessed}_{end.partition('.')[0]}.json", _PREPROCESSED)


def _intensities(tissue: Tissue, percent: NDArray[Any]) -> NDArray[Any]:
    """Return the intensities of a signal of shape (T, V), in percent of the baseline."""
    data = tissue.baseline * (1 + percent / 100)
    data[0] *= NON_STEADY_STATE_GAIN
    return data


def _entities(options: SimulationOptions, participant: int, session: int) -> list[str]:
    """Return the entities of a session, which name its folders and begin the names of its files."""
    session_entity = [f"ses-{label(session)}"] if options.sessions_in_names else []
    return [f"sub-{label(participant)}", *session_entity]


def _write_participants(root: Path, options: SimulationOptions) -> None:
    """Write those participants that have a session; nothing said of them influences the data."""
    rows = []
    for participant in sorted({participant for participant, _ in options.scanned_sessions()}):
        rng = stream(options, signals.DEMOGRAPHICS, participant)
        age, sex = int(rng.integers(20, 41)), str(rng.choice(["F", "M"]))
        rows.append((f"sub-{label(participant)}", age, sex, ("morning", "evening")[participant % 2]))
    _write(root / "participants.tsv", pd.DataFrame(rows, columns=["participant_id", "age", "sex", "group"]))


def _write_truth(root: Path, anatomy: Anatomy, options: SimulationOptions) -> None:
    """Write the region masks, an atlas, the expected effect maps and the participants' true effects."""
    for region in _regions_with_effects(options):
        mask = _nifti(anatomy, anatomy.regions[region].astype(np.uint8))
        _write(root / f"{SPACE}_desc-{region}_mask.nii.gz", mask)
    _write(root / f"{SPACE}_atlas-simulated_dseg.nii.gz", _nifti(anatomy, atlas_labels(anatomy)))
    table = pd.DataFrame({"index": range(1, len(ATLAS) + 1), "name": list(ATLAS)})
    _write(root / f"{SPACE}_atlas-simulated_dseg.tsv", table)
    for start, contrast, effect in _expected_effects(anatomy, options):
        _write(root / f"{start}{SPACE}_contrast-{contrast}_stat-effect_statmap.nii.gz", _nifti(anatomy, effect))

    rows = [
        dict(zip(("participant_id", "session_id"), _entities(options, *scanned), strict=False))
        | signals.session_effect(options, *scanned)
        | ({"responseTime": signals.modulator_effect(options, *scanned)} if options.modulator else {})
        for scanned in options.scanned_sessions()
    ]
    _write(root / "effects.tsv", pd.DataFrame(rows))


def _regions_with_effects(options: SimulationOptions) -> tuple[str, ...]:
    return (*EFFECT_REGIONS, signals.MODULATED_REGION) if options.modulator else EFFECT_REGIONS


def _expected_effects(tissue: Tissue, options: SimulationOptions) -> Iterator[tuple[str, str, NDArray[np.float32]]]:
    """Yield the start of the name, the contrast and the expected effect (V,) of each session."""
    for session in range(options.n_sessions):
        expected = {"incongruentMinusCongruent": signals.group_effect(options, session)}
        if options.modulator:
            expected["responseTime"] = {signals.MODULATED_REGION: options.modulator}
        start = "".join(f"{entity}_" for entity in (*_entities(options, 0, session)[1:], "task-stroop"))
        for contrast, of_regions in expected.items():
            effect = np.zeros(len(tissue.coordinates), dtype=np.float32)
            for region, value in of_regions.items():
                effect[tissue.regions[region]] = value
            yield start, contrast, effect


def _write_truth_of_surface(root: Path, cortex: Cortex, options: SimulationOptions) -> None:
    """Write the same of a surface."""
    files = atlas_files(cortex)
    for region in _regions_with_effects(options):
        files |= map_files(cortex, cortex.regions[region].astype(np.float32), "mask", desc=region)
    for start, contrast, effect in _expected_effects(cortex, options):
        of_contrast = map_files(cortex, effect, "statmap", contrast=contrast, stat="effect")
        files |= {f"{start}{end}": content for end, content in of_contrast.items()}
    for name, content in files.items():
        _write(root / name, content)


def _nifti(anatomy: Anatomy, values: NDArray[Any], repetition_time: float | None = None) -> bytes:
    """Return a compressed NIfTI file of values of shape (V,), or (V, T) every `repetition_time` (s)."""
    image = nib.Nifti1Image(anatomy.to_volume(values), anatomy.affine)
    image.header.set_xyzt_units("mm", "sec")
    if repetition_time is not None:
        image.header.set_zooms((*image.header.get_zooms()[:3], repetition_time))
    image.set_sform(anatomy.affine, code="mni")
    image.set_qform(anatomy.affine, code="mni")
    # No time of writing in the file, so that the same seed gives the same bytes.
    return gzip.compress(image.to_bytes(), compresslevel=1, mtime=0)


def _write(path: Path | str, content: bytes | str | dict[str, Any] | pd.DataFrame) -> None:
    """Write a file and the folders above it: a table as TSV, a dictionary as JSON."""
    if isinstance(content, pd.DataFrame):
        content = content.to_csv(sep="\t", na_rep="n/a", index=False, float_format="%.8g", lineterminator="\n")
    elif isinstance(content, dict):
        content = json.dumps(content, indent=2) + "\n"
    Path(path).parent.mkdir(parents=True, exist_ok=True)
    Path(path).write_bytes(content.encode() if isinstance(content, str) else content)
