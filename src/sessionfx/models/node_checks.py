"""What is refused of nodes of several levels, and of contrasts whichever node gives them."""

from __future__ import annotations

from collections.abc import Iterable
from typing import NoReturn

from sessionfx.models.draft import Draft, place_of
from sessionfx.models.plan import Estimated
from sessionfx.models.reader import INTERCEPT, Contrast, DummyContrasts, Node
from sessionfx.models.writer import PROGRAM
from sessionfx.wording import listed, quoted, shortened

# What other programs read in a run node, and what there changes estimates
_FOREIGN_ESTIMATES = ("ParametricModulations", "HRFderivatives")
_BRAIN = {"desc": ("brain",), "suffix": ("mask",)}


def check_plain(node: Node, draft: Draft) -> None:
    """Refuse what no node can have here, and warn of what is for other programs."""
    place, model = f"{place_of(node)}, Model", node.model
    if model.formula:
        draft.refuse(
            f"{place}.Formula",
            "formulas are not read here. Write its columns into X, and what makes them into Transformations.",
        )
    for name in ("LowPassFilterCutoffHz", "ReplaceVariables"):
        if name in model.options:
            draft.refuse(f"{place}.Options.{name}", "this is not done here. Remove it.")
    if model.options.get("Aggregate", "none") != "none":
        draft.refuse(f"{place}.Options.Aggregate", "voxels are not averaged here. Remove it.")
    if model.options.get("Mask", _BRAIN) != _BRAIN:
        draft.refuse(
            f"{place}.Options.Mask",
            "the mask is that of the brain, of each run (desc 'brain', suffix 'mask'). Name another with "
            "--bids-filter-file.",
        )
    for program, settings in model.software.items():
        for name in _FOREIGN_ESTIMATES:
            if str(settings.get(name, "none")).lower() != "none":
                draft.refuse(
                    f"{place}.Software '{shortened(program)}'",
                    f"{name} changes the design, and is that program's own. Say it in the standard's words "
                    "(Transformations, HRF).",
                )
    foreign = [program for program in model.software if program != PROGRAM]
    if foreign:
        draft.warnings.append(f"Node '{node.name}': Software {quoted(foreign)} is for other programs and not read.")


def check_dummy_test(dummies: DummyContrasts, node: Node, draft: Draft) -> None:
    """Refuse DummyContrasts with F tests."""
    if dummies.test == "F":
        draft.refuse(
            f"{place_of(node)}, DummyContrasts.Test",
            "an F test of one column has no sign; its t test squared is the same. Write 't'.",
        )


def check_dummies(dummies: DummyContrasts, node: Node, draft: Draft) -> None:
    """Refuse DummyContrasts with F tests, or of names that are not columns of X as it is written."""
    check_dummy_test(dummies, node, draft)
    place, remedy = f"{place_of(node)}, DummyContrasts.Contrasts", "Contrasts are chosen in the Filter of an edge."
    _check_in_x(dummies.contrasts or (), node, place, remedy, draft)


def check_conditions(contrast: Contrast, node: Node, place: str, draft: Draft) -> None:
    """Refuse a contrast of names that are not columns of X as it is written."""
    remedy = "Contrasts over columns of runs stand in the run node."
    _check_in_x(contrast.conditions, node, f"{place}, ConditionList", remedy, draft)


def _check_in_x(names: Iterable[str], node: Node, place: str, remedy: str, draft: Draft) -> None:
    """Refuse names that are not columns of X as it is written."""
    for name in names:
        if name not in node.model.x:
            columns = listed([_as_written(column) for column in node.model.x])
            draft.refuse(place, f"{_as_written(name)} is not in X, which has {columns}. {remedy}")


def _as_written(column: str) -> str:
    return "1" if column == INTERCEPT else f"'{shortened(column)}'"


def refuse_empty(node: Node, draft: Draft) -> NoReturn:
    """Refuse a node that asks for nothing."""
    draft.refuse(
        place_of(node), "it has neither Contrasts nor DummyContrasts, so nothing would come out of it. Add them."
    )


def check_names(contrasts: Iterable[Estimated], draft: Draft) -> None:
    """Make sure that contrasts have names of their own in files."""
    labels: dict[str, Estimated] = {}
    for item in contrasts:
        if not item.label:
            draft.refuse(
                f"contrast '{shortened(item.name)}'",
                "its name has no letter or digit to use in file names. Rename it.",
            )
        twin = labels.setdefault(item.label.lower(), item)
        if twin.name != item.name:
            draft.refuse(
                f"contrast '{shortened(item.name)}'",
                f"it would be called '{item.label}' in file names, as '{shortened(twin.name)}'. Rename one of them.",
            )
