"""File names: what is written can be read back, and no label leads out of its folder."""

from __future__ import annotations

import random
import re
from pathlib import PurePosixPath

import pytest
from hypothesis import given
from hypothesis import strategies as st

from properties import examples
from sessionfx.bids.names import ENTITY_ORDER, entity_string, file_name, func_folder, parse_name, strip_prefix
from sessionfx.wording import natural_key, words_to_label

LABELS = st.from_regex("[a-zA-Z0-9+]{1,8}", fullmatch=True)
KEYS = st.one_of(st.sampled_from(ENTITY_ORDER), st.from_regex("[a-z]{1,6}", fullmatch=True))
ENTITIES = st.dictionaries(KEYS, LABELS, max_size=8)
SUFFIXES = st.sampled_from(["statmap", "bold", "design", "metrics", "T1w"])
EXTENSIONS = st.sampled_from(["", ".nii.gz", ".nii", ".json", ".tsv"])


def natural_order(labels: list[str]) -> list[str]:
    return sorted(labels, key=natural_key)


@given(ENTITIES, SUFFIXES, EXTENSIONS)
@examples()
def test_a_file_name_is_read_back_as_it_was_made(entities: dict[str, str], suffix: str, extension: str) -> None:
    parsed = parse_name(file_name(entities, suffix, extension))
    assert parsed is not None
    assert (parsed.entities, parsed.suffix, parsed.extension) == (entities, suffix, extension)


@given(ENTITIES, st.randoms(use_true_random=False))
@examples()
def test_known_entities_stand_in_the_order_of_bids(entities: dict[str, str], shuffler: random.Random) -> None:
    items = [(key, label) for key, label in entities.items() if key in ENTITY_ORDER]
    shuffled = items.copy()
    shuffler.shuffle(shuffled)
    name = entity_string(dict(shuffled))
    assert name == entity_string(dict(items))
    keys = [pair.split("-")[0] for pair in name.split("_")] if name else []
    assert keys == sorted(keys, key=ENTITY_ORDER.index)


def test_entities_that_bids_does_not_know_come_last() -> None:
    assert entity_string({"zzz": "1", "desc": "x", "sub": "01"}) == "sub-01_desc-x_zzz-1"


def test_output_names_are_those_of_the_contract() -> None:
    entities = {
        "stat": "effect", "desc": "fixedEffects", "contrast": "aMinusB", "sessions": "ses02MinusSes01",
        "sub": "01", "space": "MNI152NLin2009cAsym", "res": "2", "task": "stroop",
    }  # fmt: skip
    assert file_name(entities, "statmap", ".nii.gz") == (
        "sub-01_task-stroop_space-MNI152NLin2009cAsym_res-2_contrast-aMinusB_sessions-ses02MinusSes01"
        "_stat-effect_desc-fixedEffects_statmap.nii.gz"
    )
    group = {
        "task": "T", "space": "S", "contrast": "C", "sessions": "mean", "strategy": "marginal",
        "covariate": "age", "stat": "z",
    }  # fmt: skip
    name = "task-T_space-S_contrast-C_sessions-mean_covariate-age_strategy-marginal_stat-z_statmap.nii.gz"
    assert file_name(group, "statmap", ".nii.gz") == name


def test_entities_without_a_label_are_left_out() -> None:
    assert file_name({"sub": "01", "ses": None, "task": "x", "res": ""}, "bold", ".nii") == "sub-01_task-x_bold.nii"
    assert file_name({}, "report", ".html") == "report.html"


@pytest.mark.parametrize(
    "name",
    [
        "",
        ".bidsignore",
        "sub-01.html",
        "sub_bold.nii",
        "sub-_bold.nii",
        "-01_bold.nii",
        "sub-01_.nii",
        "sub-01_bold_x-1",
        "sub-01_ses-pre_post_bold.nii",
        "s ub-01_bold.nii",
        "sub-01\n_bold.nii",
    ],
)
def test_other_names_are_not_taken_apart(name: str) -> None:
    assert parse_name(name) is None


@given(st.text(max_size=40))
@examples(200)
def test_any_name_is_either_taken_apart_or_not(name: str) -> None:
    parsed = parse_name(name)
    if parsed is not None:
        assert re.fullmatch(r"\w+", parsed.suffix)
        assert name.endswith(parsed.suffix + parsed.extension)


def test_functional_folder_has_a_session_only_where_there_is_one() -> None:
    assert func_folder("01", "pre") == PurePosixPath("sub-01/ses-pre/func")
    assert func_folder("01") == func_folder("01", "") == PurePosixPath("sub-01/func")


@pytest.mark.parametrize(("label", "bare"), [("sub-01", "01"), ("01", "01"), ("subject", "subject"), ("sub", "sub")])
def test_prefix_is_dropped_where_it_stands(label: str, bare: str) -> None:
    assert strip_prefix(label, "sub") == bare


# Order ------------------------------------------------------------------------------------------------------


@given(st.lists(st.integers(0, 10**6), unique=True))
@examples()
def test_numbers_sort_by_size_whatever_their_digits(numbers: list[int]) -> None:
    assert natural_order([f"ses-{number}" for number in numbers]) == [f"ses-{number}" for number in sorted(numbers)]


def test_natural_order_of_mixed_labels() -> None:
    assert natural_order(["pre", "10", "2", "post", "1", "run10", "run9"]) == [
        "1", "2", "10", "post", "pre", "run9", "run10",
    ]  # fmt: skip


@given(st.lists(st.one_of(st.text(max_size=8), st.text(alphabet="01²③x٣", max_size=4)), max_size=8))
@examples(200)
def test_any_labels_can_be_sorted_together(labels: list[str]) -> None:
    """Conditions and folder names may hold anything, `m²` for example."""
    assert sorted(natural_order(labels)) == sorted(labels)


@pytest.mark.parametrize(("one", "other"), [("1", "01"), ("x1y", "x01y")])
def test_different_labels_never_tie(one: str, other: str) -> None:
    """Labels come out of sets: with a tie the order of sessions would change from call to call."""
    assert natural_order([one, other]) == natural_order([other, one])


# Labels -----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("words", "label"),
    [
        (["incongruent", "minus", "congruent"], "incongruentMinusCongruent"),
        (["summary-statistics"], "summaryStatistics"),
        (["stopSignal", "minus", "goTrial"], "stopSignalMinusGoTrial"),
        (["ses-02", "minus", "ses-01"], "ses02MinusSes01"),
        (["happy face"], "happyFace"),
        (["ALL_caps"], "ALLCaps"),
        (["Fußgänger", "à côté"], "FugangerACote"),
        (["2", "back"], "2Back"),
        (["顔", "—"], ""),
        ([], ""),
    ],
)
def test_words_become_one_camel_case_label(words: list[str], label: str) -> None:
    """Letters lose their accents; what has no ASCII form is left out."""
    assert words_to_label(words) == label


@given(st.lists(st.one_of(st.text(), st.text(alphabet="./\\~\0\n:ab1")), max_size=4))
@examples(200)
def test_no_label_leaves_its_folder(words: list[str]) -> None:
    label = words_to_label(words)
    assert re.fullmatch("[a-zA-Z0-9]*", label)
    folder = PurePosixPath("/out/group")
    path = folder / file_name({"contrast": label, "sessions": label}, "statmap", ".nii.gz")
    assert path.parent == folder
    assert ".." not in path.parts


@given(st.text(min_size=1))
@examples(200)
def test_making_a_label_of_a_label_changes_nothing(text: str) -> None:
    label = words_to_label([text])
    assert words_to_label([label]) == label
