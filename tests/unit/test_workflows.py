"""Workflows call the tasks of the Makefile and agree with the package; `make lint` checks their grammar and security."""

from __future__ import annotations

import re
import subprocess
import tomllib
from pathlib import Path

import pytest
import yaml

REPOSITORY = Path(__file__).parents[2]
WORKFLOWS = {path.name: path.read_text(encoding="utf-8") for path in sorted(REPOSITORY.glob(".github/workflows/*.yml"))}
PROJECT = tomllib.loads((REPOSITORY / "pyproject.toml").read_text(encoding="utf-8"))["project"]


def _tasks() -> set[str]:
    return set(re.findall(r"(?m)^([a-z-]+):.*## ", (REPOSITORY / "Makefile").read_text(encoding="utf-8")))


def test_every_task_of_a_workflow_and_of_ci_is_in_the_makefile() -> None:
    texts = {**WORKFLOWS, ".ci/run": (REPOSITORY / ".ci/run").read_text(encoding="utf-8")}
    called = {
        task for text in texts.values() for task in re.findall(r"(?m)(?:run: |^|local-slurm )make ([a-z-]+)$", text)
    }
    assert {"demo", "test", "test-container", "test-minimum", "test-upstream", "release-check", "docs"} <= called
    assert called <= _tasks()


def test_every_task_of_the_contributors_page_is_in_the_makefile() -> None:
    named = set(re.findall(r"`make ([a-z-]+)`", (REPOSITORY / "CONTRIBUTING.md").read_text(encoding="utf-8")))
    assert named == _tasks()


def test_workflows_test_the_versions_of_python_that_the_package_names() -> None:
    prefix = "Programming Language :: Python :: 3."
    named = {"3." + text.removeprefix(prefix) for text in PROJECT["classifiers"] if text.startswith(prefix)}
    matrix = yaml.safe_load(WORKFLOWS["test.yml"])["jobs"]["suite"]["strategy"]["matrix"]["python"]
    assert set(matrix) == named
    assert PROJECT["requires-python"] == f">={min(named)}"
    used = {match for text in WORKFLOWS.values() for match in re.findall(r'python-version: "([\d.]+)"', text)}
    assert used <= named
    assert yaml.safe_load(WORKFLOWS["test.yml"])["jobs"]["minimum-versions"]["steps"][1]["with"] == {
        "python-version": min(named)
    }


@pytest.mark.parametrize("name", WORKFLOWS)
def test_no_job_may_write_unless_it_says_so(name: str) -> None:
    assert yaml.safe_load(WORKFLOWS[name])["permissions"] == {"contents": "read"}


def test_no_workflow_needs_a_secret_or_names_an_owner_or_a_registry() -> None:
    for name, text in WORKFLOWS.items():
        assert "secrets." not in text, name
        without_actions = re.sub(r"uses: [\w./-]+@[0-9a-f]{40} # v[\d.]+", "", text)
        assert re.findall(r"\b[\w-]+\.(?:io|com|org|dev)\b", without_actions) == [], name


def test_what_is_published_waits_for_a_variable_that_the_owners_set() -> None:
    jobs = yaml.safe_load(WORKFLOWS["release.yml"])["jobs"]
    jobs["publish"] = yaml.safe_load(WORKFLOWS["docs.yml"])["jobs"]["publish"]
    published = {"image": "CONTAINER_REGISTRY", "index": "PACKAGE_INDEX", "publish": "PAGES"}
    contributing = (REPOSITORY / "CONTRIBUTING.md").read_text(encoding="utf-8")
    for job, variable in published.items():
        assert f"vars.{variable} " in jobs[job]["if"]
        assert f"`{variable}`" in contributing


def test_lowest_versions_are_those_of_the_package() -> None:
    printed = subprocess.run([REPOSITORY / "tools/minimum-versions"], capture_output=True, text=True, check=True).stdout
    lowest = dict(line.split("==") for line in printed.splitlines())
    assert set(lowest) >= {re.match(r"[\w-]+", requirement)[0] for requirement in PROJECT["dependencies"]}
    assert lowest["nilearn"] == re.search(r"nilearn>=([\d.]+)", str(PROJECT["dependencies"]))[1]
