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
import struct
from collections.abc import Callable
from pathlib import Path
from typing import Any

import nibabel as nib
import numpy as np

HEADER = nib.Nifti1Header.template_dtype
HEADER_SIZE = 352
ANNEXED = ".git/annex/objects/Xx/Zz/MD5E-s1--d41d8cd98f00b204e9800998ecf8427e.nii.gz/MD5E-s1--d41d8cd98f00b204e9800998ecf8427e.nii.gz"

VALUES: tuple[Any, ...] = (
    None, True, False, 0, -1, 1, 2.5, -0.0, 1e-9, 1e9, 1e308, float("nan"), float("inf"), -float("inf"), 10**30,
    "", " ", "n/a", "NaN", "2.0", "two", "²", "1e400", "a\tb", "a\nb", "x" * 3000, "é", "e\u0301", "\u202e", "\x00",
    "\ud800", "../..", "/etc/passwd", "bids::", "bids:raw:sub-01", "<script>", "-",
    [], {}, [None], [[]], [1, "a"], [2.0, 2.0], {"a": {}}, [{}], [float("nan")], list(range(40)), {"Name": None},
)  # fmt: skip
CELLS = (
    "", " ", "n/a", "N/A", "NA", "nan", "NaN", "inf", "-inf", "0", "-1", "1e9", "-1e9", "1e308", "1e400", "1e-320",
    "1,5", "1,200.50", "25y", "75%", "abc", "²", '"', '"a', "a,b", "é", "e\u0301", "congruent ", " congruent", "Congruent",
    "incongruent", "stop-signal", "`x`", "x" * 5000, "\x00", "\x1b[31m", "true", "None", "-", ".", "sub-01", "ses-01",
    "0x10", "1_000", "2019-01-01T00:00:00", "1" * 400,
)  # fmt: skip
NUMBERS = (0, 1, -1, 2, 3, 4, 5, 7, 16, 64, 127, 255, 256, 348, 351, 352, 353, 512, 540, 1024, 32767, -32768, 2**31 - 1)
FLOATS = (0.0, -0.0, 1.0, -1.0, 0.5, 1e-30, 1e-4, 2000.0, 1e10, 3e38, float("nan"), float("inf"), -float("inf"))


def replace_bytes(path: Path, content: bytes) -> None:
    """Put a new file under the name; copies made by hard links keep the old one."""
    path.unlink()
    path.write_bytes(content)


# Text -------------------------------------------------------------------------------------------------------


def damage_text(draw: random.Random, content: bytes) -> bytes:
    """Damage that any text file may have."""
    kind = draw.randrange(12)
    at = draw.randrange(len(content) + 1)
    if kind == 0:
        return content[:at]
    if kind == 1:
        return b"\xef\xbb\xbf" + content
    if kind == 2:
        return content.decode("utf-8", "replace").encode("utf-16")
    if kind == 3:
        return content[:at] + draw.randbytes(draw.randrange(1, 20)) + content[at:]
    if kind == 4:
        return content[:at] + b"\x00" + content[at:]
    if kind == 5:
        return content[:at] + "\xe9".encode("latin-1") + content[at:]
    if kind == 6:
        return content.replace(b"\n", b"\r\n" if draw.random() < 0.5 else b"\r")
    if kind == 7:
        return content + content
    if kind == 8:
        return b""
    if kind == 9:
        return draw.randbytes(300)
    if kind == 10:
        return b"\n" * draw.randrange(1, 5) + content
    return content[:at] + content[at + draw.randrange(1, 30) :]


def damage_json(draw: random.Random, content: bytes) -> bytes:
    """Other values, types and keys, or text that is no JSON."""
    kind = draw.randrange(10)
    if kind == 0:
        return damage_text(draw, content)
    if kind == 1:
        return draw.choice(
            (
                b"null", b"[]", b'"text"', b"1", b"{}", b"NaN", b"[" * 100000, b'{"a":' * 100000 + b"1" + b"}" * 100000,
                b'{"RepetitionTime": ' + b"1" * 5000 + b"}", b"{'a': 1}", b'{"a": 1,}', b'{"a": 1} {"b": 2}', b'{"a": 1e999}',
            )
        )  # fmt: skip
    tree = json.loads(content)
    nodes: list[tuple[Any, Any]] = []

    def walk(node: Any) -> None:
        for key, value in list(node.items()) if isinstance(node, dict) else list(enumerate(node)):
            nodes.append((node, key))
            if isinstance(value, dict | list):
                walk(value)

    walk(tree)
    tops = [(tree, key) for key in tree]
    for _ in range(draw.choice((1, 1, 2, 4))):
        parent, key = draw.choice(tops if draw.random() < 0.6 else nodes) if nodes else (tree, "a")
        if kind == 2 and isinstance(parent, dict):
            parent.pop(key, None)
        elif kind == 3 and isinstance(parent, dict):
            parent[draw.choice((str(key).lower(), f"{key} ", "", "RepetitionTime", "StartTime", "VolumeTiming", "SliceTimingCorrected", "DelayTime", "AcquisitionDuration", "Levels", "Mask", "GeneratedBy", "DatasetLinks"))] = draw.choice(VALUES)  # fmt: skip
        else:
            parent[key] = draw.choice(VALUES)
    return json.dumps(tree, ensure_ascii=draw.random() < 0.5).encode("utf-8", "surrogatepass")


def damage_table(draw: random.Random, content: bytes) -> bytes:
    """Other cells, columns, rows, separators and quotes, or text that is no table."""
    kind = draw.randrange(16)
    if kind == 0:
        return damage_text(draw, content)
    rows = [line.split("\t") for line in content.decode().rstrip("\n").split("\n")]
    separator, ending = "\t", "\n"
    n_columns = len(rows[0])
    column = draw.randrange(n_columns)
    row = draw.randrange(1, len(rows)) if len(rows) > 1 else 0
    if kind <= 4:
        for _ in range(draw.choice((1, 1, 2, len(rows)))):
            rows[draw.randrange(len(rows))][column] = draw.choice(CELLS)
    elif kind == 5:
        value = draw.choice(CELLS)
        for cells in rows[1:]:
            cells[column] = value
    elif kind == 6:
        for cells in rows:
            del cells[column]
    elif kind == 7:
        for cells in rows:
            cells.insert(draw.choice((0, column)), cells[column])
    elif kind == 8:
        rows[0][column] = draw.choice(
            (*CELLS, rows[0][column].upper(), f"{rows[0][column]} ", f"\ufeff{rows[0][column]}")
        )
    elif kind == 9:
        separator = draw.choice((",", ";", " ", "\t\t", " \t", "|"))
    elif kind == 10:
        rows = draw.choice(
            (rows[:1], rows[1:], rows[:2], rows + rows[1:], [*rows[:row], [], *rows[row:]], rows[::-1], [])
        )
    elif kind == 11:
        draw.shuffle(tail := rows[1:])
        rows = rows[:1] + tail
    elif kind == 12:
        rows[row] = draw.choice((rows[row] + ["1"], rows[row][:-1], rows[row][:1], ["x"] * 50, rows[row] + [""]))
    elif kind == 13:
        ending = draw.choice(("\r\n", "\r", "\n\n", "\t\n", "\x0b\n", "\u2028"))
    elif kind == 14:
        for cells in rows:
            cells.append(draw.choice(CELLS))
    else:
        chosen = draw.sample(range(len(rows)), min(2, len(rows)))
        for index in chosen:
            rows[index][column] = f'"{rows[index][column]}'
    return (ending.join(separator.join(cells) for cells in rows) + ending).encode()


# Images -----------------------------------------------------------------------------------------------------


def damage_image(draw: random.Random, content: bytes) -> bytes:
    """Other header fields, other numbers, and files that are cut or flipped."""
    kind = draw.randrange(12)
    raw = bytearray(gzip.decompress(content))
    if kind <= 5:
        header = np.frombuffer(bytes(raw[: HEADER.itemsize]), dtype=HEADER).copy()
        for _ in range(draw.choice((1, 1, 1, 2, 5))):
            set_field(draw, header)
        raw[: HEADER.itemsize] = header.tobytes()
    elif kind == 6:
        cut = bytearray(content)
        for _ in range(draw.choice((1, 1, 3, 20))):
            cut[draw.randrange(len(cut))] ^= 1 << draw.randrange(8)
        return bytes(cut)
    elif kind == 7:
        return content[: draw.choice((draw.randrange(len(content)), len(content) - draw.randrange(1, 12)))]
    elif kind == 8:
        return damage_container(draw, content, bytes(raw))
    elif kind == 9:
        for _ in range(draw.choice((1, 5, 50))):
            raw[draw.randrange(len(raw))] ^= 1 << draw.randrange(8)
    elif kind == 10:
        del raw[draw.choice((0, 4, 300, 347, 348, 351, 352, 353, len(raw) - 1, draw.randrange(len(raw)))) :]
    else:
        fill_numbers(draw, raw)
    return gzip.compress(bytes(raw), 1)


def set_field(draw: random.Random, header: np.ndarray) -> None:
    """Give one field of a header another value."""
    name = draw.choice(
        ("dim", "dim", "pixdim", "datatype", "bitpix", "vox_offset", "scl_slope", "scl_inter", *(HEADER.names or ()))
    )
    field = header[name][0] if header[name].ndim > 1 else header[name]  # an array of fields, or the field
    if field.dtype.kind == "S":
        field[0] = draw.randbytes(field.dtype.itemsize)
        return
    value = draw.choice(FLOATS if field.dtype.kind == "f" else NUMBERS)
    with np.errstate(all="ignore"):
        field[draw.randrange(field.size)] = np.asarray(value).astype(field.dtype)


def damage_container(draw: random.Random, content: bytes, raw: bytes) -> bytes:
    """What is around the image: compression, trailing bytes, byte order."""
    return draw.choice(
        (
            raw, content + b"garbage", content + content, gzip.compress(content), gzip.compress(b""), b"\x1f\x8b",
            content[:-8] + b"\0" * 8, content[:4] + b"\xff" * 6 + content[10:], raw[:348] + b"\1\0\0\0" + raw[352:],
            gzip.compress(raw[:348] + b"\1\0\0\0" + struct.pack("<ii", 2**31 - 1, 4) + raw[352:]), gzip.compress(raw[::-1]),
            gzip.compress(struct.pack(">i", 348) + raw[4:]), gzip.compress(struct.pack("<i", 540) + raw[4:]), b"", b"text\n",
            gzip.compress(raw[:344] + b"ni1\0" + raw[348:]), gzip.compress(b"\0" * len(raw)),
        )
    )  # fmt: skip


def fill_numbers(draw: random.Random, raw: bytearray) -> None:
    """Write other numbers into the body, whatever its type."""
    dtype = nib.Nifti1Header(bytes(raw[: HEADER.itemsize])).get_data_dtype()
    body = np.frombuffer(bytes(raw[HEADER_SIZE:]), dtype=dtype).copy()
    part = slice(None) if draw.random() < 0.5 else slice(draw.randrange(body.size), None)
    value = draw.choice(FLOATS if dtype.kind == "f" else NUMBERS[:10])
    with np.errstate(all="ignore"):
        body[part] = np.asarray(value).astype(dtype)
    raw[HEADER_SIZE:] = body.tobytes()


# Kinds of files and names -----------------------------------------------------------------------------------


def replace_kind(draw: random.Random, path: Path) -> None:
    """Put something that is no plain file under the name, or nothing."""
    content = path.read_bytes()
    path.unlink()
    kind = draw.randrange(12)
    if kind == 0:
        os.mkfifo(path)
    elif kind == 1:
        path.mkdir()
    elif kind == 2:
        path.symlink_to("nowhere")
    elif kind == 3:
        path.symlink_to(path.name)
    elif kind == 4:
        path.symlink_to("../" * len(path.parts) + ANNEXED)
    elif kind == 5:
        path.write_text(f"/annex/objects/{Path(ANNEXED).name}\n")
    elif kind == 6:
        path.write_text("version https://git-lfs.github.com/spec/v1\noid sha256:00\nsize 12345\n")
    elif kind == 7:
        path.symlink_to(draw.choice(("/dev/zero", "/dev/null", "/dev/full", ".")))
    elif kind == 8:
        path.touch()
    elif kind == 9:
        pass
    elif kind == 10:
        path.with_name(f"{path.name}.d").mkdir()
        path.symlink_to(f"{path.name}.d")
    else:
        path.write_bytes(content[: len(content) // 2])


def rename(draw: random.Random, path: Path) -> None:
    """Give the file a name that differs in entities, case, spelling or length; or make a second one of that name."""
    name = path.name
    entities = name.split("_")
    kind = draw.randrange(12)
    index = draw.randrange(len(entities) - 1) if len(entities) > 1 else 0
    if kind == 0 and len(entities) > 1:
        new = "_".join(entities[:index] + entities[index + 1 :])
    elif kind == 1:
        new = name.upper() if draw.random() < 0.5 else name.replace("sub-", "Sub-").replace("task-", "TASK-")
    elif kind == 2:
        new = "_".join(entities[: index + 1] + entities[index:])
    elif kind in (3, 4, 5) and len(entities) > 1:
        extra = draw.choice(
            ("acq-a", "acq-b", "dir-AP", "rec-x", "echo-1", "echo-2", "part-mag", "part-phase", "ce-x", "run-1", "run-02",
             "run-x", "hemi-L", "desc-x", "res-2", "cohort-1", "chunk-1", "split-1", "nonsense-1", "recording-a", "space-MNI")
        )  # fmt: skip
        new = "_".join([*entities[: index + 1], extra, *entities[index + 1 :]])
    elif kind == 6:
        new = re.sub(r"-([0-9]+)", lambda found: f"-{int(found[1])}", name)
    elif kind == 7:
        new = name.replace("-", draw.choice(("-é", "-e\u0301", "- ", "-²", "--", "", "-x_", "-\n", "-\x1b[31m")), 1)
    elif kind == 8:
        new = f"{'x' * (250 - len(name))}_{name}"
    elif kind == 9:
        new = name.replace(".nii.gz", ".nii").replace(".tsv", ".TSV").replace(".json", ".JSON")
    elif kind == 10:
        new = f".{name}" if draw.random() < 0.5 else f"{name}~"
    else:
        new = f"{name}\udcff" if draw.random() < 0.3 else re.sub(r"(sub|ses|task|run)-", draw.choice(("", r"\1", "x-", r"\1-0")), name, count=1)  # fmt: skip
    target = path.with_name(new[:255])
    if target.exists():
        return
    if draw.random() < 0.5:
        path.rename(target)
    else:
        target.write_bytes(path.read_bytes())


DAMAGE: dict[str, Callable[[random.Random, bytes], bytes]] = {
    ".json": damage_json,
    ".tsv": damage_table,
    ".gz": damage_image,
}


def mutate(draw: random.Random, path: Path, *, names: bool = True) -> None:
    """Damage one file: most often its content, else its kind or its name."""
    kind = draw.random()
    if kind < 0.12:
        replace_kind(draw, path)
    elif kind < 0.24 and names:
        rename(draw, path)
    else:
        replace_bytes(path, DAMAGE.get(path.suffix, damage_text)(draw, path.read_bytes()))
