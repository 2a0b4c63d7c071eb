"""Finding and reading the meshes of surfaces: files of a dataset, of TemplateFlow and FreeSurfer, and nilearn's wheel.

Nothing is fetched. Of several kinds the one is taken in which distances are those of the cortex: midthickness, or the
mean of white and pial. Spheres and inflated surfaces are for pictures.
"""

from __future__ import annotations

import gzip
import os
from collections.abc import Iterator, Mapping, Sequence
from importlib.resources import files
from pathlib import Path

import nibabel as nib
import numpy as np
from nibabel.freesurfer.io import read_geometry

from sessionfx.bids.dataset import subfolders
from sessionfx.bids.names import parse_name
from sessionfx.bids.reading import list_folder
from sessionfx.bids.surfaces import contents_of
from sessionfx.errors import ParticipantError
from sessionfx.space.mesh import Mesh
from sessionfx.space.space import Space
from sessionfx.space.surface import HEMISPHERES

# Files of each hemisphere, L or R; of several the coordinates are averaged
MeshFiles = Mapping[str, tuple[Path, ...]]
NO_MESHES: MeshFiles = {}
# The surface of a hemisphere in a place, by hemisphere and kind
_Found = Mapping[tuple[str, str], Path]

# Kinds of surfaces that measure the cortex, the best first, by the suffixes of files, which are averaged
_CORTEX = (("midthickness",), ("graymid",), ("white", "pial"), ("smoothwm",), ("white",), ("pial",))
# TemplateFlow calls FreeSurfer's templates by their density
_TEMPLATES = {"fsaverage4": "3k", "fsaverage5": "10k", "fsaverage6": "41k", "fsaverage": "164k"}
# The surfaces of grayordinates, by the density of both together
_OF_GRAYORDINATES = {"91k": "32k", "170k": "59k"}
_WHEEL_NAMES = {"inflated": "infl"}


def find_meshes(entities: Mapping[str, str | None], roots: Sequence[Path], participant: str | None = None) -> MeshFiles:
    """Find the surfaces of both hemispheres in a space.

    Looked for are, in this order: a participant's own, those of the datasets, TemplateFlow's on this machine,
    FreeSurfer's that fMRIPrep copied, and fsaverage5 of nilearn's wheel.

    Parameters
    ----------
    entities : mapping of str to str or None
        `space` and, where it has one, `den`; `hemi` where one hemisphere is enough.
    roots : sequence of Path
        Derivative datasets.
    participant : str, optional
        Label; only their own surfaces are in fsnative.

    Returns
    -------
    mapping of str to tuple of Path
        Empty where there is none.
    """
    space, density = _template(entities)
    wanted = [label for label in HEMISPHERES if label == (entities.get("hemi") or label)]
    for found in _places(space, density, roots, participant):
        for kind in _CORTEX:
            if all((label, suffix) in found for label in wanted for suffix in kind):
                return {label: tuple(found[label, suffix] for suffix in kind) for label in wanted}
    return {}


def _places(space: str, density: str | None, roots: Sequence[Path], participant: str | None) -> Iterator[_Found]:
    if participant is not None:
        for root in roots:
            own = root / f"sub-{participant}"
            sessions = [own / name for name in subfolders(own) if name.startswith("ses-")]
            for folder in (own, *sessions):
                yield _gifti(folder / "anat", space, density)
            if space == "fsnative":
                yield _freesurfer(root / "sourcedata" / "freesurfer" / own.name)
    if space == "fsnative":
        return
    home = Path(os.environ.get("TEMPLATEFLOW_HOME") or os.path.expanduser("~/.cache/templateflow"))  # noqa: PTH111 - there may be no home
    for root in (*roots, home):
        for folder in (root, root / f"tpl-{space}", root / "tpl-fsaverage"):
            yield _gifti(folder, space, density)
    for root in roots:
        yield _freesurfer(root / "sourcedata" / "freesurfer" / space)
    if space == "fsaverage5" or (space, density) == ("fsaverage", _TEMPLATES["fsaverage5"]):
        yield fsaverage5_files()


def _gifti(folder: Path, space: str, density: str | None) -> _Found:
    """Find the surfaces of a space in a folder; of two of a kind the one without a description."""
    alike = {(space, density), (space, None)}
    if space in _TEMPLATES:
        alike.add(("fsaverage", density))
    found: dict[tuple[str, str], tuple[bool, Path]] = {}
    for entry in list_folder(folder):
        parsed = parse_name(entry.name) if entry.name.endswith(".surf.gii") else None
        if parsed is None or not Path(entry.path).exists() or not entry.stat().st_size:  # TemplateFlow's placeholders
            continue
        own = parsed.entities.get("space") or parsed.entities.get("tpl") or "fsnative"
        key = parsed.entities.get("hemi", ""), parsed.suffix
        described = "desc" in parsed.entities
        if (own, parsed.entities.get("den")) in alike and (key not in found or found[key][0] > described):
            found[key] = described, Path(entry.path)
    return {key: path for key, (_, path) in found.items()}


def _freesurfer(subject: Path) -> _Found:
    """Find the surfaces of one of FreeSurfer's subjects."""
    names = {entry.name for entry in list_folder(subject / "surf")}
    return {
        (label, name[3:]): subject / "surf" / name
        for label in HEMISPHERES
        for name in names
        if name.startswith(f"{label.lower()}h.")
    }


def fsaverage5_files() -> _Found:
    """Name the surfaces of fsaverage5 in nilearn's wheel: white, pial, inflated, flat and sphere."""
    folder = Path(str(files("nilearn").joinpath("datasets", "data", "fsaverage5")))
    return {
        (label, suffix): folder / f"{_WHEEL_NAMES.get(suffix, suffix)}_{side}.gii.gz"
        for label, side in HEMISPHERES.items()
        for suffix in ("white", "pial", "inflated", "flat", "sphere")
    }


def with_meshes(space: Space, found: MeshFiles) -> Space:
    """Give a space the meshes of files.

    Raises
    ------
    ParticipantError
        If a file cannot be read, or has other vertices than the space.
    """
    return space.with_meshes(read_meshes(found))


def read_meshes(found: MeshFiles) -> dict[str, Mesh]:
    """Read the meshes of hemispheres."""
    return {label: read_mesh(paths) for label, paths in found.items()}


def mesh_beside(mesh: Mesh, kind: str) -> Mesh | None:
    """Read the surface of another kind that a dataset has beside the file of a mesh; None where there is none.

    Raises
    ------
    ParticipantError
        If it cannot be read.
    """
    name = mesh.sources[0].name
    start, _, suffix = name.rpartition("_") if name.endswith(".surf.gii") else name.rpartition(".")
    path = mesh.sources[0].with_name(f"{start}_{kind}.surf.gii" if name.endswith(".surf.gii") else f"{start}.{kind}")
    if not suffix or not path.is_file():
        return None
    other = read_mesh((path,))
    return other if len(other.coordinates) == len(mesh.coordinates) else None


def read_mesh(paths: tuple[Path, ...]) -> Mesh:
    """Read the mesh of a hemisphere; of several surfaces, which have the same triangles, the mean.

    Raises
    ------
    ParticipantError
        If a file cannot be read, or holds something else, or the surfaces do not belong together.
    """
    surfaces = [_read(path) for path in paths]
    first = surfaces[0]
    if any(not np.array_equal(first.triangles, other.triangles) for other in surfaces[1:]):
        raise ParticipantError(f"{paths[0]} and {paths[1]} have other triangles. Remake them.")
    return Mesh(np.mean([surface.coordinates for surface in surfaces], axis=0), first.triangles, paths)


def _read(path: Path) -> Mesh:
    with contents_of(path):
        if path.name.endswith((".gii", ".gii.gz")):
            content = path.read_bytes()
            image = nib.GiftiImage.from_bytes(gzip.decompress(content) if path.suffix == ".gz" else content)
            coordinates, triangles = (
                image.agg_data(intent) for intent in ("NIFTI_INTENT_POINTSET", "NIFTI_INTENT_TRIANGLE")
            )
        else:
            coordinates, triangles = read_geometry(path)
        coordinates, triangles = np.asarray(coordinates, dtype=np.float64), np.asarray(triangles)
    is_mesh = coordinates.ndim == triangles.ndim == 2 and coordinates.shape[1:] == triangles.shape[1:] == (3,)
    if (
        not is_mesh
        or triangles.dtype.kind not in "iu"
        or not 0 <= triangles.min() <= triangles.max() < len(coordinates)
    ):
        raise ParticipantError(f"{path} holds no mesh of vertices and triangles. Provide another file.")
    return Mesh(coordinates, triangles)


def missing_mesh(entities: Mapping[str, str | None]) -> str:
    """Say that a mesh is missing, and which files provide it; the start of the first sentence is left to the caller."""
    space, density = _template(entities)
    of_density = f"_den-{density}" if density else ""
    start = f"no mesh of {space} is there. Put "
    if space == "fsnative":
        return f"{start}the participants' own, sub-…_hemi-L_midthickness.surf.gii and that of hemi-R, into their anat/."
    template = "fsaverage" if space in _TEMPLATES else space
    return (
        f"{start}hemi-L_space-{space}{'' if space in _TEMPLATES else of_density}_midthickness.surf.gii and that of "
        "hemi-R into the folder of the derivatives, or name with TEMPLATEFLOW_HOME the folder that has "
        f"tpl-{template}/tpl-{template}_hemi-L{of_density}_midthickness.surf.gii."
    )


def _template(entities: Mapping[str, str | None]) -> tuple[str, str | None]:
    """Name a space and the density of its meshes, where it has several."""
    space, density = entities.get("space") or "native", entities.get("den")
    if space in _TEMPLATES:
        return space, density or _TEMPLATES[space]
    return space, _OF_GRAYORDINATES.get(density or "", density) or ("32k" if space == "fsLR" else None)
