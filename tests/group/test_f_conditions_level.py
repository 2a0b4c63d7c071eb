"""F tests over conditions as users run them: rows' maps in, maps of F, tables, records and the page out."""

from __future__ import annotations

import os
import shutil
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from numpy.typing import NDArray

import sessionfx
from calls import GroupCaller, redone, times
from group_study import CONTRAST, SPACE, GroupStudy, make_study, read, sidecar_of, strict_json
from hotelling import hotelling_t2
from pages import text_of
from sessionfx.cli import main

pytestmark = pytest.mark.slow

F_TEST = f"F:shape = {CONTRAST}; second"
ASKED = ("--contrast", F_TEST, "--session-contrast", "mean", "--session-contrast", "ses-02 - ses-01")
FloatArray = NDArray[np.float64]


@pytest.fixture(scope="module")
def study(tmp_path_factory: pytest.TempPathFactory) -> GroupStudy:
    """Ten participants with two sessions, one missing; their second contrast goes with the first."""
    made = make_study(tmp_path_factory.mktemp("f-conditions"), n_participants=10, sessions=("01", "02"), missing=())
    rng = np.random.default_rng(5)
    for participant, session in made.keys:
        effect = made.effects[participant, session]
        second = 0.5 * effect + rng.normal(0, 0.4, effect.shape)
        made.write(participant, session, second, np.full(effect.shape, 0.1), "second")
    for label, session, contrast in (("03", "02", CONTRAST), ("07", "01", "second")):
        for statistic in ("effect", "variance"):
            made.map_path(label, session, statistic, contrast).unlink()
    return made


ALL = (*ASKED, "--permutations", "30", "--calibrate", "200", "--equivalence", "1")


@pytest.fixture(scope="module")
def output(study: GroupStudy, tmp_path_factory: pytest.TempPathFactory) -> Path:
    made = tmp_path_factory.mktemp("f-conditions-out") / "out"
    assert main([str(study.raw), str(made), "group", "-d", str(study.maps), "--nprocs", "1", *ALL]) == 0
    return made


def place(output: Path, strategy: str, statistic: str, sessions: str = "mean", desc: str = "") -> Path:
    end = f"_desc-{desc}" if desc else ""
    start = f"task-x_space-{SPACE}_contrast-shape_sessions-{sessions}"
    return output / "group" / f"{start}_strategy-{strategy}_stat-{statistic}{end}_statmap.nii.gz"


def effects_of(study: GroupStudy, sessions: tuple[str, ...]) -> FloatArray:
    """Read what is on disk of the participants who have both contrasts in some sessions: shape (2, n, S, V)."""
    labels = sorted({participant for participant, _ in study.keys})
    found = []
    for label in labels:
        paths = [
            [study.map_path(label, session, contrast=name) for session in sessions] for name in (CONTRAST, "second")
        ]
        if all(path.exists() for row in paths for path in row):
            found.append([[read(path).ravel() for path in row] for row in paths])
    return np.array(found).transpose(1, 0, 2, 3)


def test_maps_are_hotellings_t2_of_participants_who_have_both(study: GroupStudy, output: Path) -> None:
    both = effects_of(study, ("01", "02"))
    assert both.shape[1] == 8
    f, p = hotelling_t2(both[:, :, 1] - both[:, :, 0])
    np.testing.assert_allclose(read(place(output, "summaryStatistics", "F", "ses02MinusSes01")).ravel(), f, rtol=1e-5)
    np.testing.assert_allclose(read(place(output, "summaryStatistics", "p", "ses02MinusSes01")).ravel(), p, rtol=1e-4)
    # the two with one session have that as their mean
    ones = [np.array([read(study.map_path(label, session, contrast=name)).ravel() for name in (CONTRAST, "second")])
            for label, session in (("03", "01"), ("07", "02"))]  # fmt: skip
    means = np.concatenate([both.mean(axis=2), np.array(ones).transpose(1, 0, 2)], axis=1)
    np.testing.assert_allclose(read(place(output, "summaryStatistics", "F")).ravel(), hotelling_t2(means)[0], rtol=1e-5)
    assert place(output, "marginal", "F").exists()
    assert not place(output, "mixed", "F").exists()
    assert not place(output, "marginal", "effect").exists()
    # the rows' own maps are those of ordinary contrasts
    (row,) = (output / "group").glob(
        "*_contrast-second_sessions-mean_strategy-summaryStatistics_stat-effect_statmap.nii.gz"
    )
    assert row.exists()


def test_sidecars_and_tables_say_what_was_tested(output: Path) -> None:
    path = place(output, "marginal", "F")
    sidecar = sidecar_of(path)
    assert sidecar["Contrast"] == f"{CONTRAST}; second"
    assert sidecar["RowsContrast"] == ["a - b", "a - b"]  # as the maps' sidecars have it
    assert sidecar["DegreesOfFreedomNumerator"] == 2.0
    assert (sidecar["NumberOfInputs"], sidecar["NumberOfParticipants"]) == (36, 10)
    assert len(sidecar["Sources"]) == 36  # type: ignore[arg-type]
    assert "Wald F test of 18 maps of 2 contrasts each" in str(sidecar["Description"])
    table = pd.read_csv(output / "group" / f"task-x_space-{SPACE}_desc-answers_metrics.tsv", sep="\t")
    rows = table[table["first_level_contrast"] == "shape"]
    answered = rows[rows["status"] == "estimated"]
    assert set(answered["strategy"]) == {"summary-statistics", "marginal"}
    assert set(answered["n_maps"]) == {36, 32}
    assert answered["smallest_z"].isna().all()
    summary = strict_json(output / "group" / f"task-x_space-{SPACE}_contrast-shape_desc-summary_results.json")
    assert summary["Contrast"] == f"F test shape: {CONTRAST}; second"
    result = summary["SessionContrasts"][0]["Result"]  # type: ignore[index]
    assert result["ThresholdIsOn"] == "z"
    assert set(result["Files"]) == {"F", "z", "clusters", "design"}


def test_family_wise_p_of_both_strategies_are_there(output: Path) -> None:
    for strategy in ("summaryStatistics", "marginal"):
        for kind in ("voxelFWE", "tfceFWE"):
            assert read(place(output, strategy, "p", desc=kind)).min() >= 1 / 31 - 1e-6


def test_calibration_finds_about_five_percent(output: Path) -> None:
    (path,) = output.glob("group/*contrast-shape_*desc-calibration_metrics.tsv")
    table = pd.read_csv(path, sep="\t")
    estimated = table[table["status"] == "estimated"]
    assert set(estimated["strategy"]) == {"summary-statistics", "marginal"}
    assert set(estimated["test"]) == {"F"}
    assert ((estimated["rate_0.05_lower"] < 0.05) & (estimated["rate_0.05_upper"] > 0.05)).all()
    assert estimated["power_0.05"].min() > 0.3


def test_page_and_methods_have_the_test(output: Path) -> None:
    text = text_of(output / "group.html")
    assert f"F test shape: {CONTRAST}; second" in text
    assert "upper tail of F" in text
    assert "The session model tests one contrast over conditions at a time here" in text
    (methods,) = (output / "logs").glob("*desc-group_methods.txt")
    assert "F tests over conditions took several contrasts of each participant together: by Hotelling's T²" in (
        methods.read_text(encoding="utf-8")
    )


def test_the_same_from_python(study: GroupStudy, output: Path) -> None:
    maps = sessionfx.load_session_maps(study.maps, F_TEST, bids_dir=study.raw)
    assert len(maps.table) == 36
    for strategy, label in (("summary-statistics", "summaryStatistics"), ("marginal", "marginal")):
        found = sessionfx.estimate(maps, strategy=strategy)[strategy]
        np.testing.assert_allclose(found.z.get_fdata(), read(place(output, label, "z")), atol=1e-5)


def test_the_same_call_does_nothing_and_a_changed_row_all_again(
    study: GroupStudy, output: Path, call: GroupCaller, tmp_path: Path
) -> None:
    mine = tmp_path / "out"
    shutil.copytree(output, mine)
    before = times(mine)
    assert "contrast shape: finished before" in call(study, mine, *ALL, "--no-report").error
    assert times(mine) == before
    path = study.map_path("05", "01", contrast="second")
    original = path.read_bytes(), path.stat().st_mtime_ns
    study.write("05", "01", read(path) + 1.0, np.full(read(path).shape, 0.1), "second")
    try:
        call.done(study, mine, *ALL, "--no-report")
    finally:
        path.write_bytes(original[0])
        os.utime(path, ns=(original[1], original[1]))
    changed = redone(before, times(mine))
    assert any("contrast-shape" in name and "stat-F" in name for name in changed)
    assert not any(f"contrast-{CONTRAST}_" in name for name in changed)


def test_dry_run_names_rows_and_maps(study: GroupStudy, call: GroupCaller, tmp_path: Path) -> None:
    called = call(study, tmp_path / "out", *ASKED, "--dry-run")
    assert f"shape over 10 participants, 36 maps: nothing finished yet\n  F test of {CONTRAST}; second" in called.output
    assert str(study.map_path("03", "01", contrast="second")) in called.output


def test_absent_participants_are_named(study: GroupStudy, call: GroupCaller, tmp_path: Path) -> None:
    options = ("--session-label", "01", "--contrast", F_TEST, "--strategy", "summary-statistics")
    called = call(study, tmp_path / "out", *options)
    assert called.code == 0, called.error
    assert "sub-07 is left out: it has no map of ses-01" in called.error


def test_one_row_alone_is_the_square_of_t(study: GroupStudy, call: GroupCaller, tmp_path: Path) -> None:
    options = ("--contrast", "F:shape = second", "--session-contrast", "mean")
    output = call.done(study, tmp_path / "out", *options)
    for strategy in ("summaryStatistics", "marginal"):
        path = place(output, strategy, "F")
        t = read(Path(str(path).replace("contrast-shape", "contrast-second").replace("stat-F", "stat-t")))
        np.testing.assert_allclose(read(path), t**2, rtol=1e-4)


@pytest.mark.parametrize(
    ("texts", "code", "message"),
    [
        (("shape", F_TEST.replace("F:shape", "F:second")), 2, "would both be called 'second'"),
        ((f"F:{CONTRAST} = second; {CONTRAST}",), 2, f"would both be called '{CONTRAST}'"),
        (("F:shape = second; third",), 18, "--contrast third matches no first-level map"),
        (("F:shape = second; 2*second",), 2, "rows depend on each other"),
    ],
)
def test_what_cannot_be_tested_is_refused(
    study: GroupStudy, call: GroupCaller, tmp_path: Path, texts: tuple[str, ...], code: int, message: str
) -> None:
    called = call(study, tmp_path / "out", *(word for text in texts for word in ("--contrast", text)))
    assert (called.code, message in called.error) == (code, True), called.error


def test_too_few_participants_for_the_rows_leave_the_others(
    study: GroupStudy, call: GroupCaller, tmp_path: Path
) -> None:
    options = ("--contrast", F_TEST, "--participant-label", "01", "02", "--session-contrast", "mean")
    called = call(study, tmp_path / "out", *options)
    assert called.code == 0, called.error
    assert "The F test shape is left out: 2 participants have maps of all its contrasts, and at least 3" in called.error
