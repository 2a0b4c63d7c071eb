"""The order of sessions in time: from acquisition times, from the command line, from numbers, or assumed."""

from __future__ import annotations

from pathlib import Path

import pytest

from sessionfx.bids.session_order import order_sessions
from sessionfx.errors import DatasetError


def raw_dataset(root: Path, times: dict[str, dict[str, str | None]], *, table: str = "scans") -> Path:
    """Make folders of participants and sessions with times in scans.tsv or sessions.tsv; None for no time."""
    for participant, sessions in times.items():
        folder = root / f"sub-{participant}"
        for session, time in sessions.items():
            (folder / f"ses-{session}").mkdir(parents=True, exist_ok=True)
            if table == "scans" and time is not None:
                path = folder / f"ses-{session}" / f"sub-{participant}_ses-{session}_scans.tsv"
                path.write_text(f"filename\tacq_time\nfunc/a_bold.nii.gz\t{time}\nanat/a_T1w.nii.gz\tn/a\n")
        if table == "sessions":
            rows = "".join(f"ses-{session}\t{time or 'n/a'}\n" for session, time in sessions.items())
            (folder / f"sub-{participant}_sessions.tsv").write_text(f"session_id\tacq_time\n{rows}")
    return root


PRE_POST_FU = {"pre": "2020-01-01T10:00:00", "post": "2020-03-01T09:00:00.000", "fu": "2021-01-01"}
SHIFTED = {"pre": "1905-06-01T10:00:00", "post": "1905-08-01T09:00:00"}


@pytest.mark.parametrize("table", ["scans", "sessions"])
def test_acquisition_times_order_sessions_whose_labels_do_not(tmp_path: Path, table: str) -> None:
    raw = raw_dataset(tmp_path, {"01": PRE_POST_FU, "02": SHIFTED, "03": {"fu": None}}, table=table)
    order = order_sessions(["fu", "post", "pre"], (), raw)
    assert (order.labels, order.source, order.warnings) == (("pre", "post", "fu"), "acq_time", ())
    assert order.is_known
    assert order.text == "ses-pre, ses-post, ses-fu (from acq_time)"


def test_acquisition_times_also_correct_numbered_labels(tmp_path: Path) -> None:
    raw = raw_dataset(tmp_path, {"01": {"1": "2020-03-01", "2": "2020-01-01"}})
    assert order_sessions(["1", "2"], (), raw).labels == ("2", "1")


def test_acquisition_times_go_before_the_order_of_the_option_with_a_warning(tmp_path: Path) -> None:
    raw = raw_dataset(tmp_path, {"01": PRE_POST_FU})
    order = order_sessions(PRE_POST_FU, ("post", "pre"), raw)
    assert order.labels == ("pre", "post")
    assert "another order (ses-post, ses-pre)" in order.warnings[0]


@pytest.mark.parametrize(
    ("times", "reason"),
    [
        ({"01": PRE_POST_FU, "02": {"pre": "2020-01-01", "post": None}}, "missing for some sessions of 1 participant"),
        (
            {"01": PRE_POST_FU, "02": {"pre": "2020-05-01", "post": "2020-01-01"}},
            "ses-pre was before ses-post in sub-01",
        ),
        (
            {"01": {"pre": "2020-01-01", "post": "2020-02-01"}, "02": {"fu": "2020-01-01"}},
            "times of ses-fu and ses-pre that differ",
        ),
        (
            {"01": dict.fromkeys(PRE_POST_FU, "1800-01-01")},
            "no participant has times of ses-fu and ses-post that differ",
        ),
        ({"01": {"pre": "31.01.2020", "post": "01.02.2020"}}, "no time such as 2020-01-31T12:30:00 ('01.02.2020')"),
    ],
    ids=["missing", "contradiction", "not comparable", "all on one day", "not as BIDS writes them"],
)
def test_times_that_do_not_give_an_order_are_not_used_and_that_is_said(
    tmp_path: Path, times: dict[str, dict[str, str | None]], reason: str
) -> None:
    raw = raw_dataset(tmp_path, times)
    given = order_sessions(["fu", "post", "pre"], ("pre", "post", "fu"), raw)
    assert (given.labels, given.source) == (("pre", "post", "fu"), "--session-label")
    assert reason in given.warnings[0]
    assumed = order_sessions(["fu", "post", "pre"], (), raw)
    assert (assumed.labels, assumed.is_known) == (("fu", "post", "pre"), False)


@pytest.mark.parametrize("labels", [["pre", "post", "fu"], ["test", "retest"], ["screening", "treat", "final"]])
def test_without_times_labels_without_numbers_give_an_assumed_order_with_its_remedy(
    tmp_path: Path, labels: list[str]
) -> None:
    order = order_sessions(labels, (), tmp_path)
    assert order.labels == tuple(sorted(labels))
    assert not order.is_known
    (warning,) = order.warnings
    assert f"--session-label {' '.join(sorted(labels))}" in warning
    remedied = order_sessions(labels, labels, tmp_path)
    assert (remedied.labels, remedied.is_known, remedied.warnings) == (tuple(labels), True, ())


@pytest.mark.parametrize("labels", [["1", "2", "10"], ["01", "02"], ["day1", "day30"], ["w2post", "w12post"]])
def test_numbers_order_labels_that_are_alike_but_for_them(tmp_path: Path, labels: list[str]) -> None:
    order = order_sessions(reversed(labels), (), tmp_path)
    assert (order.labels, order.source, order.warnings) == (tuple(labels), "numbers in the labels", ())


@pytest.mark.parametrize("labels", [["pre1", "post1"], ["1", "fu"], ["1a", "1b"]])
def test_numbers_in_labels_that_differ_otherwise_too_say_nothing(tmp_path: Path, labels: list[str]) -> None:
    assert not order_sessions(labels, (), tmp_path).is_known


def test_labels_that_differ_in_leading_zeros_are_warned_of(tmp_path: Path) -> None:
    found = order_sessions(["1", "01", "2"], (), tmp_path)
    assert "ses-01, ses-1" in found.warnings[0]
    assert not found.is_known, "which of the two is earlier is not told"
    (warning,) = order_sessions(["1", "01"], ("1", "01"), tmp_path).warnings
    assert "ses-01, ses-1" in warning


def test_one_session_or_none_needs_no_order(tmp_path: Path) -> None:
    assert order_sessions(["pre"], (), tmp_path).warnings == ()
    assert order_sessions([], (), tmp_path).text == ""


def test_a_table_that_cannot_be_read_is_named(tmp_path: Path) -> None:
    raw = raw_dataset(tmp_path, {"01": PRE_POST_FU}, table="sessions")
    (raw / "sub-01/sub-01_sessions.tsv").write_bytes(b"\xff\xfe\x00")
    with pytest.raises(DatasetError, match=r"sub-01_sessions\.tsv"):
        order_sessions(PRE_POST_FU, (), raw)
