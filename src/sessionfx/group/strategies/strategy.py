"""What a strategy is: a way to plan an answer, and all that is particular to it.

That is what it needs and assumes, how a paper describes it, and its judgement: when its p values can be taken at their
word, with the thresholds and the sentences. The rules of judgement follow from exact results and from simulated null
designs (docs/validity.md; figures in `sessionfx.group.validity`).
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, ClassVar

import numpy as np

from sessionfx.group.judgement import NOTABLE_SPREAD, Evidence, Judgement
from sessionfx.group.strategies.base import GroupOptions, MapLayout, Plan, Question
from sessionfx.report.methods import GroupWork
from sessionfx.statistics.cluster_robust import ALL_SEEN, robust_contrast
from sessionfx.statistics.linear_algebra import is_estimable
from sessionfx.wording import words_to_label

ROUNDING = 1e-6  # of degrees of freedom
# Of errors by participants: below this the t distribution's tails depend strongly on the degrees of freedom, which are
# themselves approximate (Pustejovsky & Tipton 2018, section 4). Balanced designs have whole numbers of them, but for
# rounding.
FEW_DOF = 4.0 - ROUNDING
FEW_CARRY = Judgement("conditional", "few participants carry this contrast, and it takes all to vary equally.")
ORDINARY = "with one map per participant it is an ordinary group model."
UNEQUAL_TIMES = "it takes change to vary equally over participants, whatever the time between their sessions."


@dataclass(frozen=True, kw_only=True)
class Assumptions:
    """What must hold for a strategy's p values, in phrases for a table; see `ASSUMED`."""

    participants: str = "independent of each other"
    values: str
    spread: str
    sessions: str
    missing: str
    covariates: str = (
        "effects are linear, one for each session; a covariate of sessions has one effect within and one between "
        "participants"
    )


ASSUMED = {
    "participants": "participants",
    "values": "distribution (with few participants, skewed values give too many false positives)",
    "spread": "variances of participants",
    "sessions": "variances and correlations of sessions",
    "missing": "missing sessions",
    "covariates": "covariates",
}


@dataclass(frozen=True, kw_only=True)
class Grounds:
    """What the judgement of an answer rests on."""

    question: Question
    layout: MapLayout  # all maps of the analysis
    options: GroupOptions
    evidence: Evidence
    plan: Plan  # of the answer
    dof: float  # its degrees of freedom

    def judge_pooled_variance(self) -> Judgement | None:
        """Say where one variance of all participants may not do: covariates are asked about, or groups differ."""
        if self.question.group.label:
            return Judgement(
                "conditional",
                "it takes all participants to vary equally, whatever their covariates and how certain their values "
                "are.",
            )
        values = self.evidence.values.get(self.question.label)
        if values is not None and values.group_spread is not None and values.group_spread >= NOTABLE_SPREAD:
            return Judgement(
                "conditional",
                "it takes groups of participants to vary equally, whose standard deviations differ "
                f"{values.group_spread:.1f}-fold.",
            )
        return FEW_CARRY if self._few_carry else None

    @property
    def _few_carry(self) -> bool:
        """Whether few participants carry the group contrast, such as a small group the mean over groups.

        How unequally so few vary is known too badly to rely on. Without covariates all carry the same.
        """
        layout = self.layout
        if not layout.covariate_names:
            return False
        of_pairs = self.question.sessions.is_within_participant  # who has one session tells of no difference
        people = [label for label in layout.unique_participants if len(layout.rows_of(label)) > of_pairs]
        design = layout.between(layout.first_rows(people)).to_numpy()
        contrast = self.question.group_weights(design.shape[1])
        if not people or not all(is_estimable(design, row) for row in np.atleast_2d(contrast)):
            return True
        carried = robust_contrast(design, people, contrast, 0.0)
        n_further = len(np.atleast_2d(contrast)) - 1
        return carried.seen < ALL_SEEN or not carried.dof - n_further >= FEW_DOF


class Strategy(ABC):
    """A way to answer a question at the group level."""

    name: ClassVar[str]  # on the command line
    # title, full_title: in sentences, and where a page introduces its answer
    title: ClassVar[str]
    full_title: ClassVar[str]
    assumptions: ClassVar[Assumptions]
    # where it stands among answers that are equally valid: the smallest is reported; see `rank`
    preference: ClassVar[int]
    is_default: ClassVar[bool] = True  # whether it runs without being asked for
    # whether it keeps a nominal rate in most designs, so that it is the one to run where no other can be trusted
    is_robust: ClassVar[bool] = False
    # whether it compares sessions within each participant who has them, so that who misses sessions does not matter as
    # long as it goes with the participant's level alone
    cancels_levels: ClassVar[bool] = False
    takes_robust: ClassVar[tuple[str, ...]] = ()  # kinds of `--robust` that make it count outlying participants less
    # names of strategies with which its answer is always drawn side by side
    compared_with: ClassVar[tuple[str, ...]] = ()
    no_joint_test: ClassVar[str] = ""  # why it never tests several contrasts at once; empty where it may

    @property
    def label(self) -> str:
        """Label in file names."""
        return words_to_label([self.name])

    def needs_variances(self, options: GroupOptions) -> bool:
        """Whether the maps' sampling variances enter."""
        return False

    def missing_dependency(self) -> str:
        """Say which package it needs that is not installed, with the remedy; empty where there is none."""
        return ""

    def never_answers(self, question: Question) -> str:
        """Say why it never answers questions of this kind, whatever the data; empty where it may."""
        return self.no_joint_test if question.is_f_test else ""

    def rank(self, grounds: Grounds) -> int:
        """Say where an answer stands among equally valid ones, by `preference`; the smallest is reported."""
        return self.preference

    def facts(self, question: Question, options: GroupOptions) -> dict[str, Any]:
        """Give what of the options a verdict rests on, for its sidecar."""
        return {}

    @abstractmethod
    def judge(self, grounds: Grounds) -> Judgement:
        """Say whether the p values of an answer can be taken at their word.

        What is about the participants and not about the strategy (dropout, skewness, few participants) is added by
        `group.verdict`.

        Returns
        -------
        Judgement
            `yes`, `conditional` or `no`, with a reason that ends with a full stop.
        """

    @abstractmethod
    def methods(self, options: GroupOptions, work: GroupWork) -> tuple[str, tuple[str, ...]]:
        """Describe the strategy for a methods section, as far as `work` says that it was done.

        Returns
        -------
        text : str
            Sentences with `{cite}` where the works are to be cited.
        works : tuple of str
            Keys of `report/references.bib`.
        """

    @abstractmethod
    def plan(self, layout: MapLayout, question: Question, options: GroupOptions) -> Plan:
        """Make the strategy ready.

        Raises
        ------
        NotEstimableError
            If this design cannot answer the question; the message is a sentence for the report.
        """


def assumptions_table(strategies: Mapping[str, Strategy]) -> list[dict[str, str]]:
    """Set out what strategies, by the heading of their column, assume: one row per assumption."""
    return [
        {
            "assumed of": words,
            **{heading: getattr(strategy.assumptions, row) for heading, strategy in strategies.items()},
        }
        for row, words in ASSUMED.items()
    ]
