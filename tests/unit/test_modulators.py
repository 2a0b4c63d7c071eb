"""Modulators, conditions from columns, recodes and filters give the designs and estimates of a plain nilearn script."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import nibabel as nib
import numpy as np
import pandas as pd
import pytest
from nilearn.glm.first_level import FirstLevelModel as NilearnModel
from nilearn.glm.first_level import make_first_level_design_matrix, mean_scaling, run_glm

from sessionfx.ask.contrasts import parse_contrast
from sessionfx.ask.event_model import parse_event_model
from sessionfx.bids.dataset import open_dataset
from sessionfx.bids.runs import select_runs
from sessionfx.errors import ParticipantError
from sessionfx.options import FirstLevelModel, Selection
from sessionfx.participant.conditions import Events
from sessionfx.participant.confounds import Confounds
from sessionfx.participant.design import Design, make_design
from sessionfx.participant.events import conditions_in, read_events
from sessionfx.participant.glm import fit_run
from sessionfx.participant.run import analyse_run
from sessionfx.participant.timing import Timing

N_VOLUMES, REPETITION_TIME = 120, 2.0
END = N_VOLUMES * REPETITION_TIME
TIMES = REPETITION_TIME * np.arange(N_VOLUMES)
TIMING = Timing(TIMES, REPETITION_TIME, 0.0, END)
EXACT = {"rtol": 1e-10, "atol": 1e-12}


def trials(seed: int = 0) -> pd.DataFrame:
    """Forty events of go and stop, with faces or houses, responses, their times (s) and a pupil size."""
    rng = np.random.default_rng(seed)
    n_events = 40
    return pd.DataFrame(
        {
            "onset": np.round(np.cumsum(rng.uniform(3.5, 6.5, n_events)), 3),
            "duration": 1.0,
            "trial_type": np.where(rng.permutation(n_events) % 2, "go", "stop"),
            "stim": np.where(rng.permutation(n_events) % 2, "face", "house"),
            "response": rng.choice(["left", "right", "miss"], n_events),
            "rt": np.round(rng.uniform(0.3, 1.4, n_events), 3),
            "pupil": np.round(rng.uniform(2.0, 5.0, n_events), 2),
        }
    )


def write(table: pd.DataFrame, folder: Path) -> Path:
    path = folder / "events.tsv"
    table.to_csv(path, sep="\t", index=False, na_rep="n/a")
    return path


def events_of(table: pd.DataFrame, folder: Path, asked: tuple[str, ...] | None = None, **options: object) -> Events:
    model = parse_event_model(FirstLevelModel(**options))
    needed = None if asked is None else model.conditions_behind(asked)
    return read_events(write(table, folder), first_volume=0.0, end=END, asked=needed, model=model)


def design_of(events: Events, **options: object) -> Design:
    return make_design(TIMING, events, Confounds(pd.DataFrame(index=range(N_VOLUMES))), FirstLevelModel(**options))


def as_events(*parts: tuple[str, pd.DataFrame, object]) -> pd.DataFrame:
    """Put named rows with heights together, as a script for nilearn does."""
    return pd.concat(
        [rows[["onset", "duration"]].assign(trial_type=name, modulation=heights) for name, rows, heights in parts],
        ignore_index=True,
    )


def centred(values: pd.Series) -> pd.Series:
    return values - values.mean()


# What a script for nilearn does by hand, and the options that ask for the same --------------------------------

Script = Callable[[pd.DataFrame], pd.DataFrame]


def _of(table: pd.DataFrame, condition: str) -> pd.DataFrame:
    return table[table["trial_type"] == condition]


def every_condition(table: pd.DataFrame) -> pd.DataFrame:
    go, stop = _of(table, "go"), _of(table, "stop")
    return as_events(
        ("go", go, 1.0), ("stop", stop, 1.0), ("go_x_rt", go, centred(go.rt)), ("stop_x_rt", stop, centred(stop.rt))
    )


def one_condition(table: pd.DataFrame) -> pd.DataFrame:
    go = _of(table, "go")
    return as_events(("go", go, 1.0), ("stop", _of(table, "stop"), 1.0), ("go_x_rt", go, centred(go.rt)))


def named_with_constant(table: pd.DataFrame) -> pd.DataFrame:
    go = _of(table, "go")
    return as_events(("go", go, 1.0), ("stop", _of(table, "stop"), 1.0), ("slow", go, 2 * (go.rt - 0.8)))


def not_centred(table: pd.DataFrame) -> pd.DataFrame:
    go = _of(table, "go")
    return as_events(("go", go, 1.0), ("stop", _of(table, "stop"), 1.0), ("go_x_rt", go, go.rt))


def two_modulators(table: pd.DataFrame) -> pd.DataFrame:
    go, stop = _of(table, "go"), _of(table, "stop")
    return as_events(
        ("go", go, 1.0), ("stop", stop, 1.0), ("go_x_rt", go, centred(go.rt) / 1000),
        ("go_x_pupil", go, centred(go.pupil)), ("stop_x_pupil", stop, centred(stop.pupil)),
    )  # fmt: skip


def durations_of_responses(table: pd.DataFrame) -> pd.DataFrame:
    return every_condition(table.assign(duration=table.rt))


def crossed(table: pd.DataFrame) -> pd.DataFrame:
    groups = table.groupby(table.stim + "." + table.response)
    return as_events(*((name, rows, 1.0) for name, rows in groups))


def merged(table: pd.DataFrame) -> pd.DataFrame:
    answered = table[table.response != "miss"]
    return as_events(
        ("answered", answered, 1.0), ("answered_x_rt", answered, centred(answered.rt)),
    )  # fmt: skip


def filtered(table: pd.DataFrame) -> pd.DataFrame:
    return every_condition(table[(table.response != "miss") & (table.rt >= 0.5)])


SCRIPTS: dict[str, tuple[Script, dict[str, object]]] = {
    "every_condition": (every_condition, {"modulator": ("rt",)}),
    "one condition": (one_condition, {"modulator": ("go: rt",)}),
    "named, with a constant": (named_with_constant, {"modulator": ("slow=go: 2*(rt - 0.8)",)}),
    "not centred": (not_centred, {"modulator": ("go: rt",), "modulator_centering": "none"}),
    "two_modulators": (two_modulators, {"modulator": ("go: rt / 1000", "pupil")}),
    "durations": (durations_of_responses, {"modulator": ("rt",), "duration_column": "rt"}),
    "crossed": (crossed, {"condition_column": ("stim", "response")}),
    "merged": (
        merged,
        {"condition_column": ("response",), "recode": ("left=answered", "right=answered", "miss="),
         "modulator": ("answered: rt",)},
    ),
    "filtered": (filtered, {"modulator": ("rt",), "event_filter": ("response!=miss", "rt >= 0.5")}),
}  # fmt: skip


@pytest.mark.slow
@pytest.mark.parametrize("case", SCRIPTS)
@pytest.mark.parametrize("hrf", ["glover", "spm + derivative", "fir"])
def test_designs_and_effects_are_those_of_a_plain_script(case: str, hrf: str, tmp_path: Path) -> None:
    script, options = SCRIPTS[case]
    table = trials()
    delays = (1, 2, 3) if hrf == "fir" else ()
    theirs = make_first_level_design_matrix(TIMES, script(table), hrf_model=hrf, fir_delays=delays or None)
    events = events_of(table, tmp_path, **options)
    ours = design_of(events, hrf_model=hrf, fir_delays=delays)
    assert list(ours.matrix) == list(theirs)
    np.testing.assert_allclose(ours.matrix, theirs, **EXACT)

    signal = 100 + np.random.default_rng(1).standard_normal((N_VOLUMES, 50))
    vectors = {name: np.eye(len(theirs.columns))[index] for index, name in enumerate(theirs)}
    effects = fit_run(signal, ours.matrix.to_numpy(), vectors, "ols")
    _, results = run_glm(mean_scaling(signal)[0], theirs.to_numpy(), noise_model="ols")
    (result,) = results.values()
    for index, name in enumerate(theirs):
        np.testing.assert_allclose(effects[name].effect, result.theta[index], **EXACT)


@pytest.mark.slow
def test_a_run_equals_nilearns_first_level_model_with_events_made_by_hand(small_dataset: Path) -> None:
    index = open_dataset(small_dataset, [small_dataset / "derivatives" / "fmriprep"], participants=["01"])
    run = select_runs(index, Selection(participant_label=("01",))).runs["01"][0]
    table = pd.read_csv(run.events, sep="\t")
    parts = [("congruent", _of(table, "congruent"), 1.0), ("incongruent", _of(table, "incongruent"), 1.0)]
    parts += [(f"{name}_x_response_time", rows, centred(rows.response_time)) for name, rows, _ in parts]
    text = "incongruent_x_response_time - congruent_x_response_time"
    contrast = parse_contrast(text)
    fitted = analyse_run(run, [contrast], FirstLevelModel(modulator=("response_time",), confounds=("none",)))
    repetition_time = run.metadata["RepetitionTime"]
    flm = NilearnModel(
        t_r=repetition_time, slice_time_ref=run.metadata["StartTime"] / repetition_time, signal_scaling=0,
        mask_img=nib.Nifti1Image(fitted.mask.astype(np.uint8), nib.load(run.bold).affine), minimize_memory=False,
    ).fit(str(run.bold), events=as_events(*parts))  # fmt: skip
    np.testing.assert_allclose(fitted.design.matrix, flm.design_matrices_[0], **EXACT)
    theirs = flm.compute_contrast(text, output_type="all")
    ours = fitted.estimates[contrast.label].estimate
    for name, values in {"effect_size": ours.effect, "effect_variance": ours.variance}.items():
        expected = theirs[name].get_fdata()[fitted.mask]
        # signals are read in single precision
        np.testing.assert_allclose(values, expected, rtol=1e-5, atol=1e-8 * np.abs(expected).max())


# What stays, and what a reader is told ------------------------------------------------------------------------


def test_the_modulation_of_the_file_stays_with_its_condition(tmp_path: Path) -> None:
    table = trials()
    table["modulation"] = np.linspace(0.5, 1.5, len(table))
    events = events_of(table, tmp_path, modulator=("go: rt",))
    go, stop = _of(table, "go"), _of(table, "stop")
    by_hand = as_events(("go", go, go.modulation), ("stop", stop, stop.modulation), ("go_x_rt", go, centred(go.rt)))
    theirs = make_first_level_design_matrix(TIMES, by_hand)
    np.testing.assert_allclose(design_of(events).matrix, theirs, **EXACT)


def test_events_are_shown_once(tmp_path: Path) -> None:
    table = trials()
    plain, modulated = events_of(table, tmp_path), events_of(table, tmp_path, modulator=("rt", "pupil"))
    columns = ["onset", "duration", "trial_type"]
    pd.testing.assert_frame_equal(modulated.shown[columns], plain.table[columns])
    assert modulated.conditions == ("go", "go_x_pupil", "go_x_rt", "stop", "stop_x_pupil", "stop_x_rt")


def test_a_modulator_is_centred_over_the_events_that_are_modelled(tmp_path: Path) -> None:
    table = trials()
    table.loc[len(table)] = pd.Series(table.iloc[0].to_dict() | {"onset": END + 10, "rt": 1000.0, "trial_type": "go"})
    events = events_of(table, tmp_path, modulator=("go: rt",))
    assert "1 events begin after the run's end" in events.warnings[0]
    go = _of(table[:-1], "go")
    heights = events.table.loc[events.table["trial_type"] == "go_x_rt", "modulation"]
    np.testing.assert_allclose(heights, centred(go.rt), **EXACT)


def test_numbers_may_be_missing_where_no_contrast_asks_for_the_condition(tmp_path: Path) -> None:
    table = trials()
    first = int(table.index[table["trial_type"] == "go"][0])
    table.loc[first, "rt"] = np.nan
    events = events_of(table, tmp_path, asked=("stop",), modulator=("rt",))
    go = _of(table, "go").dropna()
    heights = events.table.loc[events.table["trial_type"] == "go_x_rt", "modulation"]
    np.testing.assert_allclose(heights, centred(go.rt), **EXACT)
    assert f"1 of 20 events of 'go' have no rt (n/a) and no part in 'go_x_rt' (line {first + 2})" in events.warnings[0]


@pytest.mark.parametrize("asked", ["go", "go_x_rt"])
def test_a_missing_number_of_a_condition_that_a_contrast_needs_is_refused_by_row(asked: str, tmp_path: Path) -> None:
    table = trials()
    first = int(table.index[table["trial_type"] == "go"][0])
    table.loc[first, "rt"] = np.nan
    with pytest.raises(
        ParticipantError, match=rf"events\.tsv, column 'rt', line {first + 2}: n/a .*of 'go', which.*'rt!=n/a'"
    ):
        events_of(table, tmp_path, asked=(asked,), modulator=("rt",))
    kept = events_of(table, tmp_path, asked=(asked,), modulator=("rt",), event_filter=("rt!=n/a",))
    assert len(kept.shown) == len(table) - 1
    assert "1 of 40 events are not modelled (not 'rt!=n/a')" in kept.warnings[0]


@pytest.mark.parametrize(
    ("change", "reason"),
    [
        (lambda go: go.assign(rt=0.5), "its 20 events of 'go' have the same rt (0.5)"),
        (lambda go: go[:1], "it has fewer than two events of 'go' with a number in rt"),
        (lambda go: go[:0], "it has fewer than two events of 'go' with a number in rt"),
    ],
    ids=["constant", "one event", "no event"],
)
def test_a_run_that_cannot_have_a_modulated_column_is_left_out_of_its_contrast(
    change: Callable[[pd.DataFrame], pd.DataFrame], reason: str, tmp_path: Path
) -> None:
    table = trials()
    table = pd.concat([change(_of(table, "go")), _of(table, "stop")]).sort_values("onset")
    events = events_of(table, tmp_path, modulator=("go: rt", "stop: rt"), hrf_model="glover + derivative")
    design = design_of(events, hrf_model="glover + derivative")
    assert events.left_out == {"go_x_rt": reason}
    assert any(warning.endswith(f"the column 'go_x_rt' is not modelled: {reason}.") for warning in events.warnings)
    assert design.why_left_out("go_x_rt") == design.why_left_out("go_x_rt_derivative") == reason
    assert not design.why_left_out("go") and not design.why_left_out("stop_x_rt")
    assert {"stop", "stop_x_rt", "stop_x_rt_derivative"} <= set(design.condition_columns)


def test_conditions_named_for_checks_are_those_that_are_modelled(tmp_path: Path) -> None:
    options = {
        "condition_column": ("stim", "response"), "recode": ("face.miss=", "house.miss=missed"),
        "event_filter": ("response!=right",),
    }  # fmt: skip
    events = events_of(trials(), tmp_path, **options)
    assert events.conditions == ("face.left", "house.left", "missed")
    found = conditions_in(tmp_path / "events.tsv", parse_event_model(FirstLevelModel(**options)))
    assert sorted(found) == list(events.conditions)
    assert any("events are not modelled, as --recode gives no name to their condition ('face.miss')" in warning
               for warning in events.warnings)  # fmt: skip


def test_rows_that_a_filter_leaves_out_may_hold_anything(tmp_path: Path) -> None:
    table = trials().astype(object)
    expected = design_of(events_of(table, tmp_path, modulator=("rt",))).matrix
    table.loc[len(table)] = ["soon", -1, np.nan, np.nan, "practice", "fast", "wide"]
    events = events_of(table, tmp_path, modulator=("rt",), event_filter=("response!=practice",))
    pd.testing.assert_frame_equal(design_of(events).matrix, expected, check_exact=True)


def test_events_without_trial_type_are_told_apart_by_another_column(tmp_path: Path) -> None:
    table = trials().drop(columns="trial_type")
    assert events_of(table, tmp_path, condition_column=("stim",)).conditions == ("face", "house")
    with pytest.raises(
        ParticipantError, match=r"no column 'trial_type'.*--condition-column \('stim' or 'response' could be it\)"
    ):
        events_of(table, tmp_path)


REFUSED = {
    "no such condition column": ({"condition_column": ("stimm",)}, r"no column 'stimm'.*--condition-column.*'stim'\?"),
    "no such modulator": ({"modulator": ("go: rtt",)}, r"no column 'rtt'.*--modulator 'go: rtt'.*mean 'rt'\?"),
    "no such filter": ({"event_filter": ("resp=left",)}, r"no column 'resp'.*--event-filter 'resp=left'"),
    "no such duration": ({"duration_column": "lasted"}, r"no column 'lasted'.*--duration-column"),
    "text as a modulator": ({"modulator": ("go: stim",)}, r"column 'stim', line \d+: '(face|house)' is not a number"),
    "text compared with a number": ({"event_filter": ("stim < 3",)}, r"column 'stim', line 2: .* is not a number"),
    "text as a duration": ({"duration_column": "stim"}, r"column 'stim', line 2: .* is not a number"),
    "a filter that keeps nothing": ({"event_filter": ("rt > 5",)}, r"none of its 40 events is kept by .*'rt > 5'"),
    "no condition left": ({"recode": ("go=", "stop=")}, "none of its 40 events has a condition .*'trial_type' that"),
    "a name that a condition has": ({"modulator": ("stop=go: rt",)}, "is called 'stop', as another condition is"),
}


@pytest.mark.parametrize("case", REFUSED)
def test_what_a_file_cannot_give_is_refused_by_name(case: str, tmp_path: Path) -> None:
    options, reason = REFUSED[case]
    with pytest.raises(ParticipantError, match=rf"events\.tsv.*{reason}"):
        events_of(trials(), tmp_path, **options)
