"""What a model means here: its graph as values of options, and a recipe for the designs of its runs.

Every value has the place in the model that says it, so that an option given as well can be refused by name. What
cannot be done exactly is refused, before anything runs.
"""

from __future__ import annotations

from argparse import ArgumentTypeError
from collections.abc import Mapping, Sequence
from dataclasses import replace
from itertools import pairwise
from pathlib import Path
from typing import Any

from sessionfx.ask.contrasts import parse_contrasts
from sessionfx.errors import CommandLineError
from sessionfx.models.dataset_node import say_group
from sessionfx.models.draft import Draft, place_of
from sessionfx.models.node_checks import check_names
from sessionfx.models.participant_nodes import participant_contrasts, say_sessions
from sessionfx.models.plan import SHORT_NAMES, Estimated, Plan
from sessionfx.models.reader import Edge, Node, StatsModel
from sessionfx.models.run_node import recipe_of, run_contrasts
from sessionfx.models.writer import PROGRAM, agrees, options_in
from sessionfx.options.values import Label
from sessionfx.wording import did_you_mean, listed, quoted, shortened

# Entities of Input, and the options that choose them
_INPUTS = {
    "task": "task",
    "subject": "participant_label",
    "session": "session_label",
    "run": "run_label",
    "space": "space",
}


def plan_model(model: StatsModel, source: Path | str, node: str | None = None) -> Plan:
    """Say what a model means here.

    Parameters
    ----------
    model : StatsModel
    source : Path or str
        Its file, for refusals.
    node : str, optional
        The last node of the path through the graph, where there are several.

    Raises
    ------
    CommandLineError
        If something in it cannot be done exactly.
    """
    run = next((found for found in model.nodes if found.level == "Run" and PROGRAM in found.model.software), None)
    if run is None:
        return _plan_of_nodes(model, str(source), node)
    place = f"{place_of(run)}, Model.Software '{PROGRAM}'"
    section = run.model.software[PROGRAM]
    values = options_in(section, f"--model {source}, {place}")
    if section["DesignsFrom"] == "options":
        return _plan_of_options(model, str(source), values, place)
    plan = _plan_of_nodes(model, str(source), node or values.get("model_node"))
    twice = next((name for name in values if name in plan.options), None)
    if twice is not None:
        raise CommandLineError(f"--model {source}, {place}: '{twice}' is said by the nodes too. Remove it there.")
    options = {**plan.options, **values}
    return replace(plan, options=options, places={**dict.fromkeys(values, place), **plan.places})


def _plan_of_options(model: StatsModel, source: str, values: Mapping[str, Any], place: str) -> Plan:
    """Read a model that was written from options: these, if the nodes still are as they write them."""
    changed = agrees(model, values)
    if changed:
        raise CommandLineError(
            f"--model {source}: {changed} and the options in {place} contradict each other, so one of them was "
            "changed by hand. Change both alike; or remove that section, and the nodes are read."
        )
    contrasts = parse_contrasts(values.get("contrast", ()))
    return Plan(
        source=source,
        model=model,
        nodes=model.nodes,
        recipe=None,
        contrasts=tuple(
            Estimated(name=item.label, weights=item.weights, rows=tuple(row.weights for row in item.tested))
            for item in contrasts
        ),
        group_labels=None,
        options=values,
        places=dict.fromkeys(values, place),
    )


def _plan_of_nodes(model: StatsModel, source: str, wanted: str | None) -> Plan:
    """Follow the nodes from the run to the last one."""
    draft = Draft(source=source)
    nodes = _path(model, wanted, draft)
    run = nodes[0]
    _input(model.input, draft)
    recipe = recipe_of(run, model, draft)
    handed, f_tests = run_contrasts(run, draft)
    draft.say("contrast", tuple(item.text for item in handed), f"node '{run.name}', Contrasts")
    made = {item.name: item for item in handed}
    for below, node in pairwise(nodes):
        edge = next(e for e in model.edges if e.source == below.name and e.destination == node.name)
        handed = _filtered(handed, edge, draft)
        if node.level == "Dataset":
            say_group(node, handed, draft)
        else:
            handed = participant_contrasts(node, handed, draft)
        made |= {item.name: item for item in handed}
    say_sessions(nodes, draft)
    contrasts = [*made.values(), *f_tests]
    check_names(contrasts, draft)
    draft.options["contrast"] = tuple(item.text for item in contrasts)
    return Plan(
        source=source,
        model=model,
        nodes=nodes,
        recipe=replace(recipe, groupings=tuple(draft.groupings), said=tuple(draft.options)),
        contrasts=tuple(contrasts),
        group_labels=tuple(item.label for item in handed),
        options=draft.options,
        places=draft.places,
        levels=draft.levels,
        warnings=tuple(draft.warnings),
    )


def _path(model: StatsModel, wanted: str | None, draft: Draft) -> tuple[Node, ...]:
    """Choose the nodes from the run to the last one."""
    edges, nodes = model.edges, model.nodes
    roots = [node for node in nodes if node.level == "Run"]
    if len(roots) != 1:
        draft.refuse("Nodes", f"there are {len(roots)} nodes of level Run, and one is modelled here. Keep one.")
    sources: dict[str, list[str]] = {}
    for edge in edges:
        sources.setdefault(edge.destination, []).append(edge.source)
    joined = next((name for name, above in sources.items() if len(set(above)) > 1), None)
    if joined is not None:
        draft.refuse(
            f"node '{shortened(joined)}'",
            "several edges lead to it, and one node's results are taken here. Remove the others.",
        )
    leaves = [node for node in nodes if node.name not in {edge.source for edge in edges}]
    if wanted is not None:
        if wanted not in {node.name for node in nodes}:
            hint = did_you_mean(wanted, [node.name for node in nodes])
            raise CommandLineError(
                f"--model-node {shortened(wanted)}: --model {draft.source} has no such node.{hint} There are "
                f"{quoted(node.name for node in nodes)}."
            )
        leaves = [model.node(wanted)]
    if len(leaves) > 1:
        draft.refuse(
            "Nodes",
            f"its edges end at {quoted(node.name for node in leaves)}, and one path is followed at a time. Choose "
            "its end with --model-node.",
        )
    if not leaves:
        draft.refuse("Edges", "they lead in a circle. Correct them.")
    path = [leaves[0]]
    while path[0].name in sources:
        above = model.node(sources[path[0].name][0])
        if above in path:
            draft.refuse("Edges", "they lead in a circle. Correct them.")
        path.insert(0, above)
    if path[0] is not roots[0]:
        draft.refuse(
            place_of(path[0]),
            f"no edge leads to it from '{roots[0].name}', so it has no input. Add the edge.",
        )
    order = [("Run", "Session", "Subject", "Dataset").index(node.level) for node in path]
    if order != sorted(set(order)):
        draft.refuse(
            place_of(path[-1]),
            "the nodes that lead to it are not of levels Run, Session, Subject, Dataset in this order, each once. "
            "Correct Edges or Level.",
        )
    return tuple(path)


def _filtered(handed: Sequence[Estimated], edge: Edge, draft: Draft) -> list[Estimated]:
    """Keep what the edge between two nodes lets through."""
    place = f"edge from '{shortened(edge.source)}' to '{shortened(edge.destination)}', Filter"
    others = [key for key in edge.filter if key != "contrast"]
    if others:
        draft.refuse(
            place,
            f"'{shortened(others[0])}' is chosen by, and only 'contrast' is here. Choose files with Input, or "
            "with the options for selection.",
        )
    wanted = edge.filter.get("contrast")
    if wanted is None:
        return list(handed)
    known = {item.name: item for item in handed}
    for name in wanted:
        if name not in known:
            draft.refuse(
                place,
                f"'{shortened(name)}' is no contrast of '{shortened(edge.source)}'.{did_you_mean(name, known)} "
                f"There are {quoted(known, most=10)}.",
            )
    return [item for item in handed if item.name in wanted]


def _input(chosen: Mapping[str, Sequence[str]], draft: Draft) -> None:
    """Say which files are chosen by Input."""
    for entity, values in chosen.items():
        place = f"Input '{shortened(entity)}'"
        if entity not in _INPUTS:
            draft.refuse(
                place,
                f"files are chosen here by {quoted(_INPUTS)}. Leave it out, and choose with --bids-filter-file.",
            )
        try:
            labels = tuple(Label(SHORT_NAMES[entity])(value) for value in values)
        except ArgumentTypeError as error:
            draft.refuse(place, f"{error}. Correct it.")
        if entity in ("task", "space"):
            if len(labels) > 1:
                draft.refuse(place, f"{listed(labels)} are several, and a model is of one here. Keep one.")
            draft.say(_INPUTS[entity], labels if entity == "task" else labels[0], place)
        else:
            draft.say(_INPUTS[entity], labels, place)
