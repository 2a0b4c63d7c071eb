"""Lists of a hundred thousand names show the first ones and count the rest; numbers and names are written as they are."""

from __future__ import annotations

from pathlib import Path

import pytest

from sessionfx.ask.covariates import code_covariates, resolve_group_contrasts
from sessionfx.bids.choosing import RUNS, check_labels, choose_entities
from sessionfx.bids.dataset import IndexedFile
from sessionfx.errors import CommandLineError, NothingMatchesError
from sessionfx.options import Selection
from sessionfx.wording import (
    format_number,
    interval_text,
    lines_text,
    minus,
    quoted,
    sentence,
    session_names,
    weights_text,
)

MANY = [f"label{number}" for number in range(100_000)]


@pytest.mark.slow
def test_labels_to_choose_from_are_counted() -> None:
    path = Path("/data/x_bold.nii.gz")
    files = [IndexedFile(path, path.parent, {"task": label}, "bold", ".nii.gz") for label in MANY]
    with pytest.raises(CommandLineError, match=r"label0, label1, .* and 99,960 more\. Choose one with --task"):
        choose_entities(files, RUNS, Selection())
    with pytest.raises(NothingMatchesError, match=r"What exists \(task\): label0, .* and 99,960 more"):
        choose_entities(files, RUNS, Selection(task=("absent",)))
    with pytest.raises(NothingMatchesError, match=r"What exists \(session\): label0, .* and 99,960 more"):
        check_labels(MANY, ["absent"], RUNS, "session", "--session-label")


def test_levels_are_counted() -> None:
    levels = [f"g{number % 60}" for number in range(120)]
    covariates = code_covariates([str(number) for number in range(120)], {"group": levels})
    (warning,) = [warning for warning in covariates.warnings if warning.startswith("group: categorical")]
    assert warning.endswith("g39 2 and 20 more)")
    with pytest.raises(CommandLineError, match=r"the levels 'g0', .* and 20 more\. Name levels, such as 'g1 - g0'"):
        resolve_group_contrasts(["group"], covariates)


def test_quoted_names_are_joined_as_in_a_sentence() -> None:
    assert quoted([]) == ""
    assert quoted(["a"]) == "'a'"
    assert quoted(["a", "b"]) == "'a' and 'b'"
    assert quoted(["a", "b", "c"], last="or") == "'a', 'b' or 'c'"
    assert quoted(MANY, most=2) == "'label0', 'label1' and 99,998 more"
    assert len(quoted(["x" * 10_000])) < 100


def test_numbers_get_true_minus_signs_and_names_keep_their_hyphens() -> None:
    weights = [("dose-0.5", -0.25), ("age", 0.0), ("x-1", 1.0), ("ses-02", -1.0)]
    assert weights_text(weights) == "dose-0.5: −0.25, x-1: 1, ses-02: −1"
    assert minus("-1.5") == "−1.5"
    assert [format_number(value) for value in (-2, -0.5, -1e-5, "a-0.5")] == ["−2", "−0.500", "−1e−05", "a-0.5"]
    # numbers beside each other have the same digits, z those of the sentences
    assert interval_text(-1.0003, -0.324) == "−1.00 to −0.324"
    assert interval_text(0.4502, 1234.5) == "0.450 to 1,234.50"
    assert [format_number(value) for value in (5.2367, 0.01234, -0.00448)] == ["5.24", "0.0123", "−0.00448"]


def test_names_lines_and_sentences() -> None:
    assert session_names(["pre", "post"]) == "ses-pre, ses-post"
    assert session_names(MANY).endswith(" and 99,960 more")
    assert lines_text([4]) == "line 4"
    assert lines_text([4, 7]) == "lines 4 and 7"
    assert lines_text([4, 5, 6, 7]) == "lines 4, 5, 6 and 1 more"
    assert sentence("ses-01 is not there") == "Ses-01 is not there."
