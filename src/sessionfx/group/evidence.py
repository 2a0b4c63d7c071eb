"""What the data say about the assumptions of the strategies, and test–retest reliability, block by block."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import partial
from typing import Any, Protocol

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from sessionfx.execution import MapOrdered
from sessionfx.group.judgement import Evidence
from sessionfx.group.neighbours import clusters_in
from sessionfx.group.participant_evidence import DropoutCheck, Looked, ValueCheck, voxel_step
from sessionfx.group.results import Answer, Reliability, StrategyResult
from sessionfx.group.stack import MapStack
from sessionfx.group.strategies.base import MapLayout
from sessionfx.group.strategies.blocks import as_block
from sessionfx.group.strategies.designs import session_differences
from sessionfx.space.stat_map import position
from sessionfx.statistics.linear_algebra import is_estimable, pseudo_inverse
from sessionfx.statistics.multivariate import expected_epsilon, greenhouse_geisser, residual_covariance
from sessionfx.statistics.participant_variance import ParticipantSpectrum, participant_spectrum
from sessionfx.statistics.random_intercept import MixedContrast, estimate_mixed, spectral_contrast
from sessionfx.statistics.reliability import variance_components
from sessionfx.statistics.thresholds import suprathreshold

LISTED_REGIONS = 20
# Quartiles of fewer voxels say nothing
SMALLEST_REGION = 5
_SIGNIFICANT = 0.05  # two-sided
# Of a block: see `DropoutCheck.look` and `ValueCheck.look`
Sample = tuple[tuple[NDArray[np.float64] | None, ...] | None, tuple[Looked, ...]]
_QUANTITIES = ("icc1", "icc31", "between", "within")


class Pooling(Protocol):
    """What sums something up over all voxels."""

    def pooled_sums(self, effects: NDArray[np.floating]) -> NDArray[np.float64]:
        """Sum up some voxels of maps of shape (N, V); the sums of blocks add up."""


def gather(
    stack: MapStack,
    sessions: Sequence[str],
    plans: Sequence[Pooling],
    map_ordered: MapOrdered,
    checks: Mapping[str, ValueCheck] | None = None,
) -> tuple[Evidence, dict[str, NDArray[np.float64]], list[NDArray[np.float64]]]:
    """Go through the maps once, also for what plans must know of all voxels.

    Parameters
    ----------
    stack : MapStack
    sessions : sequence of str
        Study sessions.
    plans : sequence of Pooling
        Plans that pool, and what else is to be summed up.
    map_ordered : callable
        Who applies a function to the blocks; the results are the same whoever does.
    checks : mapping of str to ValueCheck, optional
        What to look at of each question, by its label.

    Returns
    -------
    evidence : Evidence
    maps : dict of str to ndarray of shape (V,)
        `icc1`, `icc31`, `between`, `within`; empty where they cannot be told apart, and for an F test over conditions,
        whose rows count as so many more voxels.
    sums : list of ndarray
        Of each plan's `pooled_sums` over all voxels.
    """
    layout = stack.layout
    there = [session for session in sessions or ("",) if session in layout.sessions]
    checks = checks or {}
    inquiry = _Inquiry.of(
        layout, there, tuple(checks.values()),
        voxel_step(stack.n_voxels * stack.n_rows, len(layout.unique_participants)),
    )  # fmt: skip
    looked: list[Sample] = []
    parts: dict[str, list[NDArray[np.float64]]] = {}
    covariance = np.zeros((len(there), len(there)))
    n_varying = 0
    sums: list[NDArray[np.float64]] = []
    # of studies so large that blocks are narrower than the step, some blocks have no voxel that is looked at
    every = max(1, inquiry.step // max(block.stop - block.start for block in stack.blocks))
    brief = replace(inquiry, dropout=None, checks=())
    both = partial(look, (brief, inquiry), tuple(plans))
    blocks = (
        (number % every == 0, *stack.handed_out(block, with_variances=False)[:1])
        for number, block in enumerate(stack.blocks)
    )
    # added one after the other, so that the last bit does not depend on who computed the parts
    for number, (found, products, n_voxels, of_plans, sample) in enumerate(map_ordered(both, blocks)):
        for name, part in found.items():
            parts.setdefault(name, []).append(part)
        covariance += products
        n_varying += n_voxels
        if number % every == 0:
            looked.append(sample)
        sums = [total + of_block for total, of_block in zip(sums, of_plans, strict=True)] if sums else of_plans
    maps = {name: np.concatenate(part) for name, part in parts.items()}
    evidence = Evidence(
        icc1=_over_voxels(maps.get("icc1")),
        icc31=_over_voxels(maps.get("icc31")),
        icc31_active=None,
        epsilon=_over_voxels(maps.get("epsilon")),
        epsilon_expected=expected_epsilon(len(there) - 1, len(inquiry.complete) - 1) if inquiry.has_epsilon else None,
        n_complete=len(inquiry.complete),
        missingness=_over_voxels(maps.get("missingness"), np.nanmean),
        covariance=_covariance_matrix(covariance, inquiry.pairs, n_varying),
        dropout=DropoutCheck.found([dropout for dropout, _ in looked if dropout is not None])
        if inquiry.dropout
        else None,
        values={
            label: evidence
            for (label, check), parts in zip(checks.items(), zip(*(of for _, of in looked), strict=True), strict=True)
            if (evidence := check.found(parts)) is not None
        },
    )
    return evidence, {name: maps[name] for name in _QUANTITIES if name in maps and stack.n_rows == 1}, sums


def with_active_regions(
    evidence: Evidence, maps: dict[str, NDArray[np.float64]], stack: MapStack, mean: StrategyResult | None
) -> Evidence:
    """Add the reliability where the session mean is suprathreshold: there it matters to the strategies."""
    if not maps or not isinstance(mean, Answer):
        return evidence
    return replace(evidence, icc31_active=_over_voxels(maps["icc31"][mean.where_suprathreshold[stack.mask]]))


def summarise_reliability(
    maps: dict[str, NDArray[np.float64]], stack: MapStack, mean: StrategyResult | None, smallest_cluster: int
) -> Reliability | None:
    """Summarise reliability in the mask and in each region in which the session mean is suprathreshold.

    Parameters
    ----------
    maps : dict of str to ndarray of shape (V,)
        From `gather`.
    stack : MapStack
    mean : StrategyResult or None
        The answer for the mean over sessions, with its threshold.
    smallest_cluster : int
        Regions with fewer voxels, or fewer than five, are not listed.

    Returns
    -------
    Reliability or None
        None without maps.
    """
    if not maps:
        return None
    nowhere = dict.fromkeys(stack.space.place_keys, np.nan)
    regions: list[tuple[dict[str, Any], NDArray[np.bool_]]] = [
        ({"region": f"all {stack.space.features}", **nowhere}, np.ones(stack.n_voxels, dtype=bool))
    ]
    if isinstance(mean, Answer):
        mean_map = mean.stat_map
        z = np.nan_to_num(mean_map.volume(mean_map.estimate.z))
        found = []
        for sign, words in ((1, "positive"), (-1, "negative")):
            labels = clusters_in(stack.space, sign * z >= mean.threshold)[stack.mask]
            sizes = np.bincount(labels)
            sizes[0] = 0
            for label in np.nonzero(sizes >= max(smallest_cluster, SMALLEST_REGION))[0]:
                region = labels == label
                peak = int(np.argmax(np.where(region, sign * z[stack.mask], -np.inf)))
                where = position(stack.mask, stack.space, peak)
                found.append((int(sizes[label]), {"region": f"mean {words}", **where}, region))
        found.sort(key=lambda region: -region[0])
        active = suprathreshold(z[stack.mask], mean.threshold)
        if active.any():
            regions.append(({"region": "mean beyond threshold", **nowhere}, active))
        regions += [(described, region) for _, described, region in found[:LISTED_REGIONS]]
    rows = []
    for described, region in regions:
        row = {**described, f"n_{stack.space.features}": int(region.sum())}
        for quantity, values in maps.items():
            inside = values[region]
            inside = inside[np.isfinite(inside)]
            quartiles = np.percentile(inside, [25, 50, 75]) if inside.size else [np.nan] * 3
            names = (f"{quantity}_q25", f"{quantity}_median", f"{quantity}_q75")
            row |= dict(zip(names, map(float, quartiles), strict=True))
        rows.append(row)
    summary = pd.DataFrame(rows)
    return Reliability(maps, summary.astype({"vertex": "Int64"}) if "vertex" in summary else summary)


def _spectrum(design: NDArray[np.float64], layout: MapLayout) -> ParticipantSpectrum | None:
    if len(layout.unique_participants) < 2:
        return None
    try:
        spectrum = participant_spectrum(design, layout.participants)
    except ValueError:
        return None
    return spectrum if spectrum.separates and spectrum.eigenvalues[0] == 0 else None


def _missed_sessions(layout: MapLayout, cells: NDArray[np.float64]) -> tuple[ParticipantSpectrum, MixedContrast] | None:
    """Ask how the effect depends on the number of sessions that a participant missed, given the sessions' means.

    A random intercept gives participants with fewer maps less weight: their means vary more, and a correlation with
    them would be found too often.
    """
    missed = {label: float(cells.shape[1] - len(layout.rows_of(label))) for label in layout.unique_participants}
    design = np.column_stack([cells, [missed[label] for label in layout.participants]])
    contrast = np.append(np.zeros(cells.shape[1]), 1.0)
    if len(missed) < 4 or len(set(missed.values())) < 2 or not is_estimable(design, contrast):
        return None
    spectrum = _spectrum(design, layout)
    return None if spectrum is None else (spectrum, spectral_contrast(spectrum, contrast))


def _over_voxels(
    values: NDArray[np.float64] | None, of: Callable[[NDArray[np.float64]], Any] = np.nanmedian
) -> float | None:
    """Summarise values over voxels; None where there are none."""
    return None if values is None or not np.isfinite(values).any() else float(of(values))


@dataclass(frozen=True)
class _Inquiry:
    """What is asked of every block."""

    cells: NDArray[np.float64]  # (N, S): ones where a map is of a session
    # with one mean and with one per session; empty where participants and sessions cannot be told apart
    spectra: tuple[ParticipantSpectrum, ...]
    complete: NDArray[np.int_]  # (n, S)
    missed: tuple[ParticipantSpectrum, MixedContrast] | None
    # for two sessions the rows of the participants who have both
    pairs: dict[tuple[int, int], tuple[list[int], list[int]]]
    dropout: DropoutCheck | None
    checks: tuple[ValueCheck, ...]
    step: int  # of so many voxels one is looked at by the last two

    @classmethod
    def of(cls, layout: MapLayout, sessions: Sequence[str], checks: tuple[ValueCheck, ...], step: int) -> _Inquiry:
        cells = layout.session_columns(sessions)
        spectra = [_spectrum(np.ones((len(cells), 1)), layout), _spectrum(cells, layout)]
        rows = [layout.rows_of(label) for label in layout.unique_participants]
        pairs = {}
        for a, first in enumerate(sessions):
            for b, second in enumerate(sessions[a:], a):
                both = [own for own in rows if first in own and second in own]
                pairs[a, b] = ([own[first] for own in both], [own[second] for own in both])
        known = tuple(spectrum for spectrum in spectra if spectrum is not None)
        return cls(
            cells=cells,
            spectra=known if len(known) == len(spectra) else (),
            complete=layout.complete_rows(sessions),
            missed=_missed_sessions(layout, cells),
            pairs=pairs if len(sessions) > 1 else {},
            dropout=DropoutCheck.of(layout, cells),
            checks=checks,
            step=step,
        )

    @property
    def has_epsilon(self) -> bool:
        """With fewer participants than sessions the covariance is singular, and ε cannot reach 1 whatever the truth."""
        return bool(2 < self.complete.shape[1] <= len(self.complete))


def look(
    inquiries: tuple[_Inquiry, _Inquiry], plans: Sequence[Pooling], is_sample: bool, effects: NDArray[np.floating]
) -> tuple[dict[str, NDArray[np.float64]], NDArray[np.float64], int, list[NDArray[np.float64]], Sample]:
    """Look at a block, by the second inquiry if it is in the sample; a function of a module travels to other processes.

    Returns
    -------
    found : dict of str to ndarray of shape (v,)
    products : ndarray of shape (S, S)
        Sums over participants and voxels of the products of two sessions, at voxels scaled to equal mean variance.
    n_varying : int
        These voxels.
    sums : list of ndarray
        Of the plans.
    sample : (dropout or None, tuple of Looked)
    """
    inquiry, whole = inquiries[is_sample], as_block(effects)
    values = side_by_side(whole, len(inquiry.cells))
    found: dict[str, NDArray[np.float64]] = {}
    if inquiry.spectra:
        pooled, adjusted = (variance_components(spectrum, values) for spectrum in inquiry.spectra)
        found = {"icc1": pooled.icc, "icc31": adjusted.icc, "between": adjusted.between, "within": adjusted.within}
    if inquiry.has_epsilon:
        differences = session_differences(values, inquiry.complete)
        ones = np.ones((len(inquiry.complete), 1))
        found["epsilon"] = greenhouse_geisser(residual_covariance(differences, ones))
    if inquiry.missed is not None:
        estimate, _ = estimate_mixed(*inquiry.missed, values)
        p = 2 * np.minimum(estimate.p, 1 - estimate.p)
        found["missingness"] = np.where(estimate.is_determined, p < _SIGNIFICANT, np.nan)
    some = np.ascontiguousarray(values[:, :: inquiry.step])
    sample = (
        inquiry.dropout.look(some) if inquiry.dropout else None,
        tuple(check.look(some) for check in inquiry.checks),
    )
    return found, *_covariance_products(inquiry, values), [plan.pooled_sums(whole) for plan in plans], sample


def side_by_side(effects: NDArray[np.float64], n_maps: int) -> NDArray[np.float64]:
    """Put the R rows of an F test over conditions, of shape (R N, V), beside each other: (N, R V)."""
    if len(effects) == n_maps:
        return effects
    return np.ascontiguousarray(np.concatenate(np.split(effects, len(effects) // n_maps), axis=1))


def _covariance_products(inquiry: _Inquiry, values: NDArray[np.float64]) -> tuple[NDArray[np.float64], int]:
    cells = inquiry.cells
    products = np.zeros((cells.shape[1], cells.shape[1]))
    if not inquiry.pairs:
        return products, 0
    residuals = values - cells @ (pseudo_inverse(cells) @ values)
    scale = np.einsum("nv,nv->v", residuals, residuals) / max(len(values) - cells.shape[1], 1)
    varies = scale > 0
    weights = np.divide(1.0, scale, where=varies, out=np.zeros_like(scale))
    for (a, b), (first, second) in inquiry.pairs.items():
        if first:
            products[a, b] = weights @ np.einsum("nv,nv->v", residuals[first], residuals[second])
    return products, int(varies.sum())


def _covariance_matrix(
    products: NDArray[np.float64], pairs: Mapping[tuple[int, int], tuple[list[int], list[int]]], n_voxels: int
) -> NDArray[np.float64] | None:
    """Make the estimate positive semidefinite; pairs of sessions that nobody has both take the mean covariance."""
    counts = np.zeros_like(products)
    for (a, b), (first, _) in pairs.items():
        counts[a, b] = len(first)
    if not n_voxels or (np.diag(counts) < 2).any():
        return None
    found = np.divide(products, (counts - 1) * n_voxels, where=counts > 1, out=np.full_like(products, np.nan))
    upper = np.triu_indices(len(found), 1)
    if np.isnan(found[upper]).all():
        return None
    found[upper] = np.where(np.isnan(found[upper]), np.nanmean(found[upper]), found[upper])
    symmetric = np.triu(found) + np.triu(found, 1).T
    eigenvalues, vectors = np.linalg.eigh(symmetric)
    return np.asarray((vectors * np.maximum(eigenvalues, 0.0)) @ vectors.T)
