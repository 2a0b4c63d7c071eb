"""What can lie under the name of an input file: each is read, or named with its remedy."""

from __future__ import annotations

import errno
import os
from pathlib import Path

import pytest
from fsspec.implementations.local import LocalFileSystem

from bids_trees import make_tree, preproc
from sessionfx.bids.dataset import find_derivative_roots, open_dataset
from sessionfx.bids.reading import UnreadableFileError, list_folder, open_input, read_json_object, read_text
from sessionfx.errors import DatasetError


def refusal(path: Path) -> str:
    with pytest.raises(UnreadableFileError) as caught:
        open_input(path)
    assert str(path) in str(caught.value)
    return str(caught.value)


def test_a_pipe_is_refused_at_once(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "events.tsv")
    assert "a pipe, not a file" in refusal(tmp_path / "events.tsv")


def test_a_device_a_folder_and_nothing_are_named() -> None:
    assert "a device" in refusal(Path("/dev/zero"))
    assert "a folder" in refusal(Path("/dev"))
    assert "does not exist" in refusal(Path("/dev/nothing.tsv"))


def test_a_link_in_a_circle_is_named(tmp_path: Path) -> None:
    (tmp_path / "a").symlink_to(tmp_path / "b")
    (tmp_path / "b").symlink_to(tmp_path / "a")
    assert "circle" in refusal(tmp_path / "a")


@pytest.mark.parametrize(
    ("pointer", "remedy"),
    [
        ("/annex/objects/MD5E-s36452--0123456789abcdef.nii.gz\n", "datalad get"),
        ("version https://git-lfs.github.com/spec/v1\noid sha256:0\nsize 1\n", "git lfs pull"),
    ],
)
def test_data_that_were_not_fetched_are_to_be_got(tmp_path: Path, pointer: str, remedy: str) -> None:
    (tmp_path / "x.json").write_text(pointer)
    assert remedy in refusal(tmp_path / "x.json")
    (tmp_path / "y.json").symlink_to("../.git/annex/objects/aa/bb/MD5E-s1--0/MD5E-s1--0")
    assert "datalad get" in refusal(tmp_path / "y.json")


@pytest.mark.parametrize(
    ("text", "reason"),
    [
        ('{"a":' * 100_000 + "1" + "}" * 100_000, "nested too deeply"),
        ('{"a": ' + "9" * 5000 + "}", "Exceeds the limit"),
        ("[1]", "JSON object"),
        ("{", "cannot be read as JSON"),
    ],
)
def test_hostile_json_is_refused_in_a_sentence(tmp_path: Path, text: str, reason: str) -> None:
    (tmp_path / "x.json").write_text(text)
    with pytest.raises(UnreadableFileError, match=reason) as caught:
        read_json_object(tmp_path / "x.json")
    assert str(tmp_path / "x.json") in str(caught.value)


def test_a_byte_order_mark_is_no_part_of_the_text(tmp_path: Path) -> None:
    (tmp_path / "x.json").write_bytes(b'\xef\xbb\xbf{"a": 1}')
    assert read_json_object(tmp_path / "x.json") == {"a": 1}


def test_other_encodings_are_named(tmp_path: Path) -> None:
    (tmp_path / "x.tsv").write_bytes("onset\n".encode("utf-16"))
    with pytest.raises(UnreadableFileError, match="UTF-16"):
        read_text(tmp_path / "x.tsv")
    (tmp_path / "x.tsv").write_bytes(b"onset\xe9\n")
    with pytest.raises(UnreadableFileError, match="byte 6"):
        read_text(tmp_path / "x.tsv")


def test_a_folder_that_cannot_be_listed_is_an_error_and_one_that_is_not_there_is_empty(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "b").touch()
    (tmp_path / "a").touch()
    assert [entry.name for entry in list_folder(tmp_path)] == ["a", "b"]
    assert list_folder(tmp_path / "none") == []
    assert list_folder(tmp_path / "a") == []

    def fails(_: object) -> None:
        raise OSError(116, "Stale file handle")

    monkeypatch.setattr(os, "scandir", fails)
    with pytest.raises(DatasetError, match=r"cannot be listed \(Stale file handle\)"):
        list_folder(tmp_path)


@pytest.mark.slow
@pytest.mark.parametrize("kept", [False, True])
def test_a_folder_that_pybids_could_not_list_is_not_empty(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, kept: bool
) -> None:
    """A disk that failed for a moment lost a session without a word."""
    root = make_tree(tmp_path / "bids", [preproc("01", ses) for ses in ("01", "02")])
    roots, place = find_derivative_roots(root, []), tmp_path / "index" if kept else None
    listing = LocalFileSystem.ls

    def failing(self: LocalFileSystem, path: str, *arguments: object, **options: object) -> object:
        if str(path).endswith("ses-02/func"):
            raise OSError(errno.ESTALE, os.strerror(errno.ESTALE))
        return listing(self, path, *arguments, **options)

    with monkeypatch.context() as patch:
        patch.setattr(LocalFileSystem, "ls", failing)
        with pytest.raises(DatasetError, match=r"ses-02/func could be listed at first.*same command again"):
            open_dataset(root, roots, participants=[], database_dir=place)
    assert len(open_dataset(root, roots, participants=[], database_dir=place).derivative_files) == 2
