"""A node of level Dataset: the covariates of the group, and contrasts over them."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

from sessionfx.models.draft import Draft, place_of
from sessionfx.models.node_checks import check_dummies, check_plain, refuse_empty
from sessionfx.models.plan import Estimated, weighted_text
from sessionfx.models.reader import INTERCEPT, Node
from sessionfx.models.transformations import GLOB
from sessionfx.options.table import STATS_MODEL_STRATEGY
from sessionfx.wording import quoted, shortened, words_to_label


@dataclass
class _Covariate:
    """A column of participants.tsv in X."""

    column: str
    name: str  # in X
    levels: list[str] = field(default_factory=list)
    is_factor: bool = False
    is_centred: bool = False


def say_group(node: Node, handed: Sequence[Estimated], draft: Draft) -> None:
    """Follow a node of level Dataset: ordinary least squares over one value per participant.

    Parameters
    ----------
    node : Node
    handed : sequence of Estimated
        Contrasts that come to it, each of which has a model of its own.
    draft : Draft

    Raises
    ------
    CommandLineError
        If participants are not modelled so here.
    """
    place = place_of(node)
    check_plain(node, draft)
    if "contrast" not in node.group_by and len(handed) > 1:
        draft.refuse(
            f"{place}, GroupBy",
            "without 'contrast' it compares contrasts over participants, which is not done here yet. Compare "
            "conditions in the run node, and group by 'contrast'.",
        )
    others = [name for name in node.group_by if name not in ("contrast", "session")]
    if others:
        draft.refuse(
            f"{place}, GroupBy",
            f"'{shortened(others[0])}' would split the participants into studies of their own. Make it a factor "
            "of X (Factor), or choose participants with --participant-label.",
        )
    if node.model.type != "glm":
        draft.refuse(
            f"{place}, Model.Type",
            "participants are modelled with 'glm'. For a random-effects meta-analysis leave this node out and add "
            "--strategy meta.",
        )
    covariates = _covariates(node, draft)
    draft.levels = {column: tuple(found.levels) for column, found in covariates.items() if found.levels}
    asked = _Group(node, covariates, draft).contrasts()
    draft.say("strategy", (STATS_MODEL_STRATEGY,), f"{place}, Model")
    draft.say("variance", "pooled", f"{place}, Model")
    draft.say("covariates", tuple(covariates), f"{place}, Model.X")
    draft.say("group_contrast", tuple(asked), f"{place}, Contrasts")


def _covariates(node: Node, draft: Draft) -> dict[str, _Covariate]:
    """Read the columns of X as covariates."""
    place = place_of(node)
    factors: list[str] = []
    centred: dict[str, str] = {}  # by the name after Demean
    for instruction in node.instructions:
        outputs = instruction.outputs or instruction.inputs
        if instruction.name == "Factor":
            factors += instruction.inputs
        elif instruction.name == "Demean" and not any(map(GLOB.search, instruction.inputs)):
            centred |= dict(zip(outputs, instruction.inputs, strict=True))
        else:
            draft.refuse(
                f"{place}, Transformations",
                f"{instruction.name} of participants' covariates is not done here. Factor and Demean are; write "
                "other columns into participants.tsv.",
            )
    found: dict[str, _Covariate] = {}
    has_levels = [name for name in node.model.x if any(name.startswith(f"{factor}.") for factor in factors)]
    for name in node.model.x:
        if name == INTERCEPT:
            continue
        if GLOB.search(name):
            draft.refuse(
                f"{place}, Model.X", f"'{shortened(name)}' is a glob. Name the columns, as participants come later."
            )
        if name in has_levels:
            factor = next(factor for factor in factors if name.startswith(f"{factor}."))
            covariate = found.setdefault(factor, _Covariate(factor, factor))
            covariate.levels.append(name.removeprefix(f"{factor}."))
        elif _has_levels_in_contrasts(name, node):
            found[name] = _Covariate(name, name, is_factor=True)
        else:
            found[name] = _Covariate(centred.get(name, name), name, is_centred=name in centred)
    with_levels = [covariate for covariate in found.values() if covariate.levels]
    if len(with_levels) > 1 or (with_levels and INTERCEPT in node.model.x):
        what = "levels of two factors" if len(with_levels) > 1 else "1 and levels of a factor"
        draft.refuse(
            f"{place}, Model.X",
            f"{what} stand in it, so that its columns explain each other, or some level is left out as reference. "
            "Write all levels of one factor, without 1.",
        )
    if not with_levels and INTERCEPT not in node.model.x:
        draft.refuse(f"{place}, Model.X", "it has no 1, and a group without a mean is not modelled here. Add 1.")
    return {covariate.column: covariate for covariate in found.values()}


def _has_levels_in_contrasts(name: str, node: Node) -> bool:
    """Whether contrasts name levels of a column, as bidspm has it: X [1, "Group"], conditions "Group.blind"."""
    return any(condition.startswith(f"{name}.") for contrast in node.contrasts for condition in contrast.conditions)


@dataclass(frozen=True)
class _Group:
    """Contrasts over the covariates of a node."""

    node: Node
    covariates: Mapping[str, _Covariate]
    draft: Draft

    def contrasts(self) -> list[str]:
        """Write all contrasts as they would be typed."""
        asked: list[str] = []
        node, place = self.node, place_of(self.node)
        if node.dummy_contrasts is not None:
            check_dummies(node.dummy_contrasts, node, self.draft)
            for name in node.dummy_contrasts.contrasts or node.model.x:
                asked.append(self._contrast({name: 1.0}, "", f"{place}, DummyContrasts"))
        for contrast in node.contrasts:
            of = f"{place}, contrast '{shortened(contrast.name)}'"
            if contrast.test == "F":
                rows = [self._contrast(row, "", of) for row in contrast.rows]
                asked.append(f"F:{words_to_label([contrast.name])} = {'; '.join(rows)}")
            else:
                asked.append(self._contrast(contrast.rows[0], contrast.name, of))
        if not asked:
            refuse_empty(node, self.draft)
        return asked

    def _contrast(self, weights: Mapping[str, float], name: str, place: str) -> str:
        """Write a contrast over covariates as it would be typed for `--group-contrast`."""
        label = f"{words_to_label([name])}=" if name else ""
        owners = {column: self._owner(column, place) for column in weights if column != INTERCEPT}
        kinds = {INTERCEPT if owner is None else owner.column for owner in (owners.get(column) for column in weights)}
        if len(kinds) > 1:
            self.draft.refuse(
                place, f"it mixes {quoted(weights)}, and is about one covariate at a time here. Split it."
            )
        if kinds == {INTERCEPT}:
            if INTERCEPT not in self.node.model.x:
                self.draft.refuse(place, "1 is not in X. Add it there.")
            wrong = next((c for c in self.covariates.values() if c.is_factor or c.levels or not c.is_centred), None)
            if wrong is not None:
                self.draft.refuse(
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
            self.draft.refuse(
                place,
                f"weights over levels sum to {sum(levels.values()):g}. Here they sum to zero, or ask for one level "
                "with weight 1. Ask for the mean of all with X [1].",
            )
        if is_one_level and any(not other.is_centred for other in self.covariates.values() if other is not covariate):
            self.draft.refuse(
                place, "the mean of a level is that where the other covariates are 0. Center them with Demean."
            )
        return label + weighted_text({f"{covariate.column}[{level}]": weight for level, weight in levels.items()})

    def _owner(self, column: str, place: str) -> _Covariate:
        """Find the covariate that a column of X is, or is a level of."""
        for covariate in self.covariates.values():
            if column == covariate.name or (
                column.startswith(f"{covariate.column}.")
                and (covariate.is_factor or column.removeprefix(f"{covariate.column}.") in covariate.levels)
            ):
                return covariate
        return self.draft.refuse(place, f"'{shortened(column)}' is not in X. Add it there.")
