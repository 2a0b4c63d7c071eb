"""What the viewer of a page is given: maps that unpack to what they were, and niivue once."""

from __future__ import annotations

import base64
import hashlib
import json
import re
import zlib
from pathlib import Path
from typing import Any

import html5lib
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from nilearn.datasets import load_mni152_brain_mask, load_mni152_template
from scipy.ndimage import gaussian_filter

from properties import examples
from sessionfx.report.cortex import cortex_of
from sessionfx.report.nilearn_files import niivue_script, packed_niivue
from sessionfx.report.page import ReportPage, section_path, write_section
from sessionfx.report.viewer import ViewerMap, surface_viewer_data, viewer_data
from sessionfx.space.grid import Grid
from sessionfx.space.surface import Surface

SHAPE = (9, 7, 6)
AFFINE = np.array([[-3.0, 0, 0, 12], [0, 3, 0, -9], [0, 0, 3, -6], [0, 0, 0, 1]])
HOSTILE = "</script><script>alert(1)</script>"


def smooth_map(seed: int = 0, size: float = 4.0) -> np.ndarray:
    """Values where a ball is, NaN elsewhere."""
    values = gaussian_filter(np.random.default_rng(seed).standard_normal(SHAPE), 1)
    away = np.linalg.norm(np.indices(SHAPE).T - (np.array(SHAPE) - 1) / 2, axis=-1).T
    values[away > 3.2] = np.nan
    return size * values / np.nanmax(np.abs(values))


def viewer_map(values: np.ndarray, key: str = "mean marginal", **others: Any) -> ViewerMap:
    return ViewerMap(
        **{
            "key": key,
            "session_contrast": "mean",
            "strategy": "Marginal model",
            "values": values,
            "threshold": 3.0,
            "vmax": 5.0,
            **others,
        }
    )


def section_of(*maps: ViewerMap) -> str:
    return viewer_data(maps, np.ones(SHAPE), AFFINE, Grid(SHAPE, AFFINE))


def data_of(*maps: ViewerMap) -> dict[str, Any]:
    return data_in(section_of(*maps))


def data_in(section: str) -> dict[str, Any]:
    document = html5lib.HTMLParser(namespaceHTMLElements=False).parseFragment(section)
    return json.loads(document.find(".//script[@class='viewer-data']").text)


def inflated(text: str) -> bytes:
    return zlib.decompress(base64.b64decode(text))


def unpacked(data: dict[str, Any], number: int = 0) -> np.ndarray:
    """The values of a map on the whole grid, by plain sums: another way than the page's script."""
    described, shape = data["maps"][number], data["shape"]
    bits = np.frombuffer(inflated(data["masks"][described["mask"]]), dtype=np.uint8)
    mask = np.unpackbits(bits, bitorder="little")[: np.prod(shape)].astype(bool).reshape(shape, order="F")
    low, high = np.frombuffer(inflated(data["codes"][described["codes"]]), dtype=np.uint8).reshape(2, -1).astype(int)
    words = low + 256 * high
    row = iter((words >> 1) ^ -(words & 1))
    codes = np.zeros([size + 1 for size in shape], dtype=int)
    for z, y, x in np.argwhere(mask.T) + 1:
        before = codes[x - 1 : x + 1, y - 1 : y + 1, z - 1 : z + 1]
        signs = np.array([[[1, -1], [-1, 1]], [[-1, 1], [1, 0]]])
        codes[x, y, z] = (next(row) + (before * signs).sum() + 2**15) % 2**16 - 2**15
    code = np.abs(codes[1:, 1:, 1:])
    least = data["knee"] // data["coarse"]
    size = np.where(code < least, code * data["coarse"], data["knee"] + code - least) * described["step"]
    values = np.full(SHAPE, np.nan)
    start = np.rint(np.linalg.solve(AFFINE, [*np.array(data["affine"])[:, 3], 1])[:3]).astype(int)
    values[tuple(slice(first, first + length) for first, length in zip(start, shape, strict=True))] = np.where(
        mask, np.sign(codes[1:, 1:, 1:]) * size, np.nan
    )
    return values


def test_nilearn_still_ships_the_niivue_that_pages_show() -> None:
    script = niivue_script()
    assert script.startswith(b"(function(")
    assert b"sA.niivue={}" in script
    assert b"0.68.1" in script
    assert zlib.decompress(base64.b64decode(packed_niivue())) == script
    assert len(packed_niivue()) < 1.1e6


@examples()
@given(st.integers(0, 10_000), st.floats(0.05, 60), st.floats(0.5, 6))
def test_values_are_kept_to_a_step_and_none_crosses_its_threshold(seed: int, size: float, threshold: float) -> None:
    values = smooth_map(seed, size)
    found = unpacked(data_of(viewer_map(values, threshold=threshold)))
    assert np.array_equal(np.isnan(found), np.isnan(values))
    error = np.nan_to_num(np.abs(found - values))
    assert error[np.nan_to_num(np.abs(values)) >= 2].max(initial=0) <= 0.01 + 1e-9
    assert error.max() <= 0.05 + 1e-9
    step = 0.05 if threshold < 2 else 0.01
    shown = np.abs(found) >= step * np.ceil(threshold / step - 1e-6) - 1e-9
    assert np.array_equal(shown, np.abs(values) >= threshold)


def test_values_beyond_two_are_those_of_a_table_with_two_decimals() -> None:
    values = smooth_map(size=8.0)
    large = np.nan_to_num(np.abs(values)) >= 2.005
    assert large.sum() > 10
    found = unpacked(data_of(viewer_map(values, threshold=np.inf)))
    assert [f"{value:.2f}" for value in found[large]] == [f"{value:.2f}" for value in values[large]]


@pytest.mark.parametrize(("largest", "unit"), [(38.4, "z"), (5000.0, "z"), (0.0031, "percent"), (2.5e6, "a.u.")])
def test_no_value_is_cut_whatever_its_size(largest: float, unit: str) -> None:
    values = smooth_map(size=largest)
    found = unpacked(data_of(viewer_map(values, unit=unit, threshold=largest / 2, vmax=largest)))
    assert np.nanmax(np.abs(found - values)) <= largest / 100
    assert np.nanmax(np.abs(found)) == pytest.approx(largest, rel=2e-3)


def test_equal_maps_and_masks_are_stored_once() -> None:
    one, other = smooth_map(0), smooth_map(1)
    data = data_of(viewer_map(one), viewer_map(one.copy(), "second"), viewer_map(other, "third"))
    assert [described["codes"] for described in data["maps"]] == [0, 0, 1]
    assert [described["mask"] for described in data["maps"]] == [0, 0, 0]
    assert (len(data["codes"]), len(data["masks"])) == (2, 1)
    assert np.nanmax(np.abs(unpacked(data, 2) - other)) <= 0.05


def test_maps_may_lack_voxels_that_others_have() -> None:
    full, part = smooth_map(), smooth_map()
    part[:5] = np.nan
    data = data_of(viewer_map(part), viewer_map(full, "other"))
    assert np.array_equal(np.isnan(unpacked(data, 0)), np.isnan(part))
    assert np.array_equal(np.isnan(unpacked(data, 1)), np.isnan(full))


def test_a_threshold_that_nothing_passes_is_none_in_json() -> None:
    assert data_of(viewer_map(smooth_map(), threshold=np.inf))["maps"][0]["threshold"] is None


def test_names_from_users_stay_text() -> None:
    section = section_of(viewer_map(smooth_map(), HOSTILE, session_contrast=HOSTILE, strategy=HOSTILE))
    assert "alert(1)</script>" not in section
    data = data_of(viewer_map(smooth_map(), HOSTILE, session_contrast=HOSTILE, strategy=HOSTILE))
    assert {data["maps"][0][name] for name in ("key", "sessionContrast", "strategy")} == {HOSTILE}


@pytest.mark.parametrize("voxel_size", [1.0, 3.0, 4.0])
def test_anatomy_lies_where_it_was(voxel_size: float) -> None:
    shape = tuple(round(40 / voxel_size) for _ in range(3))
    affine = np.diag([voxel_size, voxel_size, voxel_size, 1])
    affine[:3, 3] = -20
    place = np.moveaxis(np.indices(shape) * voxel_size - 20, 0, -1)
    bright = np.where(np.linalg.norm(place, axis=-1) < 14, 500.0 + 10 * place[..., 2], 0)
    section = viewer_data([viewer_map(smooth_map())], bright, affine, Grid(SHAPE, AFFINE))
    anatomy = json.loads(re.search('viewer-data">(.*)</script>', section).group(1))["anatomy"]  # type: ignore[union-attr]
    assert np.allclose(np.linalg.norm(np.array(anatomy["affine"])[:, :3], axis=0), max(voxel_size, 3))
    first, last = (np.array(anatomy["affine"]) @ [*voxel, 1] for voxel in ((0, 0, 0), np.array(anatomy["shape"]) - 1))
    assert np.all(np.abs([*(first + 14), *(last - 14)]) <= max(voxel_size, 3))


def test_without_anatomy_the_voxels_with_values_lie_on_grey() -> None:
    section = viewer_data([viewer_map(smooth_map())], np.zeros((4, 4, 4)), np.eye(4), Grid(SHAPE, AFFINE))
    data = json.loads(re.search('viewer-data">(.*)</script>', section).group(1))  # type: ignore[union-attr]
    assert data["anatomy"]["shape"] == data["shape"]
    assert data["anatomy"]["affine"] == data["affine"]


@pytest.mark.slow
def test_24_smooth_maps_at_2_mm_take_5_megabytes_at_most() -> None:
    image = load_mni152_brain_mask(resolution=2)
    mask = image.get_fdata() > 0
    rng = np.random.default_rng(0)
    maps = []
    for number in range(24):
        noise = gaussian_filter(rng.standard_normal(mask.shape), 2)
        maps.append(viewer_map(np.where(mask, noise / noise[mask].std(), np.nan), str(number)))
    template = load_mni152_template(resolution=1)
    section = viewer_data(maps, template.get_fdata(), template.affine, Grid(mask.shape, image.affine))
    assert 2e6 < len(section) < 5e6


def page_with(folder: Path, *sections: str) -> str:
    for number, section in enumerate(sections):
        write_section(section_path(folder / "figures", f"section-{number}"), "Contrast", section)
    ReportPage(path=folder / "group.html", folder=folder / "figures", title="Group", lead="Made maps").assemble()
    return (folder / "group.html").read_text(encoding="utf-8")


def test_a_page_has_niivue_and_the_script_once_however_many_viewers(tmp_path: Path) -> None:
    page = page_with(tmp_path, section_of(viewer_map(smooth_map())), section_of(viewer_map(smooth_map(1))))
    html5lib.HTMLParser(strict=True).parse(page)
    assert page.count('<div class="viewer">') == 2
    assert page.count(packed_niivue()) == 1
    scripts = re.findall("<script>(.*?)</script>", page, re.DOTALL)
    assert sum("class Viewer" in script for script in scripts) == 1
    for script in (*map(str.encode, scripts), niivue_script()):
        assert f"'sha256-{base64.b64encode(hashlib.sha256(script).digest()).decode()}'" in page


def test_a_page_without_viewer_has_nothing_of_it(tmp_path: Path) -> None:
    page = page_with(tmp_path, "<p>Text</p>")
    assert "Viewer" not in page
    assert "niivue" not in page
    allowed = re.search('script-src ([^;]*)">', page)
    assert allowed is not None
    assert allowed.group(1).count("sha256-") == page.count("<script>")


def whole_numbers(text: str) -> np.ndarray:
    return np.frombuffer(inflated(text), dtype=np.uint8).reshape(4, -1).T.copy().view("<i4")[:, 0]


def test_surfaces_unpack_to_their_mesh_and_the_features_at_its_vertices() -> None:
    space = Surface("fsaverage4", {"L": 2562, "R": 2562})
    cortex = cortex_of(space)
    assert cortex is not None
    values = np.random.default_rng(0).normal(0, 3, space.shape)
    values[:50] = np.nan
    data = data_in(surface_viewer_data([viewer_map(values)], cortex))
    assert data["shape"] == [5124, 1, 1]
    np.testing.assert_array_equal(np.cumsum(whole_numbers(data["features"])), cortex.features)
    for packed, part in zip(data["hemispheres"], cortex.hemispheres.parts.values(), strict=True):
        points = whole_numbers(packed["points"]).reshape(-1, 3) * data["pointStep"]
        np.testing.assert_allclose(points, part.inflated.coordinates, atol=data["pointStep"] / 2 + 1e-5)
        triangles = np.cumsum(whole_numbers(packed["triangles"])).reshape(-1, 3)
        np.testing.assert_array_equal(triangles, part.inflated.triangles)
        assert len(inflated(packed["grey"])) == len(points)
    bits = np.frombuffer(inflated(data["masks"][0]), dtype=np.uint8)
    np.testing.assert_array_equal(np.unpackbits(bits, bitorder="little")[:5124], np.isfinite(values))
