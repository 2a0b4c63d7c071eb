"""Tables of events and confounds as people write them: each is read right, refused by line, or said in a warning."""

from __future__ import annotations

import json
import os
import unicodedata
from io import StringIO
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from nilearn.glm.first_level import make_first_level_design_matrix
from nilearn.interfaces.fmriprep import load_confounds

from sessionfx.bids.tables import MOST_COLUMNS, numeric_column, read_table
from sessionfx.errors import ParticipantError
from sessionfx.participant.conditions import Events
from sessionfx.participant.confounds import choose_columns, columns_of_run, differences_between_runs, read_confounds
from sessionfx.participant.events import conditions_in, near_equal, read_events

HEADER = "onset\tduration\ttrial_type\n"
PLAIN = f"{HEADER}1\t2\tgo\n11\t2\tstop\n21\t2\tgo\n31\t2\tstop\n"
FIRST = f"{HEADER}1\t2\ta\n"
N_VOLUMES = 12


def events_of(
    tmp_path: Path,
    text: str | bytes,
    *,
    asked: tuple[str, ...] | None = None,
    first_volume: float = 0,
    end: float = 100,
) -> Events:
    path = tmp_path / "events.tsv"
    path.write_bytes(text if isinstance(text, bytes) else text.encode())
    return read_events(path, first_volume=first_volume, end=end, asked=asked)


def rows_of(events: Events) -> list[tuple[float, float, str]]:
    return list(events.table[["onset", "duration", "trial_type"]].itertuples(index=False, name=None))


# Tables -----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "text",
    [
        b"\xef\xbb\xbf" + PLAIN.replace("\n", "\r\n").encode() + b"\r\n\r\n",
        PLAIN.replace("\n", "\r"),
        PLAIN + "\t\t\n\t\t\n",
        PLAIN.replace("duration\t", "duration \t"),
        "\n".join(line + "\t" for line in PLAIN.splitlines()) + "\n",
        PLAIN.replace("go", '"go"').replace("onset", '"onset"'),
    ],
    ids=["BOM, CRLF and blank lines", "CR", "rows of tabs", "space in the header", "tabs at the ends", "quoted cells"],
)
def test_a_table_is_the_same_however_it_was_saved(text: str | bytes, tmp_path: Path) -> None:
    expected = [(1.0, 2.0, "go"), (11.0, 2.0, "stop"), (21.0, 2.0, "go"), (31.0, 2.0, "stop")]
    assert rows_of(events_of(tmp_path, text)) == expected


@pytest.mark.parametrize(
    ("text", "reason"),
    [
        (PLAIN.replace("\t", ";"), "separated by semicolons; BIDS asks for tabs"),
        (PLAIN.replace("\t", ","), "separated by commas; BIDS asks for tabs"),
        (PLAIN.replace("\t", "   "), "separated by spaces; BIDS asks for tabs"),
        (PLAIN.encode("utf-16"), "UTF-16 text; BIDS asks for UTF-8"),
        (PLAIN.replace("go", "gö").encode("latin-1"), "not UTF-8 text"),
        (PLAIN.replace("\t2\t", "\t2,5\t"), r"'duration', line 2: '2,5' is not a number .*decimal point"),
        (PLAIN.replace("11\t2\tstop", "11\t2\tstop\textra"), "line 3: 4 cells, but the header names 3 columns"),
        (PLAIN + HEADER, "line 6 repeats the header"),
        (PLAIN.replace("21\t", "\n\n21x\t"), "'onset', line 6: '21x' is not a number"),
        ("onset\ttrial_type\n1\ta\n", "no column 'duration'"),
        ("duration\ttrial_type\n1\ta\n", "no column 'onset'"),
        ("onset\tduration\tcondition\n1\t1\ta\n", r"no column 'trial_type' \(columns: onset, duration, condition\)"),
        ("onset\tduration\ttrial_type\n1\t1\ta\nsoon\t1\ta\n", "column 'onset', line 3: 'soon' is not a number"),
        ("onset\tduration\ttrial_type\nn/a\t1\ta\n", "column 'onset', line 2: n/a is not a number"),
        ("onset\tduration\ttrial_type\ninf\t1\ta\n", "column 'onset', line 2: 'inf' is not a number"),
        ("onset\tduration\ttrial_type\n1\t-2\ta\n", "column 'duration', line 2: a duration below zero"),
        ("onset\tduration\ttrial_type\n5000\t1\ta\n", "no event falls into the run, which lasts 100 s"),
        ("onset\tduration\ttrial_type\n", "no event falls into the run"),
        ("", "cannot be read as a tab-separated table"),
    ],
)
def test_a_table_that_cannot_be_used_is_refused_by_line(text: str | bytes, reason: str, tmp_path: Path) -> None:
    with pytest.raises(ParticipantError, match=rf"events\.tsv.*{reason}"):
        events_of(tmp_path, text)


def test_tabs_at_the_ends_of_rows_do_not_shift_columns(tmp_path: Path) -> None:
    events = events_of(tmp_path, "onset\tduration\ttrial_type\n1\t2\t3\t\n4\t5\t6\t\n")
    assert events.table.to_dict("list") == {"onset": [1.0, 4.0], "duration": [2.0, 5.0], "trial_type": ["3", "6"]}


def test_no_row_is_lost_where_two_cells_begin_with_a_quotation_mark(tmp_path: Path) -> None:
    text = f'{HEADER}1\t2\t"go\n11\t2\tgo\n21\t2\t"go\n31\t2\tgo\n'
    assert len(pd.read_csv(StringIO(text), sep="\t")) == 2, "what pandas makes of it"
    assert [name for _, _, name in rows_of(events_of(tmp_path, text))] == ['"go', "go", '"go', "go"]


def test_a_pipe_in_place_of_a_table_is_refused_at_once(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "events.tsv")
    with pytest.raises(ParticipantError, match="a pipe, not a file"):
        read_events(tmp_path / "events.tsv", first_volume=0, end=10)
    with pytest.raises(ParticipantError, match="a pipe, not a file"):
        read_confounds(tmp_path / "events.tsv", ["motion6"], 10)


def test_a_million_columns_are_refused_in_a_sentence(tmp_path: Path) -> None:
    path = tmp_path / "confounds.tsv"
    path.write_text("\t".join(f"c{number}" for number in range(10**6)) + "\n")
    with pytest.raises(ParticipantError, match=f"1000000 columns.*more than {MOST_COLUMNS}"):
        read_confounds(path, ["c1"], 1)


def test_messages_name_some_of_many_columns_only(tmp_path: Path) -> None:
    path = tmp_path / "confounds.tsv"
    path.write_text("\t".join(f"column{number}" for number in range(15_000)) + "\n")
    with pytest.raises(ParticipantError, match=r"column39 and 14,960 more") as caught:
        read_confounds(path, ["csf"], 1)
    assert len(str(caught.value)) < 1000


def test_lines_are_those_of_the_file_where_it_has_blank_ones(tmp_path: Path) -> None:
    path = tmp_path / "t.tsv"
    path.write_text("a\n1\n\n\nx\n")
    table = read_table(path)
    assert list(table.index) == [2, 5]
    with pytest.raises(ParticipantError, match="line 5: 'x'"):
        numeric_column(table, "a", path)


# Events as they are modelled ------------------------------------------------------------------------------


def test_events_are_read_as_nilearn_wants_them(tmp_path: Path) -> None:
    text = "onset\tduration\tresponse_time\ttrial_type\tmodulation\n1.5\t2\tn/a\tb\t0.5\n0\t0\t0.6\ta\t2\n"
    events = events_of(tmp_path, text)
    assert events.table.to_dict("list") == {
        "onset": [1.5, 0.0], "duration": [2.0, 0.0], "trial_type": ["b", "a"], "modulation": [0.5, 2.0],
    }  # fmt: skip
    assert events.conditions == ("a", "b")
    assert events.warnings == ()


@pytest.mark.parametrize("condition", ["1", "01", "NA", "null", "NaN", "happy face", "glücklich"])
def test_conditions_are_text_as_written(condition: str, tmp_path: Path) -> None:
    assert events_of(tmp_path, f"onset\tduration\ttrial_type\n1\t2\t{condition}\n").conditions == (condition,)


@pytest.mark.parametrize(
    ("row", "warning"),
    [
        ("1\t1\tn/a", "1 events without trial_type"),
        ("100\t1\tlate", "1 events begin after the run's end"),
        ("-23\t1\tearly", "1 events begin more than 24 s before the first volume"),
    ],
)
def test_events_that_cannot_be_modelled_are_set_aside_with_a_warning(row: str, warning: str, tmp_path: Path) -> None:
    events = events_of(tmp_path, f"{FIRST}{row}\n", first_volume=1.5)
    assert events.conditions == ("a",)
    assert len(events.warnings) == 1
    assert warning in events.warnings[0]


def test_negative_onsets_are_kept_and_noted(tmp_path: Path) -> None:
    events = events_of(tmp_path, f"{FIRST}-3\t1\tearly\n")
    assert events.table["onset"].tolist() == [1.0, -3.0]
    assert "negative onsets" in events.warnings[0]


def test_a_missing_events_file_is_named(tmp_path: Path) -> None:
    with pytest.raises(ParticipantError, match=r"nowhere\.tsv"):
        read_events(tmp_path / "nowhere.tsv", first_volume=0, end=10)


# Events that differ from what is meant ----------------------------------------------------------------------


def test_rows_that_stand_there_twice_are_counted_once_with_a_warning(tmp_path: Path) -> None:
    events = events_of(tmp_path, f"{PLAIN}1\t2\tgo\n21\t2\tgo\n")
    assert rows_of(events) == rows_of(events_of(tmp_path, PLAIN))
    (warning,) = events.warnings
    assert "2 rows repeat" in warning
    assert "lines 6 and 7" in warning


@pytest.mark.parametrize(("column", "values"), [("modulation", ("1", "3")), ("side", ("left", "right"))])
def test_events_that_differ_elsewhere_are_added_up_as_nilearn_does_with_a_warning(
    column: str, values: tuple[str, str], tmp_path: Path
) -> None:
    text = f"onset\tduration\ttrial_type\t{column}\n1\t2\tgo\t{values[0]}\n1\t2\tgo\t{values[1]}\n"
    events = events_of(tmp_path, text)
    assert len(events.table) == 2
    assert "1 events have the onset, duration and trial_type of another" in events.warnings[0]
    assert "line 3" in events.warnings[0]


def test_spaces_around_a_condition_are_left_out_with_a_warning(tmp_path: Path) -> None:
    events = events_of(tmp_path, PLAIN.replace("21\t2\tgo", "21\t2\tgo "))
    assert events.conditions == ("go", "stop")
    assert "spaces around the trial_type of 1 events" in events.warnings[0]
    assert "line 4: 'go '" in events.warnings[0]


def test_conditions_that_differ_in_case_are_named_with_their_lines(tmp_path: Path) -> None:
    events = events_of(tmp_path, PLAIN.replace("21\t2\tgo", "21\t2\tGo"))
    assert events.conditions == ("Go", "go", "stop")
    (warning,) = events.warnings
    for fragment in ("'go' (line 2)", "'Go' (line 4)", "different conditions"):
        assert fragment in warning


def test_numbers_of_which_some_are_written_with_a_point_are_named(tmp_path: Path) -> None:
    assert near_equal("1", ["1.0", "10", "2.0"]) == ["1.0"]
    assert near_equal("1.5", ["15", "1.50", "1"]) == []
    (warning,) = events_of(tmp_path, f"{HEADER}1\t2\t1\n11\t2\t1.0\n").warnings
    assert "'1' (line 2) and '1.0' (line 3) are modelled as different conditions" in warning


def test_one_name_in_two_unicode_forms_is_one_condition_with_a_warning(tmp_path: Path) -> None:
    decomposed, composed = unicodedata.normalize("NFD", "é"), unicodedata.normalize("NFC", "é")
    events = events_of(tmp_path, f"{HEADER}1\t2\t{composed}\n11\t2\t{decomposed}\n")
    assert events.conditions == (composed,)
    assert "other Unicode characters" in events.warnings[0]
    assert "line 3" in events.warnings[0]
    assert conditions_in(tmp_path / "events.tsv") == (composed,)
    assert events_of(tmp_path, f"{HEADER}1\t2\t{decomposed}\n").warnings == (), "in one form there is nothing to say"


def test_durations_beyond_the_end_are_counted_and_those_in_milliseconds_suspected(tmp_path: Path) -> None:
    (warning,) = events_of(tmp_path, PLAIN, end=32).warnings
    for fragment in ("1 events last beyond the run's end (32 s; line 5)", "what falls into the run is modelled"):
        assert fragment in warning
    assert "milliseconds" not in warning
    (warning,) = events_of(tmp_path, PLAIN.replace("\t2\t", "\t2000\t")).warnings
    assert "4 events last beyond" in warning
    assert "lines 2, 3, 4 and 1 more" in warning
    assert "milliseconds" in warning


# Cells that are missing -------------------------------------------------------------------------------------

RESPONSES = "n/a\tn/a\tn/a\n12\tn/a\tn/a\n13\t-1\tn/a\nlate\tn/a\tn/a\n"


def test_rows_without_trial_type_may_hold_anything(tmp_path: Path) -> None:
    events = events_of(tmp_path, PLAIN + RESPONSES)
    assert rows_of(events) == rows_of(events_of(tmp_path, PLAIN))
    (warning,) = events.warnings
    assert "4 events without trial_type" in warning
    assert "lines 6, 7, 8 and 1 more" in warning


@pytest.mark.parametrize(("row", "column"), [("n/a\t1\tbutton", "onset"), ("12\tn/a\tbutton", "duration")])
def test_events_that_no_contrast_asks_for_may_lack_numbers_with_a_warning(
    row: str, column: str, tmp_path: Path
) -> None:
    events = events_of(tmp_path, f"{PLAIN}{row}\n40\t1\tbutton\n", asked=("go", "stop"))
    assert events.conditions == ("button", "go", "stop"), "what can be modelled of it is"
    (warning,) = events.warnings
    assert f"1 of 2 events of 'button' have no {column} (n/a)" in warning
    assert "line 6" in warning
    with pytest.raises(ParticipantError, match=rf"'{column}', line 6: n/a .*'button', which a contrast asks for"):
        events_of(tmp_path, f"{PLAIN}{row}\n40\t1\tbutton\n", asked=("go", "button"))


def test_modulation_may_be_missing_where_no_contrast_asks(tmp_path: Path) -> None:
    text = "onset\tduration\ttrial_type\tmodulation\n1\t2\tgo\t1\n5\t2\tbutton\tn/a\n"
    assert events_of(tmp_path, text, asked=("go",)).conditions == ("go",)
    with pytest.raises(ParticipantError, match="'modulation', line 3"):
        events_of(tmp_path, text, asked=("button",))


def test_text_in_place_of_a_number_is_refused_whoever_asks(tmp_path: Path) -> None:
    with pytest.raises(ParticipantError, match="'onset', line 6: 'soon'"):
        events_of(tmp_path, f"{PLAIN}soon\t1\tbutton\n", asked=("go",))


def test_events_without_trial_type_are_nilearns_dummy_where_it_is_asked_for(tmp_path: Path) -> None:
    text = "onset\tduration\n1\t2\n11\t2\n21\t2\n"
    events = events_of(tmp_path, text, asked=("dummy",))
    times = np.arange(20) * 2.0
    with pytest.warns(UserWarning, match="trial_type"):
        theirs = make_first_level_design_matrix(times, pd.read_csv(tmp_path / "events.tsv", sep="\t"))
    assert events.conditions == (theirs.columns[0],) == ("dummy",)
    np.testing.assert_array_equal(make_first_level_design_matrix(times, events.table)["dummy"], theirs["dummy"])
    assert "one condition, 'dummy'" in events.warnings[0]
    assert conditions_in(tmp_path / "events.tsv") == ("dummy",)
    with pytest.raises(ParticipantError, match=r"no column 'trial_type'.*--contrast dummy"):
        events_of(tmp_path, text, asked=("go",))


# CompCor ----------------------------------------------------------------------------------------------------

AXES = ["trans_x", "trans_y", "trans_z", "rot_x", "rot_y", "rot_z"]


def confounds_file(folder: Path, masks: list[str], *, sidecar: bool = True, more: tuple[str, ...] = ()) -> Path:
    """Write a table with one component per mask named, and the JSON that fMRIPrep puts beside it."""
    rng = np.random.default_rng(0)
    components = [f"a_comp_cor_{number:02d}" for number in range(len(masks))]
    names = [*AXES, *components, *more]
    path = folder / "sub-01_task-a_desc-confounds_timeseries.tsv"
    pd.DataFrame({name: rng.normal(size=N_VOLUMES) for name in names}).to_csv(path, sep="\t", index=False)
    if sidecar:
        described = {
            name: {"Method": "aCompCor", "Mask": mask, "Retained": True}
            for name, mask in zip(components, masks, strict=True)
        }
        path.with_suffix(".json").write_text(json.dumps(described))
    return path


@pytest.mark.parametrize(
    "masks",
    [["CSF"] * 6 + ["WM"] * 6 + ["combined"] * 6, ["combined"] * 7, ["CSF"] * 2 + ["combined"] * 3],
    ids=["fMRIPrep 20.2", "fMRIPrep 21", "few"],
)
def test_compcor_takes_the_components_that_nilearn_takes(masks: list[str], tmp_path: Path) -> None:
    path = confounds_file(tmp_path, masks, more=("cosine00",))
    bold = tmp_path / "sub-01_task-a_space-MNI152NLin2009cAsym_desc-preproc_bold.nii.gz"
    bold.touch()
    theirs, _ = load_confounds(
        str(bold), strategy=("motion", "high_pass", "compcor"), motion="basic", compcor="anat_combined", n_compcor=5
    )
    ours = read_confounds(path, ["compcor"], N_VOLUMES)
    expected = [name for name in theirs if name.startswith("a_comp_cor")]
    assert [name for name in ours.table if name.startswith("a_comp_cor")] == expected
    assert bool(ours.warnings) == (len(expected) < 5)


def test_an_image_with_fewer_volumes_than_its_confounds_is_said_even_without_confounds(tmp_path: Path) -> None:
    path = confounds_file(tmp_path, [])
    (warning,) = read_confounds(path, ["none"], N_VOLUMES - 2).warnings
    for fragment in (path.name, "12 rows, but the run has 10 volumes", "StartTime"):
        assert fragment in warning
    assert read_confounds(path, ["none"], N_VOLUMES).warnings == ()


def test_compcor_without_a_json_takes_the_first_five_with_a_warning(tmp_path: Path) -> None:
    confounds = read_confounds(confounds_file(tmp_path, ["x"] * 7, sidecar=False), ["compcor"], N_VOLUMES)
    assert list(confounds.table)[6:] == [f"a_comp_cor_0{number}" for number in range(5)]
    (warning,) = confounds.warnings
    for fragment in ("no JSON file", "desc-confounds_timeseries.json", "CSF first", "restore the file"):
        assert fragment in warning


def test_compcor_with_a_json_that_says_nothing_of_masks_warns_too(tmp_path: Path) -> None:
    path = confounds_file(tmp_path, ["x"] * 7)
    path.with_suffix(".json").write_text('{"a_comp_cor_00": {"Method": "aCompCor"}, "trans_x": null}')
    assert "does not say (as Mask)" in read_confounds(path, ["compcor"], N_VOLUMES).warnings[0]


def test_compcor_without_combined_components_is_refused(tmp_path: Path) -> None:
    with pytest.raises(ParticipantError, match=r"timeseries\.json.*combined mask.*csf, wm"):
        read_confounds(confounds_file(tmp_path, ["WM", "CSF"]), ["compcor"], N_VOLUMES)
    with pytest.raises(ParticipantError, match="no column 'a_comp_cor_00'"):
        read_confounds(confounds_file(tmp_path, []), ["compcor"], N_VOLUMES)


def test_a_json_that_was_not_fetched_is_no_missing_one(tmp_path: Path) -> None:
    path = confounds_file(tmp_path, ["combined"] * 5, sidecar=False)
    path.with_suffix(".json").symlink_to("../.git/annex/objects/nowhere")
    with pytest.raises(ParticipantError, match="not fetched"):
        read_confounds(path, ["compcor"], N_VOLUMES)
    assert read_confounds(path, ["motion6"], N_VOLUMES).warnings == (), "nothing else needs it"


def test_runs_with_other_confounds_than_the_others_are_named() -> None:
    shared = ("trans_x", "a_comp_cor_00")
    found = differences_between_runs(
        {"run-1": (*shared, "a_comp_cor_01"), "run-2": (*shared, "motion_outlier00"), "run-3": ()}
    )
    assert len(found) == 2
    assert found[0].startswith("run-2 is modelled without a_comp_cor_01, which other runs")
    assert found[1].startswith("run-3 is modelled without trans_x, a_comp_cor_00, a_comp_cor_01,")
    assert differences_between_runs({"run-1": shared, "run-2": (*shared, "motion_outlier00")}) == []


def test_a_glob_chooses_what_there_is(tmp_path: Path) -> None:
    choice = choose_columns(tmp_path / "x.tsv", ["a_comp_cor_0[0-1]"], ["a_comp_cor_00", "a_comp_cor_07"])
    assert choice.columns == ("a_comp_cor_00",)


def test_a_glob_that_takes_components_of_one_tissue_says_so(tmp_path: Path) -> None:
    path = confounds_file(tmp_path, ["CSF"] * 5 + ["WM"] * 5 + ["combined"] * 5)
    (warning,) = read_confounds(path, ["a_comp_cor_0[0-4]"], N_VOLUMES).warnings
    assert "'a_comp_cor_0[0-4]' takes components of csf (5 of 5" in warning
    assert read_confounds(path, ["a_comp_cor_1[0-4]"], N_VOLUMES).warnings == ()
    assert read_confounds(path, ["compcor"], N_VOLUMES).warnings == (), "the remedy that the warning names"


def test_a_run_whose_confounds_cannot_be_read_is_not_said_to_have_none(tmp_path: Path) -> None:
    """A disk that fails for a moment: the log would say that other runs have confounds which this one lacks."""
    with pytest.raises(ParticipantError, match="does not exist"):
        columns_of_run(tmp_path / "sub-01_desc-confounds_timeseries.tsv", ["motion6"])
