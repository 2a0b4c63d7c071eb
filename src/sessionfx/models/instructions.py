"""The instructions of `pybids-transforms-v1` that are carried out here, and the arguments that each takes."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from enum import Enum
from typing import Any

TRANSFORMER = "pybids-transforms-v1"


class Kind(Enum):
    """What an argument holds, in words."""

    NAMES = "a name or a list of names"
    TEXT = "a text"
    NUMBER = "a number"
    NUMBERS = "a list of numbers"
    SWITCH = "true or false"
    REPLACEMENTS = "an object of old and new values"
    HRF = "'spm' or 'glover'"
    ATTRIBUTE = "'value', 'onset' or 'duration'"
    SIDE = "'amplitude', 'onset' or 'duration'"
    MISSING = "'off', 'before' or 'after'"


CHOICES = {
    Kind.HRF: ("spm", "glover"),
    Kind.ATTRIBUTE: ("value", "onset", "duration"),
    Kind.SIDE: ("amplitude", "onset", "duration"),
    Kind.MISSING: ("off", "before", "after"),
}


@dataclass(frozen=True)
class Instruction:
    """One transformation of variables."""

    name: str  # such as `Factor`
    # inputs, outputs: names or globs; no output where the inputs themselves change
    inputs: tuple[str, ...]
    outputs: tuple[str, ...]
    arguments: Mapping[str, Any]  # the others, by their names in the model


_OUTPUT = {"Output": Kind.NAMES}
# Arguments beside Input, of which every instruction has one or more
ARGUMENTS: dict[str, dict[str, Kind]] = {
    "And": _OUTPUT,
    "Assign": {"Target": Kind.NAMES, "InputAttr": Kind.SIDE, "TargetAttr": Kind.SIDE, **_OUTPUT},
    "Concatenate": _OUTPUT,
    "Convolve": {"Model": Kind.HRF, "Derivative": Kind.SWITCH, "Dispersion": Kind.SWITCH, **_OUTPUT},
    "Copy": _OUTPUT,
    "Delete": {},
    "Demean": _OUTPUT,
    "Factor": {},
    "Filter": {"Query": Kind.TEXT, "By": Kind.NAMES, **_OUTPUT},
    "Not": _OUTPUT,
    "Or": _OUTPUT,
    "Power": {"Value": Kind.NUMBER, **_OUTPUT},
    "Product": _OUTPUT,
    "Rename": _OUTPUT,
    "Replace": {"Replace": Kind.REPLACEMENTS, "Attribute": Kind.ATTRIBUTE, **_OUTPUT},
    "Scale": {"Demean": Kind.SWITCH, "Rescale": Kind.SWITCH, "ReplaceNa": Kind.MISSING, **_OUTPUT},
    "Select": {},
    "Sum": {"Weights": Kind.NUMBERS, **_OUTPUT},
    "Threshold": {
        "Threshold": Kind.NUMBER, "Binarize": Kind.SWITCH, "Above": Kind.SWITCH, "Signed": Kind.SWITCH, **_OUTPUT,
    },
}  # fmt: skip
NEEDED: dict[str, tuple[str, ...]] = {
    "And": ("Output",),
    "Assign": ("Target",),
    "Concatenate": ("Output",),
    "Copy": ("Output",),
    "Filter": ("Query",),
    "Or": ("Output",),
    "Power": ("Value",),
    "Product": ("Output",),
    "Rename": ("Output",),
    "Replace": ("Replace",),
    "Sum": ("Output",),
}
# These make one variable of all that go in
OF_SEVERAL = frozenset({"And", "Concatenate", "Or", "Product", "Sum"})
