"""One study by SessionFX and by others: estimates, voxels per second and memory.

    python benchmarks/peers.py [--voxels N] [--fewer N] [--folder FOLDER]

20 participants with 3 sessions each, a tenth of the maps missing, one session contrast (`ses-03 - ses-01`). Every
program is a process of its own on one processor and begins with the same files. Those that fit one voxel after the
other get the first few hundred voxels. What is not installed is said to be so: pyblmm wants `pip install --no-deps
pyblmm` (its requirements pin a web server that estimating does not need), lme4 is a package of R.
"""

from __future__ import annotations

import argparse
import os
import resource
import subprocess
import sys
import tempfile
from collections.abc import Callable, Mapping
from contextlib import redirect_stdout
from dataclasses import dataclass
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from shutil import which

import nibabel as nib
import numpy as np
import pandas as pd
from group_speed import MISSING, N_PARTICIPANTS, SESSIONS, grouped, layout, question, table
from harness import Usage, measure
from numpy.typing import NDArray

SHAPE = (50, 80)  # of a slice
CONTRAST = np.array([-1.0, 0.0, 1.0])
Answers = dict[str, NDArray[np.float64]]  # by effect, error (standard error), between and within (variances)

# A random intercept by REML, a column per session. Not `refit`, which is faster: that of lme4 1.1-31 gave variances
# between participants that were 4 % larger than those of `lmer` on the same values.
LME4 = """
suppressMessages(library(lme4)); options(warn = -1)
folder <- commandArgs(TRUE)[1]
maps <- read.table(file.path(folder, "maps.tsv"), header = TRUE, colClasses = "character")
n_voxels <- as.integer(commandArgs(TRUE)[2])
started <- sum(proc.time()[c("user.self", "sys.self")])
values <- matrix(readBin(file.path(folder, "first.bin"), "double", nrow(maps) * n_voxels), nrow(maps))
quiet <- lmerControl(calc.derivs = FALSE, check.conv.singular = "ignore")
weights <- c(-1, 0, 1)
answers <- t(apply(values, 2, function(y) {
  maps$y <- y
  fit <- lmer(y ~ 0 + session + (1 | participant), maps, control = quiet)
  error <- sqrt(drop(weights %*% as.matrix(vcov(fit)) %*% weights))
  c(sum(weights * fixef(fit)), error, VarCorr(fit)$participant[1], sigma(fit)^2)
}))
seconds <- sum(proc.time()[c("user.self", "sys.self")]) - started
writeBin(as.vector(answers), file.path(folder, "lme4.bin"))
cat("seconds", seconds, "version", as.character(packageVersion("lme4")), "\\n")
"""


@dataclass(frozen=True)
class Run:
    """What a program answered, and what it took: processor seconds from reading the files to the answers."""

    usage: Usage
    seconds: float
    answers: Answers
    version: str


def draw_study(folder: Path, n_voxels: int, fewer: int) -> None:
    """Draw maps, write them as images of float64, and the first voxels for R; say in a table what each is.

    The share of variance that lies between participants goes from none to nine tenths, evenly over voxels.
    """
    maps = layout(MISSING)
    rng = np.random.default_rng(3)
    share = 0.9 * rng.permuted(np.linspace(0, 1, n_voxels))
    owners = np.unique(maps.participants, return_inverse=True)[1]
    levels = rng.standard_normal((N_PARTICIPANTS, n_voxels))
    effects = np.sqrt(share) * levels[owners] + np.sqrt(1 - share) * rng.standard_normal((len(owners), n_voxels))
    rows = []
    for number, (participant, session) in enumerate(zip(maps.participants, maps.sessions, strict=True)):
        path = folder / f"{number:03d}.nii"
        nib.save(nib.Nifti1Image(effects[number].reshape(*SHAPE, -1), np.diag([2.0, 2, 2, 1])), path)
        rows.append((participant, session, str(path)))
    pd.DataFrame(rows, columns=["participant", "session", "effect"]).to_csv(folder / "maps.tsv", sep="\t", index=False)
    effects[:, :fewer].T.tofile(folder / "first.bin")


def read(maps: pd.DataFrame, n_voxels: int | None = None) -> NDArray[np.float64]:
    """Read maps as an array of maps × voxels."""
    return np.stack([nib.load(path).get_fdata(caching="unchanged").reshape(-1)[:n_voxels] for path in maps["effect"]])


def session_columns(maps: pd.DataFrame) -> NDArray[np.float64]:
    """Make a column of zeros and ones for each session."""
    return np.array([[float(own == session) for session in SESSIONS] for own in maps["session"]])


def of_strategy(strategy: str) -> Callable[[pd.DataFrame, int], Answers]:
    """Ask SessionFX, by its public functions, for the answer of a strategy; the verdict is found as well."""

    def work(maps: pd.DataFrame, fewer: int) -> Answers:
        import sessionfx

        loaded = sessionfx.load_session_maps(maps)
        images = sessionfx.estimate(loaded, question().text, strategy=strategy, subject_effect="indicator")[strategy]
        effect, variance = (image.get_fdata().reshape(-1) for image in (images.effect, images.variance))
        return {"effect": effect, "error": np.sqrt(variance)}

    return work


def of_pyblmm(maps: pd.DataFrame, fewer: int) -> Answers:
    """Estimate by pyblmm's default method, pseudo-simplified Fisher scoring, at all voxels at once."""
    from blmm.src.est3d import pSFS3D
    from blmm.src.npMatrix3d import get_DinvIplusZtZD3D, get_varLB3D

    Y, X = read(maps).T[:, :, None], session_columns(maps)[None]
    Z = pd.get_dummies(maps["participant"]).to_numpy(float)[None]
    XtX, XtY, XtZ, ZtY = (a.transpose(0, 2, 1) @ b for a, b in ((X, X), (X, Y), (X, Z), (Z, Y)))
    YtY, ZtX, counts = Y.transpose(0, 2, 1) @ Y, XtZ.transpose(0, 2, 1), Z.sum(axis=1)  # Z′Z of an intercept: counts
    levels, effects = np.array([Z.shape[2]]), np.array([1])
    found = pSFS3D(
        XtX, XtY, ZtX, ZtY, counts, XtZ, ZtY.transpose(0, 2, 1), YtY, XtY.transpose(0, 2, 1), levels, effects, 1e-6,
        X.shape[1], reml=True,
    )  # fmt: skip
    beta, sigma2, ratio = found[:, :3, 0], found[:, 3, 0], found[:, 4, 0]
    shrunk = get_DinvIplusZtZD3D({0: ratio[:, None, None]}, None, counts, levels, effects)
    information = XtX - np.einsum("vj,vjp,vjq->vpq", shrunk, *[np.broadcast_to(ZtX, (len(ratio), *ZtX.shape[1:]))] * 2)
    variance = get_varLB3D(CONTRAST[None], information, sigma2, effects).reshape(-1)
    return {"effect": beta @ CONTRAST, "error": np.sqrt(variance), "between": ratio * sigma2, "within": sigma2}


def of_statsmodels(maps: pd.DataFrame, fewer: int) -> Answers:
    """Estimate by MixedLM (REML), voxel by voxel."""
    import warnings

    from statsmodels.regression.mixed_linear_model import MixedLM

    warnings.simplefilter("ignore")  # of voxels with no variance between participants
    design, rows = session_columns(maps), []
    for y in read(maps, fewer).T:
        fit = MixedLM(y, design, maps["participant"].to_numpy()).fit(reml=True)
        asked = fit.t_test(CONTRAST[None])
        rows.append((asked.effect.item(), asked.sd.item(), np.asarray(fit.cov_re).item(), fit.scale))
    return dict(zip(("effect", "error", "between", "within"), np.array(rows).T, strict=True))


def of_nilearn(maps: pd.DataFrame, images: list[object], design: pd.DataFrame, weights: NDArray[np.float64]) -> Answers:
    """Fit nilearn's SecondLevelModel and compute a contrast."""
    from nilearn.glm.second_level import SecondLevelModel

    first = nib.load(maps["effect"].iloc[0])
    mask = nib.Nifti1Image(np.ones(first.shape, dtype=np.uint8), first.affine)
    model = SecondLevelModel(mask_img=mask).fit(images, design_matrix=design)
    found = model.compute_contrast(weights, output_type="all")
    effect, variance = (found[f"effect_{name}"].get_fdata().reshape(-1) for name in ("size", "variance"))
    return {"effect": effect, "error": np.sqrt(variance)}


def of_differences(maps: pd.DataFrame, fewer: int) -> Answers:
    """Fit the mean of the differences of those who have both sessions."""
    from nilearn.image import math_img

    by_session = maps.pivot_table("effect", "participant", "session", aggfunc="first")
    pairs = by_session[[SESSIONS[0], SESSIONS[-1]]].dropna()
    images = [math_img("b - a", a=first, b=last) for first, last in pairs.itertuples(index=False)]
    return of_nilearn(maps, images, pd.DataFrame({"intercept": np.ones(len(images))}), np.ones(1))


def of_participant_columns(maps: pd.DataFrame, fewer: int) -> Answers:
    """Fit a column per session and per participant (but one) to all maps."""
    columns = [session_columns(maps), pd.get_dummies(maps["participant"]).to_numpy(float)[:, 1:]]
    design = pd.DataFrame(np.hstack(columns)).add_prefix("column_")
    weights = np.pad(CONTRAST, (0, design.shape[1] - len(CONTRAST)))
    return of_nilearn(maps, list(maps["effect"]), design, weights)


# name: what it is compared with, package, and what it does; those of the mixed model first
PROGRAMS: dict[str, tuple[str, str, Callable[[pd.DataFrame, int], Answers]]] = {
    "SessionFX, mixed": ("mixed", "sessionfx", of_strategy("mixed")),
    "pyblmm, pSFS, REML": ("mixed", "pyblmm", of_pyblmm),
    "statsmodels, MixedLM, REML": ("mixed", "statsmodels", of_statsmodels),
    "SessionFX, session-model": ("session-model", "sessionfx", of_strategy("session-model")),
    "nilearn, columns for participants": ("session-model", "nilearn", of_participant_columns),
    "SessionFX, summary-statistics": ("summary-statistics", "sessionfx", of_strategy("summary-statistics")),
    "nilearn, one difference each": ("summary-statistics", "nilearn", of_differences),
    "SessionFX, marginal": ("marginal", "sessionfx", of_strategy("marginal")),
}
LME4_NAME = "lme4, lmer, REML"


def own_answers(name: str, folder: Path, fewer: int) -> None:
    """Be the process of one program: write its answers, and how many seconds of processor time it took."""
    work = PROGRAMS[name][2]
    maps = pd.read_csv(folder / "maps.tsv", sep="\t", dtype=str)
    np.savez(folder / "empty.npz")  # what writing needs is loaded before the clock starts
    with redirect_stdout(sys.stderr):
        started = _processor_seconds()
        answers = work(maps, fewer)
        seconds = _processor_seconds() - started
    np.savez(folder / f"{slug(name)}.npz", **answers)
    print("seconds", seconds)


def _processor_seconds() -> float:
    used = (resource.getrusage(who) for who in (resource.RUSAGE_SELF, resource.RUSAGE_CHILDREN))
    return sum(own.ru_utime + own.ru_stime for own in used)


def slug(name: str) -> str:
    """Make the name of a file."""
    return "".join(letter for letter in name if letter.isalnum())


def run(name: str, folder: Path, fewer: int) -> Run | None:
    """Run one program as a process of its own; None where it is not installed."""
    environment = {f"{library}_NUM_THREADS": "1" for library in ("OMP", "OPENBLAS", "MKL")}
    if name == LME4_NAME:
        if (
            which("Rscript") is None
            or subprocess.run(["Rscript", "-e", "library(lme4)"], capture_output=True).returncode
        ):
            return None
        usage = measure(["Rscript", "-e", LME4, str(folder), str(fewer)], environment=environment)
        columns = np.fromfile(folder / "lme4.bin").reshape(4, -1)
        answers = dict(zip(("effect", "error", "between", "within"), columns, strict=True))
        _, seconds, _, found = usage.said.split()
        return Run(usage, float(seconds), answers, found)
    try:
        found = version(PROGRAMS[name][1])
    except PackageNotFoundError:
        return None
    command = [sys.executable, __file__, "--own", name, "--folder", str(folder), "--fewer", str(fewer)]
    usage = measure(command, environment=environment)
    with np.load(folder / f"{slug(name)}.npz") as stored:
        return Run(usage, float(usage.said.split()[-1]), dict(stored), found)


def own_components(maps: pd.DataFrame) -> Answers:
    """Find SessionFX's variance components of the random intercept, which are not among its maps."""
    from sessionfx.statistics.participant_variance import participant_spectrum
    from sessionfx.statistics.random_intercept import estimate_mixed, spectral_contrast

    values, spectrum = read(maps), participant_spectrum(session_columns(maps), list(maps["participant"]))
    _, ratio = estimate_mixed(spectrum, spectral_contrast(spectrum, CONTRAST), values)
    within = (spectrum.squares(values) / (1 + ratio * spectrum.eigenvalues[:, None])).sum(axis=0) / spectrum.n_residual
    return {"between": ratio * within, "within": within}


def differences(ours: Answers, theirs: Answers) -> dict[str, NDArray[np.float64]]:
    """Compare at the voxels that both have.

    Returns
    -------
    dict
        By `effect`: in standard errors; `error`: relative; `between`, `within`: relative to the sum of the two.
    """
    n_voxels = len(theirs["effect"])
    own = {name: values[:n_voxels] for name, values in ours.items()}
    scale = {"effect": own["error"], "error": own["error"]}
    if "between" in theirs:
        scale |= dict.fromkeys(("between", "within"), own["between"] + own["within"])
    return {name: np.abs(theirs[name] - own[name]) / scale[name] for name in scale}


def rows_of(runs: Mapping[str, Run | None], beside: Mapping[str, str]) -> list[list[str]]:
    """Make a row of text for each program; `beside` has the strategy that it is compared with."""
    rows = []
    for name, own in runs.items():
        if own is None:
            rows.append([name, "not installed", *[""] * 6])
            continue
        n_voxels, ours = len(own.answers["effect"]), runs[f"SessionFX, {beside[name]}"]
        is_peer = not name.startswith("SessionFX") and ours is not None
        compared = differences(ours.answers, own.answers) if is_peer else {}
        cells = [
            f"{compared[key].max():.0e}" if key in compared else "" for key in ("effect", "error", "between", "within")
        ]
        shown = name.replace(",", f" {own.version},", 1) if is_peer else name
        rows.append([shown, grouped(n_voxels), grouped(n_voxels / own.seconds), f"{own.usage.peak:.0f}", *cells])
    return rows


HEADER = ["program", "voxels", "voxels/s", "peak memory (MB)", "effect", "standard error", "variance between", "within"]


def compare_all(folder: Path, n_voxels: int, fewer: int) -> str:
    """Draw a study, run every program on it, and write the tables."""
    draw_study(folder, n_voxels, fewer)
    maps = pd.read_csv(folder / "maps.tsv", sep="\t", dtype=str)
    beside = {name: strategy for name, (strategy, *_) in PROGRAMS.items()} | {LME4_NAME: "mixed"}
    names = sorted(beside, key=lambda name: list(dict.fromkeys(beside.values())).index(beside[name]))
    runs = {name: run(name, folder, fewer) for name in names}
    ours = runs["SessionFX, mixed"]
    assert ours is not None  # noqa: S101 - this is SessionFX
    ours.answers.update(own_components(maps))
    without = 100 * np.mean(ours.answers["between"] == 0)
    return f"""{N_PARTICIPANTS} participants, {len(SESSIONS)} sessions, {len(maps)} maps, {grouped(n_voxels)} voxels,
the session contrast `{question().text}`; one processor. In {without:.0f} % of voxels SessionFX estimates no variance
between participants.

{table(HEADER, rows_of(runs, beside))}"""


def main() -> int:
    """Read the command line, compare and print."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--voxels", type=int, default=60_000, help="a multiple of 4000")
    parser.add_argument("--fewer", type=int, default=200, help="voxels for those that fit one after the other")
    parser.add_argument("--folder", type=Path, help="where there is room for the maps (a temporary one)")
    parser.add_argument("--own", help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    if arguments.own:
        own_answers(arguments.own, arguments.folder, arguments.fewer)
        return 0
    os.sched_setaffinity(0, {min(os.sched_getaffinity(0))})
    with tempfile.TemporaryDirectory(dir=arguments.folder) as folder:
        print(compare_all(Path(folder), arguments.voxels, arguments.fewer))
    return 0


if __name__ == "__main__":
    sys.exit(main())
