"""Damage to input files, as people, disks and other programs do it; every piece of it drawn from a seeded generator.

A mutation takes a file and leaves something else under its name. It knows the format (values in JSON, cells in tables,
fields in NIfTI headers), so that most of what it makes reaches the code behind the parsers.
"""

from __future__ import annotations

import gzip
import json
import os
import random
import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

import nibabel as nib
import numpy as np

HEADER = nib.Nifti1Header.template_dtype
ANNEXED = "MD5E-s1--d41d8cd98f00b204e9800998ecf8427e.nii.gz"

VALUES: tuple[Any, ...] = (
    None, True, 0, -1, 1, 2.5, -0.0, 1e-9, 1e9, 1e308, float("nan"), float("inf"), 10**30, "", " ", "n/a", "2.0", "two", "²", "a\tb",
    "a\nb", "x" * 3000, "e\u0301", "\u202e", "\x00", "\ud800", "../..", "/etc/passwd", "bids:raw:sub-01", "<script>", [], {}, [None],
    [[]], [1, "a"], [2.0, 2.0], {"a": {}}, [float("nan")], list(range(40)),
)  # fmt: skip
CELLS = (
    "", " ", "n/a", "NA", "nan", "inf", "0", "-1", "1e9", "1e308", "1e400", "1e-320", "1,5", "25y", "75%", "abc", "²", '"', '"a', "a,b",
    "e\u0301", "congruent ", "Congruent", "incongruent", "stop-signal", "`x`", "x" * 5000, "\x00", "\x1b[31m", "true", "-", ".", "sub-01",
    "ses-01", "0x10", "1_000", "2019-01-01T00:00:00", "1" * 400,
)  # fmt: skip
NUMBERS = (0, 1, -1, 2, 3, 4, 5, 7, 16, 64, 127, 255, 256, 348, 351, 352, 353, 512, 540, 1024, 32767, -32768, 2**31 - 1)
FLOATS = (0.0, -0.0, 1.0, -1.0, 1e-30, 1e-4, 2000.0, 1e10, 3e38, float("nan"), float("inf"), -float("inf"))
KEYS = (
    "", "RepetitionTime", "StartTime", "VolumeTiming", "DelayTime", "AcquisitionDuration", "Levels", "Mask",
    "DatasetLinks",
)  # fmt: skip
NO_JSON = (b"null", b"[]", b'"text"', b"{}", b"NaN", b"[" * 100000, b"{'a': 1}", b'{"a": 1} {"b": 2}', b'{"a": 1e999}')
ENTITIES = (
    "acq-a", "dir-AP", "rec-x", "echo-1", "part-phase", "run-1", "run-02", "run-x", "hemi-L", "desc-x",
    "res-2", "nonsense-1",
)  # fmt: skip

# kinds of damage: the generator, what is there, and a place in it
TEXT: tuple[Callable[[random.Random, bytes, int], bytes], ...] = (
    lambda draw, content, at: content[:at],
    lambda draw, content, at: b"\xef\xbb\xbf" + content,
    lambda draw, content, at: content.decode("utf-8", "replace").encode("utf-16"),
    lambda draw, content, at: content[:at] + draw.choice((b"\x00", b"\xe9", draw.randbytes(9))) + content[at:],
    lambda draw, content, at: content.replace(b"\n", draw.choice((b"\r\n", b"\r", b"\n\n", b"\t\n", b"\x0b\n"))),
    lambda draw, content, at: draw.choice((b"", content + content, draw.randbytes(300), b"\n\n" + content)),
    lambda draw, content, at: content[:at] + content[at + draw.randrange(1, 30) :],
)
Rows = list[list[str]]
TABLE: tuple[Callable[[random.Random, Rows, int], Rows], ...] = (
    lambda draw, rows, column: [_with(row, column, draw.choice(CELLS)) if draw.random() < 0.1 else row for row in rows],
    lambda draw, rows, column: [rows[0], *[_with(row, column, draw.choice(CELLS)) for row in rows[1:]]],
    lambda draw, rows, column: [_with(rows[0], column, draw.choice((*CELLS, rows[0][column].upper()))), *rows[1:]],
    lambda draw, rows, column: [row[:column] + row[column + 1 :] for row in rows],
    lambda draw, rows, column: [[row[column], *row, draw.choice(CELLS)] for row in rows],
    lambda draw, rows, column: draw.choice((rows[:1], rows[1:], rows[:2], rows + rows[1:], rows[::-1], [*rows, []], [])),
    lambda draw, rows, column: [draw.choice((row, row, row, [*row, "1"], row[:-1], row[:1])) for row in rows],
    lambda draw, rows, column: [draw.choice((",", ";", " ", "\t\t", "|")).join(row).split("\t") for row in rows],
)  # fmt: skip
IMAGE: tuple[Callable[[random.Random, bytes], bytes], ...] = (
    *[lambda draw, raw: _other_header(draw, raw)] * 5,
    lambda draw, raw: _other_numbers(draw, raw),
    lambda draw, raw: _flipped(draw, raw),
    lambda draw, raw: raw[: draw.choice((0, 4, 300, 347, 348, 351, 352, 353, len(raw) - 1, draw.randrange(len(raw))))],
    lambda draw, raw: draw.choice((raw[:348] + b"\1\0\0\0" + raw[352:], raw[::-1], raw[:344] + b"ni1\0" + raw[348:], b"\0" * len(raw))),
)  # fmt: skip
CONTAINER: tuple[Callable[[random.Random, bytes], bytes], ...] = (
    lambda draw, content: _flipped(draw, content),
    lambda draw, content: content[: -draw.randrange(1, len(content))],
    lambda draw, content: draw.choice((gzip.decompress(content), content + b"garbage", content + content, gzip.compress(content), b"text\n")),
)  # fmt: skip
LINKS = ("nowhere", "", f"{'../' * 30}.git/annex/objects/{ANNEXED}", "/dev/zero", "/dev/null", ".")  # "": to itself
POINTERS = (
    "",
    f"/annex/objects/{ANNEXED}\n",
    "version https://git-lfs.github.com/spec/v1\noid sha256:00\nsize 12345\n",
)
KIND: tuple[Callable[[random.Random, Path, bytes], object], ...] = (
    lambda draw, path, content: os.mkfifo(path),
    lambda draw, path, content: path.mkdir(),
    lambda draw, path, content: path.symlink_to(draw.choice(LINKS) or path.name),
    lambda draw, path, content: path.write_text(draw.choice(POINTERS)),
    lambda draw, path, content: None,
    lambda draw, path, content: path.write_bytes(content[: len(content) // 2]),
)
NAME: tuple[Callable[[random.Random, list[str], int], str], ...] = (
    lambda draw, parts, at: "_".join(parts[:at] + parts[at + 1 :]) or "x",
    lambda draw, parts, at: "_".join(parts[: at + 1] + parts[at:]),
    lambda draw, parts, at: "_".join([*parts[: at + 1], draw.choice(ENTITIES), *parts[at + 1 :]]),
    lambda draw, parts, at: re.sub(r"-([0-9]+)", lambda found: f"-{int(found[1])}", "_".join(parts)),
    lambda draw, parts, at: "_".join(parts).replace("-", draw.choice(("-é", "-e\u0301", "- ", "-²", "--", "", "-\n", "-\x1b[31m")), 1),
    lambda draw, parts, at: draw.choice(("x" * 200 + "_{}", ".{}", "{}~", "{}\udcff")).format("_".join(parts))[:255],
    lambda draw, parts, at: "_".join(parts).upper(),
)  # fmt: skip


def _with(row: list[str], column: int, cell: str) -> list[str]:
    return [*row[:column], cell, *row[column + 1 :]]


def _flipped(draw: random.Random, content: bytes) -> bytes:
    changed = bytearray(content)
    for _ in range(draw.choice((1, 1, 3, 20))):
        changed[draw.randrange(len(changed))] ^= 1 << draw.randrange(8)
    return bytes(changed)


def _other_header(draw: random.Random, raw: bytes) -> bytes:
    header = np.frombuffer(raw[: HEADER.itemsize], dtype=HEADER).copy()
    for _ in range(draw.choice((1, 1, 1, 2, 5))):
        name = draw.choice(
            ("dim", "dim", "pixdim", "datatype", "bitpix", "vox_offset", "scl_slope", *(HEADER.names or ()))
        )
        field = header[name][0] if header[name].ndim > 1 else header[name]  # an array of fields, or the field
        if field.dtype.kind == "S":
            field[0] = draw.randbytes(field.dtype.itemsize)
        else:
            with np.errstate(all="ignore"):
                value = np.asarray(draw.choice(FLOATS if field.dtype.kind == "f" else NUMBERS))
                field[draw.randrange(field.size)] = value.astype(field.dtype)
    return header.tobytes() + raw[HEADER.itemsize :]


def _other_numbers(draw: random.Random, raw: bytes) -> bytes:
    dtype = nib.Nifti1Header(raw[: HEADER.itemsize]).get_data_dtype()
    values = np.frombuffer(raw[352:], dtype=dtype).copy()
    with np.errstate(all="ignore"):
        value = np.asarray(draw.choice(FLOATS if dtype.kind == "f" else NUMBERS[:10])).astype(dtype)
    values[draw.choice((0, draw.randrange(values.size))) :] = value
    return raw[:352] + values.tobytes()


def damage_text(draw: random.Random, content: bytes) -> bytes:
    """Damage that any text file may have."""
    return draw.choice(TEXT)(draw, content, draw.randrange(len(content) + 1))


def damage_json(draw: random.Random, content: bytes) -> bytes:
    """Other values, types and keys, or text that is no JSON."""
    kind = draw.randrange(8)
    if kind < 2:
        return damage_text(draw, content) if kind == 0 else draw.choice(NO_JSON)
    tree = json.loads(content)
    nodes: list[tuple[Any, Any]] = []
    containers = [tree]
    for node in containers:
        for key, value in node.items() if isinstance(node, dict) else enumerate(node):
            nodes.append((node, key))
            containers += [value] if isinstance(value, dict | list) else []
    for _ in range(draw.choice((1, 1, 2, 4))):
        parent, key = (
            draw.choice((nodes[: len(tree)] or nodes) if draw.random() < 0.6 else nodes) if nodes else (tree, "a")
        )
        if kind < 4 and isinstance(parent, dict):
            value = parent.pop(key, None)
            parent |= {draw.choice((str(key).lower(), *KEYS)): value} if kind == 3 else {}
        else:
            parent[key] = draw.choice(VALUES)
    return json.dumps(tree, ensure_ascii=draw.random() < 0.5).encode("utf-8", "surrogatepass")


def damage_table(draw: random.Random, content: bytes) -> bytes:
    """Other cells, columns, rows and separators, or text that is no table."""
    if draw.random() < 0.1:
        return damage_text(draw, content)
    rows = [line.split("\t") for line in content.decode().rstrip("\n").split("\n")]
    rows = draw.choice(TABLE)(draw, rows, draw.randrange(len(rows[0])))
    return "".join("\t".join(row) + "\n" for row in rows).encode()


def damage_image(draw: random.Random, content: bytes) -> bytes:
    """Other header fields, other numbers, and files that are cut or flipped."""
    if draw.random() < 0.25:
        return draw.choice(CONTAINER)(draw, content)
    return gzip.compress(draw.choice(IMAGE)(draw, gzip.decompress(content)), 1)


def replace_bytes(path: Path, content: bytes) -> None:
    """Put a new file under the name; copies made by hard links keep the old one."""
    path.unlink()
    path.write_bytes(content)


def replace_kind(draw: random.Random, path: Path) -> None:
    """Put something that is no plain file under the name, or nothing."""
    content = path.read_bytes()
    path.unlink()
    draw.choice(KIND)(draw, path, content)


def rename(draw: random.Random, path: Path) -> None:
    """Give the file a name that differs in entities, case, spelling or length; or make a second one of that name."""
    parts = path.name.split("_")
    target = path.with_name(draw.choice(NAME)(draw, parts, draw.randrange(max(1, len(parts) - 1))))
    if not target.exists():
        path.rename(target) if draw.random() < 0.5 else target.write_bytes(path.read_bytes())


DAMAGE = {".json": damage_json, ".tsv": damage_table, ".gz": damage_image}


def mutate(draw: random.Random, path: Path) -> None:
    """Damage one file: most often its content, else its kind or its name."""
    kind = draw.random()
    if kind < 0.24:
        (replace_kind if kind < 0.12 else rename)(draw, path)
    else:
        replace_bytes(path, DAMAGE.get(path.suffix, damage_text)(draw, path.read_bytes()))
