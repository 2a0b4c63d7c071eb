"""What a careful user of nilearn writes for a study of several sessions: the peer of the benchmarks.

usage: nilearn_script.py BIDS_DIR OUT_DIR FWHM [group]  (0 for no smoothing)

Runs of a session are fitted together, sessions are combined by fixed effects, and the group is fitted on the sessions'
maps and on the combined ones. It writes the maps that SessionFX writes: effect, variance, t, z and p.
"""

from __future__ import annotations

import sys
import warnings
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
from datasets import CONTRAST, N_COMPONENTS, REPETITION_TIME, SPACE, TASK
from nilearn.glm.contrasts import compute_fixed_effects
from nilearn.glm.first_level import FirstLevelModel
from nilearn.glm.second_level import SecondLevelModel
from nilearn.image import get_data, math_img, new_img_like
from scipy.stats import norm

STATISTICS = {"effect_size": "effect", "effect_variance": "variance", "stat": "t", "z_score": "z", "p_value": "p"}
COLUMNS = [f"{kind}_{axis}" for kind in ("trans", "rot") for axis in "xyz"]
COLUMNS += [f"a_comp_cor_{i:02d}" for i in range(N_COMPONENTS)]


def main(root: Path, out: Path, fwhm: float, *, with_group: bool) -> None:
    """Fit all participants, and the group."""
    warnings.simplefilter("ignore")
    sessions: dict[tuple[str, str], dict[str, Any]] = {}
    combined: dict[tuple[str, str], Any] = {}
    fmriprep = root / "derivatives" / "fmriprep"
    for participant in sorted(folder.name for folder in fmriprep.glob("sub-*")):
        degrees = {}
        for folder in sorted((fmriprep / participant).glob("ses-*")):
            model = fit_session(root, folder / "func", fwhm)
            maps = model.compute_contrast([CONTRAST] * len(model.design_matrices_), output_type="all")
            sessions[participant, folder.name] = maps
            degrees[folder.name] = sum(len(design) - design.shape[1] for design in model.design_matrices_)
            save(out / participant / folder.name, f"{participant}_{folder.name}", maps)
        own = {session: sessions[participant, session] for session in degrees}
        combined |= combine(participant, own, degrees, out)
    if with_group:
        group(sessions, combined, out / "group")


def fit_session(root: Path, folder: Path, fwhm: float) -> FirstLevelModel:
    """Fit the runs of a session."""
    bolds = sorted(folder.glob(f"*_space-{SPACE}_desc-preproc_bold.nii.gz"))
    starts = [bold.name.split("_space-")[0] for bold in bolds]
    raw = root / folder.relative_to(root / "derivatives" / "fmriprep")
    model = FirstLevelModel(
        t_r=REPETITION_TIME,
        hrf_model="glover", drift_model="cosine", high_pass=0.01, noise_model="ar1", signal_scaling=0,
        smoothing_fwhm=fwhm or None,
        mask_img=str(folder / f"{starts[0]}_space-{SPACE}_desc-brain_mask.nii.gz"),
    )  # fmt: skip
    return model.fit(
        [str(bold) for bold in bolds],
        events=[pd.read_csv(raw / f"{start}_events.tsv", sep="\t") for start in starts],
        confounds=[
            pd.read_csv(folder / f"{start}_desc-confounds_timeseries.tsv", sep="\t")[COLUMNS] for start in starts
        ],
    )


def combine(participant: str, own: dict[str, dict[str, Any]], degrees: dict[str, int], out: Path) -> dict[Any, Any]:
    """Combine sessions: their mean, and the last minus the first."""
    effects = [maps["effect_size"] for maps in own.values()]
    variances = [maps["effect_variance"] for maps in own.values()]
    flipped = [math_img("-img", img=effects[0]), *effects[1:]]
    found = {}
    for question, inputs, scale in (("mean", effects, 1.0), ("difference", flipped, float(len(own)))):
        effect, variance, t, z = compute_fixed_effects(inputs, variances, dofs=list(degrees.values()))
        effect = math_img(f"{scale} * img", img=effect)
        variance = math_img(f"{scale**2} * img", img=variance)
        p = new_img_like(z, norm.sf(get_data(z)))
        maps = {"effect_size": effect, "effect_variance": variance, "stat": t, "z_score": z, "p_value": p}
        save(out / participant, f"{participant}_{question}", maps)
        found[participant, question] = effect
    return found


def group(sessions: dict[tuple[str, str], dict[str, Any]], combined: dict[tuple[str, str], Any], out: Path) -> None:
    """Fit one map per participant, and all session maps in one model."""
    for question in ("mean", "difference"):
        inputs = [image for (_, asked), image in combined.items() if asked == question]
        model = SecondLevelModel().fit(inputs, design_matrix=pd.DataFrame({"intercept": np.ones(len(inputs))}))
        save(out, f"{question}_fixedEffects", model.compute_contrast("intercept", output_type="all"))
    table = pd.DataFrame(list(sessions), columns=["participant", "session"])
    columns = pd.get_dummies(table["session"], dtype=float)
    first, last = columns.columns[0], columns.columns[-1]
    adjusted = columns.join(pd.get_dummies(table["participant"], dtype=float).iloc[:, 1:])
    images = [maps["effect_size"] for maps in sessions.values()]
    mean = " + ".join(f"{1 / len(columns.columns)} * {{}}" for _ in columns.columns)
    safe = {name: name.replace("-", "_") for name in adjusted.columns}
    for question, design, contrast in (
        ("mean", columns, mean.format(*(safe[name] for name in columns.columns))),
        ("difference", adjusted, f"{safe[last]} - {safe[first]}"),
    ):
        model = SecondLevelModel().fit(images, design_matrix=design.rename(columns=safe))
        save(out, f"{question}_sessionModel", model.compute_contrast(contrast, output_type="all"))


def save(folder: Path, name: str, maps: dict[str, Any]) -> None:
    """Write the maps of a result."""
    folder.mkdir(parents=True, exist_ok=True)
    for statistic, label in STATISTICS.items():
        maps[statistic].to_filename(folder / f"{name}_task-{TASK}_space-{SPACE}_stat-{label}_statmap.nii.gz")


if __name__ == "__main__":
    main(Path(sys.argv[1]), Path(sys.argv[2]), float(sys.argv[3]), with_group="group" in sys.argv[4:])
