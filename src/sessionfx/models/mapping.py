"""What a model means here: its graph as values of options, and a recipe for the designs of its runs.

Every value has the place in the model that says it, so that an option given as well can be refused by name. What
cannot be done exactly is refused, before anything runs.
"""

from __future__ import annotations

import fnmatch
import re
from argparse import ArgumentTypeError
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any, NoReturn

from sessionfx.ask.contrasts import parse_contrasts
from sessionfx.ask.expressions import SESSION_NAME
from sessionfx.errors import CommandLineError
from sessionfx.models.plan import SHORT_NAMES, Estimated, Grouping, Plan, Recipe, stands_for, weighted_text
from sessionfx.models.reader import INTERCEPT, Contrast, Edge, Hrf, Node, StatsModel
from sessionfx.models.transformations import response_name
from sessionfx.models.writer import PROGRAM, agrees, options_in
from sessionfx.options.table import choices_of
from sessionfx.options.values import Label
from sessionfx.wording import did_you_mean, listed, quoted, shortened, words_to_label

# Entities of Input, and the options that choose them
_INPUTS = {
    "task": "task",
    "subject": "participant_label",
    "session": "session_label",
    "run": "run_label",
    "space": "space",
}
_GLOB = re.compile(r"[*?\[]")
# What other programs read in a run node, and what there changes estimates
_FOREIGN_ESTIMATES = ("ParametricModulations", "HRFderivatives")
_BRAIN = {"desc": ("brain",), "suffix": ("mask",)}


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
        return _Mapper(model, str(source)).plan(node)
    place = f"node '{shortened(run.name)}', Model.Software '{PROGRAM}'"
    section = run.model.software[PROGRAM]
    values = options_in(section, f"--model {source}, {place}")
    if section["DesignsFrom"] == "options":
        return _plan_of_options(model, str(source), values, place)
    plan = _Mapper(model, str(source)).plan(node or values.get("model_node"))
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


@dataclass
class _Said:
    """Values of options, and where the model says each."""

    values: dict[str, Any] = field(default_factory=dict)
    places: dict[str, str] = field(default_factory=dict)

    def say(self, option: str, value: Any, place: str) -> None:
        self.values[option] = value
        self.places[option] = place


class _Mapper:
    def __init__(self, model: StatsModel, source: str) -> None:
        self.model = model
        self.source = source
        self.said = _Said()
        self.groupings: list[Grouping] = []
        self.warnings: list[str] = []
        self.f_tests: list[Estimated] = []  # of the run, where they end

    def refuse(self, place: str, what: str) -> NoReturn:
        raise CommandLineError(f"--model {self.source}, {place}: {what}")

    def _of(self, node: Node, field_name: str) -> str:
        return f"--model {self.source}, node '{shortened(node.name)}', {field_name}"

    def plan(self, wanted: str | None) -> Plan:
        nodes = self._path(wanted)
        run, above = nodes[0], nodes[1:]
        self._input()
        recipe = self._run(run)
        handed = self._outputs(run)
        self.said.say("contrast", tuple(item.text for item in handed), f"node '{run.name}', Contrasts")
        made = {item.name: item for item in handed}
        source = run
        for node in above:
            handed = self._filtered(handed, source, node)
            handed = self._dataset(node, handed) if node.level == "Dataset" else self._participant(node, handed)
            made |= {item.name: item for item in handed}
            source = node
        self._sessions(nodes)
        contrasts = self._named([*made.values(), *self.f_tests])
        self.said.values["contrast"] = tuple(item.text for item in contrasts)
        return Plan(
            source=self.source,
            model=self.model,
            nodes=nodes,
            recipe=replace(recipe, groupings=tuple(self.groupings), said=tuple(self.said.values)),
            contrasts=tuple(contrasts),
            group_labels=tuple(item.label for item in handed),
            options=self.said.values,
            places=self.said.places,
            warnings=tuple(self.warnings),
        )

    # The graph ------------------------------------------------------------------------------------------------

    def _path(self, wanted: str | None) -> tuple[Node, ...]:
        """Choose the nodes from the run to the last one."""
        edges, nodes = self.model.edges, self.model.nodes
        roots = [node for node in nodes if node.level == "Run"]
        if len(roots) != 1:
            self.refuse("Nodes", f"there are {len(roots)} nodes of level Run, and one is modelled here. Keep one.")
        sources: dict[str, list[str]] = {}
        for edge in edges:
            sources.setdefault(edge.destination, []).append(edge.source)
        joined = next((name for name, above in sources.items() if len(set(above)) > 1), None)
        if joined is not None:
            self.refuse(
                f"node '{shortened(joined)}'",
                "several edges lead to it, and one node's results are taken here. Remove the others.",
            )
        leaves = [node for node in nodes if node.name not in {edge.source for edge in edges}]
        if wanted is not None:
            if wanted not in {node.name for node in nodes}:
                hint = did_you_mean(wanted, [node.name for node in nodes])
                raise CommandLineError(
                    f"--model-node {shortened(wanted)}: --model {self.source} has no such node.{hint} There are "
                    f"{quoted(node.name for node in nodes)}."
                )
            leaves = [self.model.node(wanted)]
        if len(leaves) > 1:
            self.refuse(
                "Nodes",
                f"its edges end at {quoted(node.name for node in leaves)}, and one path is followed at a time. Choose "
                "its end with --model-node.",
            )
        if not leaves:
            self.refuse("Edges", "they lead in a circle. Correct them.")
        path = [leaves[0]]
        while path[0].name in sources:
            above = self.model.node(sources[path[0].name][0])
            if above in path:
                self.refuse("Edges", "they lead in a circle. Correct them.")
            path.insert(0, above)
        if path[0] is not roots[0]:
            self.refuse(
                f"node '{shortened(path[0].name)}'",
                f"no edge leads to it from '{roots[0].name}', so it has no input. Add the edge.",
            )
        order = [("Run", "Session", "Subject", "Dataset").index(node.level) for node in path]
        if order != sorted(set(order)):
            self.refuse(
                f"node '{shortened(path[-1].name)}'",
                "the nodes that lead to it are not of levels Run, Session, Subject, Dataset in this order, each once. "
                "Correct Edges or Level.",
            )
        return tuple(path)

    def _filtered(self, handed: Sequence[Estimated], source: Node, node: Node) -> list[Estimated]:
        """Keep what the edge between two nodes lets through."""
        edge: Edge = next(e for e in self.model.edges if e.source == source.name and e.destination == node.name)
        place = f"edge from '{shortened(source.name)}' to '{shortened(node.name)}', Filter"
        others = [key for key in edge.filter if key != "contrast"]
        if others:
            self.refuse(
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
                self.refuse(
                    place,
                    f"'{shortened(name)}' is no contrast of '{shortened(source.name)}'.{did_you_mean(name, known)} "
                    f"There are {quoted(known, most=10)}.",
                )
        return [item for item in handed if item.name in wanted]

    def _input(self) -> None:
        for entity, values in self.model.input.items():
            place = f"Input '{shortened(entity)}'"
            if entity not in _INPUTS:
                self.refuse(
                    place,
                    f"files are chosen here by {quoted(_INPUTS)}. Leave it out, and choose with --bids-filter-file.",
                )
            try:
                labels = tuple(Label(SHORT_NAMES[entity])(value) for value in values)
            except ArgumentTypeError as error:
                self.refuse(place, f"{error}. Correct it.")
            if entity in ("task", "space"):
                if len(labels) > 1:
                    self.refuse(place, f"{listed(labels)} are several, and a model is of one here. Keep one.")
                self.said.say(_INPUTS[entity], labels if entity == "task" else labels[0], place)
            else:
                self.said.say(_INPUTS[entity], labels, place)

    # The run --------------------------------------------------------------------------------------------------

    def _run(self, node: Node) -> Recipe:
        place = f"node '{shortened(node.name)}'"
        model = node.model
        self._check_plain(node)
        if model.type != "glm":
            self.refuse(f"{place}, Model.Type", "a run is modelled with 'glm'. Correct it.")
        if "subject" not in node.group_by:
            self.refuse(
                f"{place}, GroupBy", "without 'subject' the runs of all participants would stand in one design. Add it."
            )
        if "contrast" in node.group_by:
            self.refuse(f"{place}, GroupBy", "a run has no contrasts to be grouped by. Remove 'contrast'.")
        self.groupings.append(Grouping(self._of(node, "GroupBy"), node.group_by, "run"))
        response = self._response(node)
        self.said.say("hrf_model", response, f"{place}, {'Model.HRF' if model.hrf else 'Transformations'}")
        self._drifts(node)
        confounds = [name for name in model.x if name != INTERCEPT and not self._is_of_events(name, node)]
        self.said.say("confounds", tuple(confounds) or ("none",), f"{place}, Model.X")
        if INTERCEPT not in model.x:
            self.warnings.append(
                f"Node '{node.name}': X has no 1. The design of a run has a constant here all the same, as in FitLins "
                "and SPM."
            )
        return Recipe(node=node.name, instructions=node.instructions, hrf=self._hrf(node), x=model.x, model=self.model)

    def _check_plain(self, node: Node) -> None:
        """Refuse what no node can have here."""
        place, model = f"node '{shortened(node.name)}', Model", node.model
        if model.formula:
            self.refuse(
                f"{place}.Formula",
                "formulas are not read here. Write its columns into X, and what makes them into Transformations.",
            )
        for name in ("LowPassFilterCutoffHz", "ReplaceVariables"):
            if name in model.options:
                self.refuse(f"{place}.Options.{name}", "this is not done here. Remove it.")
        if model.options.get("Aggregate", "none") != "none":
            self.refuse(f"{place}.Options.Aggregate", "voxels are not averaged here. Remove it.")
        if model.options.get("Mask", _BRAIN) != _BRAIN:
            self.refuse(
                f"{place}.Options.Mask",
                "the mask is that of the brain, of each run (desc 'brain', suffix 'mask'). Name another with "
                "--bids-filter-file.",
            )
        for program, settings in model.software.items():
            for name in _FOREIGN_ESTIMATES:
                if str(settings.get(name, "none")).lower() != "none":
                    self.refuse(
                        f"{place}.Software '{shortened(program)}'",
                        f"{name} changes the design, and is that program's own. Say it in the standard's words "
                        "(Transformations, HRF).",
                    )
        foreign = [program for program in model.software if program != PROGRAM]
        if foreign:
            self.warnings.append(f"Node '{node.name}': Software {quoted(foreign)} is for other programs and not read.")

    def _response(self, node: Node) -> str:
        """Name the response of all regressors; its further columns are used where X has them."""
        place, x = f"node '{shortened(node.name)}'", node.model.x
        convolved = [item for item in node.instructions if item.name == "Convolve"]
        hrf = self._hrf(node)
        responses = [response_name(item.arguments) for item in convolved] + ([hrf.model] if hrf else [])
        if not responses:
            self.refuse(place, "no variable is convolved. Add Convolve to Transformations, or HRF to Model.")
        if hrf is not None and not convolved:
            return hrf.model
        names = [name for item in convolved for name in (item.outputs or item.inputs)]
        parts = []
        for part in ("derivative", "dispersion"):
            columns = [f"{name}_{part}" for name in names]
            if any(part in response for response in responses) and any(stands_for(pattern, columns) for pattern in x):
                parts.append(part)
        base = responses[0].split(" + ")[0]
        return " + ".join([base, *parts])

    def _hrf(self, node: Node) -> Hrf | None:
        """Read Model.HRF; its response is written as options write it."""
        hrf = node.model.hrf
        if hrf is None or not hrf.variables:
            return None
        place = f"node '{shortened(node.name)}', Model.HRF"
        name = " + ".join(part.strip().lower() for part in hrf.model.split("+"))
        responses = [choice for choice in choices_of("hrf_model") if choice != "fir"]  # whose columns X cannot name
        if name not in responses:
            self.refuse(
                f"{place}.Model", f"'{shortened(hrf.model)}' is no response here. There are {quoted(responses)}."
            )
        if hrf.parameters:
            self.refuse(f"{place}.Parameters", "responses have no parameters here. Remove them.")
        for variable in hrf.variables:
            if not any(stands_for(pattern, [variable]) for pattern in node.model.x):
                self.refuse(
                    f"{place}.Variables", f"'{shortened(variable)}' is not in X. Add it there, or remove it here."
                )
        return Hrf(variables=hrf.variables, model=name)

    def _drifts(self, node: Node) -> None:
        place, options = f"node '{shortened(node.name)}', Model", node.model.options
        cutoff = options.get("HighPassFilterCutoffHz")
        if cutoff is None:
            self.said.say("drift_model", "none", f"{place} (Options has no HighPassFilterCutoffHz)")
            if not any(fnmatch.fnmatchcase("cosine00", pattern) for pattern in node.model.x):
                self.warnings.append(
                    f"Node '{node.name}': neither HighPassFilterCutoffHz nor cosine* in X, so slow drifts are not "
                    "modelled; FitLins and SPM would model some of their own."
                )
            return
        if not 0 < cutoff <= 1:
            self.refuse(
                f"{place}.Options.HighPassFilterCutoffHz", f"{cutoff:g} Hz is no cut-off. Give one above 0, up to 1."
            )
        self.said.say("drift_model", "cosine", f"{place}.Options.HighPassFilterCutoffHz")
        self.said.say("high_pass", cutoff, f"{place}.Options.HighPassFilterCutoffHz")

    def _is_of_events(self, name: str, node: Node) -> bool:
        """Whether a column of X comes from events: convolved, or made of what is."""
        convolved = [
            found for item in node.instructions if item.name == "Convolve" for found in (item.outputs or item.inputs)
        ]
        convolved += node.model.hrf.variables if node.model.hrf else ()
        columns = [f"{found}{suffix}" for found in convolved for suffix in ("", "_derivative", "_dispersion")]
        factored = [found for item in node.instructions if item.name == "Factor" for found in item.inputs]
        made = [found for item in node.instructions if item.name != "Convolve" for found in item.outputs]
        return any(stands_for(name, [column]) or stands_for(column, [name]) for column in [*columns, *made]) or any(
            name.startswith(f"{column}.") for column in factored
        )

    def _outputs(self, node: Node) -> list[Estimated]:
        """List the contrasts of a run."""
        place = f"node '{shortened(node.name)}'"
        found: dict[str, Estimated] = {}
        dummies = node.dummy_contrasts
        if dummies is not None:
            if dummies.test == "F":
                self.refuse(
                    f"{place}, DummyContrasts.Test",
                    "an F test of one column has no sign; its t test squared is the same. Write 't'.",
                )
            names = dummies.contrasts
            if names is None:
                open_ended = [name for name in node.model.x if _GLOB.search(name) or name == INTERCEPT]
                if open_ended:
                    self.refuse(
                        f"{place}, DummyContrasts",
                        f"without Contrasts it asks for every column of X, '{open_ended[0]}' too, which stands for "
                        "columns not known before. Name those that are meant in Contrasts.",
                    )
                names = node.model.x
            for name in names:
                self._check_in_x(name, node, f"{place}, DummyContrasts.Contrasts")
                found[name] = Estimated(name=name, weights={name: 1.0})
        for contrast in node.contrasts:
            of = f"{place}, contrast '{shortened(contrast.name)}'"
            for name in contrast.conditions:
                self._check_in_x(name, node, f"{of}, ConditionList")
            if contrast.test == "F":
                self.f_tests.append(Estimated(name=contrast.name, rows=tuple(_rows(contrast))))
            else:
                found[contrast.name] = Estimated(name=contrast.name, weights=_rows(contrast)[0])
        if not found and not self.f_tests:
            self.refuse(
                place, "it has neither Contrasts nor DummyContrasts, so nothing would come out of it. Add them."
            )
        return list(found.values())

    def _one_row(self, contrast: Contrast, place: str) -> dict[str, float]:
        if contrast.test == "F":
            self.refuse(f"{place}, Test", "F tests over sessions are not done here. Ask for the t tests of its rows.")
        return _rows(contrast)[0]

    def _check_in_x(self, name: str, node: Node, place: str) -> None:
        if name == INTERCEPT:
            self.refuse(
                place,
                "the constant of a run is the mean of its signal, which says nothing of a response. Leave it out.",
            )
        if not any(stands_for(pattern, [name]) for pattern in node.model.x):
            self.refuse(
                place,
                f"'{shortened(name)}' is not in X.{did_you_mean(name, node.model.x)} X has "
                f"{quoted(node.model.x, most=12)}.",
            )
        if "`" in name:
            self.refuse(place, f"'{shortened(name)}' has a backtick in its name. Rename it.")

    def _named(self, contrasts: Sequence[Estimated]) -> list[Estimated]:
        """Make sure that contrasts have names of their own in files."""
        labels: dict[str, Estimated] = {}
        for item in contrasts:
            if not item.label:
                self.refuse(
                    f"contrast '{shortened(item.name)}'",
                    "its name has no letter or digit to use in file names. Rename it.",
                )
            twin = labels.setdefault(item.label.lower(), item)
            if twin.name != item.name:
                self.refuse(
                    f"contrast '{shortened(item.name)}'",
                    f"it would be called '{item.label}' in file names, as '{shortened(twin.name)}'. Rename one of "
                    "them.",
                )
        return list(contrasts)

    # Sessions and participants --------------------------------------------------------------------------------

    def _participant(self, node: Node, handed: Sequence[Estimated]) -> list[Estimated]:
        """Follow a node of level Session or Subject: an average over runs or sessions, by contrast."""
        place = f"node '{shortened(node.name)}'"
        self._check_plain(node)
        for name in ("subject", "contrast", *(("session",) if node.level == "Session" else ())):
            if name not in node.group_by and not (name == "contrast" and len(handed) == 1):
                self.refuse(
                    f"{place}, GroupBy",
                    f"without '{name}' it would put different {name}s into one model, which is not done here at level "
                    f"{node.level}. Add it.",
                )
        if node.model.hrf is not None:
            self.refuse(f"{place}, Model.HRF", "only runs have a haemodynamic response. Remove it.")
        if node.instructions or node.model.x != (INTERCEPT,):
            return self._over_sessions(node, handed)
        self.said.say("fixed_effects", "equal", f"{place}, Model")
        return self._scaled(node, handed)

    def _scaled(self, node: Node, handed: Sequence[Estimated]) -> list[Estimated]:
        """Give what a node of means hands on: each contrast as it is, or times a weight."""
        place = f"node '{shortened(node.name)}'"
        found: list[Estimated] = []
        if node.dummy_contrasts is not None:
            self._check_dummies(node)
            found += handed
        for contrast in node.contrasts:
            of = f"{place}, contrast '{shortened(contrast.name)}'"
            self._check_conditions(contrast, node, of)
            if contrast.test == "F":
                self.refuse(
                    f"{of}, Test", "an F test of a mean has no sign; its t test squared is the same. Write 't'."
                )
            ((weight,),) = contrast.weights
            found += [
                Estimated(
                    name=f"{item.name}_{contrast.name}",
                    weights={name: weight * value for name, value in item.weights.items()},
                )
                for item in handed
            ]
        if not found:
            self.refuse(
                place, "it has neither Contrasts nor DummyContrasts, so nothing would come out of it. Add them."
            )
        return found

    def _check_dummies(self, node: Node) -> None:
        dummies, place = node.dummy_contrasts, f"node '{shortened(node.name)}', DummyContrasts"
        if dummies is None:
            return
        if dummies.test == "F":
            self.refuse(
                f"{place}.Test", "an F test of one column has no sign; its t test squared is the same. Write 't'."
            )
        for name in dummies.contrasts or ():
            if name not in node.model.x:
                self.refuse(
                    f"{place}.Contrasts",
                    f"{_as_written(name)} is not in X, which has "
                    f"{listed([_as_written(column) for column in node.model.x])}. Contrasts are chosen in the Filter "
                    "of an edge.",
                )

    def _check_conditions(self, contrast: Contrast, node: Node, place: str) -> None:
        for name in contrast.conditions:
            if name not in node.model.x:
                self.refuse(
                    f"{place}, ConditionList",
                    f"{_as_written(name)} is not in X, which has "
                    f"{listed([_as_written(column) for column in node.model.x])}. Contrasts over columns of runs "
                    "stand in the run node.",
                )

    def _over_sessions(self, node: Node, handed: Sequence[Estimated]) -> list[Estimated]:
        """Follow a node whose columns are sessions: each of its contrasts is one over sessions."""
        place = f"node '{shortened(node.name)}'"
        is_factor = (
            len(node.instructions) == 1
            and node.instructions[0].name == "Factor"
            and node.instructions[0].inputs == ("session",)
        )
        if node.level != "Subject" or not is_factor or not all(name.startswith("session.") for name in node.model.x):
            self.refuse(
                f"{place}, Model.X",
                f"at level {node.level} X is [1], a mean, or at level Subject the sessions (session.01, … after "
                "Factor of 'session'). Write one of these.",
            )
        if node.dummy_contrasts is not None and node.dummy_contrasts.contrasts is not None:
            self._check_dummies(node)
        asked = []
        if node.dummy_contrasts is not None:
            asked += [
                f"{words_to_label([name])}=ses-{name.removeprefix('session.')}"
                for name in node.dummy_contrasts.contrasts or node.model.x
            ]
        for contrast in node.contrasts:
            of = f"{place}, contrast '{shortened(contrast.name)}'"
            self._check_conditions(contrast, node, of)
            weights = {
                f"ses-{name.removeprefix('session.')}": weight for name, weight in self._one_row(contrast, of).items()
            }
            asked.append(f"{words_to_label([contrast.name])}={weighted_text(weights, SESSION_NAME)}")
        if not asked:
            self.refuse(
                place, "it has neither Contrasts nor DummyContrasts, so nothing would come out of it. Add them."
            )
        self.said.say("session_contrast", tuple(asked), f"{place}, Contrasts")
        self.said.say("fixed_effects", "equal", f"{place}, Model")
        return list(handed)

    def _sessions(self, nodes: Sequence[Node]) -> None:
        """Say what is asked of sessions, and which groups must have one run or one session."""
        last = nodes[-1]
        below = [node for node in nodes if node.level != "Dataset"]
        place = self._of(last, "GroupBy")
        if len(below) == 1 and last.level == "Dataset":
            entities = ("subject", *(name for name in last.group_by if name == "session"))
            self.groupings.append(Grouping(place, entities, "run"))
        averaged = next((node for node in below[1:] if "session" not in node.group_by), None)
        if averaged is below[-1] and len(below) == 2:
            self.groupings.append(Grouping(self._of(averaged, "GroupBy"), averaged.group_by, "even"))
        if "session_contrast" in self.said.values:
            if last.level == "Dataset" and "session" in last.group_by:
                self.refuse(
                    f"node '{shortened(last.name)}', GroupBy",
                    "'session' groups by sessions that a node before has put together. Remove it.",
                )
            return
        keeps_sessions = "session" in below[-1].group_by
        if last.level == "Dataset" and keeps_sessions and "session" not in last.group_by:
            self.groupings.append(Grouping(place, ("subject",), "session"))
            keeps_sessions = False
        self.said.say(
            "session_contrast",
            ("each",) if keeps_sessions else ("mean",),
            f"node '{shortened(below[-1].name)}', GroupBy",
        )

    # The group ------------------------------------------------------------------------------------------------

    def _dataset(self, node: Node, handed: Sequence[Estimated]) -> list[Estimated]:
        """Follow a node of level Dataset: ordinary least squares over one value per participant."""
        place = f"node '{shortened(node.name)}'"
        self._check_plain(node)
        if "contrast" not in node.group_by and len(handed) > 1:
            self.refuse(
                f"{place}, GroupBy",
                "without 'contrast' it compares contrasts over participants, which is not done here yet. Compare "
                "conditions in the run node, and group by 'contrast'.",
            )
        others = [name for name in node.group_by if name not in ("contrast", "session")]
        if others:
            self.refuse(
                f"{place}, GroupBy",
                f"'{shortened(others[0])}' would split the participants into studies of their own. Make it a factor "
                "of X (Factor), or choose participants with --participant-label.",
            )
        if node.model.type != "glm":
            self.refuse(
                f"{place}, Model.Type",
                "participants are modelled with 'glm'. For a random-effects meta-analysis leave this node out and add "
                "--strategy meta.",
            )
        covariates = self._covariates(node)
        asked = self._group_contrasts(node, covariates)
        self.said.say("strategy", ("summary-statistics",), f"{place}, Model")
        self.said.say("variance", "pooled", f"{place}, Model")
        self.said.say("covariates", tuple(covariates), f"{place}, Model.X")
        self.said.say("group_contrast", tuple(asked), f"{place}, Contrasts")
        return list(handed)

    def _covariates(self, node: Node) -> dict[str, _Covariate]:
        """Read the columns of X as covariates."""
        place = f"node '{shortened(node.name)}'"
        factors: list[str] = []
        centred: dict[str, str] = {}  # by the name after Demean
        for instruction in node.instructions:
            outputs = instruction.outputs or instruction.inputs
            if instruction.name == "Factor":
                factors += instruction.inputs
            elif instruction.name == "Demean" and not any(map(_GLOB.search, instruction.inputs)):
                centred |= dict(zip(outputs, instruction.inputs, strict=True))
            else:
                self.refuse(
                    f"{place}, Transformations",
                    f"{instruction.name} of participants' covariates is not done here. Factor and Demean are; write "
                    "other columns into participants.tsv.",
                )
        found: dict[str, _Covariate] = {}
        has_levels = [name for name in node.model.x if any(name.startswith(f"{factor}.") for factor in factors)]
        for name in node.model.x:
            if name == INTERCEPT:
                continue
            if _GLOB.search(name):
                self.refuse(
                    f"{place}, Model.X", f"'{shortened(name)}' is a glob. Name the columns, as participants come later."
                )
            if name in has_levels:
                factor = next(factor for factor in factors if name.startswith(f"{factor}."))
                covariate = found.setdefault(factor, _Covariate(factor, factor))
                covariate.levels.append(name.removeprefix(f"{factor}."))
            elif self._has_levels_in_contrasts(name, node):
                found[name] = _Covariate(name, name, is_factor=True)
            else:
                found[name] = _Covariate(centred.get(name, name), name, is_centred=name in centred)
        with_levels = [covariate for covariate in found.values() if covariate.levels]
        if len(with_levels) > 1 or (with_levels and INTERCEPT in node.model.x):
            what = "levels of two factors" if len(with_levels) > 1 else "1 and levels of a factor"
            self.refuse(
                f"{place}, Model.X",
                f"{what} stand in it, so that its columns explain each other, or some level is left out as reference. "
                "Write all levels of one factor, without 1.",
            )
        if not with_levels and INTERCEPT not in node.model.x:
            self.refuse(f"{place}, Model.X", "it has no 1, and a group without a mean is not modelled here. Add 1.")
        return {covariate.column: covariate for covariate in found.values()}

    @staticmethod
    def _has_levels_in_contrasts(name: str, node: Node) -> bool:
        """Whether contrasts name levels of a column, as bidspm has it: X [1, "Group"], conditions "Group.blind"."""
        return any(condition.startswith(f"{name}.") for contrast in node.contrasts for condition in contrast.conditions)

    def _group_contrasts(self, node: Node, covariates: Mapping[str, _Covariate]) -> list[str]:
        asked: list[str] = []
        place = f"node '{shortened(node.name)}'"
        if node.dummy_contrasts is not None:
            self._check_dummies(node)
            for name in node.dummy_contrasts.contrasts or node.model.x:
                asked.append(self._group_contrast({name: 1.0}, covariates, node, "", f"{place}, DummyContrasts"))
        for contrast in node.contrasts:
            of = f"{place}, contrast '{shortened(contrast.name)}'"
            if contrast.test == "F":
                rows = [self._group_contrast(row, covariates, node, "", of) for row in _rows(contrast)]
                asked.append(f"F:{words_to_label([contrast.name])} = {'; '.join(rows)}")
            else:
                asked.append(self._group_contrast(_rows(contrast)[0], covariates, node, contrast.name, of))
        if not asked:
            self.refuse(
                place, "it has neither Contrasts nor DummyContrasts, so nothing would come out of it. Add them."
            )
        return asked

    def _group_contrast(
        self, weights: Mapping[str, float], covariates: Mapping[str, _Covariate], node: Node, name: str, place: str
    ) -> str:
        """Write a contrast over covariates as it would be typed for `--group-contrast`."""
        label = f"{words_to_label([name])}=" if name else ""
        owners = {column: self._owner(column, covariates, place) for column in weights if column != INTERCEPT}
        kinds = {INTERCEPT if owner is None else owner.column for owner in (owners.get(column) for column in weights)}
        if len(kinds) > 1:
            self.refuse(place, f"it mixes {quoted(weights)}, and is about one covariate at a time here. Split it.")
        if kinds == {INTERCEPT}:
            if INTERCEPT not in node.model.x:
                self.refuse(place, "1 is not in X. Add it there.")
            wrong = next((c for c in covariates.values() if c.is_factor or c.levels or not c.is_centred), None)
            if wrong is not None:
                self.refuse(
                    place,
                    f"the constant is the mean where '{shortened(wrong.column)}' is 0, and here it is that of all "
                    "participants. Center the covariate with Demean, or leave this contrast out.",
                )
            weight = weights[INTERCEPT]
            return f"{label}intercept" if weight == 1 else f"{label}{weight!r}*intercept"
        covariate = next(owner for owner in owners.values() if owner is not None)
        if not (covariate.is_factor or covariate.levels):
            return label + weighted_text({covariate.column: next(iter(weights.values()))})
        levels = {column.removeprefix(f"{covariate.column}."): weight for column, weight in weights.items()}
        is_one_level = list(levels.values()) == [1.0]
        if not is_one_level and abs(sum(levels.values())) > 1e-9 * max(map(abs, levels.values())):
            self.refuse(
                place,
                f"weights over levels sum to {sum(levels.values()):g}. Here they sum to zero, or ask for one level "
                "with weight 1. Ask for the mean of all with X [1].",
            )
        if is_one_level and any(not other.is_centred for other in covariates.values() if other is not covariate):
            self.refuse(place, "the mean of a level is that where the other covariates are 0. Center them with Demean.")
        return label + weighted_text({f"{covariate.column}[{level}]": weight for level, weight in levels.items()})

    def _owner(self, column: str, covariates: Mapping[str, _Covariate], place: str) -> _Covariate:
        for covariate in covariates.values():
            if column == covariate.name or (
                column.startswith(f"{covariate.column}.")
                and (covariate.is_factor or column.removeprefix(f"{covariate.column}.") in covariate.levels)
            ):
                return covariate
        return self.refuse(place, f"'{shortened(column)}' is not in X. Add it there.")


@dataclass
class _Covariate:
    """A column of participants.tsv in X."""

    column: str
    name: str  # in X
    levels: list[str] = field(default_factory=list)
    is_factor: bool = False
    is_centred: bool = False


def _rows(contrast: Contrast) -> list[dict[str, float]]:
    """Give the weights that are not zero, of each row."""
    return [
        {name: weight for name, weight in zip(contrast.conditions, row, strict=True) if weight != 0}
        for row in contrast.weights
    ]


def _as_written(column: str) -> str:
    return "1" if column == INTERCEPT else f"'{shortened(column)}'"
