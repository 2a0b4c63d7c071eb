"""The group level as users run it: real maps and tables in, files out, and what they say against the arrays put in."""

from __future__ import annotations

import gzip
import os
import re
import resource
import shutil
import signal
import struct
import subprocess
import sys
import time
from collections.abc import Sequence
from pathlib import Path

import nibabel as nib
import numpy as np
import pandas as pd
import pytest
from numpy.typing import NDArray
from scipy import stats

from calls import QUICK, GroupCaller, contents, redone, times
from group_study import (
    AFFINE,
    MISSING,
    SPACE,
    START,
    GroupStudy,
    group_map,
    group_path,
    make_study,
    read,
    sidecar_of,
    strict_json,
)  # fmt: skip
from least_squares import anova_mean_squares
from other_user import AS_USER, USER, needs_another_user, reachable_folder
from pages import text_of
from sessionfx.cli import main

SESSION_CONTRASTS = ("mean", "ses02MinusSes01", "ses03MinusSes01", "ses03MinusSes02", "linear")
LABELS = {
    "session-model": "sessionModel",
    "summary-statistics": "summaryStatistics",
    "marginal": "marginal",
    "mixed": "mixed",
}


# Helpers ----------------------------------------------------------------------------------------------------


def flat(study: GroupStudy) -> dict[tuple[str, str], NDArray[np.float64]]:
    return {key: effect.ravel() for key, effect in study.effects.items()}


def strategies_in(output: Path, pattern: str) -> set[str]:
    return {path.name.split("_strategy-")[1].split("_")[0] for path in (output / "group").glob(pattern)}


def answers_of(output: Path, sessions: str) -> pd.DataFrame:
    path = output / "group" / f"{START}_sessions-{sessions}_desc-answers_metrics.tsv"
    return pd.read_csv(path, sep="\t", index_col="strategy")


def open_below(pid: int, folder: Path) -> bool:
    """Whether a process has a file open in a folder, with or without a name."""
    try:
        links = [str(link.readlink()) for link in Path(f"/proc/{pid}/fd").iterdir()]
    except OSError:
        return False
    return any(link.startswith(str(folder)) for link in links)


def hidden_files(output: Path) -> list[str]:
    return [path.name for path in output.rglob(".*") if path.name != ".bidsignore"]


@pytest.fixture(scope="module")
def study(tmp_path_factory: pytest.TempPathFactory) -> GroupStudy:
    """Nine participants, three sessions, two maps missing; read only."""
    return make_study(tmp_path_factory.mktemp("study"))


@pytest.fixture(scope="module")
def defaults(study: GroupStudy, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Every default strategy and session contrast of that study; read only."""
    output = tmp_path_factory.mktemp("defaults") / "out"
    assert main([str(study.raw), str(output), "group", "-d", str(study.maps), "--nprocs", "1", "--no-report"]) == 0
    return output


@pytest.fixture(scope="module")
def with_covariates(study: GroupStudy, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Age and group beside two session contrasts, with permutations and the report; read only."""
    output = tmp_path_factory.mktemp("covariates") / "out"
    command = [str(study.raw), str(output), "group", "-d", str(study.maps), "--nprocs", "1"]
    command += ["--covariates", "age", "group", "--session-contrast", "ses-02 - ses-01", "--session-contrast", "any"]
    command += ["--group-contrast", "intercept", "--group-contrast", "age", "--variance", "pooled"]
    command += ["--strategy", "summary-statistics", "marginal"]
    assert main([*command, "--permutations", "40", "--calibrate", "150"]) == 0
    return output


def session_columns(study: GroupStudy, rows: Sequence[tuple[str, str]]) -> NDArray[np.float64]:
    """Ones where a map is of session 01, 02, 03."""
    return np.array([[float(session == column) for column in ("01", "02", "03")] for _, session in rows])


def ols(y: NDArray[np.float64], x: NDArray[np.float64], c: NDArray[np.float64]) -> dict[str, NDArray[np.float64]]:
    """Textbook least squares of full-rank designs."""
    inverse = np.linalg.inv(x.T @ x)
    beta = inverse @ x.T @ y
    dof = len(x) - x.shape[1]
    dispersion = ((y - x @ beta) ** 2).sum(axis=0) / dof
    effect, variance = c @ beta, c @ inverse @ c * dispersion
    t = effect / np.sqrt(variance)
    return {"effect": effect, "variance": variance, "t": t, "p": stats.t.sf(t, dof)}


def assert_maps(output: Path, strategy: str, expected: dict[str, NDArray[np.float64]], **place: str) -> None:
    for statistic, values in expected.items():
        # effect and variance are kept in double precision, the others in single
        rtol = 1e-9 if statistic in ("effect", "variance") else 2e-6
        np.testing.assert_allclose(
            group_map(output, strategy, statistic, **place), values, rtol=rtol, atol=1e-12, err_msg=statistic
        )


# What is written, and that it is the strategies' arithmetic --------------------------------------------------


@pytest.mark.slow
def test_every_default_strategy_answers_every_session_contrast(defaults: Path) -> None:
    expected = {
        group_path(defaults, label, statistic, asked).name
        for asked in SESSION_CONTRASTS
        for label in LABELS.values()
        for statistic in ("effect", "variance", "t", "z", "p", *(["dof"] if label in ("mixed", "marginal") else []))
    }
    expected |= {
        group_path(defaults, label, statistic, "any").name
        for label in ("sessionModel", "summaryStatistics", "marginal")
        # Hotelling's dof are the same at all voxels, the others' are not
        for statistic in ("F", "z", "p", *(["dof"] if label != "summaryStatistics" else []))
    }
    expected |= {
        f"{START}_stat-{name}_desc-reliability_statmap.nii.gz" for name in ("icc1", "icc31", "between", "within")
    }
    assert {path.name for path in (defaults / "group").glob("*_statmap.nii.gz")} == expected
    for path in (defaults / "group").glob("*_statmap.nii.gz"):
        assert np.isfinite(read(path)).all(), path.name
        assert np.allclose(nib.load(path).affine, AFFINE)
        sidecar_of(path)


def test_fixed_effects_is_a_t_test_on_each_participants_combination(study: GroupStudy, defaults: Path) -> None:
    complete = sorted({p for p, _ in study.keys} - {p for p, _ in MISSING})
    maps = flat(study)
    one = np.ones(1)
    difference = np.array([maps[p, "03"] - maps[p, "01"] for p in [*complete, "07"]])
    assert_maps(defaults, "summaryStatistics", ols(difference, np.ones((8, 1)), one), sessions="ses03MinusSes01")
    everyone = sorted({p for p, _ in study.keys})
    means = np.array([np.mean([maps[p, s] for q, s in study.keys if q == p], axis=0) for p in everyone])
    assert_maps(defaults, "summaryStatistics", ols(means, np.ones((9, 1)), one), sessions="mean")
    vectors = np.array([[maps[p, "02"] - maps[p, "01"], maps[p, "03"] - maps[p, "01"]] for p in complete])
    n, q = len(complete), 2
    average, centred = vectors.mean(axis=0), vectors - vectors.mean(axis=0)
    covariance = np.einsum("nqv,nrv->vqr", centred, centred) / (n - 1)
    hotelling = n * np.einsum("qv,vqr,rv->v", average, np.linalg.inv(covariance), average)
    f = (n - q) / (q * (n - 1)) * hotelling
    np.testing.assert_allclose(group_map(defaults, "summaryStatistics", "F", "any"), f, rtol=1e-5)
    np.testing.assert_allclose(group_map(defaults, "summaryStatistics", "p", "any"), stats.f.sf(f, q, n - q), rtol=1e-5)


def test_session_model_is_least_squares_on_all_maps(study: GroupStudy, defaults: Path) -> None:
    rows, y = study.keys, study.stacked
    sessions = session_columns(study, rows)
    assert_maps(defaults, "sessionModel", ols(y, sessions, np.ones(3) / 3), sessions="mean")
    everyone = sorted({p for p, _ in rows})
    dummies = np.array([[float(p == label) for label in everyone[1:]] for p, _ in rows])
    assert_maps(
        defaults, "sessionModel", ols(y, np.hstack([sessions, dummies]), np.array([-1, 0, 1] + [0] * 8)),
        sessions="ses03MinusSes01",
    )  # fmt: skip


@pytest.mark.slow
def test_marginal_and_mixed_are_within_estimates_where_nobody_misses_a_session(
    call: GroupCaller, tmp_path: Path
) -> None:
    study = make_study(tmp_path, missing=())
    output = call.done(study, tmp_path / "out", "--session-contrast", "ses-02 - ses-01")
    maps = flat(study)
    difference = np.array([maps[p, "02"] - maps[p, "01"] for p in sorted({p for p, _ in study.keys})])
    paired = ols(difference, np.ones((9, 1)), np.ones(1))
    for strategy in LABELS.values():
        np.testing.assert_allclose(
            group_map(output, strategy, "effect", "ses02MinusSes01"), paired["effect"], rtol=1e-9
        )
    # CR2 on balanced data is the paired t test
    np.testing.assert_allclose(
        group_map(output, "marginal", "variance", "ses02MinusSes01"), paired["variance"], rtol=1e-9
    )
    sidecar = sidecar_of(group_path(output, "marginal", "t", "ses02MinusSes01"))
    assert sidecar["DegreesOfFreedom"] == pytest.approx(8)


@pytest.mark.slow
def test_meta_needs_variances_and_uses_them(call: GroupCaller, tmp_path: Path) -> None:
    pytest.importorskip("pymare")
    study = make_study(tmp_path, n_participants=6, missing=())
    output = call.done(
        study, tmp_path / "out", "--session-contrast", "mean", "--strategy", "meta", "summary-statistics"
    )
    plain = group_map(output, "summaryStatistics", "effect")
    weighted = group_map(output, "meta", "effect")
    assert 0 < np.abs(plain - weighted).max() < 0.5
    bare = make_study(tmp_path / "bare", n_participants=6, missing=(), variances=False)
    for options in (("--strategy", "meta"), ("--fixed-effects", "precision")):
        call(bare, tmp_path / "none", *options).refused(17, "has no variance map", "Leave them out")
    assert not (tmp_path / "none" / "group").exists()


# Covariates -------------------------------------------------------------------------------------------------


def coded(study: GroupStudy, participants: Sequence[str]) -> NDArray[np.float64]:
    """Constant, centred age and sum-coded group (control 1, patient −1) of participants."""
    table = pd.read_csv(study.raw / "participants.tsv", sep="\t", dtype={"participant_id": str})
    table["participant_id"] = table["participant_id"].str.removeprefix("sub-")
    table["age"] = table["age"] - table["age"].mean()
    table = table.set_index("participant_id").loc[list(participants)]
    signs = np.where(table["group"] == "control", 1.0, -1.0)
    return np.column_stack([np.ones(len(table)), table["age"], signs])


@pytest.mark.slow
def test_covariates_are_regressors_of_each_participants_difference(
    call: GroupCaller, tmp_path: Path, study: GroupStudy, with_covariates: Path
) -> None:
    output = call.done(
        study, tmp_path / "out", "--covariates", "age", "group", "--session-contrast", "ses-02 - ses-01", "--strategy",
        "summary-statistics", "--variance", "pooled",
    )  # fmt: skip
    maps = flat(study)
    participants = sorted({p for p, _ in study.keys} - {"07"})
    y = np.array([maps[p, "02"] - maps[p, "01"] for p in participants])
    x = coded(study, participants)
    weights = {None: [1.0, 0, 0], "age": [0, 1.0, 0], "patientMinusControl": [0, 0, -2.0]}
    for covariate, c in weights.items():
        expected = ols(y, x, np.array(c))
        assert_maps(output, "summaryStatistics", expected, sessions="ses02MinusSes01", covariate=covariate)
        if covariate != "patientMinusControl":
            assert_maps(with_covariates, "summaryStatistics", expected, sessions="ses02MinusSes01", covariate=covariate)
    found = {path.name.split("_covariate-")[1].split("_")[0] for path in (output / "group").glob("*_covariate-*")}
    assert found == {"age", "patientMinusControl"}
    units = {
        covariate: sidecar_of(path)["Units"]
        for covariate in weights
        for path in [group_path(output, "summaryStatistics", "effect", "ses02MinusSes01", covariate)]
    }
    assert units == {
        None: "percent signal change",
        "age": "percent signal change per unit of 'age'",
        "patientMinusControl": "percent signal change",
    }
    asked = {
        path.name.split("_covariate-")[1].split("_")[0] for path in (with_covariates / "group").glob("*_covariate-*")
    }
    assert asked == {"age"}, "--group-contrast selects"


@pytest.mark.slow
def test_sessions_at_a_peak_are_in_units_of_a_session_and_the_trend_in_its_own(
    call: GroupCaller, tmp_path: Path
) -> None:
    """The mean of a session was said to be per day, and participants' own effects per year of age."""
    study = make_study(tmp_path, n_participants=6, missing=(), shape=(3, 3, 3))
    asked = ("--session-contrast", "linear(days)", "--session-covariates", "days", "--covariates", "age")
    output = call.done(study, tmp_path / "out", *asked, "--strategy", "summary-statistics", report=True)
    text = text_of(output / "group.html")
    trend = "percent signal change per unit of 'days'"
    for claim in ("", " per unit of 'age'"):
        assert f"The effects in numbers (percent signal change{claim})" in text
        assert f"estimate and its 95 % interval, in {trend}{claim}. " in text
    assert f"numbers ({trend}" not in text


@pytest.mark.slow
def test_the_sidecar_names_every_group_that_has_a_working_covariance(
    call: GroupCaller, tmp_path: Path, study: GroupStudy
) -> None:
    """That of the last level was called "group", like the covariate."""
    asked = ("--covariates", "group", "--group-contrast", "patient - control", "--strategy", "marginal")
    assert call(study, tmp_path / "out", *asked, "--session-contrast", "mean").code == 0
    path = group_path(tmp_path / "out", "marginal", "effect", "mean", "patientMinusControl")
    found = sidecar_of(path)
    for field in ("WorkingCorrelationByGroup", "RelativeWorkingStandardDeviationByGroup"):
        assert found[field].keys() == {"group[control]", "group[patient]"}


@pytest.mark.slow
def test_covariates_equal_nilearns_second_level_model(study: GroupStudy, with_covariates: Path) -> None:
    from nilearn.glm.second_level import SecondLevelModel

    participants = sorted({p for p, _ in study.keys} - {"07"})
    images = [nib.Nifti1Image(study.effects[p, "02"] - study.effects[p, "01"], AFFINE) for p in participants]
    design = pd.DataFrame(coded(study, participants), columns=["intercept", "age", "group"])
    mask = nib.Nifti1Image(np.ones((6, 6, 6), np.uint8), AFFINE)
    model = SecondLevelModel(mask_img=mask, minimize_memory=False).fit(images, design_matrix=design)
    for covariate, column in ((None, "intercept"), ("age", "age")):
        found = model.compute_contrast(column, output_type="all")
        for statistic, key in (
            ("effect", "effect_size"),
            ("variance", "effect_variance"),
            ("t", "stat"),
            ("z", "z_score"),
        ):
            np.testing.assert_allclose(
                group_map(with_covariates, "summaryStatistics", statistic, "ses02MinusSes01", covariate),
                found[key].get_fdata().ravel(), rtol=1e-5, atol=1e-5,
            )  # fmt: skip


@pytest.mark.slow
def test_participants_without_a_value_are_left_out_and_named_everywhere(call: GroupCaller, tmp_path: Path) -> None:
    study = make_study(tmp_path, n_participants=8, missing=())
    table = pd.read_csv(study.raw / "participants.tsv", sep="\t", dtype=str)
    table.loc[table["participant_id"] == "sub-03", "age"] = "n/a"
    table = table[table["participant_id"] != "sub-05"]
    table.to_csv(study.raw / "participants.tsv", sep="\t", index=False)
    called = call(study, tmp_path / "out", *QUICK, "--covariates", "age", report=True)
    assert called.code == 0
    output = tmp_path / "out"
    sidecar = sidecar_of(group_path(output, "summaryStatistics", "t"))
    why = {"sub-03": "has no value of 'age' in participants.tsv", "sub-05": "has no row in participants.tsv"}
    assert sidecar["LeftOutParticipants"] == why
    assert sidecar["NumberOfParticipants"] == 6
    assert not [uri for uri in sidecar["Sources"] if "sub-03" in uri or "sub-05" in uri]
    content = text_of(output / "group.html")
    for label, reason in why.items():
        assert f"{label} {reason}" in content
        assert f"{label} is left out: it {reason}" in called.error
    kept = ["01", "02", "04", "06", "07", "08"]
    ages = table.set_index("participant_id").loc[[f"sub-{p}" for p in kept], "age"].astype(float).to_numpy()
    y = np.array([np.mean([study.effects[p, s].ravel() for s in ("01", "02", "03")], axis=0) for p in kept])
    x = np.column_stack([np.ones(6), ages - ages.mean()])
    assert_maps(output, "summaryStatistics", ols(y, x, np.array([0, 1.0])), covariate="age")


@pytest.mark.slow
def test_session_covariates_adjust_and_serve_as_time(call: GroupCaller, tmp_path: Path, study: GroupStudy) -> None:
    output = call.done(
        study, tmp_path / "out", "--session-contrast", "ses-02 - ses-01", "--session-contrast", "linear(days)",
        "--session-covariates", "mood", "days", "--strategy", "session-model", "summary-statistics",
    )  # fmt: skip
    rows, y = study.keys, study.stacked
    tables = {
        p: pd.read_csv(study.raw / f"sub-{p}" / f"sub-{p}_sessions.tsv", sep="\t").set_index("session_id")
        for p, _ in rows
    }
    measured = np.array([[tables[p].loc[f"ses-{s}", name] for name in ("mood", "days")] for p, s in rows])
    measured = measured - measured.mean(axis=0)
    everyone = sorted({p for p, _ in rows})
    dummies = np.array([[float(p == label) for label in everyone[1:]] for p, _ in rows])
    # days serve as time in one question, so they adjust no other
    x = np.hstack([session_columns(study, rows), measured[:, :1], dummies])
    c = np.zeros(x.shape[1])
    c[:2] = -1, 1
    assert_maps(output, "sessionModel", ols(y, x, c), sessions="ses02MinusSes01")
    # the trend over days, adjusted for mood: slope per participant, mood's slope beside the constant
    values, moods = [], []
    for p in everyone:
        own = [index for index, (q, _) in enumerate(rows) if q == p]
        days = measured[own, 1] - measured[own, 1].mean()
        values.append(days @ y[own] / (days @ days))
        moods.append(days @ measured[own, 0] / (days @ days))
    expected = ols(np.array(values), np.column_stack([np.ones(9), moods]), np.array([1.0, 0]))
    assert_maps(output, "summaryStatistics", expected, sessions="linearDays")


LONG = "+".join(["age"] * 60)


@pytest.mark.parametrize("dry", [(), ("--dry-run",)], ids=["run", "dry-run"])
@pytest.mark.parametrize(
    ("options", "code", "fragments"),
    [
        (("--session-contrast", "linear(days)"), 2, ("takes 'days' as time", "Add --session-covariates days")),
        (("--group-contrast", "age"), 2, ("asks about a covariate", "Add --covariates")),
        (("--covariates", "age", "--session-covariates", "age"), 2, ("--covariates and by --session-covariates",)),
        (("--session-contrast", "ses-09"), 2, ("ses-09", "ses-01, ses-02, ses-03")),
        (("--session-contrast", "mean", "--session-contrast", "Mean=ses-01"), 2, ("would both be called", "NAME=")),
        (("--session-contrast", " + ".join(["ses-01"] * 40)), 2, ("--session-contrast", "too long", "NAME=")),
        (("--covariates", "age", "--group-contrast", LONG), 2, ("--group-contrast", "too long", "NAME=")),
        (("--covariates", "agee"), 2, ("participants.tsv has no column 'agee'", "(columns: participant_id, age, group, site, months)")),
        (("--covariates", "age", "months"), 17, ("'months' is a combination of 'age'", "Leave one of the covariates", "--covariates")),
        (("--covariates", "site"), 17, ("'site' has one level only ('x')",)),
        (("--session-covariates", "weight"), 2, ("sub-01_sessions.tsv has no column 'weight'", "--session-covariates")),
        (("--covariates", "age", "--group-contrast", "height"), 2, ("names 'height'", "'age'")),
    ],
)  # fmt: skip
def test_questions_that_cannot_be_asked_are_refused_before_anything_is_written(
    call: GroupCaller, tmp_path: Path, study: GroupStudy, options: tuple[str, ...], code: int, fragments: tuple[str, ...],
    dry: tuple[str, ...],
) -> None:  # fmt: skip
    raw = Path(shutil.copytree(study.raw, tmp_path / "bids"))
    table = pd.read_csv(raw / "participants.tsv", sep="\t")
    table.assign(months=12 * table["age"]).to_csv(raw / "participants.tsv", sep="\t", index=False)
    call(GroupStudy(raw, study.maps), tmp_path / "out", *options, *dry).refused(code, *fragments)
    assert not (tmp_path / "out").exists()


def test_a_long_contrast_can_be_named(call: GroupCaller, tmp_path: Path, study: GroupStudy) -> None:
    output = call.done(study, tmp_path / "out", *QUICK, "--covariates", "age", "--group-contrast", f"sixty={LONG}")
    assert group_path(output, "summaryStatistics", "z", covariate="sixty").is_file()


@pytest.mark.slow
def test_a_study_without_sessions_takes_covariates(call: GroupCaller, tmp_path: Path) -> None:
    study = make_study(tmp_path, sessions=(), missing=())
    output = call.done(
        study, tmp_path / "out", "--covariates", "age", "group", "--permutations", "10", "--variance", "pooled"
    )
    assert not [path for path in (output / "group").iterdir() if "_sessions-" in path.name]
    participants = [p for p, _ in study.keys]
    expected = ols(study.stacked, coded(study, participants), np.array([0, 1.0, 0]))
    for strategy in ("summaryStatistics", "sessionModel"):
        assert_maps(output, strategy, expected, sessions=None, covariate="age")


# Permutation, reliability, calibration, verdict ---------------------------------------------------------------


@pytest.mark.slow
def test_permutation_maps_are_probabilities_and_say_how_they_came_about(with_covariates: Path) -> None:
    for covariate in (None, "age"):
        for kind in ("voxelFWE", "clusterSizeFWE", "clusterMassFWE", "tfceFWE"):
            path = group_path(with_covariates, "summaryStatistics", "p", "ses02MinusSes01", covariate, kind)
            p = read(path)
            assert ((p > 0) & (p <= 1)).all()
            assert p.min() >= 1 / 41 - 1e-6
            sidecar = sidecar_of(path)
            assert sidecar["NumberOfPermutations"] == 40
            assert sidecar["PermutationScheme"] == ("label-permutation" if covariate else "sign-flipping")
            assert sidecar["RandomSeed"] == 0
            assert sidecar["StatisticType"] == "p"
            assert sidecar["SmallestAttainableP"] == pytest.approx(1 / 41, rel=1e-6)
    voxelwise = group_map(with_covariates, "summaryStatistics", "p", "ses02MinusSes01", desc="voxelFWE")
    t = np.abs(group_map(with_covariates, "summaryStatistics", "t", "ses02MinusSes01"))
    assert (np.diff(voxelwise[np.argsort(t)]) <= 1e-6).all(), "the larger |t|, the smaller p"
    for strategy, scheme in (("summaryStatistics", "sign-flipping"), ("marginal", "wild-bootstrap")):
        p = group_map(with_covariates, strategy, "p", "any", desc="voxelFWE")
        f = group_map(with_covariates, strategy, "F", "any")
        assert np.median(p[f > np.quantile(f, 0.9)]) < np.median(p)
        path = group_path(with_covariates, strategy, "p", "any", desc="voxelFWE")
        assert sidecar_of(path)["PermutationScheme"] == scheme


@pytest.mark.slow
def test_why_no_cluster_is_listed_is_said_as_it_is(call: GroupCaller, tmp_path: Path) -> None:
    """Where clusters were too small for the table, none was said to be suprathreshold."""
    study = make_study(tmp_path, n_participants=8, missing=())
    asked = ("--session-contrast", "mean", "--strategy", "summary-statistics", "--correction", "none")
    assert call(study, tmp_path / "out", *asked, "--cluster-threshold", "200", report=True).code == 0
    page = text_of(tmp_path / "out/group.html")
    assert "of 216 voxels have |z| ≥ 1.96" in page
    assert "No cluster has 200 voxels or more, as --cluster-threshold asks." in page
    assert "not suprathreshold" not in page
    # whoever is recommended
    assert "The mean over sessions is by Marginal model." in page


@pytest.mark.slow
def test_a_small_group_of_its_own_variance_is_not_resampled_and_the_remedy_named_permutes(
    call: GroupCaller, tmp_path: Path
) -> None:
    study = make_study(tmp_path)
    asked = ("--session-contrast", "mean", "--strategy", "summary-statistics", "--covariates", "group",
             "--group-contrast", "patient - control", "--permutations", "10")  # fmt: skip
    called = call(study, tmp_path / "out", *asked, report=True)
    assert called.code == 0, called.error
    assert not list((tmp_path / "out/group").glob("*FWE*"))
    sentence = "has fewer than 6 participants, and the smallest one here has 4. --variance pooled"
    assert sentence in called.error
    assert sentence in (tmp_path / "out/group.html").read_text(encoding="utf-8")
    call.done(study, tmp_path / "out", *asked, "--variance", "pooled")
    assert len(list((tmp_path / "out/group").glob("*FWE_statmap.nii.gz"))) == 4


@pytest.mark.slow
def test_resampling_that_does_not_hold_is_declined_in_words_and_once_more_when_pages_are_drawn(
    call: GroupCaller, tmp_path: Path
) -> None:
    study = make_study(tmp_path, n_participants=14, missing=())
    rng = np.random.default_rng(1)
    for participant in sorted({participant for participant, _ in study.effects}):
        skewed = np.exp(1.5 * rng.normal(size=(6, 6, 6)))
        for session in ("01", "02", "03"):
            effect = skewed + 0.3 * rng.normal(size=(6, 6, 6))
            study.write(participant, session, effect, study.variances[participant, session])
    asked = ("--session-contrast", "mean", "--session-contrast", "linear", "--strategy", "summary-statistics", "marginal",
             "mixed", "session-model", "--permutations", "20")  # fmt: skip
    called = call(study, tmp_path / "out", *asked, report=True)
    assert called.code == 0, called.error
    folder = tmp_path / "out/group"
    assert {path.name.split("_sessions-")[1].split("_stat")[0] for path in folder.glob("*voxelFWE*")} == {
        "linear_strategy-summaryStatistics", "linear_strategy-marginal",
    }  # fmt: skip
    page = (tmp_path / "out/group.html").read_text(encoding="utf-8")
    answers = answers_of(tmp_path / "out", "mean")
    for strategy, sentence in {
        "summary-statistics": "but they are skewed",
        "marginal": "but they are skewed",
        "mixed": "its errors rest on a model of the sessions",
        "session-model": "maps of one participant are not exchangeable one by one",
    }.items():
        assert sentence in called.error
        assert sentence in page
        assert sentence in answers["reason"][strategy]
    said = [line for line in called.error.splitlines() if "not exchangeable one by one" in line]
    assert len(said) == 1, "once for both questions"
    assert "'mean', 'linear'" in said[0]
    before = contents(tmp_path / "out", "group/*")
    again = call(study, tmp_path / "out", *asked, "--reports-only", report=True)
    assert again.code == 0, again.error
    assert contents(tmp_path / "out", "group/*") == before
    assert (tmp_path / "out/group.html").read_text(encoding="utf-8").count("but they are skewed") == page.count(
        "but they are skewed"
    )


@pytest.mark.slow
def test_permutations_and_calibration_follow_the_seed(call: GroupCaller, tmp_path: Path) -> None:
    study = make_study(tmp_path, n_participants=6)
    options = (*QUICK, "--permutations", "30", "--calibrate", "100")
    one, two, other = (
        contents(call.done(study, tmp_path / name, *options, "--random-seed", seed), "group/*")
        for name, seed in (("one", "7"), ("two", "7"), ("other", "8"))
    )
    assert one == two
    changed = {name for name in one if one[name] != other[name]}
    assert any(name.endswith("_desc-voxelFWE_statmap.nii.gz") for name in changed)
    assert f"{START}_desc-calibration_metrics.tsv" in changed
    assert not [name for name in changed if not re.search("FWE|calibration|validity", name)]


@pytest.mark.slow
def test_reliability_maps_are_the_analysis_of_variance(call: GroupCaller, tmp_path: Path) -> None:
    study = make_study(tmp_path, missing=())
    output = call.done(study, tmp_path / "out", *QUICK)
    between, within, error = anova_mean_squares(study.stacked.reshape(9, 3, -1))
    expected = {
        "icc1": (between - within) / (between + 2 * within),
        "icc31": (between - error) / (between + 2 * error),
        "between": (between - error) / 3,
        "within": error,
    }
    summary = pd.read_csv(output / "group" / f"{START}_desc-reliability_metrics.tsv", sep="\t")
    assert summary["region"].tolist()[0] == "all voxels"
    assert summary["n_voxels"].tolist()[0] == 216
    for name, values in expected.items():
        found = read(output / "group" / f"{START}_stat-{name}_desc-reliability_statmap.nii.gz").ravel()
        np.testing.assert_allclose(found, values, rtol=1e-5, atol=1e-6)
        quartiles = [summary.loc[0, f"{name}_{part}"] for part in ("q25", "median", "q75")]
        np.testing.assert_allclose(quartiles, np.percentile(values, [25, 50, 75]), rtol=1e-6)
    # the corner with an effect is a region of its own
    of_effect = summary[summary["region"] == "mean positive"]
    assert len(of_effect) >= 1
    assert of_effect[["x", "y", "z"]].notna().all(axis=None)


def test_reliability_with_missing_sessions_is_that_of_variance_components(study: GroupStudy, defaults: Path) -> None:
    from sessionfx.statistics.participant_variance import participant_spectrum
    from sessionfx.statistics.reliability import variance_components

    owners = [participant for participant, _ in study.keys]
    designs = {"icc1": np.ones((len(owners), 1)), "icc31": session_columns(study, study.keys)}
    for name, design in designs.items():
        found = read(defaults / "group" / f"{START}_stat-{name}_desc-reliability_statmap.nii.gz").ravel()
        direct = variance_components(participant_spectrum(design, owners), study.stacked).icc
        np.testing.assert_allclose(found, direct, rtol=1e-5, atol=1e-6)


@pytest.mark.slow
def test_calibration_has_a_row_for_every_strategy_and_question(with_covariates: Path) -> None:
    table = pd.read_csv(with_covariates / "group" / f"{START}_desc-calibration_metrics.tsv", sep="\t")
    asked = ["ses-02 - ses-01", "ses-02 - ses-01 × age", "any", "any × age"]
    assert list(zip(table["question"], table["strategy"], strict=True)) == [
        (question, strategy) for question in asked for strategy in ("summary-statistics", "marginal")
    ]
    estimated = table[table["status"] == "estimated"]
    assert (estimated["n_voxels"] == 150).all()
    assert (estimated["rate_0.05"].between(0, 0.2)).all()
    assert (estimated["rate_0.05_lower"] <= estimated["rate_0.05"]).all()


@pytest.mark.slow
def test_verdicts_are_valid_json_and_stand_in_the_report(with_covariates: Path) -> None:
    content = text_of(with_covariates / "group.html")
    paths = sorted((with_covariates / "group").glob("*_validity.json"))
    assert len(paths) == 4
    for path in paths:
        verdict = strict_json(path)
        assert set(verdict["Strategies"]) == {"summary-statistics", "marginal"}
        assert set(verdict["Recommended"]) <= {"summary-statistics", "marginal"}
        assert " ".join(str(verdict["Verdict"]).split()) in content
    for path in with_covariates.rglob("*.json"):
        strict_json(path)


@pytest.mark.slow
def test_report_names_every_question_and_the_permutations(with_covariates: Path) -> None:
    content = text_of(with_covariates / "group.html")
    for question in ("ses-02 - ses-01", "ses-02 - ses-01 × age", "any", "any × age"):
        assert f"Session contrast: {question}" in content
    assert "40 permutations (signs of participants' values flipped), two-sided" in content
    assert "40 permutations (participants' covariates exchanged), two-sided" in content
    assert "age: numeric, centred at 27.5556" in content
    assert "group: categorical (control 4, patient 5)" in content
    assert "False positives and power in simulated studies like this one" in content


# Reruns -----------------------------------------------------------------------------------------------------


@pytest.mark.slow
def test_reruns_redo_what_changed_and_nothing_else(call: GroupCaller, tmp_path: Path) -> None:
    study = make_study(tmp_path, n_participants=6)
    output = tmp_path / "out"
    asked = ("--session-contrast", "mean", "--strategy", "summary-statistics", "marginal", "--covariates", "age")
    options = (*asked, "--permutations", "20", "--calibrate", "50")
    call.done(study, output, *options)
    before = times(output)
    assert "finished before, skipped" in call(study, output, *options).error
    assert times(output) == before

    call.done(study, output, *options, "--random-seed", "1")
    changed = redone(before, before := times(output))
    assert any("FWE" in name for name in changed)
    assert not [name for name in changed if "reliability" in name], "no chance in there"

    call.done(study, output, *asked, "--permutations", "20", "--random-seed", "1", "--calibrate", "60")
    changed = redone(before, before := times(output))
    judged = {f"{START}_sessions-mean{group}_{end}" for group in ("", "_covariate-age")
              for end in ("validity.json", "desc-answers_metrics.tsv", "desc-influence_metrics.tsv",
                          "desc-influence_metrics.json")}  # fmt: skip
    assert changed == {f"{START}_desc-calibration_metrics.tsv", *judged}, "what is judged reads the calibration"

    call.done(study, output, *asked, "--permutations", "21", "--random-seed", "1", "--calibrate", "60")
    sidecar = sidecar_of(group_path(output, "summaryStatistics", "p", covariate="age", desc="tfceFWE"))
    assert sidecar["NumberOfPermutations"] == 21
    before = times(output)

    table = pd.read_csv(study.raw / "participants.tsv", sep="\t")
    table["site"] = "another"  # a column nobody asked for
    table.to_csv(study.raw / "participants.tsv", sep="\t", index=False)
    call.done(study, output, *asked, "--permutations", "21", "--random-seed", "1", "--calibrate", "60")
    assert times(output) == before

    old = group_map(output, "summaryStatistics", "effect", covariate="age")
    table.loc[0, "age"] += 30
    table.to_csv(study.raw / "participants.tsv", sep="\t", index=False)
    call.done(study, output, *asked, "--permutations", "21", "--random-seed", "1", "--calibrate", "60")
    changed = redone(before, before := times(output))
    assert not np.allclose(group_map(output, "summaryStatistics", "effect", covariate="age"), old)
    assert not [name for name in changed if "reliability" in name]


@pytest.mark.slow
def test_new_first_level_map_redoes_everything(call: GroupCaller, tmp_path: Path) -> None:
    study = make_study(tmp_path, n_participants=5)
    output = call.done(study, tmp_path / "out", *QUICK)
    before = times(output)
    study.write("01", "01", study.effects["01", "01"] + 1.0, study.variances["01", "01"])
    call.done(study, output, *QUICK)
    described = f"task-x_space-{SPACE}_desc-answers_metrics.json"  # the columns are the same
    assert redone(before, times(output)) == set(before) - {described}


@pytest.mark.slow
def test_family_wise_maps_stay_until_the_estimates_they_are_of_change(
    call: GroupCaller, tmp_path: Path, study: GroupStudy
) -> None:
    output = call.done(study, tmp_path / "out", *QUICK, "--permutations", "10")
    before = times(output, "group/*FWE*")
    assert before
    call.done(study, output, *QUICK)
    assert times(output, "group/*FWE*") == before
    call.done(study, output, *QUICK, "--alpha", "0.01")
    assert times(output, "group/*FWE*") == before
    called = call(study, output, *QUICK, "--fixed-effects", "precision")
    assert not list((output / "group").glob("*FWE*"))
    assert "of earlier calls will be removed" in called.error and "has changed" in called.error


@pytest.mark.slow
def test_maps_of_strategies_no_longer_asked_for_stay_and_it_is_said(
    call: GroupCaller, tmp_path: Path, study: GroupStudy
) -> None:
    output = call.done(study, tmp_path / "out", "--session-contrast", "mean", "--session-contrast", "linear")
    before = times(output)
    called = call(study, output, "--session-contrast", "mean", "--strategy", "marginal")
    assert strategies_in(output, "*_sessions-mean_*strategy*") == set(LABELS.values())
    assert not [name for name in redone(before, times(output)) if "strategy-" in name]
    assert answers_of(output, "mean").index.tolist() == ["marginal"]
    assert "not shown on its page: linear, mean (mixed, session-model, summary-statistics)." in called.error


@pytest.mark.slow
def test_answers_of_models_with_other_covariates_go_and_it_is_said(call: GroupCaller, tmp_path: Path) -> None:
    study = make_study(tmp_path, n_participants=8, missing=())
    linear = (*QUICK[2:], "--session-contrast", "linear", "--covariates", "age")
    output = call.done(study, tmp_path / "out", *linear)
    called = call(study, output, *QUICK, "--covariates", "age", report=True)
    assert "removed" not in called.error
    said = "Answers of earlier calls from the same maps and covariates stay in group/"
    assert said in called.error
    shown = text_of(output / "group.html")
    assert f"{said} beside those of this call, and are not shown on its page: linear, linear by age." in shown
    of_age = {path.name for path in output.glob("group/*_covariate-age_*")}
    assert any("linear" in name for name in of_age) and any("mean" in name for name in of_age)

    called = call(study, output, *QUICK, "--covariates", "group", report=True)
    gone = {name for name in of_age if not (output / "group" / name).exists()}
    assert gone == of_age
    assert "of earlier calls will be removed" in called.error and "has changed" in called.error
    assert said not in text_of(output / "group.html")

    call.done(study, output, *QUICK)
    assert not list(output.glob("group/*_covariate-*"))
    # what the record names is what is there, but for what is put together from it
    (record,) = (output / "logs").glob("*_group.json")
    recorded = {name for work in strict_json(record).values() for name in work["files"]}
    there = {f"group/{path.name}" for path in output.glob("group/*") if path.is_file()}
    start = f"group/task-x_space-{SPACE}"
    summaries = {f"{start}_desc-answers_metrics.tsv", f"{start}_desc-answers_metrics.json"}
    assert recorded == there - summaries - {f"group/{START}_desc-summary_results.json"}


@pytest.mark.slow
def test_a_call_that_nothing_answers_leaves_what_is_there_and_fails(
    call: GroupCaller, tmp_path: Path, study: GroupStudy
) -> None:
    any_session = ("--session-contrast", "any")
    output = call.done(study, tmp_path / "out", *any_session)
    before = times(output)
    called = call(study, output, *any_session, "--strategy", "mixed")
    called.refused(17, "No strategy of this call can answer", "mixed: The mixed strategy has no test", "--strategy")
    assert "done" not in called.output + called.error
    assert times(output) == before
    # either remedy
    assert call(study, output, *any_session).code == 0
    assert call(study, output, "--session-contrast", "mean", "--strategy", "mixed").code == 0


def test_what_a_strategy_never_answers_is_no_warning_where_others_do(
    call: GroupCaller, tmp_path: Path, study: GroupStudy
) -> None:
    called = call(study, tmp_path / "out", "--session-contrast", "any", "--strategy", "mixed", "marginal")
    assert called.code == 0
    assert "has no test of several contrasts" not in called.error
    answers = answers_of(tmp_path / "out", "any")
    assert answers["status"].to_dict() == {"marginal": "estimated", "mixed": "declined"}
    assert "has no test of several contrasts" in answers.loc["mixed", "reason"]


@pytest.mark.slow
def test_a_strategy_whose_package_is_missing_is_refused_before_anything_is_touched(
    call: GroupCaller, tmp_path: Path, study: GroupStudy, monkeypatch: pytest.MonkeyPatch
) -> None:
    output = call.done(study, tmp_path / "out", "--session-contrast", "mean")
    before = times(output, "**/*")
    monkeypatch.setitem(sys.modules, "pymare", None)
    for options in ((), ("--dry-run",)):
        call(study, output, "--session-contrast", "mean", "--strategy", "meta", *options).refused(
            2, "--strategy meta: The meta strategy needs PyMARE", "pip install 'sessionfx[meta]'"
        )
    assert times(output, "**/*") == before


@pytest.mark.slow
def test_reports_only_draws_without_touching_maps(call: GroupCaller, tmp_path: Path, study: GroupStudy) -> None:
    call(study, tmp_path / "none", *QUICK, "--reports-only", report=True).refused(
        17, "--reports-only needs finished maps", "without --reports-only first"
    )
    output = call.done(study, tmp_path / "out", *QUICK, "--permutations", "10")
    assert not (output / "group.html").exists(), "--no-report"
    before = times(output)
    call.done(study, output, *QUICK, "--permutations", "10", "--reports-only", report=True)
    assert times(output) == before
    assert "10 permutations (signs of participants' values flipped), two-sided" in text_of(output / "group.html")


def test_dry_run_says_what_it_would_do_and_writes_nothing(call: GroupCaller, tmp_path: Path, study: GroupStudy) -> None:
    called = call(study, tmp_path / "out", "--dry-run", "--covariates", "age")
    assert called.code == 0
    assert "aMinusB over 9 participants" in called.output
    assert "covariates: age" in called.output
    assert not (tmp_path / "out").exists()


@pytest.mark.slow
def test_dry_run_says_what_is_finished_and_what_would_be_done(
    call: GroupCaller, tmp_path: Path, study: GroupStudy
) -> None:
    asked = ("--session-contrast", "mean", "--strategy", "marginal")
    output = call.done(study, tmp_path / "out", *asked)
    before = times(output, "**/*")
    finished = call(study, output, *asked, "--dry-run").output
    assert "maps: finished, would be skipped" in finished
    assert "would do" not in finished
    added = call(study, output, *asked, "mixed", "--dry-run").output
    assert "maps: 3 of 7 results finished\n" in added
    assert "\n  would do: answer mean by mixed, compare mean, judge mean, influence mean\n" in added
    other = call(study, output, "--session-contrast", "linear", *asked[2:], "--covariates", "age", "--dry-run").output
    assert "would remove, as what they were made from has changed: " in other
    assert times(output, "**/*") == before


@pytest.mark.slow
def test_saved_settings_give_the_same_maps(call: GroupCaller, tmp_path: Path, study: GroupStudy) -> None:
    options = (
        "--session-contrast", "ses-02 - ses-01", "--session-contrast", "linear(days)", "--strategy", "summary-statistics",
        "mixed", "--covariates", "age", "group", "--session-covariates", "days", "--group-contrast", "patient - control",
        "--group-contrast", "old=age", "--permutations", "10", "--random-seed", "3", "--calibrate", "40", "--mixed-dof",
        "kenward-roger", "--correction", "bonferroni", "--alpha", "0.01", "--cluster-threshold", "2",
    )  # fmt: skip
    first = call.done(study, tmp_path / "first", *options)
    (config,) = (first / "logs").glob("*_config.toml")
    second = tmp_path / "second"
    assert main([str(study.raw), str(second), "group", "--config-file", str(config)]) == 0
    assert contents(second) == contents(first)


# Careless and malicious input ---------------------------------------------------------------------------------

HOSTILE = "<img src=x onerror=alert(1)>"
SLASHES = "../../../etc/passwd"


@pytest.mark.slow
def test_no_text_of_the_tables_reaches_file_names_or_the_page_as_markup(call: GroupCaller, tmp_path: Path) -> None:
    study = make_study(tmp_path, n_participants=6, missing=())
    table = pd.read_csv(study.raw / "participants.tsv", sep="\t", dtype=str)
    table["<script>alert(2)</script>"] = [HOSTILE, SLASHES] * 3
    table["a\"b'c;$(touch x)`"[:-1]] = ['line break "q"', "{{ 7*7 }} \x1b[31m \x1c\x85 é"] * 3
    table["../../up"] = ["1", "4", "2", "8", "5", "7"]
    table.to_csv(study.raw / "participants.tsv", sep="\t", index=False)
    for participant in ("01", "02", "03", "04", "05", "06"):
        study.sessions_table(
            participant, {"session_id": ["ses-01", "ses-02", "ses-03"], HOSTILE: [0, 1, int(participant)]}
        )
    for number, columns in enumerate((["<script>alert(2)</script>"], ["a\"b'c;$(touch x)"], ["../../up"])):
        called = call(
            study, tmp_path / f"out{number}", *QUICK, "--covariates", *columns, "--session-covariates", HOSTILE,
            "--permutations", "5", report=True,
        )  # fmt: skip
        assert called.code == 0, called.error
        assert "\x1b" not in called.error
        output = tmp_path / f"out{number}"
        for path in output.rglob("*"):
            assert re.fullmatch(r"\.?[A-Za-z0-9_.+-]+", path.name), path.name
        page = (output / "group.html").read_text(encoding="utf-8")
        assert "<img src=x" not in page
        assert "<script>alert" not in page
        assert "7*7" in page if number == 1 else True
        text_of(output / "group.html")  # strictly valid HTML
        for path in output.rglob("*.json"):
            strict_json(path)
        design = pd.read_csv(
            next((output / "group").glob("*_sessions-mean_strategy-summaryStatistics_design.tsv")), sep="\t"
        )
        assert len(design) == 6
    assert {path.name for path in tmp_path.iterdir()} == {"bids", "firstlevel", "out0", "out1", "out2"}


@pytest.mark.slow
@pytest.mark.parametrize(
    "content",
    [
        '{"ModelParameters": [1, 2], "Contrast": NaN, "DegreesOfFreedom": "many"}',
        '{"ContrastWeights": {"a": Infinity}}',
        "[1]",
    ],
)
def test_odd_sidecars_of_other_programs_do_no_harm(call: GroupCaller, tmp_path: Path, content: str) -> None:
    study = make_study(tmp_path, n_participants=4)
    path = study.map_path("01", "01")
    path.with_name(path.name.replace(".nii.gz", ".json")).write_text(content)
    output = call.done(study, tmp_path / "out", *QUICK)
    for sidecar in output.rglob("*.json"):
        strict_json(sidecar)


def test_a_covariate_that_is_the_same_as_the_sessions_is_declined_in_words(call: GroupCaller, tmp_path: Path) -> None:
    study = make_study(tmp_path, n_participants=5, missing=())
    for number in range(1, 6):
        study.sessions_table(
            f"{number:02d}",
            {"session_id": ["ses-01", "ses-02", "ses-03"], "order": [1, 2, 3], "flat": [number] * 3},
        )
    called = call(study, tmp_path / "out", "--session-covariates", "order", "--session-contrast", "ses-02 - ses-01")
    called.refused(17, "No strategy of this call can answer", "covariates cannot be told apart from sessions")
    assert called.error.count("covariates cannot be told apart from sessions") == 3
    assert "order cannot be told apart from the other columns (intercept)" in called.error
    assert not list((tmp_path / "out").glob("group/*_strategy-*_statmap.nii.gz"))
    called = call(study, tmp_path / "out", "--session-covariates", "flat", "--session-contrast", "linear(flat)")
    assert "No participant has two sessions with different values of 'flat'" in called.error


@pytest.mark.slow
def test_two_participants_are_enough_and_one_is_not(call: GroupCaller, tmp_path: Path) -> None:
    study = make_study(tmp_path, n_participants=2, missing=())
    output = tmp_path / "out"
    called = call(study, output)
    assert called.code == 0, called.error
    assert "2 participants: these results say nothing about people beyond them." in called.output + called.error
    maps = flat(study)
    difference = np.array([maps[p, "02"] - maps[p, "01"] for p in ("01", "02")])
    assert_maps(output, "summaryStatistics", ols(difference, np.ones((2, 1)), np.ones(1)), sessions="ses02MinusSes01")
    call(study, tmp_path / "none", "--participant-label", "02").refused(17, "at least two participants", "(sub-02)")
    call(study, tmp_path / "none", "--covariates", "age").refused(17, "too few for a group design of 2 columns")


@pytest.mark.slow
def test_one_session_is_one_t_test_whatever_the_strategy(call: GroupCaller, tmp_path: Path) -> None:
    study = make_study(tmp_path, sessions=("01",), missing=())
    output = call.done(study, tmp_path / "out", "--covariates", "age", "--group-contrast", "age")
    x = coded(study, [p for p, _ in study.keys])[:, :2]
    expected = ols(study.stacked, x, np.array([0, 1.0]))
    for strategy in ("sessionModel", "summaryStatistics"):
        assert_maps(output, strategy, expected, sessions="mean", covariate="age")
    assert not list((output / "group").glob("*reliability*"))
    call.done(study, output, "--covariates", "age", "--group-contrast", "age", "--calibrate", "50")
    table = pd.read_csv(output / "group" / f"{START}_desc-calibration_metrics.tsv", sep="\t")
    estimated = set(table.loc[table["status"] == "estimated", "strategy"])
    assert estimated == {"session-model", "summary-statistics", "marginal"}


def test_sessions_chosen_set_their_order_and_what_the_mean_is(
    call: GroupCaller, tmp_path: Path, study: GroupStudy
) -> None:
    output = call.done(
        study, tmp_path / "out", "--session-label", "03", "01", "--strategy", "summary-statistics", "--session-contrast", "mean",
        "--session-contrast", "linear",
    )  # fmt: skip
    maps = flat(study)
    participants = sorted({p for p, _ in study.keys} - {"02"})
    difference = np.array([maps[p, "01"] - maps[p, "03"] for p in participants])
    assert_maps(output, "summaryStatistics", ols(difference, np.ones((8, 1)), np.ones(1)), sessions="linear")


def test_voxels_some_map_lacks_are_left_out_of_all(call: GroupCaller, tmp_path: Path) -> None:
    study = make_study(tmp_path, n_participants=5)
    first = study.keys[0]
    effect, variance = study.effects[first].copy(), study.variances[first].copy()
    effect[0, 0, 0], effect[0, 0, 1] = np.nan, np.inf
    variance[0, 0, 2], variance[0, 0, 3], variance[0, 0, 4] = 0, -1, np.nan
    study.write(*first, effect, variance)
    output = call.done(study, tmp_path / "out", *QUICK, "--min-coverage", 1)
    mask = group_map(output, "summaryStatistics", "variance").reshape(6, 6, 6) > 0
    assert mask.sum() == 216 - 5
    assert not mask[0, 0, :5].any()
    for path in (output / "group").glob("*_statmap.nii.gz"):
        assert np.isfinite(read(path)).all()
    half = np.zeros((6, 6, 6))
    half[:3] = 0.1
    study.write("01", "01", effect, half)
    study.write("02", "01", study.effects["02", "01"], 0.1 - half)
    refused = call(study, tmp_path / "none", *QUICK, "--min-coverage", 1)
    refused.refused(17, "No voxel has data in all", "--participant-label", "--min-coverage")


@pytest.mark.parametrize("value", [0.0, np.nan])
def test_maps_without_any_data_are_named_and_their_owners_not_counted(
    call: GroupCaller, tmp_path: Path, value: float
) -> None:
    study = make_study(tmp_path, n_participants=5, sessions=("01", "02"), missing=(), variances=value != 0)
    for participant, session in (("03", "01"), ("03", "02"), ("05", "01")):
        study.write(participant, session, np.full((6, 6, 6), value), None)
    others = "nor have the maps of sub-03_ses-02, sub-05_ses-01"
    call(study, tmp_path / "out", *QUICK).refused(17, "sub-03_ses-01_task-x", "has no voxel with data", others)
    for participant, session in (("03", "01"), ("03", "02"), ("05", "01")):
        study.map_path(participant, session).unlink()
    output = call.done(study, tmp_path / "out", *QUICK)
    validity = next((output / "group").glob("*sessions-mean_validity.json"))
    assert "(4 participants with 2 sessions, some missing)" in str(strict_json(validity)["Verdict"])


def test_other_grid_and_truncated_map_are_named(call: GroupCaller, tmp_path: Path) -> None:
    study = make_study(tmp_path, n_participants=4)
    study.write("03", "01", np.ones((5, 6, 6)), np.ones((5, 6, 6)))
    call(study, tmp_path / "out", *QUICK).refused(17, "sub-03_ses-01", "5×6×6 voxels", "different grids")
    path = study.map_path("03", "01")
    path.write_bytes(path.read_bytes()[:60])
    call(study, tmp_path / "out", *QUICK).refused(17, "sub-03_ses-01", "truncated or damaged", "--participant-label")


def test_a_failing_contrast_does_not_stop_the_others(call: GroupCaller, tmp_path: Path) -> None:
    study = make_study(tmp_path, n_participants=4, missing=())
    for participant, session in study.keys:
        grid = (5, 6, 6) if participant == "02" else (6, 6, 6)
        study.write(participant, session, np.ones(grid), np.ones(grid), contrast="other")
    called = call(study, tmp_path / "out", *QUICK)
    assert called.code == 1
    assert "contrast other: FAILED." in called.error
    assert "group, contrast aMinusB: done." in called.error
    assert group_path(tmp_path / "out", "summaryStatistics", "z").is_file()


@pytest.mark.slow
@pytest.mark.skipif(not Path("/proc/self/fd").is_dir(), reason="looks at the files a process has open")
def test_killed_run_leaves_nothing_half_done(tmp_path: Path) -> None:
    """SIGKILL while the maps are spooled: no temporary file, no map without its sidecar, and the rerun finishes."""
    study = make_study(tmp_path, n_participants=6, shape=(20, 20, 20))
    output, work = tmp_path / "out", tmp_path / "work"
    command = [
        sys.executable, "-m", "sessionfx", study.raw, output, "group", "-d", study.maps, "--no-report", "--work-dir", work,
        "--session-contrast", "mean", "--strategy", "summary-statistics", "--permutations", "2000",
    ]  # fmt: skip
    process = subprocess.Popen(list(map(str, command)), stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    limit = time.monotonic() + 300
    while not open_below(process.pid, work) and process.poll() is None and time.monotonic() < limit:
        time.sleep(0.02)
    assert process.poll() is None
    process.kill()
    process.wait(timeout=300)
    assert process.returncode == -signal.SIGKILL
    assert list(work.iterdir()) == []
    assert hidden_files(output) == []
    assert not list(output.glob("group/*_statmap.nii.gz"))
    command[-1] = "10"
    done = subprocess.run(list(map(str, command)), capture_output=True, text=True, timeout=600)
    assert done.returncode == 0, done.stderr
    assert group_path(output, "summaryStatistics", "p", desc="tfceFWE").is_file()


# Bugs of their own ------------------------------------------------------------------------------------------


@pytest.mark.slow
def test_permutations_of_a_map_without_background(call: GroupCaller, tmp_path: Path) -> None:
    """A region of interest can fill its grid, down to one voxel."""
    study = make_study(tmp_path, shape=(1, 1, 1))
    output = call.done(study, tmp_path / "out", *QUICK, "--permutations", "19")
    for kind in ("voxelFWE", "clusterSizeFWE", "clusterMassFWE", "tfceFWE"):
        (p,) = group_map(output, "summaryStatistics", "p", desc=kind)
        assert 1 / 20 <= p <= 1
    # with one voxel the family is that voxel: every test that it enters says the same
    assert group_map(output, "summaryStatistics", "p", desc="tfceFWE") == group_map(
        output, "summaryStatistics", "p", desc="voxelFWE"
    )


@pytest.mark.slow
def test_voxels_that_vary_by_rounding_alone_are_not_significant(call: GroupCaller, tmp_path: Path) -> None:
    """Equal maps, or sessions that differ equally for everyone, leave no error to test against, in t and in F."""
    study = make_study(tmp_path, missing=())
    for (participant, session), effect in list(study.effects.items()):
        effect[5, 5] = [0.1, 0.1 * int(session), 0.1 * int(participant), 0.0, 0.3, 0.7]
        study.write(participant, session, effect, study.variances[participant, session])
    output = call.done(study, tmp_path / "out")
    for path in (output / "group").glob("*_stat-z_statmap.nii.gz"):
        # the mean of participants that differ is the one thing that can be tested there
        at = [0, 1, 3, 4, 5] if "_sessions-mean_" in path.name else [0, 1, 2, 3, 4, 5]
        # REML bounds the ratio of variances, so that mixed says zero there rather than nothing
        assert np.abs(read(path)[5, 5][at]).max() < 1e-6, path.name
    assert (group_map(output, "summaryStatistics", "p", "any").reshape(6, 6, 6)[5, 5] == 1).all()
    assert (group_map(output, "marginal", "F", "any").reshape(6, 6, 6)[:5] > 0).all()


@pytest.mark.slow
def test_work_dir_is_made_and_stays_out_of_the_input(call: GroupCaller, tmp_path: Path, study: GroupStudy) -> None:
    work = tmp_path / "new" / "work"
    output = call.done(study, tmp_path / "out", *QUICK, "--work-dir", str(work))
    assert [path.suffix for path in work.iterdir()] == [".maps"]  # kept for later calls, and nothing else
    assert hidden_files(output) == []
    for inside in (study.raw, study.maps):
        call(study, tmp_path / "none", *QUICK, "--work-dir", str(inside / "work")).refused(
            73, "--work-dir", "lies inside the input dataset"
        )
    (tmp_path / "file").write_text("")
    call(study, tmp_path / "none", *QUICK, "--work-dir", str(tmp_path / "file")).refused(
        73, "--work-dir", "cannot be made"
    )
    assert not (tmp_path / "none").exists()


# Memory and disk --------------------------------------------------------------------------------------------

# the largest memory of this process alone: ru_maxrss begins with that of the process that started it
MEASURED = (
    "import sys; from sessionfx.cli import main; code = main(sys.argv[1:]); "
    "print(next(line.split()[1] for line in open('/proc/self/status') if line.startswith('VmHWM'))); sys.exit(code)"
)
SMALL_FILES = (
    "import resource, sys; resource.setrlimit(resource.RLIMIT_FSIZE, (20000, 20000)); from sessionfx.cli import main; "
    "sys.exit(main(sys.argv[1:]))"
)


def run_python(code: str, study: GroupStudy, output: Path, *options: str) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-c", code, study.raw, output, "group", "-d", study.maps, "--no-report", *options]
    return subprocess.run(list(map(str, command)), capture_output=True, text=True, timeout=600)


@pytest.mark.slow
def test_memory_does_not_grow_with_the_number_of_maps(tmp_path: Path) -> None:
    """60 maps of 201,600 voxels against 15: in memory the other 45 would take 73 MB."""
    peaks = []
    for n_participants in (5, 20):
        folder = tmp_path / str(n_participants)
        study = make_study(folder, n_participants=n_participants, missing=(), shape=(60, 60, 56), variances=False)
        done = run_python(MEASURED, study, folder / "out", *QUICK, "marginal")
        assert done.returncode == 0, done.stderr
        peaks.append(int(done.stdout) * 1024)
    assert peaks[1] - peaks[0] < 30e6


@pytest.mark.slow
def test_a_full_disk_is_one_sentence(tmp_path: Path, study: GroupStudy) -> None:
    """A limit on the size of files stands in for it: 25 maps of 216 voxels take 43 kB."""
    done = run_python(SMALL_FILES, study, tmp_path / "out", *QUICK)
    assert done.returncode == 73, done.stderr
    assert "Traceback" not in done.stderr
    assert "cannot hold the maps of the group level (File too large)" in done.stderr.splitlines()[-1]
    assert "--work-dir" in done.stderr


# Broken maps and folders --------------------------------------------------------------------------------------


@pytest.mark.parametrize("dims", [(3, -5, 6, 6), (3, 32767, 32767, 32767), (3, 900, 900, 900), (3, 0, 6, 6)])
def test_a_map_that_claims_a_size_it_has_not_is_named_and_nothing_is_allocated(
    call: GroupCaller, tmp_path: Path, dims: tuple[int, ...]
) -> None:
    """900³ values of 4 bytes are 2.9 GB."""
    study = make_study(tmp_path, n_participants=4, missing=())
    path = study.map_path("03", "01")
    content = bytearray(gzip.decompress(path.read_bytes()))
    content[40:48] = struct.pack("<4h", *dims)
    path.write_bytes(gzip.compress(bytes(content)))
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    call(study, tmp_path / "out", *QUICK).refused(17, path.name)
    assert resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before < 500_000  # kB
    assert not list((tmp_path / "out").glob("group/*_statmap.nii.gz"))


@pytest.mark.slow
@needs_another_user
@pytest.mark.parametrize("mode", [0o700, 0o711])
def test_a_participants_folder_that_cannot_be_listed_is_refused_by_name(mode: int) -> None:
    with reachable_folder() as folder:
        study = make_study(folder, n_participants=4, missing=())
        closed, output = study.maps / "sub-02", folder / "out"
        closed.chmod(mode)
        output.mkdir()
        os.chown(output, USER, USER)
        command = [*AS_USER, sys.executable, "-m", "sessionfx", study.raw, output, "group", "-d", study.maps,
                   "--nprocs", "1", "--no-report", *QUICK]  # fmt: skip
        environment = os.environ | {"HOME": str(output), "PYTHONDONTWRITEBYTECODE": "1"}
        done = subprocess.run([*map(str, command)], capture_output=True, text=True, env=environment, cwd="/")
        assert done.returncode == 17, done.stderr
        assert f"The folder {closed} cannot be listed" in done.stderr
        assert "Traceback" not in done.stderr
        assert not (output / "group").exists()


# Methods text -------------------------------------------------------------------------------------------------


def methods_of(output: Path) -> str:
    (path,) = (output / "logs").glob("*desc-group_methods.txt")
    return path.read_text(encoding="utf-8")


@pytest.mark.slow
def test_methods_claim_what_was_done_and_nothing_else(call: GroupCaller, tmp_path: Path, study: GroupStudy) -> None:
    options = ("--session-contrast", "any", "--strategy", "mixed", "marginal", "--session-covariates", "days")
    output = call.done(study, tmp_path / "out", *options, "--permutations", "5", report=True)
    text = methods_of(output)
    assert "Marginal model:" in text and "F tests at their upper tail" in text
    others = ("Mixed model:", "permutations", "Strategies were compared", "They also", "covariates 'age'")
    for claim in others:
        assert claim not in text, claim
    assert "Group models held the session covariates 'days'" in text
    assert "Mixed model:" not in text_of(output / "group.html")
    # what is finished keeps its text
    assert "finished before" in call(study, output, *options, "--permutations", "5", report=True).error
    assert methods_of(output) == text

    timed = ("--session-contrast", "linear(days)", "--session-covariates", "days", "--covariates", "age")
    output = call.done(
        study, tmp_path / "timed", *timed, "--strategy", "summary-statistics", "marginal", "--permutations", "5"
    )
    text = methods_of(output)
    assert "session covariates" not in text, "days served as time"
    for claim in ("held the covariates 'age'", "5 resamplings", "Strategies were compared", "intraclass correlations"):
        assert claim in text, claim


def test_methods_of_one_session_claim_no_reliability(call: GroupCaller, tmp_path: Path) -> None:
    study = make_study(tmp_path, n_participants=5, sessions=("01",), missing=())
    text = methods_of(call.done(study, tmp_path / "out", *QUICK))
    assert "intraclass" not in text and "F tests" not in text
