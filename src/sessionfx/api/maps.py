"""The maps of sessions, loaded as a stack."""

from __future__ import annotations

import json
import os
from collections.abc import Mapping, Sequence
from contextlib import ExitStack
from dataclasses import replace
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import TYPE_CHECKING, Any
from weakref import finalize

import pandas as pd

from sessionfx.api.images import StatImages, mask_image
from sessionfx.api.sources import image_file, read_options, table_file, within
from sessionfx.api.surfaces import MeshLike, meshes_of
from sessionfx.ask.covariates import Covariates
from sessionfx.bids.dataset import derivative_folders
from sessionfx.bids.first_level_maps import (
    FirstLevelMap,
    FoundMaps,
    MapSelection,
    find_first_level_maps,
    select_maps,
    select_tasks,
)
from sessionfx.bids.meshes import find_meshes, read_meshes
from sessionfx.bids.names import strip_prefix
from sessionfx.bids.stat_maps import sidecar_path
from sessionfx.errors import CommandLineError, LevelError
from sessionfx.execution import available_processors
from sessionfx.group.stack import MapStack, attendance, layout_of, open_stack
from sessionfx.group.study import DEFAULT_COVERAGE, ContrastStudy
from sessionfx.options import GroupModel, Selection
from sessionfx.space.mesh import Mesh
from sessionfx.wording import listed

if TYPE_CHECKING:
    from sessionfx.api.images import MapImage

_OF_MAPS = ("participant", "session", "effect", "variance", "estimate")
_CONTRAST = "maps"  # of a table, which names none


class SessionMaps:
    """The maps of one contrast, of participants and sessions, made by `load_session_maps`.

    Their values are in a temporary file while the object lives, not in memory.

    Attributes
    ----------
    contrast : str
        Label of the first-level contrast.
    sessions : tuple of str
        In time order.
    table : DataFrame
        One row per map: `participant`, `session` and the files `effect` and `variance`; of an F test over conditions
        those of all its rows.
    warnings : tuple of str
        What a reader should know of maps and order.

    Examples
    --------
    >>> import sessionfx, numpy as np, pandas as pd
    >>> from nibabel import Nifti1Image
    >>> rng = np.random.default_rng(0)
    >>> rows = [(label, session, Nifti1Image(rng.normal(size=(3, 3, 3)), np.eye(4)))
    ...         for label in ("01", "02", "03") for session in ("pre", "post")]
    >>> table = pd.DataFrame(rows, columns=["participant", "session", "effect"])
    >>> maps = sessionfx.load_session_maps(table, session_label=["pre", "post"])
    >>> maps, maps.sessions, int(maps.mask.get_fdata().sum())
    (SessionMaps of 3 participants, sessions pre, post, ('pre', 'post'), 27)
    """

    def __init__(
        self,
        selection: MapSelection,
        contrast: str,
        raw: Path,
        folder: TemporaryDirectory[str],
        min_coverage: float | None,
        meshes: Mapping[str, Mesh],
    ) -> None:
        self._meshes = meshes
        self._selection = selection
        self._min_coverage = min_coverage
        self._raw = raw
        self._folder = folder
        self._opened: dict[tuple[Any, ...], MapStack] = {}
        self._files = ExitStack()
        self._files.enter_context(folder)
        finalize(self, self._files.close)
        self.contrast = contrast
        self.sessions = selection.sessions
        self.warnings = selection.warnings
        maps = selection.maps[contrast]
        self.table = pd.DataFrame(
            [(row.participant, row.session, row.effect, row.variance) for found in maps for row in found.of_rows],
            columns=["participant", "session", "effect", "variance"],
        )

    def __repr__(self) -> str:
        n, sessions = self.table["participant"].nunique(), f", sessions {', '.join(self.sessions)}"
        return f"SessionMaps of {n} participants{sessions if self.sessions else ''}"

    @property
    def mask(self) -> MapImage:
        """Voxels or vertices that enough of the maps have: 1, elsewhere 0."""
        with within(Path(self._folder.name)):
            stack = self._open(self._selection.maps[self.contrast], self._min_coverage or DEFAULT_COVERAGE)
        return mask_image(stack.mask, stack.space)

    def _stack(self, study: ContrastStudy) -> MapStack:
        """Give the maps that enter a study, with its covariates."""
        share = self._min_coverage or study.min_coverage
        stack = self._open(study.maps, share, needs_variances=study.analysis.needs_variances)
        return replace(stack, layout=layout_of(study.maps, study.covariates, study.analysis.times))

    def _open(self, maps: Sequence[FirstLevelMap], min_coverage: float, *, needs_variances: bool = False) -> MapStack:
        """Read maps once, with variances where all have them."""
        needs_variances = needs_variances or all(found.variance is not None for found in maps)
        key = min_coverage, needs_variances, *(row.key for found in maps for row in found.of_rows)
        if key not in self._opened:
            stack = self._files.enter_context(
                open_stack(
                    maps,
                    Covariates.none(attendance(maps)),
                    Path(self._folder.name),
                    needs_variances=needs_variances,
                    n_threads=available_processors(),
                    min_coverage=min_coverage,
                )
            )
            self._opened[key] = replace(stack, space=stack.space.with_meshes(self._meshes))
        return self._opened[key]


def load_session_maps(
    source: pd.DataFrame | str | os.PathLike[str],
    contrast: str | None = None,
    *,
    bids_dir: str | os.PathLike[str] | None = None,
    participant_label: Sequence[str] = (),
    session_label: Sequence[str] = (),
    task: str | None = None,
    space: str | None = None,
    res: str | None = None,
    den: str | None = None,
    hemi: str | None = None,
    mesh: MeshLike | None = None,
    min_coverage: float | None = None,
) -> SessionMaps:
    """Load effect maps of sessions, with their variances where there are any.

    Parameters
    ----------
    source : path or DataFrame
        The output folder of the program, or of another one whose maps `--derivatives` takes. Or a table, one row per
        map: `participant`, `session` (not needed where there are none), and `effect` and `variance` (if there are
        any) as images or paths, those of surfaces as in `fit_run`, or `estimate` as StatImages. Further columns are
        covariates.
    contrast : str, optional
        Label or expression of the first-level contrast, or an F test, `F:NAME = a; b`; not needed where there is one.
    bids_dir : path, optional
        The raw dataset, with covariates and times of sessions; a table may have them itself.
    participant_label : sequence of str, optional
        Those who enter.
    session_label : sequence of str, optional
        Sessions that enter, in time order where nothing else tells it.
    task, space, res, den, hemi : str, optional
        Which maps of the folder, where there are several.
    mesh : PolyMesh, or dict of str to path, optional
        Surface of each hemisphere, which images of results have: by default that of the first SurfaceImage, or the one
        that the command line finds.
    min_coverage : float, optional
        Share of the maps that a voxel needs to be answered, as `--min-coverage`.

    Returns
    -------
    SessionMaps

    Raises
    ------
    SessionFXError
        If there are no such maps, two of one participant and session, or the table lacks a column.

    Examples
    --------
    >>> import sessionfx, numpy as np, pandas as pd
    >>> from nibabel import Nifti1Image
    >>> rng = np.random.default_rng(0)
    >>> rows = [(label, session, Nifti1Image(rng.normal(size=(3, 3, 3)), np.eye(4)), 20 + int(label))
    ...         for label in ("01", "02", "03") for session in ("1", "2")]
    >>> maps = sessionfx.load_session_maps(pd.DataFrame(rows, columns=["participant", "session", "effect", "age"]))
    >>> sessionfx.estimate(maps, "ses-2 - ses-1", group_contrast="age", covariates=["age"]).units
    "percent signal change per unit of 'age'"
    """
    folder = TemporaryDirectory(prefix="sessionfx-")
    asked = read_options(participant_label=participant_label, session_label=session_label, space=space, res=res,
                         den=den, hemi=hemi, task=None if task is None else [task])  # fmt: skip
    wanted = Selection(**asked)
    least = GroupModel(**read_options(min_coverage=min_coverage)).min_coverage
    with within(Path(folder.name)):
        raw = Path(folder.name) / "bids" if bids_dir is None else Path(bids_dir)
        if isinstance(source, pd.DataFrame):
            found = FoundMaps(tuple(_written(source, Path(folder.name), Path(folder.name) / "bids")), {})
            selection = select_maps(found, wanted, [], [], raw)
            meshes = _meshes_of_table(source, mesh)
        else:
            selection = _in_folder(Path(source), contrast, wanted, raw)
            roots = [Path(source).absolute(), *derivative_folders(raw)]
            found_meshes = find_meshes(selection.entities, roots) if _is_on_surface(selection) else {}
            meshes = read_meshes(found_meshes) if mesh is None else meshes_of(None, mesh)
        if len(selection.maps) > 1:
            raise CommandLineError(f"There are maps of several contrasts: {listed(selection.maps)}. Name one.")
    (label,) = selection.maps
    return SessionMaps(selection, contrast or label if label == _CONTRAST else label, raw, folder, least, meshes)


def _is_on_surface(selection: MapSelection) -> bool:
    return any(found.is_on_surface for maps in selection.maps.values() for found in maps)


def _meshes_of_table(table: pd.DataFrame, mesh: MeshLike | None) -> Mapping[str, Mesh]:
    """Give the meshes of the first map: all maps are of one space."""
    if mesh is None and "estimate" in table:
        estimate = table["estimate"].iloc[0]
        return estimate._stat_map.space.meshes if isinstance(estimate, StatImages) else {}
    return meshes_of(table["effect"].iloc[0] if mesh is None else None, mesh)


def _in_folder(folder: Path, contrast: str | None, wanted: Selection, raw: Path) -> MapSelection:
    """Choose the maps of a folder."""
    if not folder.is_dir():
        raise LevelError(f"There is no folder {folder}. Correct the path; a table of maps is given as a DataFrame.")
    wanted = wanted if contrast is None else replace(wanted, contrast=(contrast,))
    selections, _ = select_tasks(find_first_level_maps([folder.absolute()]), wanted, [folder], raw)
    if len(selections) > 1:
        tasks = listed(str(selection.entities["task"]) for selection in selections)
        raise CommandLineError(f"There are maps of several tasks: {tasks}. Name one.")
    (chosen,) = selections
    # an F test over conditions comes beside its rows
    return replace(chosen, maps={label: chosen.maps[label] for label in chosen.f_tests or chosen.maps})


def _written(table: pd.DataFrame, folder: Path, raw: Path) -> list[FirstLevelMap]:
    """Write what a table holds in memory, covariates as the tables of a raw dataset."""
    columns = list(table.columns)
    if "participant" not in columns or not {"effect", "estimate"} & {*columns}:
        raise CommandLineError(
            f"The table of maps has the columns {listed(map(str, columns))}; it needs 'participant' and 'effect' (or "
            "'estimate'), and 'session' and 'variance' if there are any."
        )
    labels = {"participant": "sub", "session": "ses"}
    table = table.assign(
        **{
            name: [strip_prefix(str(label), key) for label in table[name]]
            for name, key in labels.items()
            if name in table
        }
    )
    read_options(participant_label=list(table["participant"]), session_label=list(table.get("session", ())))
    _write_covariates(table, raw)
    found = []
    for number, row in enumerate(table.to_dict("records")):
        entities = {"sub": row["participant"], "contrast": _CONTRAST, "stat": "effect"}
        entities |= {"ses": row["session"]} if "session" in row else {}
        given: dict[Any, Any] = {**row}
        estimate = row.get("estimate")
        if isinstance(estimate, StatImages):
            given |= estimate._files(folder, f"{number}")
        variance = given.get("variance")
        found.append(
            FirstLevelMap(
                entities,
                folder,
                str(image_file(given["effect"], folder, f"effect_{number}")),
                "" if variance is None else str(image_file(variance, folder, f"variance_{number}")),
            )
        )
        if isinstance(estimate, StatImages):
            sidecar_path(found[-1].effect_files[0]).write_text(json.dumps({"Units": estimate.units}), encoding="utf-8")
    return found


def _write_covariates(table: pd.DataFrame, raw: Path) -> None:
    """Write covariates: of sessions for each participant, and of participants those that are the same in all."""
    names = [name for name in table.columns if name not in _OF_MAPS]
    by_participant = table.groupby("participant", sort=False)
    constant = [name for name in names if by_participant[name].nunique(dropna=False).max() == 1]
    raw.mkdir()
    of_participants = by_participant[constant].first(skipna=False).rename_axis("participant_id").reset_index()
    table_file(of_participants, raw, "participants")
    for label, rows in by_participant if "session" in table else ():
        own = raw / f"sub-{label}"
        own.mkdir()
        table_file(rows[["session", *names]].rename(columns={"session": "session_id"}), own, f"sub-{label}_sessions")
