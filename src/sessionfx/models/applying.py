"""`--model` and the other options of a call: which file is meant, and what both say together."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

from sessionfx.ask.contrasts import selected_labels
from sessionfx.bids.names import comparable_label
from sessionfx.errors import CommandLineError
from sessionfx.models.mapping import plan_model
from sessionfx.models.plan import Plan
from sessionfx.models.reader import StatsModel, parse_model, read_model
from sessionfx.options import Options
from sessionfx.options.groups import DEFAULTS, GROUP_OF
from sessionfx.options.table import OPTIONS
from sessionfx.wording import did_you_mean, listed, shortened

_ENDS = ("", ".json", "_smdl.json")
# Of these an option may choose some of what the model has
_NARROWED: dict[str, Callable[[str], str]] = {
    "participant_label": str,
    "session_label": str,
    "run_label": lambda label: comparable_label("run", label),
}
# With a model its transformations do this
_REPLACED = ("condition_column", "recode", "event_filter", "duration_column", "modulator", "modulator_centering")


def plan_of(options: Options) -> Plan | None:
    """Read the model that a call names; None where it names none.

    Raises
    ------
    CommandLineError
        If there is no such file, or it cannot be done exactly.
    """
    wanted = options.selection.model
    if wanted is None:
        if options.selection.model_node is not None:
            raise CommandLineError("--model-node needs --model. Give both, or neither.")
        return None
    path = _found(wanted, options.bids_dir)
    return plan_model(read_model(path), path, options.selection.model_node)


def _found(wanted: Path, bids_dir: Path) -> Path:
    """Find a model by its path, or by its name in the dataset's folder of models."""
    folder = bids_dir / "models"
    candidates = [wanted]
    if len(wanted.parts) == 1:
        candidates += [folder / f"{start}{wanted}{end}" for start in ("", "model-") for end in _ENDS]
    for path in candidates:
        if path.is_file():
            return path
    there = sorted(path.name for path in folder.glob("*.json")) if folder.is_dir() else []
    hint = did_you_mean(wanted.name, there)
    raise CommandLineError(
        f"--model {shortened(str(wanted))} is no file, and no model in {folder}.{hint} The models are: "
        f"{listed(there) or 'none'}. Give the path of a …_smdl.json file."
    )


def with_model(options: Options, plan: Plan) -> tuple[Options, Options]:
    """Give the options of the participant level and of the group level, with what the model says.

    Raises
    ------
    CommandLineError
        If an option that was given says something else.
    """
    asked = options.values()
    replaced = next((name for name in _REPLACED if name in options.given and asked[name] != DEFAULTS[name]), None)
    if replaced is not None and plan.recipe is not None:
        raise CommandLineError(
            f"{OPTIONS[replaced].flag} and --model {plan.source} exclude each other: the model's Transformations say "
            "what becomes of events. Leave the option out, or write it into the model."
        )
    values: dict[str, Any] = {}
    for name, value in plan.options.items():
        values[name] = _agreed(name, asked[name], value, plan) if name in options.given else value
    labels = plan.group_labels
    if "contrast" in options.given and asked["contrast"] != plan.options.get("contrast"):
        chosen = _labels(asked["contrast"], plan)
        values["contrast"] = tuple(item.text for item in plan.contrasts if item.label in chosen)
        labels = None if labels is None else tuple(label for label in labels if label in chosen)
    participant = Options.from_values({**asked, **values})
    participant = replace(
        participant,
        given=options.given,
        first_level=replace(participant.first_level, recipe=plan.recipe),
        group=replace(participant.group, known_levels=tuple(plan.levels.items())),
    )
    if labels is None:
        return participant, participant
    return participant, replace(participant, selection=replace(participant.selection, contrast=labels))


def with_group(path: Path, options: Options) -> Options | None:
    """Give the options of a first-level analysis, from the model it left, with those of a group analysis of its maps.

    None where it left no model that can be read: maps of other programs, or of an earlier version.
    """
    try:
        plan = plan_model(read_model(path), path) if path.is_file() else None
        if plan is None:
            return None
        group = options.values()
        differs = any(group[name] != value for name, value in plan.options.items() if GROUP_OF[name] == "group")
        if differs and plan.recipe is not None:
            plan = plan_model(_without_group(plan.model), path, plan.options.get("model_node"))
    except CommandLineError:
        return None
    places = {"bids_dir": options.bids_dir, "output_dir": options.output_dir, "levels": options.levels}
    earlier = Options.from_values({**places, **plan.options})
    return replace(earlier, first_level=replace(earlier.first_level, recipe=plan.recipe), group=options.group)


def _without_group(model: StatsModel) -> StatsModel:
    """Leave out the nodes of the group."""
    content = {**model.content, "Nodes": [node for node in model.content["Nodes"] if node["Level"] != "Dataset"]}
    if "Edges" in content:
        names = {node["Name"] for node in content["Nodes"]}
        content["Edges"] = [edge for edge in content["Edges"] if edge["Destination"] in names]
    return parse_model(content, "")


def _agreed(name: str, asked: Any, said: Any, plan: Plan) -> Any:
    """Give the value that an option and the model agree on."""
    if name == "contrast" or asked == said:
        return said
    normal = _NARROWED.get(name)
    if normal is not None and {normal(label) for label in asked} <= {normal(label) for label in said}:
        return asked
    raise CommandLineError(
        f"{OPTIONS[name].flag} {_written(asked)} and --model {plan.source} contradict each other: its "
        f"{plan.places[name]}, means {_written(said)}. Leave the option out, or change the model."
    )


def _labels(asked: Sequence[str], plan: Plan) -> set[str]:
    """Give the labels of the model's contrasts that are asked for by name."""
    chosen, known = set(selected_labels(asked)), {item.label for item in plan.contrasts}
    for label in chosen - known:
        raise CommandLineError(
            f"--contrast {shortened(label)}: --model {plan.source} has no contrast of this name."
            f"{did_you_mean(label, known)} There are {listed(sorted(known))}. With --model the option chooses "
            "among them."
        )
    return chosen


def _written(value: Any) -> str:
    if isinstance(value, tuple):
        return listed([f"'{item}'" for item in value], separator=" ") or "none"
    return str(value)
