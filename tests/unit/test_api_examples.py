"""The public face: its examples run, its power is that of the validity study, and its command refuses in words."""

import doctest
import importlib
import inspect
import re
import subprocess
import sys
from pathlib import Path

import numpy as np
import pandas as pd
import pytest

import sessionfx
from sessionfx.api import command, designs

sys.path.insert(0, str(Path(__file__).parents[2] / "benchmarks"))

import situations
from validity import contrast_name

VALIDITY = Path(__file__).parents[2] / "docs" / "validity.tsv"


SOURCE = Path(sessionfx.__file__).parent
PUBLIC = [name for name in sessionfx.__all__ if name != "__version__"]
WITH_EXAMPLES = [path for path in sorted(SOURCE.rglob("*.py")) if ">>> " in path.read_text(encoding="utf-8")]
PAGE = Path(__file__).parents[2] / "docs" / "python.md"


@pytest.mark.slow
@pytest.mark.parametrize("path", WITH_EXAMPLES, ids=lambda path: path.stem)
def test_examples_of_docstrings(path):
    module = ".".join(path.relative_to(SOURCE.parent).with_suffix("").parts)
    found = doctest.testmod(importlib.import_module(module))
    assert found.attempted
    assert not found.failed


@pytest.mark.parametrize("name", PUBLIC)
def test_every_public_name_is_described_with_its_parameters_and_an_example(name):
    public = getattr(sessionfx, name)
    text = inspect.getdoc(public)
    if not issubclass(public if inspect.isclass(public) else object, Exception):
        assert ">>> import sessionfx" in text
    if inspect.isfunction(public):
        described = text.partition("Parameters\n----------\n")[2].partition("\n\n")[0]
        names = [line.partition(" : ")[0] for line in described.splitlines() if not line.startswith(" ")]
        assert {*", ".join(names).split(", ")} == {*inspect.signature(public).parameters}
        assert not [name for name, kind in inspect.get_annotations(public).items() if "Any" in str(kind)]


@pytest.mark.slow
def test_the_page_shows_every_public_function_and_its_code_runs(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    page = PAGE.read_text(encoding="utf-8")
    assert [name for name in PUBLIC if inspect.isfunction(getattr(sessionfx, name)) and f".{name}(" not in page] == []
    names: dict[str, object] = {}
    for block in re.findall(r"^```python\n(.+?)^```", page, re.MULTILINE | re.DOTALL):
        exec(compile(block, str(PAGE), "exec"), names)  # noqa: S102


def test_nothing_heavy_is_imported_until_it_is_used():
    code = "import sys, sessionfx, sessionfx.api.command; sys.exit('numpy' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0
    assert set(sessionfx.__all__) <= set(dir(sessionfx))
    for name in sessionfx.__all__:
        assert getattr(sessionfx, name) is not None
    with pytest.raises(AttributeError, match="no attribute 'nothing'"):
        _ = sessionfx.nothing


def differs(found, published):
    """Whether two simulations of 2000 voxels differ, by four standard errors; percents are published with one digit."""
    return abs(found - published) > 4 * (2 * max(published * (1 - published), 0.001) / 2000) ** 0.5 + 0.0005


@pytest.mark.slow
@pytest.mark.parametrize("icc", [0.0, 0.5, 0.9])
@pytest.mark.parametrize("k", [2, 3, 5])
@pytest.mark.parametrize("kind", ["compound symmetry", "unequal variances", "unbalanced", "dropout"])
def test_power_of_the_validity_study(kind, k, icc, monkeypatch):
    situation = situations.ordinary(kind, 20, k, icc)
    asked = [contrast for contrast, _ in situation.asked]
    design = {"session_sd": np.linspace(1, 3, k)} if kind == "unequal variances" else {}
    if kind == "dropout":
        design = {"dropout": 0.5}
    if kind == "unbalanced":  # the same maps are missing
        monkeypatch.setattr(designs, "_attends", lambda *_: situation.attends)
    table = sessionfx.power(20, k, icc=icc, contrasts=asked, **design)
    cells = pd.read_csv(VALIDITY, sep="\t").query("kind == @kind and n == 20 and k == @k and icc == @icc")
    for text in asked:
        (cell,) = cells[cells["contrast"] == contrast_name(text, k)].to_dict("records")
        found = table[table["contrast"] == text].set_index("strategy")["power_0.05"]
        published = {name: cell[f"power of {name} %"] / 100 for name in found.index}
        assert [*found.index[found.isna()]] == [name for name, share in published.items() if np.isnan(share)]
        if (kind, text) == ("dropout", "mean"):  # its sessions change, so who leaves early biases this mean
            assert found.pop("summary-statistics") > published.pop("summary-statistics")
        assert [name for name, share in published.items() if differs(found[name], share)] == []
        assert not differs(found[cell["star"]], cell["power of starred %"] / 100)


def test_effect_in_standard_deviations():
    by_noncentrality = sessionfx.power(12, 3, n_voxels=300)
    by_size = sessionfx.power(12, 3, n_voxels=300, effect=by_noncentrality["effect"][0])
    pd.testing.assert_frame_equal(by_noncentrality, by_size)


def test_missing_maps():
    assert designs._attends(10, 4, 0.25, 1).sum() == 30
    assert designs._attends(5, 3, 2 / 3, 1).sum(axis=1).tolist() == [1] * 5
    table = sessionfx.power(12, 3, missing=0.3, effect=1.0, n_voxels=200)
    assert table.set_index("strategy")["power_0.05"]["marginal"] > 0.5
    assert designs._leaving(6, 3, 0.5).sum(axis=1).tolist() == [1, 2, 1, 3, 3, 3]


@pytest.mark.slow
def test_the_command(tmp_path, capsys):
    asked = ["--participants", "10", "20", "--sessions", "2", "3", "--effect", "0.5", "--voxels", "100"]
    assert command.main([*asked, "--figure", str(tmp_path / "power.svg")]) == 0
    lines = capsys.readouterr().out.splitlines()
    assert lines[0].startswith("participants\tsessions\ticc")
    assert len(lines) == 1 + 2 * 2 * 4
    assert "power at p" in (tmp_path / "power.svg").read_text(encoding="utf-8")
    assert command.main([*asked, "--output", str(tmp_path / "power.tsv")]) == 0
    assert (tmp_path / "power.tsv").read_text(encoding="utf-8").splitlines() == lines


@pytest.mark.parametrize(
    ("more", "code", "words"),
    [
        (["--icc", "1"], 2, "icc must be"),
        (["--missing", "0.9"], 2, "everyone has a map"),
        (["--dropout", "1.5"], 2, "dropout must be"),
        (["--dropout", "0.5", "--missing", "0.1"], 2, "together"),
        (["--participants", "1"], 2, "from 2 on"),
        (["--sessions", "0"], 2, "from 1 on"),
        (["--session-sd", "1"], 2, "2 positive numbers"),
        (["--effect", "nan"], 2, "finite"),
        (["--voxels", "0"], 2, "voxels"),
        (["--seed", "-1"], 2, "seed"),
        (["--contrasts", "ses-09"], 2, "09"),
        (["--figure", "power.doc"], 2, ".svg"),
        (["--output", "/no/such/folder/power.tsv"], 73, "no/such"),
    ],
)
def test_refusals_in_words(capsys, more, code, words):
    asked = ["--participants", "5", "--sessions", "2", "--effect", "1", "--voxels", "20", *more]
    assert command.main(asked) == code
    said = capsys.readouterr()
    assert said.out == ""
    assert said.err.startswith("sessionfx-power: ")
    assert said.err.count("\n") == 1
    assert words in said.err
