"""What voxels that some maps lack mean for an answer, in sentences and columns."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from sessionfx.group.clusters import rows_at
from sessionfx.group.core import maps_in_words
from sessionfx.group.results import QuestionResults
from sessionfx.group.stack import MapStack
from sessionfx.space.stat_map import StatMap
from sessionfx.statistics.estimates import Estimate, FTest
from sessionfx.wording import listed

# Of the answered voxels; with fewer the sentence is not worth a reader's time unless something is found there
_NOTABLE_SHARE = 0.01
_NAMED = 6  # maps


def coverage_text(n_voxels: int, n_complete: int, min_coverage: float, features: str) -> str:
    """Say how many voxels (or what features are called) are answered, and how many of them all maps have."""
    if n_complete == n_voxels:
        return f"All strategies are compared on the {n_voxels:,} {features} that every map has."
    return (
        f"All strategies are compared on the {n_voxels:,} {features} that at least {100 * min_coverage:g} % of the "
        "maps have, each with the design of those who have it. "
        + (
            f"What is said of assumptions, reliability, influence and calibrated rates is of the {n_complete:,} that "
            "every map has."
            if n_complete
            else "None of them is in every map."
        )
    )


def core_text(stack: MapStack) -> str:
    """Say from which maps is learned what holds for all voxels; empty where it is all of them."""
    if stack.learns_from_all:
        return ""
    core, (left_out, names) = stack.core, _outside_core(stack)
    n_maps = len(stack.layout.participants)
    return (
        f"No voxel is in all {n_maps} maps. What holds for all voxels (working correlation, evidence, reliability, "
        f"calibration, influence) is learned from {n_maps - len(left_out)} maps at the {core.n_voxels:,} voxels that "
        f"they share; not from {listed(names, most=_NAMED)}."
    )


def _outside_core(stack: MapStack) -> tuple[NDArray[np.intp], list[str]]:
    """Find the maps that are not learned from, and their names."""
    rows = np.setdiff1d(np.arange(len(stack.layout.participants)), stack.core_rows)
    return rows, maps_in_words(stack.layout, rows)


def with_participants(clusters: pd.DataFrame, stat_map: StatMap[Estimate | FTest]) -> pd.DataFrame:
    """Add to a table of clusters how many participants the peaks rest on, where that differs between voxels."""
    n = stat_map.estimate.n
    if n is None or clusters.empty:
        return clusters
    rows, inside = rows_at(clusters, stat_map)  # the middle of a flat top may lie beside the mask
    at_peaks = [int(n[row]) if is_inside else None for row, is_inside in zip(rows, inside, strict=True)]
    return clusters.assign(Participants=pd.array(at_peaks, "Int64"))


def _of_those_above(n_partial: int, n_above: int) -> str:
    """End the sentence with how many of the suprathreshold voxels some maps lack."""
    if not n_above:
        return "."
    if n_partial:
        return f", and so {'does' if n_partial == 1 else 'do'} {n_partial:,} of {n_above:,} suprathreshold ones."
    return f", none of the {n_above:,} suprathreshold ones." if n_above > 1 else ", not the suprathreshold one."


def with_coverage(results: QuestionResults, stack: MapStack) -> QuestionResults:
    """Add to a verdict how far the answer to report rests on voxels that some maps lack.

    Parameters
    ----------
    results : QuestionResults
    stack : MapStack
        That was answered.
    """
    best = results.best
    if best is None or best.stat_map.estimate.n is None:
        return results
    n, above = best.stat_map.estimate.n, best.is_suprathreshold
    answered = best.stat_map.mask
    is_partial, n_maps = ~stack.complete.mask[answered], stack.coverage[answered]
    n_partial, n_above, both = int(is_partial.sum()), int(above.sum()), int((is_partial & above).sum())
    facts: dict[str, Any] = {
        "AnsweredVoxels": len(n), "AnsweredVoxelsThatEveryMapHas": len(n) - n_partial,
        "SuprathresholdVoxelsThatSomeMapsLack": both,
        "SmallestNumberOfParticipantsAtAVoxel": int(n.min()),
        "SmallestNumberOfMapsAtAVoxel": int(n_maps.min()),
    }  # fmt: skip
    if not stack.learns_from_all:
        facts |= {
            "MapsLearnedFrom": len(stack.core.layout.participants), "VoxelsLearnedFrom": stack.core.n_voxels,
            "MapsNotLearnedFrom": _outside_core(stack)[1],
        }  # fmt: skip
    text = results.verdict.text
    n_left = stack.n_voxels - len(n)
    if n_left:
        facts["VoxelsOfEnoughMapsThatAreNotAnswered"] = n_left
        voxels, them = ("1 voxel", "it") if n_left == 1 else (f"{n_left:,} voxels", "them")
        text += f" Not answered, though enough maps have {them}: {voxels}, where who is left cannot tell what is asked."
    if both or n_partial >= _NOTABLE_SHARE * len(n):
        text += f" {n_partial:,} of {len(n):,} voxels {'rests' if n_partial == 1 else 'rest'} on fewer maps"
        fewest = [f"{int(n_maps.min()):,} of {stack.stored.n_rows:,} maps"]
        if n.min() < n.max():
            fewest.append(f"{int(n.min()):,} of {int(n.max()):,} participants")
        text += f" (the fewest: {', '.join(fewest)})"
        text += _of_those_above(both, n_above)
        if n_above and n[best.peak] < n.max():
            text += f" The peak has {int(n[best.peak])} participants."
    text = " ".join(filter(None, [text, core_text(stack)]))
    return replace(results, verdict=replace(results.verdict, text=text, facts={**results.verdict.facts, **facts}))
