"""An analysis as a BIDS Stats Model: what other programs can express as standard nodes, the rest as options.

The run node's `Software.SessionFX` has all options of the analysis, so that `--model` with the file gives these options
again, and they the same file. An analysis from a model keeps that model's nodes (`DesignsFrom: nodes`), and has
there the options that its nodes do not say.
"""

from __future__ import annotations

from argparse import ArgumentTypeError
from collections.abc import Collection, Mapping, Sequence
from copy import deepcopy
from dataclasses import replace
from pathlib import Path
from typing import Any

from sessionfx import __version__
from sessionfx.ask.confounds import ALWAYS, COMPONENTS, DEFAULT_PRESET, PRESETS
from sessionfx.ask.contrasts import Contrast as Asked
from sessionfx.ask.contrasts import parse_contrasts
from sessionfx.ask.event_model import parse_event_model
from sessionfx.ask.expressions import ExpressionError, parse_expression, split_name
from sessionfx.errors import CommandLineError
from sessionfx.models.instructions import TRANSFORMER
from sessionfx.models.reader import Node, StatsModel, parse_model
from sessionfx.models.written_events import WrittenEvents, write_events
from sessionfx.options import Options
from sessionfx.options.groups import GROUP_OF
from sessionfx.options.table import OPTIONS, STATS_MODEL_STRATEGY
from sessionfx.options.toml import plain_value, read_value
from sessionfx.wording import listed, words_to_label

PROGRAM = "SessionFX"
VERSION = "1.0.0"
# Paths of one machine, who is analysed by one job, and what is no part of a model
_NOT_SAID = frozenset({
    "participant_label", "derivatives", "bids_filter_file", "bids_database_dir", "skip_bids_validation", "model",
    "atlas", "atlas_labels",
})  # fmt: skip
SAID = tuple(name for name, group in GROUP_OF.items() if group != "execution" and name not in _NOT_SAID)
# What other programs have other options for
_OF_RUNS = ("smoothing_fwhm", "noise_model", "fd_threshold", "dvars_threshold", "regressors")


# Options in a model -----------------------------------------------------------------------------------------


def said_options(options: Options, but: Collection[str] = ()) -> dict[str, Any]:
    """Give the options that a model says, by their names without hyphens in front; those not given are absent."""
    values = options.values()
    plain = {name: plain_value(values[name]) for name in SAID if name not in but}
    return {name.replace("_", "-"): value for name, value in plain.items() if value not in (None, [], False)}


def options_in(section: Mapping[str, Any], place: str) -> dict[str, Any]:
    """Read the options of `Software.SessionFX`: values by the names of options, those absent as not given.

    Raises
    ------
    CommandLineError
        If an entry is not an option of a model, or not one of its values.
    """
    written = section.get("Options", {})
    if not isinstance(written, Mapping) or section.get("DesignsFrom") not in ("nodes", "options"):
        raise CommandLineError(
            f"{place}: it should have 'Options', an object, and 'DesignsFrom', 'nodes' or 'options'. Remove the "
            "section, or restore the file."
        )
    values: dict[str, Any] = {}
    for key, entry in written.items():
        name = key.replace("-", "_")
        entries = entry if isinstance(entry, list) else [entry]
        if name not in SAID or any(item is None or isinstance(item, dict | list) for item in entries):
            raise CommandLineError(f"{place}, '{key}': it is no option of a model, or has no plain value. Remove it.")
        try:
            value = read_value(OPTIONS[name], entries)
        except ArgumentTypeError as error:
            raise CommandLineError(f"{place}, '{key}': {error}. Correct it.") from None
        values[name] = tuple(value) if isinstance(value, list) else value
    return values


# Analyses as models -----------------------------------------------------------------------------------------


def written_model(options: Options) -> dict[str, Any]:
    """Write an analysis as a model.

    Parameters
    ----------
    options : Options
        With the contrasts, task and space that are analysed.

    Returns
    -------
    dict
        The content of a `…_smdl.json` file.
    """
    recipe = options.first_level.recipe
    if recipe is None:
        return _of_options(options)
    content = deepcopy(dict(recipe.model.content))
    run = next(node for node in content["Nodes"] if node["Name"] == recipe.node)
    run["Model"].setdefault("Software", {})[PROGRAM] = {
        "Version": __version__,
        "DesignsFrom": "nodes",
        "Options": said_options(options, recipe.said),
    }
    return content


def _of_options(options: Options) -> dict[str, Any]:
    first_level, selection = options.first_level, options.selection
    contrasts = parse_contrasts(selection.contrast)
    events = _events(options, contrasts)
    section = {"Version": __version__, "DesignsFrom": "options", "Options": said_options(options)}
    run: dict[str, Any] = {
        "Level": "Run",
        "Name": "run",
        "GroupBy": ["run", "session", "subject"],
        "Transformations": {
            "Transformer": TRANSFORMER,
            "Instructions": [*events.instructions, *_convolution(options, events)],
        },
        "Model": {
            "Type": "glm",
            "X": [1, *_in_x(options, events), *_confounds(first_level.confounds)],
            **_fir(options, events),
            **(
                {"Options": {"HighPassFilterCutoffHz": first_level.high_pass}}
                if first_level.drift_model == "cosine"
                else {}
            ),
            "Software": {PROGRAM: section},
        },
        "Contrasts": [_contrast(contrast, events) for contrast in contrasts],
    }
    nodes, edges = [run], []
    for node, source in _above(options):
        nodes.append(node)
        edges.append({"Source": source, "Destination": node["Name"]})
    chosen = {"task": selection.task, "session": selection.session_label, "run": selection.run_label}
    return {
        "Name": "SessionFX",
        "BIDSModelVersion": VERSION,
        "Description": " ".join(_differences(options, events)),
        "Input": {entity: list(labels) for entity, labels in chosen.items() if labels},
        "Nodes": nodes,
        "Edges": edges,
    }


def _events(options: Options, contrasts: Sequence[Asked]) -> WrittenEvents:
    named = {name for contrast in contrasts for name in contrast.conditions}
    return write_events(parse_event_model(options.first_level), named)


def _in_x(options: Options, events: WrittenEvents) -> list[str]:
    """Name the columns of events; the glob of conditions stands for the further columns of their responses too."""
    further = ["", *(f"_{part}" for part in options.first_level.hrf_model.split(" + ")[1:])]
    return [f"{events.variable}.*", *(f"{name}{suffix}" for name in events.modulated for suffix in further)]


def _convolution(options: Options, events: WrittenEvents) -> list[dict[str, Any]]:
    model, *more = options.first_level.hrf_model.split(" + ")
    if model == "fir":
        return []
    return [
        {
            "Name": "Convolve",
            "Input": events.convolved,
            "Model": model,
            "Derivative": "derivative" in more,
            "Dispersion": "dispersion" in more,
        }
    ]


def _fir(options: Options, events: WrittenEvents) -> dict[str, Any]:
    if options.first_level.hrf_model != "fir":
        return {}
    delays = {"fir_delays": list(options.first_level.fir_delays)}
    return {"HRF": {"Variables": events.convolved, "Model": "fir", "Parameters": delays}}


def _confounds(asked: Sequence[str]) -> list[str]:
    """Name the columns of confounds, but those that depend on each table."""
    columns = [column for name in asked or (DEFAULT_PRESET,) for column in PRESETS.get(name, (name,))]
    if set(asked) != {"none"}:
        columns.append(ALWAYS)
    return list(dict.fromkeys(column for column in columns if column != COMPONENTS))


def _contrast(contrast: Asked, events: WrittenEvents) -> dict[str, Any]:
    conditions = list(contrast.conditions)
    rows = [[weights.get(name, 0.0) for name in conditions] for weights in contrast.row_weights]
    return {
        "Name": contrast.label,
        "ConditionList": [events.column(name) for name in conditions],
        "Weights": rows if contrast.is_f_test else rows[0],
        "Test": "F" if contrast.is_f_test else "t",
    }


def _above(options: Options) -> list[tuple[dict[str, Any], str]]:
    """List the nodes above the run with the node each takes from: averages, contrasts of sessions, the group."""
    specifications = options.group.session_contrast
    nodes = [(_mean("Session", "session", ["session", "subject", "contrast"], "meta"), "run")]
    if not specifications or "mean" in specifications:
        nodes.append((_mean("Subject", "subject", ["subject", "contrast"], "meta"), "session"))
        nodes.append((_mean("Dataset", "dataset", ["contrast"], "glm"), "subject"))
    if "each" in specifications:
        nodes.append((_mean("Dataset", "each_session", ["contrast", "session"], "glm"), "session"))
    over_sessions = [weights for weights in map(_session_weights, specifications) if weights is not None]
    if over_sessions:
        labels = dict.fromkeys(session for _, weights in over_sessions for session in weights)
        node = _mean("Subject", "sessions", ["subject", "contrast"], "meta")
        del node["DummyContrasts"]
        node["Transformations"] = {
            "Transformer": TRANSFORMER,
            "Instructions": [{"Name": "Factor", "Input": ["session"]}],
        }
        node["Model"]["X"] = [f"session.{label}" for label in labels]
        node["Contrasts"] = [
            {
                "Name": name,
                "ConditionList": [f"session.{label}" for label in weights],
                "Weights": list(weights.values()),
                "Test": "t",
            }
            for name, weights in over_sessions
        ]
        nodes += [(node, "session"), (_mean("Dataset", "dataset_sessions", ["contrast"], "glm"), "sessions")]
    return nodes


def _mean(level: str, name: str, group_by: list[str], kind: str) -> dict[str, Any]:
    return {
        "Level": level,
        "Name": name,
        "GroupBy": group_by,
        "Model": {"Type": kind, "X": [1]},
        "DummyContrasts": {"Test": "t"},
    }


def _session_weights(specification: str) -> tuple[str, dict[str, float]] | None:
    """Give the name and weights of a session contrast that is a weighted sum; None for others."""
    name, body = split_name(specification)
    try:
        expression = parse_expression(body, session_names=True)
    except ExpressionError:
        return None
    if not all(word.startswith("ses-") for word in expression.weights):
        return None
    label = words_to_label([name]) if name else expression.label
    return label, {word.removeprefix("ses-"): weight for word, weight in expression.weights.items()}


def _differences(options: Options, events: WrittenEvents) -> list[str]:
    """Say where another program that reads the nodes alone computes something else."""
    first_level, group = options.first_level, options.group
    values = options.values()
    said = [f"Written by SessionFX {__version__}, which reads all options from Software.SessionFX of the run node."]
    set_here = [OPTIONS[name].flag for name in _OF_RUNS if values[name] is not None]
    said.append(
        f"Other programs have options of their own for {listed(set_here)} and for the scaling of signals, which is in "
        "percent of each voxel's mean here. FitLins samples events before it convolves them, and takes drifts from an "
        "option."
    )
    said += events.not_said
    if first_level.drift_model == "polynomial":
        said.append("They do not read the polynomial drifts.")
    if "none" not in first_level.confounds:
        said.append(
            "Volumes that are not in a steady state have regressors of their own where the confounds have them."
        )
    if "compcor" in first_level.confounds:
        said.append("The columns of --confounds compcor depend on each table and are not in X.")
    if first_level.fixed_effects == "precision":
        said.append("Runs and sessions are averaged with weights of precision; FitLins averages equally.")
    if any(contrast.is_f_test for contrast in parse_contrasts(options.selection.contrast)):
        said.append("F tests end at the run node; here their rows are tested together at the group level too.")
    others = [
        text for text in group.session_contrast if text not in ("mean", "each") and _session_weights(text) is None
    ]
    if others or not group.session_contrast:
        asked = listed([f"'{text}'" for text in others]) or "the differences between sessions asked for by default"
        said.append(f"Of the session contrasts the nodes lack {asked}.")
    if group.covariates or group.session_covariates or group.group_contrast:
        said.append("Covariates and group contrasts are not in the nodes, which test the mean over participants.")
    if group.strategy != (STATS_MODEL_STRATEGY,) or group.variance != "pooled":
        said.append(
            "The Dataset nodes are ordinary least squares over one value per participant; the strategies that are "
            "compared, and unequal variances, are not in the nodes."
        )
    return said


def agrees(model: StatsModel, values: Mapping[str, Any]) -> str:
    """Name the first node of a model that is not as its options would write it; empty where all are."""
    options = Options.from_values({"bids_dir": Path(), "output_dir": Path(), "levels": (), **values})
    expected = parse_model(written_model(options), "")
    if len(expected.nodes) != len(model.nodes) or expected.edges != model.edges or expected.input != model.input:
        return "Nodes, Edges or Input"
    pairs = zip(model.nodes, expected.nodes, strict=True)
    return next((f"node '{node.name}'" for node, other in pairs if _comparable(node) != _comparable(other)), "")


def _comparable(node: Node) -> Node:
    """Leave out the options themselves."""
    return replace(node, model=replace(node.model, software={}))
