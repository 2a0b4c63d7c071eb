"""Files and options that are refused rarely: each refusal names the file, or the option, and the remedy."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import nibabel as nib
import numpy as np
import pytest
from nibabel.cifti2 import Cifti2Image, ParcelsAxis, ScalarAxis

from bids_trees import EVENTS, make_tree, preproc, run_name, select
from sessionfx.bids.atlas import read_atlases
from sessionfx.bids.images import DifferentGridError, open_image
from sessionfx.bids.stat_maps import read_map
from sessionfx.errors import CommandLineError, SessionFXError
from sessionfx.models.applying import plan_of
from sessionfx.options import Options
from sessionfx.options.groups import Selection
from sessionfx.participant.events import conditions_in
from sessionfx.participant.regressors import with_regressors
from sessionfx.space.grayordinates import Grayordinates
from surfaces import brain_models


def _volume_of_freesurfer(folder: Path) -> None:
    path = folder / "brain.mgz"
    nib.save(nib.MGHImage(np.ones((2, 2, 2), dtype=np.float32), np.eye(4)), path)
    open_image(path)


def _dense_scalars(path: Path, n_maps: int) -> Path:
    models = brain_models()
    values = np.ones((n_maps, len(models)), dtype=np.float32)
    nib.save(Cifti2Image(values, (ScalarAxis([f"map {n}" for n in range(n_maps)]), models)), path)
    return path


def _two_maps(folder: Path) -> None:
    read_map(_dense_scalars(folder / "two.dscalar.nii", 2))


def _other_grayordinates(folder: Path) -> None:
    path = _dense_scalars(folder / "one.dscalar.nii", 1)
    read_map(path, Grayordinates(brain_models()[:-1]), "owner.dscalar.nii")


def _parcels(folder: Path) -> None:
    path = folder / "parcels.dscalar.nii"
    parcels = ParcelsAxis(
        ["one"], [np.zeros((0, 3), dtype=int)], [{"CIFTI_STRUCTURE_CORTEX_LEFT": np.arange(3)}],
        nvertices={"CIFTI_STRUCTURE_CORTEX_LEFT": 10},
    )  # fmt: skip
    nib.save(Cifti2Image(np.ones((1, 1), dtype=np.float32), (ScalarAxis(["map"]), parcels)), path)
    read_map(path)


def _no_event(folder: Path) -> None:
    path = folder / "events.tsv"
    path.write_text(EVENTS.partition("\n")[0] + "\n")
    conditions_in(path)


def _tables_without_atlas(folder: Path) -> None:
    read_atlases((), (folder / "labels.tsv",))


def _end_of_no_model(folder: Path) -> None:
    plan_of(
        Options(
            bids_dir=folder,
            output_dir=folder / "out",
            levels=("participant",),
            selection=Selection(model_node="subject"),
        )
    )


def _no_regressors(folder: Path) -> None:
    root = make_tree(folder / "bids", {preproc("01", None): "", f"{run_name('01', None)}_events.tsv": EVENTS})
    with_regressors(select(root), "regressors/sub-{sub}_own.tsv", root)


REFUSED: dict[str, tuple[Callable[[Path], None], type[SessionFXError], str]] = {
    "a volume of FreeSurfer": (_volume_of_freesurfer, SessionFXError, "{}/brain.mgz is no NIfTI image. Convert it"),
    "two maps in a file": (_two_maps, SessionFXError, "{}/two.dscalar.nii holds 2 maps, expected one. Remake the maps"),
    "maps of other grayordinates": (
        _other_grayordinates, DifferentGridError, "owner.dscalar.nii and {}/one.dscalar.nii differ in their space:",
    ),
    "parcels": (_parcels, SessionFXError, "{}/parcels.dscalar.nii has no axis of brain models. Provide a dense series"),
    "an events file without events": (_no_event, SessionFXError, "{}/events.tsv has no event. Fill it in"),
    "more tables than atlases": (_tables_without_atlas, CommandLineError, "--atlas-labels is given 1 times, for 0 --atlas"),
    "a node of no model": (_end_of_no_model, CommandLineError, "--model-node needs --model"),
    "regressors that are not there": (
        _no_regressors, CommandLineError,
        "--regressors 'regressors/sub-{{sub}}_own.tsv' finds no table of any run: sub-01_task-a needs one table of "
        "--regressors, and 0 files are called regressors/sub-01_own.tsv. Patterns begin at BIDS_DIR ({}/bids)",
    ),
}  # fmt: skip


@pytest.mark.parametrize("case", REFUSED)
def test_it_is_refused_by_name_with_the_remedy(tmp_path: Path, case: str) -> None:
    make, kind, sentence = REFUSED[case]
    with pytest.raises(kind) as refused:
        make(tmp_path)
    assert sentence.format(tmp_path) in str(refused.value)
