"""What the data say about the strategies' assumptions, as a table for the page."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from sessionfx.group.judgement import Evidence, ValueEvidence
from sessionfx.group.results import QuestionResults
from sessionfx.wording import format_number, p_text


def evidence_tables(questions: Sequence[QuestionResults], evidence: Evidence) -> dict[str, list[dict[str, str]]]:
    """Tell what was seen of all maps, and of the values of participants that each question is about.

    Returns
    -------
    dict
        `of_maps`: rows of what and value. `of_values`: one row per question that has enough participants.
    """
    values = []
    for asked in questions:
        found = evidence.values.get(asked.question.label)
        if found is not None:
            values.append({"session contrast": asked.question.text, **evidence_table_row(found)})
    if values and all(row["groups' SD, largest : smallest"] == "—" for row in values):
        for row in values:
            del row["groups' SD, largest : smallest"]
    return {"of_maps": evidence_rows(evidence), "of_values": values}


def evidence_rows(evidence: Evidence) -> list[dict[str, str]]:
    """Tell what was seen of all maps: rows of what and value."""
    found: dict[str, str] = {}
    if evidence.covariance is not None:
        deviations = np.sqrt(np.diag(evidence.covariance))
        found["standard deviation of each session, in their order, relative to the smallest"] = ", ".join(
            f"{deviation / deviations.min():.2f}" for deviation in deviations
        )
    if evidence.epsilon is not None and evidence.epsilon_expected is not None:
        found["median Greenhouse–Geisser ε (and what sphericity would give)"] = (
            f"{evidence.epsilon:.2f} ({evidence.epsilon_expected:.2f})"
        )
    if evidence.dropout is not None:
        for what, p in (("levels", evidence.dropout.level_p), ("changes", evidence.dropout.change_p)):
            found[f"whether {what} go with how many sessions a participant missed: p by sign flips"] = (
                "cannot be seen in these data" if p is None else p_text(p)
            )
    return [{"of all maps": what, "value": value} for what, value in found.items()]


def evidence_table_row(found: ValueEvidence) -> dict[str, str]:
    """Tell what was seen of participants' values."""
    return {
        "skewness of participants' values": format_number(float(np.sqrt(max(found.squared_skewness, 0.0)))),
        "its p by sign flips": p_text(found.skewness_p),
        "voxels with an outlier (5 % if values are normal and vary equally)": f"{100 * found.outlying:.1f} %",
        "most often": f"sub-{found.most_outlying} ({100 * found.most_outlying_share:.1f} %)"
        if found.most_outlying
        else "nobody",
        "groups' SD, largest : smallest": "—" if found.group_spread is None else f"{found.group_spread:.1f}",
    }
