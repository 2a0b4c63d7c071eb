"""The table of the clusters of a map, as nilearn's `get_clusters_table` gives it, without a pass over the brain each.

nilearn filters and labels the whole volume once per cluster, which took most of the time of a group analysis. Here
all peaks of all clusters are found together, among their voxels alone; columns, numbers and their order are nilearn's
(0.14), also where it has its own way: clusters of negative values are numbered after the rows of the positive ones, and
a peak is kept where it is further than the distance from the last one kept. Beside them the effect at each peak has its
interval.
"""

from __future__ import annotations

from collections.abc import Mapping
from itertools import product
from string import ascii_lowercase
from typing import Any

import numpy as np
import pandas as pd
from nibabel.affines import apply_affine, voxel_sizes
from numpy.typing import NDArray
from scipy import ndimage
from scipy.sparse.csgraph import dijkstra

from sessionfx.group.neighbours import clusters_in
from sessionfx.space.grid import Grid
from sessionfx.space.space import Space
from sessionfx.space.stat_map import StatMap
from sessionfx.statistics.estimates import Estimate
from sessionfx.statistics.intervals import interval

SIZES = {"mm²": "Cluster Size (mm2)", "mm³": "Cluster Size (mm3)"}
INTERVAL_COLUMNS = ("Effect", "Standard Error", "Effect Lower 95", "Effect Upper 95")
_SHOWN_PEAKS = 4
_PEAK_DISTANCE = 8.0  # mm, nilearn's
_FEWEST_WITH_PEAKS = 3  # features of a cluster with two maxima: what lies between them is lower


def clusters_table(
    volume: NDArray[np.float32],
    affine: NDArray[np.float64],
    threshold: float,
    *,
    minimum_voxels: int = 0,
    two_sided: bool = True,
) -> pd.DataFrame:
    """List the clusters of voxels that touch by faces, with their peaks.

    Parameters
    ----------
    volume : ndarray of float32, 3-D
    affine : ndarray of shape (4, 4)
        From voxels to mm.
    threshold : float
        Above 0; voxels beyond it belong to clusters.
    minimum_voxels : int, default=0
        Smaller clusters are not listed.
    two_sided : bool, default=True
        Whether to list clusters of negative values, too.

    Returns
    -------
    DataFrame
        One row for the peak of each cluster and up to three for further peaks, at least 8 mm apart, with a letter in
        their number and no size; the highest peak comes first.
    """
    voxel_volume = np.prod(voxel_sizes(affine).astype(np.float32))  # as in the header of an image
    rows: list[list[Any]] = []
    for sign in (1, -1) if two_sided else (1,):
        n_before = len(rows)
        values = volume * np.float32(sign)
        # the size is counted with the voxels at the threshold, which the table leaves out
        labels, sizes = _label(values >= threshold)
        values = np.where((sizes >= minimum_voxels)[labels] & (values > threshold), values, np.float32(0))
        labels, sizes = _label(values > 0)
        peaks, highest = _find_peaks(values, labels)
        for order, cluster in enumerate((-highest).argsort() + 1):
            number = n_before + order + 1
            voxels = peaks[cluster - 1]
            heights = values[tuple(voxels.T)]
            descending = (-heights).argsort()
            kept = [descending[index] for index in _apart(apply_affine(affine, voxels[descending]))]
            x, y, z, _ = affine @ np.vstack([voxels[kept].T, np.ones(len(kept))])
            for index, place in enumerate(kept):
                name = f"{number}{ascii_lowercase[index - 1]}" if index else number
                size = "" if index else int(sizes[cluster] * voxel_volume)
                rows.append([name, x[index], y[index], z[index], heights[place] * np.float32(sign), size])
    return pd.DataFrame(rows, columns=cluster_columns(Grid))


def cluster_columns(space: Space | type[Space]) -> list[str]:
    """Name the columns of a table of clusters in a space: what it calls a place has a capital letter."""
    sizes = [column for unit, column in SIZES.items() if unit in space.size_unit]
    return ["Cluster ID", *map(str.capitalize, space.place_keys), "Peak Stat", *sizes]


def mesh_clusters_table(stat_map: StatMap[Any], threshold: float, *, smallest: int = 0) -> pd.DataFrame:
    """List the clusters of features that touch on a mesh, with their peaks; see `Neighbours`.

    Parameters
    ----------
    stat_map : StatMap
        Of no voxel grid.
    threshold : float
        On |z|, or on z for an F test.
    smallest : int, default=0
        Clusters of fewer features are not listed.

    Returns
    -------
    DataFrame
        One row for the peak of each cluster and up to three for further peaks, as in `clusters_table`, more than 8 mm
        from each other on the way along edges of the mesh within the cluster. The highest peak comes first, negative
        ones after all positive ones; empty without a mesh.
    """
    space, z, two_sided = stat_map.space, stat_map.estimate.z, stat_map.estimate.two_sided
    is_on_surface = space.is_on_surface
    places = np.flatnonzero(stat_map.mask)
    sizes = np.ones(len(stat_map.mask)) if space.sizes is None else space.sizes
    rows: list[dict[str, Any]] = []
    n_clusters = 0
    for sign in (1, -1) if two_sided else (1,):
        chosen = np.zeros(len(stat_map.mask), dtype=bool)
        chosen[places[sign * z >= threshold]] = True
        labels = clusters_in(space, chosen)[places]
        order = np.argsort(labels, kind="stable")
        found = np.split(order, np.flatnonzero(np.diff(labels[order])) + 1)[1 if (labels == 0).any() else 0 :]
        for own in sorted(found, key=lambda own: -float((sign * z[own]).max())):
            if len(own) < smallest:
                continue
            n_clusters += 1
            peaks = own[_peaks_on_mesh(space, places[own], sign * z[own])]
            column = SIZES["mm²" if is_on_surface[places[peaks[0]]] else "mm³"]
            size = {column: round(float(sizes[places[own]].sum()), 1)}
            for index, peak in enumerate(peaks):
                name = f"{n_clusters}{ascii_lowercase[index - 1]}" if index else n_clusters
                where = {key.capitalize(): value for key, value in space.place(int(places[peak])).items()}
                rows.append({"Cluster ID": name, **where, "Peak Stat": z[peak], **({} if index else size)})
    table = pd.DataFrame(rows, columns=cluster_columns(space))
    return table.astype({"Vertex": "Int64"})


def _peaks_on_mesh(space: Space, features: NDArray[np.intp], heights: NDArray[np.floating]) -> list[int]:
    """Find the highest of the features of a cluster and up to three further maxima, the highest first."""
    kept = [int(np.argmax(heights))]
    if space.edge_lengths is None or len(features) < _FEWEST_WITH_PEAKS:
        return kept
    graph = space.edge_lengths[features][:, features]
    first, second = graph.nonzero()
    highest_beside = np.full(len(features), -np.inf)
    np.maximum.at(highest_beside, first, heights[second])
    candidates = np.flatnonzero(heights >= highest_beside)
    if len(candidates) == 1:
        return kept
    is_apart = np.isinf(dijkstra(graph, indices=kept[0], limit=_PEAK_DISTANCE))
    for candidate in candidates[np.argsort(-heights[candidates], kind="stable")]:
        if is_apart[candidate] and len(kept) < _SHOWN_PEAKS:
            kept.append(int(candidate))
            is_apart &= np.isinf(dijkstra(graph, indices=candidate, limit=_PEAK_DISTANCE))
    return kept


def numbers_jump(table: pd.DataFrame) -> bool:
    """Whether numbers of clusters are left out, as where sub-peaks of positive ones are counted for negative ones."""
    numbers = table["Cluster ID"].astype(str).str.rstrip(ascii_lowercase).astype(int)
    return bool((numbers.diff() > 1).any())


def with_intervals(table: pd.DataFrame, stat_map: StatMap[Any]) -> pd.DataFrame:
    """Add the effect at each peak, its standard error and the ends of its 95 % interval; an F test has no effect.

    The centre of a flat top may lie outside the mask: its row has none.
    """
    estimate = stat_map.estimate
    if not isinstance(estimate, Estimate):
        return table
    rows, inside = rows_at(table, stat_map)
    effect, variance, dof = (
        np.where(inside, np.broadcast_to(values, estimate.effect.shape)[rows], np.nan)
        for values in (estimate.effect, estimate.variance, estimate.dof)
    )
    columns = (effect, np.sqrt(variance), *interval(effect, variance, dof))
    return table.assign(**dict(zip(INTERVAL_COLUMNS, columns, strict=True)))


def rows_at(table: pd.DataFrame, stat_map: StatMap[Any]) -> tuple[NDArray[np.intp], NDArray[np.bool_]]:
    """Find the values of a map at the peaks of a table, by their numbers, and which peaks are inside its mask."""
    features = np.array([stat_map.space.index_of(place) for place in places_of(table)], dtype=np.intp)
    inside = stat_map.mask.ravel()[features]
    rows = np.searchsorted(np.flatnonzero(stat_map.mask), features)
    return np.where(inside, rows, 0), inside


def places_of(table: pd.DataFrame) -> list[dict[str, Any]]:
    """Say where the peaks of a table are; see `Space.place`."""
    keys = [key for key in ("hemisphere", "structure", "vertex", "x", "y", "z") if key.capitalize() in table]
    return [
        {key: row[key.capitalize()] for key in keys if pd.notna(row[key.capitalize()])}
        for row in table.to_dict("records")
    ]


def sizes_of(row: Mapping[Any, Any]) -> dict[str, Any]:
    """Give the size of a cluster by its unit, from a row of the table; none of a sub-peak."""
    return {unit: row[name] for unit, name in SIZES.items() if name in row and pd.notna(row[name]) and row[name] != ""}


def highest_peaks(table: pd.DataFrame, most: int) -> pd.DataFrame:
    """Take the rows of the clusters with the largest |z|, at most so many, without sub-peaks, which have no size."""
    peaks = table[np.array([bool(sizes_of(row)) for row in table.to_dict("records")], dtype=bool)]
    order = np.argsort(-np.abs(peaks["Peak Stat"].to_numpy(np.float64)), kind="stable")
    return peaks.iloc[order[:most]]


def _label(chosen: NDArray[np.bool_]) -> tuple[NDArray[np.int_], NDArray[np.int_]]:
    """Give numbers to the clusters of voxels that touch by faces, and count the voxels of each; 0 is no cluster."""
    labels, _ = ndimage.label(chosen)
    sizes = np.bincount(labels.ravel())
    sizes[0] = 0
    return labels, sizes


def _find_peaks(
    values: NDArray[np.float32], labels: NDArray[np.int_]
) -> tuple[list[NDArray[np.int_]], NDArray[np.float32]]:
    """Find the local maxima of each cluster, as voxels of shape (n, 3), and its largest value.

    Neighbours that are equally high are one maximum, at their centre or at the voxel of theirs nearest to it.
    """
    maxima, highest = _local_maxima(values, labels)
    spots, n_spots = ndimage.label(maxima)
    where = np.argwhere(maxima)
    spot_of = spots[maxima] - 1
    weights = values[maxima].astype(np.float64)
    total = np.bincount(spot_of, weights, n_spots)
    centres = np.array([np.bincount(spot_of, weights * where[:, axis], n_spots) / total for axis in range(3)]).T
    voxels = np.round(centres).astype(int)
    for spot in np.nonzero(spots[tuple(voxels.T)] != np.arange(1, n_spots + 1))[0]:
        own_voxels = where[spot_of == spot]
        voxels[spot] = own_voxels[np.argmin(np.linalg.norm(own_voxels - voxels[spot], axis=1))]
    cluster_of = labels[tuple(voxels.T)]
    order = np.argsort(cluster_of, kind="stable")
    return np.split(voxels[order], np.searchsorted(cluster_of[order], np.arange(2, len(highest) + 1))), highest


def _local_maxima(
    values: NDArray[np.float32], labels: NDArray[np.int_]
) -> tuple[NDArray[np.bool_], NDArray[np.float32]]:
    """Find the voxels that none of their cluster's own among 26 neighbours exceeds, and each cluster's largest value.

    All clusters are looked at together: a filter of each one's box takes longer where there are many.
    """
    padded, owners = np.pad(values, 1), np.pad(labels, 1, constant_values=-1)  # -1 is outside the volume
    voxels = np.flatnonzero(owners > 0)
    own, owner = padded.ravel()[voxels], owners.ravel()[voxels]
    _, rows, planes = padded.shape
    top, bottom = own.copy(), own.copy()
    for step in product((-1, 0, 1), repeat=3):
        beside = voxels + np.dot(step, (rows * planes, planes, 1))
        of = owners.ravel()[beside]
        height = np.where(of == owner, padded.ravel()[beside], np.float32(0))
        np.maximum(top, height, out=top)
        np.minimum(bottom, height, out=bottom, where=of >= 0)
    n_clusters = int(owner.max(initial=0))
    highest, lowest = np.zeros(n_clusters, np.float32), np.full(n_clusters, np.inf, np.float32)
    np.maximum.at(highest, owner - 1, own)
    np.minimum.at(lowest, owner - 1, own)
    # what is flat all around is no maximum, but in a cluster that is flat as a whole
    found = (own == top) & ((top > bottom) | np.isclose(highest, lowest)[owner - 1])
    maxima = np.zeros(padded.shape, dtype=bool)
    maxima.ravel()[voxels[found]] = True
    return maxima[1:-1, 1:-1, 1:-1], highest


def _apart(places: NDArray[np.float64]) -> list[int]:
    """Choose the first peaks, each further than the distance from the one chosen before it."""
    kept = [0]
    for index in range(1, len(places)):
        if len(kept) == _SHOWN_PEAKS:
            break
        if np.linalg.norm(places[kept[-1]] - places[index]) > _PEAK_DISTANCE:
            kept.append(index)
    return kept
