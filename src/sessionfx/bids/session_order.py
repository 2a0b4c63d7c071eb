"""In which order the sessions of a study took place.

A trend over sessions, and what is earlier and later in a difference, depend on this order, and labels such as `pre`,
`post`, `fu` do not tell it. It is taken from, in this order:

1. `acq_time` in `sub-XX_sessions.tsv` or `sub-XX_ses-YY_scans.tsv`, where every participant with several of these
   sessions has it and participants agree. Only times of one participant are compared with each other: BIDS allows
   each participant's dates to be shifted.
2. `--session-label`.
3. The numbers in the labels (`ses-2` before `ses-10`), where all labels are alike but for their number.
4. The alphabet, with a warning: the order is then an assumption, and no trend is asked for by default.
"""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from datetime import datetime
from itertools import combinations
from pathlib import Path
from typing import Literal

from sessionfx.bids.dataset import participants_of
from sessionfx.bids.names import strip_prefix
from sessionfx.bids.reading import list_folder
from sessionfx.bids.tables import read_table
from sessionfx.errors import DatasetError, ParticipantError
from sessionfx.wording import counted, joined, natural_key, session_names, shortened

Source = Literal["acq_time", "--session-label", "numbers in the labels", "alphabet (assumed)"]
_NUMBERED = re.compile(r"(\D*)(\d+)(\D*)\Z", re.ASCII)


@dataclass(frozen=True)
class SessionOrder:
    """Session labels in time order."""

    labels: tuple[str, ...]  # empty for a dataset without sessions
    source: Source  # what the order is taken from
    warnings: tuple[str, ...] = ()  # what a reader should know, as sentences

    @property
    def is_known(self) -> bool:
        """Whether the order is more than an assumption."""
        return self.source != "alphabet (assumed)"

    @property
    def text(self) -> str:
        """The order in words: `ses-pre, ses-post (from acq_time)`; empty without sessions."""
        if not self.labels:
            return ""
        how = self.source if not self.is_known else f"from {self.source}"
        return f"{', '.join(f'ses-{label}' for label in self.labels)}" + (f" ({how})" if len(self.labels) > 1 else "")


def order_sessions(found: Iterable[str], wanted: Sequence[str], raw: Path) -> SessionOrder:
    """Find the order of sessions in time.

    Parameters
    ----------
    found : iterable of str
        Labels of the study's sessions.
    wanted : sequence of str
        `--session-label`; sessions that are not wanted are left out, but have their place in what is compared.
    raw : Path
        The raw dataset, whose scans and sessions tables are read.

    Raises
    ------
    DatasetError
        If a table of the raw dataset cannot be read.
    """
    everyone = sorted(set(found), key=natural_key)
    labels = [label for label in everyone if not wanted or label in wanted]
    warnings = _padding(everyone)
    if len(labels) < 2:
        return SessionOrder(tuple(labels), "numbers in the labels", tuple(warnings))
    by_time, problem = _order_in_time(labels, raw)
    chosen = [label for label in wanted if label in labels]
    if by_time:
        if chosen and tuple(chosen) != by_time:
            warnings.append(
                f"acq_time says that the sessions took place in the order {session_names(by_time)}, which is used; "
                f"--session-label names them in another order ({session_names(chosen)})."
            )
        return SessionOrder(by_time, "acq_time", tuple(warnings))
    if problem:
        warnings.append(problem)
    if chosen:
        return SessionOrder(tuple(chosen), "--session-label", tuple(warnings))
    matches = [match for label in labels if (match := _NUMBERED.match(label))]
    numbers = {int(match[2]) for match in matches}  # 1 and 01 are no order
    if len(numbers) == len(labels) and len({(match[1], match[3]) for match in matches}) == 1:
        return SessionOrder(tuple(labels), "numbers in the labels", tuple(warnings))
    warnings.append(
        f"The order of the sessions in time is not known; the alphabet's is assumed: {session_names(labels)}. No trend "
        f"is asked for by default. Name them in their order in time with --session-label {' '.join(labels)}, or add "
        "acq_time to the scans.tsv or sessions.tsv files."
    )
    return SessionOrder(tuple(labels), "alphabet (assumed)", tuple(warnings))


def _padding(labels: Sequence[str]) -> list[str]:
    """Warn of labels that differ in padding only."""
    by_number: dict[str, list[str]] = {}
    for label in labels:
        number = re.sub(r"\d+", lambda digits: digits[0].lstrip("0") or "0", label)
        by_number.setdefault(number, []).append(label)
    return [
        f"The sessions {session_names(alike)} are taken for different sessions, though their labels differ in leading "
        "zeros only. If they are one session, rename the files of some participants."
        for alike in by_number.values()
        if len(alike) > 1
    ]


def _order_in_time(labels: Sequence[str], raw: Path) -> tuple[tuple[str, ...], str]:
    """Order sessions by acquisition time; empty, and why, where that is not possible.

    Nothing is said where no participant has any times: most datasets have none.
    """
    earlier: dict[tuple[str, str], str] = {}  # by pair of sessions in that order: a participant
    without: list[str] = []
    unread = ""
    n_with = 0
    for participant in participants_of(raw):
        times = _times(raw, participant, labels)
        sessions = list(times)
        times_there = {session: time for session, time in times.items() if isinstance(time, datetime)}
        if len(sessions) < 2:
            continue
        if len(times_there) < len(sessions):
            without.append(participant)
            unread = unread or next((time for time in times.values() if isinstance(time, str) and time), "")
            continue
        n_with += 1
        for a, b in combinations(sessions, 2):
            if times_there[a] != times_there[b]:
                earlier.setdefault((a, b) if times_there[a] < times_there[b] else (b, a), participant)
    if not (n_with or unread):
        return (), ""
    if without:
        missing = f"no time such as 2020-01-31T12:30:00 ('{shortened(unread)}')" if unread else "missing"
        return (), (
            f"acq_time gives no order of the sessions: it is {missing} for some sessions of "
            f"{counted(len(without), 'participant')}, such as sub-{without[0]}."
        )
    for (a, b), participant in earlier.items():
        if (b, a) in earlier:
            return (), (
                f"acq_time gives no order of the sessions: ses-{a} was before ses-{b} in sub-{participant}, and after "
                f"it in sub-{earlier[b, a]}."
            )
    n_before = Counter(later for _, later in earlier)
    ordered = sorted(labels, key=lambda label: n_before[label])
    unknown = next((pair for pair in combinations(ordered, 2) if pair not in earlier), ())
    if not unknown:
        return tuple(ordered), ""
    return (), (
        "acq_time gives no order of the sessions: no participant has times of "
        f"{joined([f'ses-{label}' for label in unknown])} that differ."
    )


def _times(raw: Path, participant: str, labels: Sequence[str]) -> dict[str, datetime | str]:
    """Find when each session that a participant has took place: its own time, or that of its first scan.

    Text that is no time where none is stated, empty where nothing is.
    """
    folder = raw / f"sub-{participant}"
    wanted = set(labels)
    of_sessions = {
        strip_prefix(row[0].strip(), "ses"): _time(row[1])
        for row in _rows(folder / f"sub-{participant}_sessions.tsv", ("session_id", "acq_time"))
    }
    folders = [entry.name[4:] for entry in list_folder(folder) if entry.name.startswith("ses-")]
    times: dict[str, datetime | str] = {}
    for session in sorted(wanted & {*of_sessions, *folders}, key=natural_key):
        times[session] = of_sessions.get(session, "")
        if isinstance(times[session], str):
            path = folder / f"ses-{session}" / f"sub-{participant}_ses-{session}_scans.tsv"
            scans = [times[session], *(_time(row[0]) for row in _rows(path, ("acq_time",)))]
            texts = (time for time in scans if isinstance(time, str) and time)
            there = [time for time in scans if isinstance(time, datetime)]
            times[session] = min(there) if there else next(texts, "")
    return times


def _rows(path: Path, columns: Sequence[str]) -> list[tuple[str, ...]]:
    """Rows of a table that have all of some columns; none where there is no table or no such column."""
    if not path.is_file():
        return []
    try:
        table = read_table(path)
    except ParticipantError as error:
        raise DatasetError(f"{error} It could tell in which order the sessions took place.") from None
    if not set(columns) <= set(table.columns):
        return []
    needed = table[list(columns)].fillna("")
    return list(needed.itertuples(index=False, name=None))


def _time(text: str) -> datetime | str:
    try:
        return datetime.fromisoformat(text.strip()).replace(tzinfo=None)
    except ValueError:
        return text.strip()
