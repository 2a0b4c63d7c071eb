"""Nodes of level Session and Subject: averages, contrasts times a weight, and contrasts over sessions."""

from __future__ import annotations

from collections.abc import Sequence

from sessionfx.ask.expressions import SESSION_NAME
from sessionfx.models.draft import Draft, place_of
from sessionfx.models.node_checks import check_conditions, check_dummies, check_plain, refuse_empty
from sessionfx.models.plan import Estimated, weighted_text
from sessionfx.models.reader import INTERCEPT, Contrast, Node
from sessionfx.wording import shortened, words_to_label


def participant_contrasts(node: Node, handed: Sequence[Estimated], draft: Draft) -> list[Estimated]:
    """Follow a node of level Session or Subject: an average over runs or sessions, by contrast.

    Parameters
    ----------
    node : Node
    handed : sequence of Estimated
        Contrasts that come to it.
    draft : Draft

    Returns
    -------
    list of Estimated
        Contrasts that it hands on.

    Raises
    ------
    CommandLineError
        If runs or sessions are not put together so here.
    """
    place = place_of(node)
    check_plain(node, draft)
    for name in ("subject", "contrast", *(("session",) if node.level == "Session" else ())):
        if name not in node.group_by and not (name == "contrast" and len(handed) == 1):
            draft.refuse(
                f"{place}, GroupBy",
                f"without '{name}' it would put different {name}s into one model, which is not done here at level "
                f"{node.level}. Add it.",
            )
    if node.model.hrf is not None:
        draft.refuse(f"{place}, Model.HRF", "only runs have a haemodynamic response. Remove it.")
    if node.instructions or node.model.x != (INTERCEPT,):
        return _over_sessions(node, handed, draft)
    draft.say("fixed_effects", "equal", f"{place}, Model")
    return _scaled(node, handed, draft)


def _scaled(node: Node, handed: Sequence[Estimated], draft: Draft) -> list[Estimated]:
    """Give what a node of means hands on: each contrast as it is, or times a weight."""
    place = place_of(node)
    found: list[Estimated] = []
    if node.dummy_contrasts is not None:
        check_dummies(node.dummy_contrasts, node, draft)
        found += handed
    for contrast in node.contrasts:
        of = f"{place}, contrast '{shortened(contrast.name)}'"
        check_conditions(contrast, node, of, draft)
        if contrast.test == "F":
            draft.refuse(f"{of}, Test", "an F test of a mean has no sign; its t test squared is the same. Write 't'.")
        ((weight,),) = contrast.weights
        found += [
            Estimated(
                name=f"{item.name}_{contrast.name}",
                weights={name: weight * value for name, value in item.weights.items()},
            )
            for item in handed
        ]
    if not found:
        refuse_empty(node, draft)
    return found


def _over_sessions(node: Node, handed: Sequence[Estimated], draft: Draft) -> list[Estimated]:
    """Follow a node whose columns are sessions: each of its contrasts is one over sessions."""
    place = place_of(node)
    is_factor = (
        len(node.instructions) == 1
        and node.instructions[0].name == "Factor"
        and node.instructions[0].inputs == ("session",)
    )
    if node.level != "Subject" or not is_factor or not all(name.startswith("session.") for name in node.model.x):
        draft.refuse(
            f"{place}, Model.X",
            f"at level {node.level} X is [1], a mean, or at level Subject the sessions (session.01, … after "
            "Factor of 'session'). Write one of these.",
        )
    if node.dummy_contrasts is not None and node.dummy_contrasts.contrasts is not None:
        check_dummies(node.dummy_contrasts, node, draft)
    asked = []
    if node.dummy_contrasts is not None:
        asked += [
            f"{words_to_label([name])}=ses-{name.removeprefix('session.')}"
            for name in node.dummy_contrasts.contrasts or node.model.x
        ]
    for contrast in node.contrasts:
        of = f"{place}, contrast '{shortened(contrast.name)}'"
        check_conditions(contrast, node, of, draft)
        weights = {
            f"ses-{name.removeprefix('session.')}": weight for name, weight in _one_row(contrast, of, draft).items()
        }
        asked.append(f"{words_to_label([contrast.name])}={weighted_text(weights, SESSION_NAME)}")
    if not asked:
        refuse_empty(node, draft)
    draft.say("session_contrast", tuple(asked), f"{place}, Contrasts")
    draft.say("fixed_effects", "equal", f"{place}, Model")
    return list(handed)


def _one_row(contrast: Contrast, place: str, draft: Draft) -> dict[str, float]:
    """Give the weights of a t test."""
    if contrast.test == "F":
        draft.refuse(f"{place}, Test", "F tests over sessions are not done here. Ask for the t tests of its rows.")
    return contrast.rows[0]


def say_sessions(nodes: Sequence[Node], draft: Draft) -> None:
    """Say what is asked of sessions, and which groups must have one run or one session.

    Parameters
    ----------
    nodes : sequence of Node
        From the run to the last one, all of them followed before.
    draft : Draft

    Raises
    ------
    CommandLineError
        If the group is of sessions that a node before has put together.
    """
    last = nodes[-1]
    below = [node for node in nodes if node.level != "Dataset"]
    if len(below) == 1 and last.level == "Dataset":
        entities = ("subject", *(name for name in last.group_by if name == "session"))
        draft.group(last, entities, "run")
    averaged = next((node for node in below[1:] if "session" not in node.group_by), None)
    if averaged is below[-1] and len(below) == 2:
        draft.group(averaged, averaged.group_by, "even")
    if "session_contrast" in draft.options:
        if last.level == "Dataset" and "session" in last.group_by:
            draft.refuse(
                f"{place_of(last)}, GroupBy",
                "'session' groups by sessions that a node before has put together. Remove it.",
            )
        return
    keeps_sessions = "session" in below[-1].group_by
    if last.level == "Dataset" and keeps_sessions and "session" not in last.group_by:
        draft.group(last, ("subject",), "session")
        keeps_sessions = False
    draft.say(
        "session_contrast",
        ("each",) if keeps_sessions else ("mean",),
        f"{place_of(below[-1])}, GroupBy",
    )
