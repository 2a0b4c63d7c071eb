"""Strategies from Python have the maps, tables and verdicts that the command line writes, bit for bit."""

from __future__ import annotations

import json
from pathlib import Path

import nibabel as nib
import numpy as np
import pandas as pd
import pytest
from scipy import stats

import sessionfx
from calls import GroupCaller
from group_study import AFFINE, CONTRAST, START, GroupStudy, group_path, make_study
from program import CONTRAST as SIMULATED_CONTRAST
from sessionfx.wording import words_to_label


@pytest.fixture(scope="module")
def study(tmp_path_factory: pytest.TempPathFactory) -> GroupStudy:
    return make_study(tmp_path_factory.mktemp("study"))


def table_of(study: GroupStudy, *, in_memory: bool = True) -> pd.DataFrame:
    """The study as a table of maps with covariates, in an order of its own."""
    participants = pd.read_csv(study.raw / "participants.tsv", sep="\t").set_index("participant_id")
    rows = []
    for participant, session in reversed(study.keys):
        own = study.raw / f"sub-{participant}" / f"sub-{participant}_sessions.tsv"
        of_session = pd.read_csv(own, sep="\t").set_index("session_id").loc[f"ses-{session}"]
        key = participant, session
        rows.append(
            {
                "participant": f"sub-{participant}",
                "session": session,
                "effect": nib.Nifti1Image(study.effects[key], AFFINE) if in_memory else study.map_path(*key),
                "variance": nib.Nifti1Image(study.variances[key], AFFINE)
                if in_memory
                else str(study.map_path(*key, "variance")),
                **participants.loc[f"sub-{participant}"],
                **of_session,
            }
        )
    return pd.DataFrame(rows)


def compare_maps(images: sessionfx.StatImages, path_of: dict[str, Path]) -> None:
    for statistic, path in path_of.items():
        written = nib.load(path)
        mine = images.image(statistic).get_fdata().astype(written.get_data_dtype())
        assert np.array_equal(mine, np.asarray(written.dataobj)), path.name


def compare_all(estimates: sessionfx.StrategyEstimates, output: Path, sessions: str, covariate: str | None) -> None:
    """Compare maps, agreement and verdict with the files of a call."""
    for name, images in estimates.items():
        files = {
            statistic: group_path(output, words_to_label([name]), statistic, sessions=sessions, covariate=covariate)
            for statistic in images.statistics
        }
        compare_maps(images, {statistic: path for statistic, path in files.items() if path.exists()})
        assert files["z"].exists()
    base = f"{START}_sessions-{sessions}" + (f"_covariate-{covariate}" if covariate else "")
    written = read_verdict(output, base)
    verdict = sessionfx.judge(estimates)
    compare_verdicts(verdict, written)
    declined = {name for name, found in written["Strategies"].items() if found["Valid"] == "declined"}
    assert set(estimates.refusals) == declined
    assert set(estimates) == set(written["Strategies"]) - declined
    (path,) = (output / "group").glob(f"{base}_desc-agreement_metrics.tsv")
    agreement = pd.read_csv(path, sep="\t", na_values=["n/a"], keep_default_na=False)
    mine = sessionfx.compare(estimates)
    assert list(mine.columns) == list(agreement.columns)
    for column in mine:
        if pd.api.types.is_numeric_dtype(agreement[column]):
            np.testing.assert_allclose(mine[column].astype(float), agreement[column], rtol=1e-9, atol=1e-12)
        else:
            assert mine[column].fillna("").tolist() == agreement[column].fillna("").tolist()


def read_verdict(output: Path, base: str) -> dict[str, object]:
    (path,) = (output / "group").glob(f"{base}_validity.json")
    return json.loads(path.read_text(encoding="utf-8"))


def compare_verdicts(verdict: sessionfx.Verdict, written: dict[str, object]) -> None:
    assert verdict.text == written["Verdict"]
    assert list(verdict.recommended) == written["Recommended"]
    assert json.loads(json.dumps(verdict.facts)) == written["Facts"]
    judged = {row.strategy: {"Valid": row.valid, "Reason": row.reason} for row in verdict.table.itertuples()}
    assert judged == written["Strategies"]
    places = verdict.table.dropna(subset="recommended").sort_values("recommended")
    assert places["strategy"].tolist() == written["Recommended"]


@pytest.mark.slow
@pytest.mark.parametrize(
    ("asked", "sessions", "options", "covariate", "group"),
    [
        ("mean", "mean", {}, None, ()),
        ("mean", "mean", {"fixed_effects": "precision", "mixed_dof": "kenward-roger"}, None, ()),
        ("ses-03 - ses-01", "ses03MinusSes01", {"subject_effect": "linear"}, None, ()),
        ("linear", "linear", {"covariates": ["age", "group"]}, "patientMinusControl", ("patient - control",)),
        ("any", "any", {"strategy": ["summary-statistics", "session-model"]}, None, ()),
        ("linear(days)", "linearDays", {"session_covariates": ["days", "mood"]}, None, ()),
        ("mean", "mean", {"covariates": ["age"], "correction": "none", "alpha": 0.001, "strategy": "meta"}, "age",
         ("age",)),
    ],
)  # fmt: skip
def test_the_maps_agreement_and_verdict_are_those_of_the_command_line(
    study: GroupStudy, call: GroupCaller, tmp_path: Path, asked: str, sessions: str, options: dict[str, object],
    covariate: str | None, group: tuple[str, ...],
) -> None:  # fmt: skip
    words = ["--session-contrast", asked, *(word for name in group for word in ("--group-contrast", name))]
    for name, value in options.items():
        words += [f"--{name.replace('_', '-')}", *map(str, value if isinstance(value, list) else [value])]
    output = call.done(study, tmp_path / "out", *words)
    more = {"group_contrast": group[0]} if group else {}
    # covariates are columns of the table here, and read from the dataset by the program
    maps = sessionfx.load_session_maps(table_of(study))
    assert maps.sessions == ("01", "02", "03")
    compare_all(sessionfx.estimate(maps, asked, **options, **more), output, sessions, covariate)


def test_a_voxel_that_some_lack_is_answered_by_the_others() -> None:
    rng = np.random.default_rng(3)
    values = {(label, session): rng.normal(size=(3, 3, 3)) for label in "abcdefghij" for session in "12"}
    values["a", "1"][0, 0, 0] = values["a", "2"][0, 0, 0] = np.nan
    rows = [(*of, nib.Nifti1Image(own, np.eye(4))) for of, own in values.items()]
    table = pd.DataFrame(rows, columns=["participant", "session", "effect"])
    assert sessionfx.load_session_maps(table, min_coverage=1).mask.get_fdata().sum() == 26
    maps = sessionfx.load_session_maps(table)
    assert maps.mask.get_fdata().sum() == 27
    found = sessionfx.estimate(maps, "mean", strategy="summary-statistics")["summary-statistics"]
    means = np.array([(values[label, "1"] + values[label, "2"])[0, 0, 0] / 2 for label in "bcdefghij"])
    assert found.t.get_fdata()[0, 0, 0] == pytest.approx(stats.ttest_1samp(means, 0).statistic)


@pytest.mark.slow
def test_a_verdict_after_calibration_says_of_missing_voxels_what_it_said_before() -> None:
    """The sentence on voxels that some maps lack was lost."""
    rng = np.random.default_rng(4)
    rows = []
    for number in range(9):
        effect = rng.normal(size=(4, 4, 4))
        effect[:, :, 0] *= number > 0
        rows.append((f"{number:02d}", "1", nib.Nifti1Image(effect, AFFINE)))
    maps = sessionfx.load_session_maps(pd.DataFrame(rows, columns=["participant", "session", "effect"]))
    estimates = sessionfx.estimate(maps, strategy=["summary-statistics", "marginal"])
    rates = sessionfx.calibrate(estimates, n_voxels=50).assign(**{"rate_0.05_lower": 0.0, "rate_0.001_lower": 0.0})
    said = "16 of 64 voxels rest on fewer maps (the fewest: 8 of 9 maps, 8 of 9 participants)"
    for verdict in (sessionfx.judge(estimates), sessionfx.judge(estimates, rates)):
        assert said in verdict.text
        assert verdict.facts["SmallestNumberOfMapsAtAVoxel"] == 8


def test_how_many_have_the_peak_is_said_of_the_largest_z_of_either_sign() -> None:
    """It was said of the highest positive one."""
    rng = np.random.default_rng(4)
    rows = []
    for number in range(9):
        effect = rng.normal(size=(4, 4, 4))
        effect[0, 0, 3], effect[3, 3, 0] = effect[0, 0, 3] + 4, effect[3, 3, 0] / 4 - 8
        effect[:, :, 0] *= number > 0
        rows.append((f"{number:02d}", "1", nib.Nifti1Image(effect, AFFINE)))
    maps = sessionfx.load_session_maps(pd.DataFrame(rows, columns=["participant", "session", "effect"]))
    verdict = sessionfx.judge(sessionfx.estimate(maps, strategy="summary-statistics"))
    assert verdict.text.endswith("The peak has 8 participants.")


def test_folder_table_of_files_and_table_of_images_give_the_same(study: GroupStudy) -> None:
    asked = {"covariates": ["group"], "group_contrast": "patient - control", "strategy": "marginal"}
    first, *others = (
        sessionfx.estimate(maps, "linear", **asked)["marginal"]
        for maps in (
            sessionfx.load_session_maps(study.maps, bids_dir=study.raw),
            sessionfx.load_session_maps(table_of(study)),
            sessionfx.load_session_maps(table_of(study, in_memory=False), bids_dir=study.raw),
        )
    )
    for other in others:
        for statistic in first.statistics:
            assert np.array_equal(first.image(statistic).get_fdata(), other.image(statistic).get_fdata())


@pytest.mark.slow
def test_calibration_is_that_of_the_command_line_and_enters_the_verdict(
    study: GroupStudy, call: GroupCaller, tmp_path: Path
) -> None:
    words = ["--session-contrast", "mean", "--calibrate", "300", "--random-seed", "3"]
    output = call.done(study, tmp_path / "out", *words)
    estimates = sessionfx.estimate(sessionfx.load_session_maps(study.maps), "mean")
    table = sessionfx.calibrate(estimates, n_voxels=300, random_seed=3)
    (path,) = (output / "group").glob("*_desc-calibration_metrics.tsv")
    written = pd.read_csv(path, sep="\t", na_values=["n/a"], keep_default_na=False)
    pd.testing.assert_frame_equal(table, written.fillna({"reason": ""}), check_dtype=False, rtol=1e-9)
    compare_verdicts(sessionfx.judge(estimates, table), read_verdict(output, f"{START}_sessions-mean"))
    assert "CalibratedFalsePositives" in sessionfx.judge(estimates, table).facts


@pytest.mark.slow
def test_the_output_folder_of_the_program_is_loaded(small_output: Path) -> None:
    maps = sessionfx.load_session_maps(small_output, SIMULATED_CONTRAST)
    assert repr(maps) == "SessionMaps of 3 participants, sessions 01, 02, 03"
    estimates = sessionfx.estimate(maps, "ses-02 - ses-01")
    for name, images in estimates.items():
        pattern = f"*_sessions-ses02MinusSes01_strategy-{words_to_label([name])}_stat-effect_statmap.nii.gz"
        (path,) = (small_output / "group").glob(pattern)
        compare_maps(images, {"effect": path})


def test_estimates_say_what_they_are_of(study: GroupStudy) -> None:
    maps = sessionfx.load_session_maps(study.maps, CONTRAST, bids_dir=study.raw, session_label=["03", "01"])
    assert maps.sessions == ("03", "01")
    assert maps.contrast == CONTRAST
    assert list(maps.table.columns) == ["participant", "session", "effect", "variance"]
    estimates = sessionfx.estimate(maps, "ses-01 - ses-03", strategy=["summary-statistics", "meta"])
    assert list(estimates) == ["summary-statistics", "meta"]
    assert repr(estimates) == "StrategyEstimates of ses-01 - ses-03 by summary-statistics, meta"
    assert estimates.table["n_participants"].tolist() == [8, 8]
    images = estimates["summary-statistics"]
    effects = [study.effects[label, "01"] - study.effects[label, "03"] for label in ("01", "03", "04", "05")]
    effects += [study.effects[label, "01"] - study.effects[label, "03"] for label in ("06", "07", "08", "09")]
    np.testing.assert_allclose(images.effect.get_fdata(), np.mean(effects, axis=0))
    np.testing.assert_allclose(images.t.get_fdata() ** 2,
                               8 * np.mean(effects, axis=0) ** 2 / np.var(effects, axis=0, ddof=1))  # fmt: skip
    assert int(maps.mask.get_fdata().sum()) == estimates.table["n_voxels"][0] == 216
    with pytest.raises(KeyError):
        _ = estimates["marginal"]


@pytest.mark.slow
def test_who_lacks_a_covariate_is_left_out_with_the_reason(study: GroupStudy) -> None:
    table = table_of(study).assign(age=lambda rows: rows["age"].where(rows["participant"] != "sub-04"))
    maps = sessionfx.load_session_maps(table)
    estimates = sessionfx.estimate(maps, covariates=["age"])
    assert estimates.left_out == {"04": "has no value of 'age' in participants.tsv"}
    assert set(sessionfx.estimate(maps).table["n_participants"]) == {9}


def test_estimates_of_participants_are_taken_with_their_units(study: GroupStudy) -> None:
    bold = nib.Nifti1Image(np.random.default_rng(0).normal(100, 1, (4, 4, 4, 60)), AFFINE)
    mask = nib.Nifti1Image(np.ones((4, 4, 4), np.uint8), AFFINE)
    rows = []
    for number in range(6):
        events = pd.DataFrame({"onset": [6.0 + number, 50.0, 80.0], "duration": 9.0, "trial_type": "go"})
        run = sessionfx.fit_run(bold, events, "go", mask=mask, t_r=2.0, signal_scaling="none")
        rows.append({"participant": f"{number // 2}", "session": "ab"[number % 2], "estimate": run["go"]})
    maps = sessionfx.load_session_maps(pd.DataFrame(rows), session_label=["a", "b"])
    estimates = sessionfx.estimate(maps, "ses-b - ses-a", strategy="meta")
    assert estimates.units == "arbitrary units"
    assert estimates["meta"].units == "arbitrary units"


def test_maps_without_sessions_have_a_mean(study: GroupStudy) -> None:
    table = table_of(study).query("session == '01'").drop(columns=["session", "variance"])
    maps = sessionfx.load_session_maps(table)
    assert repr(maps) == "SessionMaps of 9 participants"
    assert set(sessionfx.estimate(maps)) >= {"summary-statistics", "marginal"}


@pytest.mark.slow
@pytest.mark.parametrize(
    ("changed", "words"),
    [
        (lambda table: table.drop(columns="effect"), "it needs 'participant' and 'effect'"),
        (lambda table: table.assign(session="01"), "Two maps stand for the same participant, session and contrast"),
        (lambda table: table.assign(session="a b"), "'a b' is not a BIDS label"),
        (lambda table: table.assign(effect="no.nii"), "no.nii"),
        (lambda table: table.assign(effect=3), "effect_0 is of type int, expected a NIfTI image"),
        (lambda table: table.query("participant == 'sub-01'"), "at least two participants"),
        (lambda table: table.drop(columns="variance"), "has no variance map"),
        (
            lambda table: table.assign(
                effect=[nib.Nifti1Image(np.ones((6, 6, 6)), AFFINE * (1 + (row == 0))) for row in range(len(table))]
            ),
            "lie on different grids",
        ),
    ],
)
def test_tables_that_cannot_be_used_are_refused_in_a_paragraph(study: GroupStudy, changed, words: str) -> None:
    with pytest.raises(sessionfx.SessionFXError, match=words) as refusal:
        sessionfx.estimate(sessionfx.load_session_maps(changed(table_of(study))), strategy="meta")
    assert "\n" not in str(refusal.value)
    assert "/tmp" not in str(refusal.value).replace(str(study.maps), "")  # noqa: S108


@pytest.mark.parametrize(
    ("asked", "words"),
    [
        ({"session_contrast": "ses-09 - ses-01"}, "names ses-09"),
        ({"session_contrast": "quadratic", "strategy": "best"}, "strategy: invalid choice: 'best'"),
        ({"covariates": ["iq"]}, "participants.tsv has no column 'iq'"),
        ({"group_contrast": "patient - control"}, "group-contrast"),
        ({"alpha": 2}, "alpha: '2' is not between 0 and 1"),
        ({"session_contrast": "any", "strategy": "meta"}, "meta: "),
    ],
)
def test_questions_that_cannot_be_answered_are_refused_in_a_paragraph(
    study: GroupStudy, asked: dict[str, object], words: str
) -> None:
    maps = sessionfx.load_session_maps(study.maps, bids_dir=study.raw)
    with pytest.raises(sessionfx.SessionFXError, match=words):
        sessionfx.estimate(maps, **asked)


@pytest.mark.parametrize(
    ("asked", "words"),
    [
        ({"contrast": "b - a"}, "bMinusA matches no"),
        ({"participant_label": ["77"]}, "77"),
        ({"session_label": ["09"]}, "09"),
        ({"source": "/no/such/folder"}, "There is no folder /no/such/folder"),
    ],
)
def test_maps_that_there_are_not_are_refused(study: GroupStudy, asked: dict[str, object], words: str) -> None:
    with pytest.raises(sessionfx.SessionFXError, match=words):
        sessionfx.load_session_maps(**({"source": study.maps} | asked))


def test_of_several_contrasts_one_is_to_be_named(tmp_path: Path) -> None:
    study = make_study(tmp_path)
    for (participant, session), effect in study.effects.items():
        study.write(participant, session, -effect, None, "bMinusA")
    with pytest.raises(sessionfx.SessionFXError, match=r"several contrasts: aMinusB, bMinusA\. Name one"):
        sessionfx.load_session_maps(study.maps)


def test_calibration_needs_voxels(study: GroupStudy) -> None:
    estimates = sessionfx.estimate(sessionfx.load_session_maps(study.maps), strategy="summary-statistics")
    with pytest.raises(sessionfx.SessionFXError, match="n_voxels must be 1 or more"):
        sessionfx.calibrate(estimates, n_voxels=0)
