"""Maps are read once, in threads, into a file of blocks, and what is computed from them does not depend on how."""

from __future__ import annotations

import gzip
import json
import os
import pickle
import shutil
import struct
import subprocess
import sys
from collections import Counter
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from pathlib import Path

import nibabel as nib
import numpy as np
import pytest
from numpy.typing import NDArray

from array_maps import blocks_of
from group_study import GroupStudy, make_study
from sessionfx.ask.covariates import Covariates
from sessionfx.bids.first_level_maps import FirstLevelMap, find_first_level_maps
from sessionfx.cli import main
from sessionfx.errors import LevelError, OutputError
from sessionfx.execution import in_threads
from sessionfx.group.stack import attendance, open_stack
from sessionfx.group.store import BlockStore, scratch_file
from sessionfx.group.strategies.blocks import VOXELS_PER_BLOCK, as_block, block_width

# In threads -------------------------------------------------------------------------------------------------


def wait_and_square(number: int) -> int:
    """Earlier items take longer."""
    for _ in range(2000 * (20 - number)):
        pass
    if number == 13:
        raise ValueError("thirteen")
    return number**2


@pytest.mark.parametrize("n_threads", [1, 2, 5])
def test_results_of_threads_come_in_the_items_order(n_threads: int) -> None:
    assert list(in_threads(n_threads, wait_and_square, ((number,) for number in range(12)))) == [
        number**2 for number in range(12)
    ]


@pytest.mark.parametrize("n_threads", [1, 4])
def test_the_first_failing_item_is_raised_and_items_are_taken_as_needed(n_threads: int) -> None:
    taken = []

    def items() -> object:
        for number in range(10, 10_000):
            taken.append(number)
            yield (min(number, 20),)

    results = in_threads(n_threads, wait_and_square, items())  # type: ignore[arg-type]
    assert [next(results) for _ in range(3)] == [100, 121, 144]
    with pytest.raises(ValueError, match="thirteen"):
        next(results)
    assert len(taken) <= 4 + n_threads + 1


# The file of blocks -----------------------------------------------------------------------------------------


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
@pytest.mark.parametrize(("n_columns", "width"), [(1, 4), (4, 4), (23, 4), (23, 100)])
def test_blocks_hold_what_rows_were_written(
    dtype: type[np.floating], n_columns: int, width: int, tmp_path: Path
) -> None:
    rows = np.random.default_rng(0).normal(size=(9, n_columns)).astype(dtype)
    with scratch_file(tmp_path) as file:
        assert list(tmp_path.iterdir()) == []  # the file has no name that could be left behind
        store = BlockStore(file, tmp_path, *rows.shape, width, dtype)
        with ThreadPoolExecutor(3) as pool:
            list(pool.map(store.write, (7, 3, 0), (rows[7:], rows[3:7], rows[:3])))
        assert [block.stop - block.start for block in store.blocks[:-1]] == [width] * (len(store.blocks) - 1)
        for block in store.blocks:
            found = store.read(block)
            assert found.dtype == dtype
            assert found.flags.c_contiguous
            np.testing.assert_array_equal(found, rows[:, block])
        assert os.fstat(file.fileno()).st_size == rows.nbytes


@pytest.mark.parametrize("sizes", [(23,), (4, 4, 15), (1, 0, 9, 3, 10), (20, 3)])
def test_columns_that_come_in_any_parts_are_stored_in_blocks(sizes: tuple[int, ...], tmp_path: Path) -> None:
    values = np.random.default_rng(0).normal(size=(9, 23)).astype(np.float32)
    parts = np.split(values, np.cumsum(sizes)[:-1], axis=1)
    with scratch_file(tmp_path, is_shared=True) as file:
        store = BlockStore.of_columns(file, tmp_path, parts, 23, 4)
        store.share()
        elsewhere = pickle.loads(pickle.dumps(store))  # noqa: S301
        assert (elsewhere.shape, elsewhere.dtype) == (values.shape, values.dtype)
        np.testing.assert_array_equal(np.hstack([elsewhere.read(block) for block in elsewhere.blocks]), values)
    assert not list(tmp_path.iterdir())


def test_a_file_that_was_cut_off_is_an_error_and_no_zeros(tmp_path: Path) -> None:
    with scratch_file(tmp_path) as file:
        store = BlockStore(file, tmp_path, 2, 5, 5)
        store.write(0, np.ones((1, 5)))
        with pytest.raises(OutputError, match="cannot hold the maps"):
            store.read(store.blocks[0])


def test_more_maps_make_smaller_blocks_so_that_memory_stays() -> None:
    assert block_width(3) == VOXELS_PER_BLOCK
    for n_maps in (60, 300, 1200, 3000):
        assert n_maps * block_width(n_maps) <= 2**18
        blocks = blocks_of(n_maps, 20_000)
        assert [voxel for block in blocks for voxel in range(block.start, block.stop)] == list(range(20_000))


# The stack --------------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def study(tmp_path_factory: pytest.TempPathFactory) -> GroupStudy:
    """Five participants with different masks, so that blocks lose different voxels; read only."""
    study = make_study(tmp_path_factory.mktemp("stack"), n_participants=5, shape=(30, 30, 30))
    rng = np.random.default_rng(3)
    for (participant, session), effect in list(study.effects.items()):
        holes = rng.random(effect.shape) < 0.02
        holes[: int(participant)] = True
        variance = np.where(holes, 0.0, study.variances[participant, session])
        study.write(participant, session, np.where(holes, 0.0, effect), variance)
    return study


def stacked(maps: list[FirstLevelMap], folder: Path, n_threads: int) -> tuple[NDArray, NDArray, NDArray, type]:
    """Effects and variances of all blocks as one, the mask, and the type they are kept in."""
    with open_stack(
        maps, Covariates.none(attendance(maps)), folder, needs_variances=True, n_threads=n_threads
    ) as stack:
        effects = [stack.effects(block) for block in stack.blocks]
        variances = [stack.variances(block) for block in stack.blocks]
        assert all(values.flags.c_contiguous for values in (*effects, *variances))
        return np.hstack(effects), np.hstack(variances), stack.mask, stack.stored.dtype.type


@pytest.mark.slow
@pytest.mark.parametrize("n_threads", [1, 3])
def test_the_stack_holds_every_map_at_the_common_voxels(study: GroupStudy, n_threads: int, tmp_path: Path) -> None:
    effects, variances, mask, kept = stacked(study.first_level_maps, tmp_path, n_threads)
    common = np.all([study.variances[key] > 0 for key in study.keys], axis=0)
    np.testing.assert_array_equal(mask, common)
    np.testing.assert_array_equal(effects, [study.effects[key][common] for key in study.keys])
    np.testing.assert_array_equal(variances, [study.variances[key][common] for key in study.keys])
    assert kept == np.float64


@pytest.mark.parametrize("precise", [None, 0, 7])
def test_single_precision_is_kept_only_where_no_digit_is_lost(precise: int | None, tmp_path: Path) -> None:
    """Also where a later map is the first one with more digits."""
    study = make_study(tmp_path / "study", n_participants=4)
    for number, key in enumerate(study.keys):
        effect, variance = study.effects[key], study.variances[key].astype(np.float32)
        study.write(*key, effect if number == precise else effect.astype(np.float32), variance)
    effects, _, _, kept = stacked(study.first_level_maps, tmp_path, 2)
    np.testing.assert_array_equal(effects, study.stacked)
    assert kept == (np.float32 if precise is None else np.float64)


@pytest.mark.parametrize("n_threads", [1, 3])
def test_of_several_damaged_maps_the_first_is_named(n_threads: int, tmp_path: Path) -> None:
    study = make_study(tmp_path / "study", n_participants=4, missing=())
    for participant, session in (("02", "02"), ("02", "03"), ("04", "01")):
        path = study.map_path(participant, session)
        path.write_bytes(path.read_bytes()[:200])
    with pytest.raises(LevelError, match=r"sub-02_ses-02.*leave sub-02 out"):
        stacked(study.first_level_maps, tmp_path, n_threads)


def test_effects_of_different_units_are_not_averaged(tmp_path: Path) -> None:
    study = make_study(tmp_path / "study", n_participants=4, missing=())
    for (participant, session), units in {
        ("01", "02"): "percent signal change",
        ("03", "01"): "arbitrary units",
    }.items():
        path = Path(str(study.map_path(participant, session)).replace(".nii.gz", ".json"))
        path.write_text(json.dumps({**json.loads(path.read_text()), "Units": units}))
    with pytest.raises(
        LevelError, match=r"sub-03_ses-01.* is in arbitrary units, but .*sub-01_ses-02.* one --signal-sc"
    ):
        stacked(study.first_level_maps, tmp_path, 2)


# The program ------------------------------------------------------------------------------------------------


def run_group(study: GroupStudy, output: Path, n_processes: int, *options: str) -> dict[str, bytes]:
    command = [str(study.raw), str(output), "group", "-d", str(study.maps), "--nprocs", str(n_processes)]
    assert main([*command, "--no-report", *options]) == 0
    return {path.name: path.read_bytes() for path in (output / "group").iterdir() if path.is_file()}


@pytest.mark.slow
def test_any_number_of_processes_gives_the_same_bytes(study: GroupStudy, tmp_path: Path) -> None:
    """With several blocks, strategies that pool, missing sessions, covariates and variances."""
    options = ("--covariates", "age", "--fixed-effects", "precision")
    assert len(blocks_of(len(study.keys), 30**3)) > 1
    alone, together = (run_group(study, tmp_path / str(n), n, *options) for n in (1, 3))
    assert len(alone) > 50
    assert alone == together


OPENED = """
import json, sys
opened = []
def note(event, arguments):
    if event == 'open' and isinstance(arguments[0], str) and sys.argv[-1] in arguments[0]:
        opened.append(arguments[0])
sys.addaudithook(note)
from pathlib import Path
from sessionfx.cli import main
from sessionfx.bids.images import read_volume
read_volume(next(Path(sys.argv[-1]).parent.rglob("*.nii.gz")))
once = len(opened)
opened.clear()
code = main(sys.argv[1:-1])
print(json.dumps([once, opened]))
sys.exit(code)
"""


@pytest.mark.slow
def test_every_map_and_sidecar_is_read_once(study: GroupStudy, tmp_path: Path) -> None:
    """For four session contrasts by all default strategies; the first map's sidecar also tells the units, and is a pattern."""
    command = [study.raw, tmp_path / "out", "group", "-d", study.maps, "--nprocs", "2", "--no-report"]
    for asked in ("mean", "ses-02 - ses-01", "linear", "any"):
        command += ["--session-contrast", asked]
    done = subprocess.run(
        [sys.executable, "-c", OPENED, *map(str, command), str(study.maps / "sub-")],
        capture_output=True, text=True, timeout=600,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    of_one_reading, opened = json.loads(done.stdout)
    counts = Counter(opened)
    images = {str(path) for path in study.maps.rglob("*.nii.gz")}
    assert {counts[name] for name in images} == {of_one_reading}
    pattern = str(study.map_path(*study.keys[0])).replace(".nii.gz", ".json")
    assert {counts[name] for name in set(counts) - images - {pattern}} == {1}
    assert counts[pattern] == 3


@pytest.mark.slow
def test_files_of_single_precision_give_the_maps_of_equal_files_of_double_precision(tmp_path: Path) -> None:
    """What is kept in single precision is computed in double precision."""
    found = {}
    for dtype in (np.float32, np.float64):
        study = make_study(tmp_path / dtype.__name__, n_participants=6)
        for key in study.keys:
            single = [maps[key].astype(np.float32).astype(dtype) for maps in (study.effects, study.variances)]
            study.write(*key, single[0], single[1])
        run_group(study, tmp_path / dtype.__name__ / "out", 1)
        maps = sorted((tmp_path / dtype.__name__ / "out" / "group").glob("*_statmap.nii.gz"))
        found[dtype] = {path.name: np.asarray(nib.load(path).dataobj) for path in maps}
    assert len(found[np.float32]) > 30
    for name, values in found[np.float32].items():
        np.testing.assert_array_equal(values, found[np.float64][name])


@pytest.mark.parametrize("claimed", [(32767, 32767, 32767), (-30, 30, 30), (31, 30, 30)])
def test_a_map_that_claims_another_size_is_refused_before_it_is_read(
    claimed: tuple[int, int, int], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    study = make_study(tmp_path, n_participants=3)
    path = study.map_path(*study.keys[-1])
    content = bytearray(gzip.decompress(path.read_bytes()))
    struct.pack_into("<3h", content, 42, *claimed)
    path.write_bytes(gzip.compress(bytes(content)))
    command = [str(study.raw), str(tmp_path / "out"), "group", "-d", str(study.maps), "--no-report", "--nprocs", "1"]
    assert main([*command, "--session-contrast", "mean"]) == 17
    error = capsys.readouterr().err
    assert str(path) in error
    assert "--participant-label" in error
    assert error.count("\n") == 1


@pytest.mark.parametrize("is_kept", [False, True])
def test_who_is_elsewhere_reads_blocks_from_the_file(study: GroupStudy, is_kept: bool, tmp_path: Path) -> None:
    maps = find_first_level_maps([study.maps]).maps
    covariates = Covariates.none(attendance(maps))
    with open_stack(
        maps, covariates, tmp_path, needs_variances=True, min_coverage=0.8, is_kept=is_kept, is_shared=True
    ) as stack:
        for part in (stack, stack.complete, replace(stack, rows=np.array([0, 3, 4]))):
            for block in part.blocks:
                sent = pickle.dumps(part.handed_out(block, with_variances=True))
                assert len(sent) < 40_000
                effects, variances = pickle.loads(sent)  # noqa: S301
                np.testing.assert_array_equal(as_block(effects), part.effects(block))
                np.testing.assert_array_equal(as_block(variances), part.variances(block))
        if is_kept:  # another call may keep its own meanwhile
            (kept,) = tmp_path.iterdir()
            shutil.copy(kept, tmp_path / "other")
            (tmp_path / "other").replace(kept)
            with pytest.raises(OutputError, match="was replaced by another call"):
                as_block(effects)
    assert len(list(tmp_path.iterdir())) == is_kept
