"""With --work-dir the maps of a contrast are kept, and a call that asks something else of them does not read them."""

from __future__ import annotations

import os
from pathlib import Path

import numpy as np
import pytest

from group_study import GroupStudy, make_study
from sessionfx.ask.covariates import Covariates
from sessionfx.cli import main
from sessionfx.errors import LevelError, OutputError
from sessionfx.group.kept import packed, unpacked
from sessionfx.group.spool import Spool
from sessionfx.group.stack import attendance, open_stack
from sessionfx.group.store import check_room, scratch_file
from sessionfx.space.grid import Grid
from sessionfx.space.stat_map import StatMap
from sessionfx.statistics.estimates import Estimate
from sessionfx.tasks.records import fingerprint, fingerprint_of_items


@pytest.fixture
def study(tmp_path: Path) -> GroupStudy:
    """Six participants, of whom one has a smaller mask."""
    study = make_study(tmp_path / "study", n_participants=6)
    key = study.keys[3]
    hole = np.arange(study.effects[key].size).reshape(study.effects[key].shape) % 7 == 0
    study.write(*key, np.where(hole, 0.0, study.effects[key]), np.where(hole, 0.0, study.variances[key]))
    return study


def make_unreadable(study: GroupStudy) -> None:
    """Replace what is in the maps, so that nobody notices who does not read it."""
    for path in study.maps.rglob("*_statmap.nii.gz"):
        status = path.stat()
        path.write_bytes(bytes(status.st_size))
        os.utime(path, ns=(status.st_atime_ns, status.st_mtime_ns))


def read(study: GroupStudy, folder: Path, min_coverage: float = 1.0) -> tuple[object, ...]:
    """All that a stack tells."""
    maps = study.first_level_maps
    with open_stack(
        maps, Covariates.none(attendance(maps)), folder, needs_variances=True, min_coverage=min_coverage, is_kept=True
    ) as stack:
        effects = np.hstack([stack.effects(block) for block in stack.blocks])
        variances = np.hstack([stack.variances(block) for block in stack.blocks])
        return (
            effects.tobytes(), variances.tobytes(), effects.dtype, stack.mask.tobytes(), stack.coverage.tobytes(),
            stack.space.as_grid().affine.tobytes(), stack.warnings,
        )  # fmt: skip


@pytest.mark.parametrize("min_coverage", [1.0, 0.8])
def test_a_second_stack_is_the_first_and_reads_no_map(study: GroupStudy, min_coverage: float, tmp_path: Path) -> None:
    first = read(study, tmp_path, min_coverage)
    (kept,) = tmp_path.glob("*.maps")
    make_unreadable(study)
    assert read(study, tmp_path, min_coverage) == first
    with pytest.raises(LevelError, match="cannot be read to its end"):
        read(study, tmp_path, 0.5)  # other voxels: the maps are read anew
    assert [path for path in tmp_path.iterdir() if path.is_file()] == [kept]  # what was kept stays, and nothing else


def test_a_map_that_changed_is_read_anew_and_takes_the_place_of_what_was_kept(
    study: GroupStudy, tmp_path: Path
) -> None:
    first = read(study, tmp_path)
    path = study.map_path(*study.keys[2])
    os.utime(path, ns=(0, path.stat().st_mtime_ns + 10**9))
    key = study.keys[2]
    study.write(*key, study.effects[key] + 1, study.variances[key])
    second = read(study, tmp_path)
    assert second != first
    assert len(list(tmp_path.glob("*.maps"))) == 1
    make_unreadable(study)
    assert read(study, tmp_path) == second


@pytest.mark.parametrize("damage", ["cut off", "longer", "empty", "of another program"])
def test_a_damaged_file_is_as_good_as_none(study: GroupStudy, damage: str, tmp_path: Path) -> None:
    first = read(study, tmp_path)
    (kept,) = tmp_path.glob("*.maps")
    content = kept.read_bytes()
    kept.write_bytes(
        {"cut off": content[:-9], "longer": content + b"0", "empty": b"", "of another program": b"{}" * 100}[damage]
    )
    assert read(study, tmp_path) == first
    assert kept.read_bytes() == content


def test_who_has_opened_kept_maps_keeps_them_while_another_call_replaces_them(
    study: GroupStudy, tmp_path: Path
) -> None:
    maps = study.first_level_maps
    read(study, tmp_path)
    with open_stack(maps, Covariates.none(attendance(maps)), tmp_path, needs_variances=True, is_kept=True) as stack:
        before = stack.effects(stack.blocks[0])
        key = study.keys[0]
        study.write(*key, study.effects[key] * 3, study.variances[key])
        read(study, tmp_path)
        np.testing.assert_array_equal(stack.effects(stack.blocks[0]), before)


@pytest.mark.slow
def test_other_session_contrasts_are_answered_from_kept_maps_as_from_the_files(
    study: GroupStudy, tmp_path: Path
) -> None:
    def answers(name: str, *options: str) -> dict[str, bytes]:
        command = [str(study.raw), str(tmp_path / name), "group", "-d", str(study.maps), "--no-report", *options]
        assert main(command) == 0
        return {path.name: path.read_bytes() for path in (tmp_path / name / "group").iterdir() if path.is_file()}

    asked = ("--session-contrast", "ses-02 - ses-01", "--session-contrast", "linear")
    cold = answers("cold", *asked)
    work = tmp_path / "work"
    work.mkdir()
    answers("first", "--session-contrast", "mean", "--work-dir", str(work))
    make_unreadable(study)
    assert answers("warm", *asked, "--work-dir", str(work)) == cold


def test_a_folder_without_room_is_refused_before_it_is_filled(tmp_path: Path) -> None:
    check_room(tmp_path, 1, "3 maps")
    with pytest.raises(OutputError, match=rf"{tmp_path} has .* GB free, and 3 maps need 1e\+09 GB there.*--work-dir"):
        check_room(tmp_path, 10**18, "3 maps")


def test_whole_numbers_are_kept_by_runs() -> None:
    values = np.random.default_rng(0).integers(0, 3, (4, 5, 6)).repeat(3, axis=2)
    np.testing.assert_array_equal(unpacked(packed(values)), values)


def test_maps_of_answers_come_back_as_they_were(tmp_path: Path) -> None:
    rng = np.random.default_rng(0)
    mask = rng.random((4, 5, 6)) < 0.5
    grid = Grid(mask.shape, np.eye(4))
    with scratch_file(tmp_path) as file:
        spool = Spool(file, tmp_path)
        maps = [
            StatMap(Estimate(rng.normal(size=mask.sum()), rng.random(mask.sum()), 7.0 + number), mask, grid)
            for number in range(9)
        ]
        kept = [spool.keep_map(stat_map) for stat_map in maps]
        for stat_map, found in zip(maps, kept, strict=True):
            np.testing.assert_array_equal(found.estimate.z, stat_map.estimate.z)
            np.testing.assert_array_equal(found.mask, mask)
            assert found.estimate.dof == stat_map.estimate.dof
            assert found.estimate is found.estimate  # the last few stay


@pytest.mark.parametrize("items", [[], [1.5], [["a", None], {"b": [2, "é"], "a": Path("x")}, ()]])
def test_a_fingerprint_made_item_by_item_is_that_of_their_list(items: list[object]) -> None:
    assert fingerprint_of_items(iter(items)) == fingerprint(items)
