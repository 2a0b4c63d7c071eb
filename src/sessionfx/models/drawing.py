"""A model in words, for `--dry-run`: its nodes, what is asked of each, and what the results will be called."""

from __future__ import annotations

from sessionfx.models.plan import Plan
from sessionfx.models.reader import INTERCEPT, Node
from sessionfx.models.transformations import Regressors
from sessionfx.options.table import OPTIONS
from sessionfx.wording import listed


def plan_text(plan: Plan) -> str:
    """Draw a model: nodes from the run on, contrasts with their names in files, and the options that it means."""
    lines = [f"Model '{plan.model.name}': {plan.source}"]
    for number, node in enumerate(plan.nodes):
        lines += [f"{'  ' * number}{'└ ' if number else ''}{node.level} '{node.name}': {_node(node)}"]
    left_out = [node.name for node in plan.model.nodes if node not in plan.nodes]
    if left_out:
        lines.append(f"  not followed (--model-node): {listed(left_out)}")
    lines.append("  contrasts, by their names in files:")
    lines += [
        f"    {item.text}{'' if item.name == item.label else f'   (in the model: {item.name})'}"
        for item in plan.contrasts
    ]
    lines.append("  as options:")
    for name, value in plan.options.items():
        if name != "contrast" and value != ():
            shown = listed([f"'{item}'" for item in value], separator=" ") if isinstance(value, tuple) else value
            lines.append(f"    {OPTIONS[name].flag} {shown}   ({plan.places[name]})")
    return "\n".join([*lines, *(f"  warning: {warning}" for warning in plan.warnings)])


def _node(node: Node) -> str:
    x = listed(["1" if name == INTERCEPT else name for name in node.model.x], most=12)
    made = f", after {' → '.join(item.name for item in node.instructions)}" if node.instructions else ""
    return f"{node.model.type} of X = {x}{made}; by {listed(node.group_by) or 'nothing'}"


def design_text(run: str, made: Regressors) -> str:
    """Draw the design of a run."""
    counts = made.events["trial_type"].value_counts()
    lines = [f"Design of {run}: {len(made.names)} columns of X, and drifts and constant"]
    for name in made.names:
        if name in made.dense:
            lines.append(f"  {name}: a value per volume")
        elif name in counts:
            lines.append(f"  {name}: {counts[name]} events, convolved with {made.response}")
        else:
            further = name.endswith(("_derivative", "_dispersion"))
            lines.append(f"  {name}: {'a further column of the response' if further else 'no event in this run'}")
    return "\n".join(lines)
