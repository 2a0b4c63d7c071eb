"""The pictures of one contrast at the group level: maps on anatomy, where strategies differ, sessions at the peaks."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import numpy as np
from numpy.typing import NDArray

from sessionfx.group.clusters import places_of
from sessionfx.group.findings import ContrastFindings
from sessionfx.group.peaks import effect_names, peaks_of
from sessionfx.group.results import Answer, Peak, QuestionResults, common_z
from sessionfx.group.stack import MapStack
from sessionfx.group.strategies.base import Question
from sessionfx.report.brain import canvas_for, template
from sessionfx.report.canvas import MAP_CAPTION, MOST_OF_EFFECTS, Canvas, Scale
from sessionfx.report.charts import SessionPanel, draw_agreement, draw_design_matrix, draw_distribution, draw_sessions
from sessionfx.report.style import Picture
from sessionfx.report.viewer import ViewerMap
from sessionfx.statistics.estimates import Estimate
from sessionfx.wording import where_text, z_text

# Both, only the answer to report, only the other one: they differ in grey by their outlines (none, black, white)
BOTH, ONLY_FIRST, ONLY_OTHER = "#1b7837", "#56B4E9", "#E69F00"
_FEWEST_FOR_RELIABILITY = 5
ICC_TITLES = {"icc31": "ICC(3,1)", "icc1": "ICC(1)"}
_ICC_CAPTIONS = {
    "icc31": "How consistently participants differ once the sessions' own means are taken out: 1 is perfect, 0 is "
    "none.",
    "icc1": "Reliability of one session of one participant; differences between sessions count as error. Regions where "
    "the mean is suprathreshold were chosen from the same data, and favour voxels in which participants differ little.",
}
_PARTIAL = " The green line is around voxels that some maps lack, which --min-coverage 1 would not show."


@dataclass(frozen=True)
class ShownMap:
    """A picture that the reader chooses by strategy and kind."""

    strategy: str
    kind: str
    picture: Picture


@dataclass(frozen=True)
class Difference:
    """Where the answer to report and another one are suprathreshold."""

    other: Answer
    both: int
    only_first: int
    only_other: int
    picture: Picture | None  # None where neither is anywhere


class ContrastPictures:
    """Draws what is found for one first-level contrast.

    Parameters
    ----------
    found : ContrastFindings
    """

    def __init__(self, found: ContrastFindings) -> None:
        self._found, self.stack = found, found.stack
        space = found.analysis.selection.entities.get("space") or ""
        self.anatomy = template() if space.startswith("MNI") else None
        self.designs: dict[Any, Picture] = {}

    @cached_property
    def _whole(self) -> Canvas | None:
        return canvas_for(self.stack.space, self.stack.mask, self.anatomy)

    @property
    def partial(self) -> NDArray[np.bool_] | None:
        """Answered voxels that some maps lack, where there are any."""
        complete = self.stack.complete
        return None if complete is self.stack else self.stack.mask & ~complete.mask

    def coverage(self) -> Picture | None:
        """Draw how many maps have each feature."""
        stack = self.stack
        n_maps = int(stack.coverage.max())
        somewhere = canvas_for(stack.space, stack.coverage > 0, self.anatomy)
        if somewhere is None:
            return None
        return somewhere.draw_map(
            stack.coverage, Scale(vmax=n_maps, unit="maps", two_sided=False),
            f"How many maps cover the {stack.space.features}",
            f"How many maps have each {stack.space.feature}. {somewhere.form}"
            + ("Strategies are compared where every map has data." if stack.complete is stack
               else f"Answered where at least {100 * stack.min_coverage:g} % of the maps have data."),
        )  # fmt: skip

    def reliability(self) -> list[Picture]:
        """Draw the intraclass correlations, where there are enough participants for a map of them."""
        reliability, canvas = self._found.reliability, self._whole
        are_few = len(self.stack.layout.unique_participants) < _FEWEST_FOR_RELIABILITY
        if canvas is None or reliability is None or are_few:
            return []
        return [
            canvas.draw_map(
                _volume(self.stack.core, reliability.maps[name]), Scale(vmax=1.0, unit="ICC"), f"Map of {title}",
                canvas.form + _ICC_CAPTIONS[name],
            )
            for name, title in ICC_TITLES.items()
        ]  # fmt: skip


class QuestionPictures:
    """Draws the answers to one question: one scale for all, and cuts through the peaks of the one to report."""

    def __init__(self, question: QuestionResults, contrast: ContrastPictures) -> None:
        stack, self._question = contrast.stack, question
        self._text = question.question.text
        self._names = effect_names(stack.layout, question.question)
        self.peaks = peaks_of(question, stack)
        self._answered = question.answers
        self._first = question.shown_first
        heights = [float(peak.place["z"]) for peak in self.peaks if "z" in peak.place]
        if self._first is not None:
            heights += [place["z"] for place in places_of(self._first.clusters) if "z" in place]
        self._canvas = canvas_for(stack.space, stack.mask, contrast.anatomy, heights)
        self._partial = contrast.partial
        self._designs = contrast.designs

    @cached_property
    def _z_scale(self) -> Scale:
        """One scale for all answers: it ends at the largest value of those that can be trusted."""
        judged = self._question.verdict.strategies
        trusted = [answer for answer in self._answered if judged[answer.name].valid != "no"] or self._answered
        maps = [answer.stat_map for answer in trusted]
        return Scale.of(
            [stat_map.estimate.z for stat_map in maps], "z", [answer.threshold for answer in self._answered],
            two_sided=all(stat_map.estimate.two_sided for stat_map in maps),
        )  # fmt: skip

    def maps(self) -> Iterator[ShownMap]:
        """Draw z, effect and difference from the answer to report, of every answer; that one comes first."""
        canvas = self._canvas
        if canvas is None:
            return
        found = [answer.stat_map.estimate for answer in self._answered]
        effects = [estimate.effect for estimate in found if isinstance(estimate, Estimate)]
        effect_scale = Scale.of(effects, self._question.question.units, share=MOST_OF_EFFECTS)
        differences = {answer.name: self._difference_of_z(answer) for answer in self._answered}
        difference_scale = Scale.of([found[np.isfinite(found)] for found in differences.values()], "difference of z")
        for answer in sorted(self._answered, key=lambda answer: answer is not self._first):
            stat_map, heading = answer.stat_map, f"{answer.title}, {self._text}"
            outlines = MAP_CAPTION if np.isfinite(answer.threshold) else "No voxel passes the threshold: all is faint."
            caption = canvas.form + outlines + (_PARTIAL if self._partial is not None else "")
            z = canvas.draw_map(
                stat_map.volume(stat_map.estimate.z),
                self._z_scale.with_threshold(answer.threshold, stat_map.estimate.z),
                f"z map, {heading}", caption, outlined=self._partial,
            )  # fmt: skip
            yield ShownMap(answer.name, "z", z)
            if isinstance(stat_map.estimate, Estimate):
                effect = stat_map.volume(stat_map.estimate.effect)
                drawn = canvas.draw_map(effect, effect_scale, f"Effect map, {heading}", canvas.form)
                yield ShownMap(answer.name, "effect", drawn)
            if self._first is not None and answer is not self._first:
                words = f"z of {self._first.title} minus z of {answer.title}, {self._text}"
                drawn = canvas.draw_map(differences[answer.name], difference_scale, words, f"{canvas.form}{words}.")
                yield ShownMap(answer.name, "difference", drawn)

    def _difference_of_z(self, answer: Answer) -> NDArray[np.float64]:
        first, other = (self._first or answer).stat_map, answer.stat_map
        return first.volume(first.estimate.z) - other.volume(other.estimate.z)

    def differences(self) -> Iterator[Difference]:
        """Draw where the answer to report and each other one are suprathreshold: both, only one."""
        if self._first is None or self._canvas is None:
            return
        first = self._first.where_suprathreshold
        for answer in self._answered:
            if answer is self._first:
                continue
            other = answer.where_suprathreshold
            both, only_first, only_other = first & other, first & ~other, other & ~first
            picture = None
            if first.any() or other.any():
                picture = self._canvas.draw_regions(
                    [(both, BOTH), (only_first, ONLY_FIRST), (only_other, ONLY_OTHER)],
                    f"Where {self._first.title} and {answer.title} are suprathreshold, {self._text}",
                )
            yield Difference(answer, int(both.sum()), int(only_first.sum()), int(only_other.sum()), picture)

    def sessions(self) -> Picture | None:
        """Draw the effect of each session at the peaks, a line per participant."""
        if not self.peaks or len(self._names) < 2:
            return None
        # in two lines where parts of the brain have names
        panels = [
            session_panel(
                peak, where_text(peak.place, "") + (": " if set(peak.place) == set("xyz") else "\n"),
                self._question.question,
            )
            for peak in self.peaks
        ]  # fmt: skip
        title = "At the peaks" if self.peaks[0].is_suprathreshold else "At the peak (not suprathreshold)"
        question = self._question.question
        return draw_sessions(
            panels, self._names, unit=question.effect_units, title=title, unit_of_estimate=question.units
        )

    def equivalence(self) -> Picture | None:
        """Draw where the answer to report is equivalent to zero."""
        best = self._first
        if best is None or best.equivalence is None or self._canvas is None:
            return None
        tests = best.equivalence
        scale = Scale.of([tests.z.clip(min=0)], "z", [tests.threshold], two_sided=False)
        return self._canvas.draw_map(
            best.stat_map.volume(tests.z.clip(min=0)), scale.with_threshold(tests.threshold, tests.z),
            f"{best.title}, {self._text}: equivalence to zero within ±{tests.bound:g}",
            f"{self._canvas.form}z of the larger p of the two one-sided tests; outlined where it passes the threshold.",
        )  # fmt: skip

    def distribution(self) -> Picture | None:
        """Draw histograms of z."""
        values = {answer.title: answer.stat_map.estimate.z for answer in self._answered}
        return draw_distribution(values, title=f"Distribution of z, {self._text}") if values else None

    def agreement(self) -> list[Picture]:
        """Draw the pairs that strategies ask for, or else the first choice against each other; a table has them all."""
        pairs = [
            (pair.a, pair.b, pair.agreement)
            for pair in self._question.pairs
            if pair.agreement is not None and isinstance(pair.a, Answer) and isinstance(pair.b, Answer)
        ]
        asked = [(a, b, agreement) for a, b, agreement in pairs if b.name in a.strategy.compared_with]
        return [
            draw_agreement(
                *common_z(a, b), label_a=a.title, label_b=b.title, agreement=agreement,
                thresholds=(a.threshold, b.threshold), title=f"{a.title} – {b.title}, {self._text}",
            )
            for a, b, agreement in asked or [pair for pair in pairs if self._first in pair]
        ]  # fmt: skip

    def design(self, answer: Answer) -> Picture:
        """Draw the group design of an answer; questions often share it."""
        design = answer.plan.design_matrix
        key = answer.title, tuple(design.columns), tuple(design.index), design.to_numpy().tobytes()
        if key not in self._designs:
            self._designs[key] = draw_design_matrix(design, title=f"{answer.title}: design", row_label="observation")
        return self._designs[key]

    def for_viewer(self) -> list[ViewerMap]:
        """Give the z maps of all answers to the viewer, with the colours of the pictures."""
        if self._canvas is None:
            return []
        return [
            ViewerMap(
                key=f"{self._question.question.label} {answer.name}", session_contrast=self._text,
                strategy=answer.title, values=answer.stat_map.volume(answer.stat_map.estimate.z),
                threshold=answer.threshold, vmax=self._z_scale.vmax,
            )
            for answer in sorted(self._answered, key=lambda answer: answer is not self._first)
        ]  # fmt: skip


def session_panel(peak: Peak, where: str, question: Question) -> SessionPanel:
    """Show the sessions at a peak, or in a region, which `where` names."""
    return SessionPanel(
        f"{where}z = {z_text(peak.z)}", peak.effects, {} if peak.estimate is None else {question.text: peak.estimate},
        None if question.group.label else peak.sessions,
    )  # fmt: skip


def _volume(stack: MapStack, values: NDArray[np.float64]) -> NDArray[np.float64]:
    volume = np.full(stack.space.shape, np.nan)
    volume[stack.mask] = values
    return volume
