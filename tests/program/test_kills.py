"""Told to end, or killed, at any moment of a call: nothing is half written, no page is without its maps, a rerun ends
as an undisturbed call does.

Ten SIGKILLs and five SIGTERMs in every run of the suite; `SESSIONFX_KILLS=0:300` asks for the cases from 0 to 299, of
which every third is a SIGTERM.
"""

from __future__ import annotations

import os
import random
import shutil
import signal
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path

import pytest

from forked_calls import ForkedCalls
from output_trees import contents, differences, half_written, linked_copy
from sessionfx.simulate import SimulationOptions, simulate_dataset

pytestmark = pytest.mark.slow

ASKED = ("--contrast", "incongruent - congruent", "--nprocs", "1", "--noise-model", "ols")
BOTH = ("--strategy", "summary-statistics", "marginal", "--session-contrast", "mean")
# what is there before, and what is asked then
CALLS = {
    "first": ("", ("participant", "group", *ASKED, *BOTH)),
    "two processes": ("", ("participant", *ASKED[:3], "2", *ASKED[4:])),
    "a strategy more": ("first", ("group", *ASKED, *BOTH[:3], "session-model", *BOTH[3:])),
    "equivalence and permutations": (
        "first", ("group", *ASKED, *BOTH, "--equivalence", "0.5", "--permutations", "64", "--random-seed", "3"),
    ),
    "another threshold": ("first", ("participant", "group", *ASKED, *BOTH, "--alpha", "0.2")),
    "another model": ("first", ("participant", "group", *ASKED, *BOTH, "--confounds", "none")),
    "another contrast": ("first", ("participant", *ASKED, "--contrast", "congruent")),
    "all anew": ("first", ("participant", "group", *ASKED, *BOTH, "--force")),
}  # fmt: skip


@dataclass
class Study:
    """A dataset, and for each call the output before and after it, undisturbed, and how long it took."""

    folder: Path
    program: ForkedCalls
    after: dict[str, Path] = field(default_factory=dict)
    seconds: dict[str, float] = field(default_factory=dict)

    @property
    def output(self) -> Path:
        return self.folder / "study" / "out"

    def begin(self, name: str) -> None:
        shutil.rmtree(self.output, ignore_errors=True)
        before = CALLS[name][0]
        if before:
            linked_copy(self.after[before], self.output)

    def call(self, name: str, number: int = 0, after: float = 0.0) -> tuple[int, str, float]:
        """Give the exit code, what was printed, and how long it took."""
        arguments = [str(self.folder / "study" / "bids"), str(self.output), *CALLS[name][1]]
        code, printed, found = self.program(arguments, signal=number, after=after)
        return code, printed, found["seconds"]


@pytest.fixture(scope="module")
def study(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Study]:
    folder = tmp_path_factory.mktemp("kills")
    options = SimulationOptions(
        n_participants=3, n_sessions=2, n_runs=1, n_volumes=20, voxel_size=14.0, missing=(), write_raw_bold=False
    )
    shutil.rmtree(simulate_dataset(folder / "study" / "bids", options) / "derivatives" / "truth")
    made = Study(folder, ForkedCalls(folder))
    for name in CALLS:
        made.begin(name)
        code, printed, made.seconds[name] = made.call(name)
        assert code == 0, printed
        made.after[name] = folder / f"after-{len(made.after)}"
        made.output.rename(made.after[name])
    yield made
    made.program.close()


def pages_without_maps(output: Path) -> list[str]:
    """Sections of pages that are there of contrasts without any map."""
    sections = {path: path.name for path in output.rglob("*_section.json")}
    missing = []
    for path, name in sections.items():
        if "_contrast-" in name and (output / path.parents[1].relative_to(output)).is_dir():
            contrast = name.split("_contrast-")[1].split("_")[0]
            owner = path.parents[1]
            if not list(owner.rglob(f"*_contrast-{contrast}_*_stat-z_*statmap.nii.gz")):
                missing.append(f"{path} shows maps that are not there")
    for page in output.glob("*.html"):
        figures = output / page.stem / "figures"
        if not list(figures.glob("*_section.json")):
            missing.append(f"{page} has no section")
    return missing


def cases() -> range:
    asked = os.environ.get("SESSIONFX_KILLS")
    return range(*map(int, asked.split(":"))) if asked else range(15)


@pytest.mark.parametrize("number", cases())
def test_a_call_that_is_ended_leaves_nothing_half_done(study: Study, number: int) -> None:
    draw = random.Random(f"kills {number}")
    name = [*CALLS][draw.randrange(len(CALLS))]
    kind = signal.SIGTERM if number % 3 == 2 else signal.SIGKILL
    study.begin(name)
    code, printed, _ = study.call(name, kind, draw.random() * study.seconds[name])
    problems = [] if code in (0, -kind, 128 + kind) else [f"exit code {code}"]
    problems += ["traceback"] if "Traceback" in printed else []
    problems += half_written(study.output) + pages_without_maps(study.output)
    again, said, _ = study.call(name)
    problems += [] if again == 0 else [f"again: exit code {again}: {said[-500:]}"]
    problems += [f"again: {text}" for text in differences(study.after[name], study.output)]
    assert not problems, "\n".join([f"{name}, {kind.name}, code {code}", *problems[:12], printed[-1500:]])


def test_every_call_has_something_to_do_and_force_makes_the_same_again(study: Study) -> None:
    for name, (before, _) in CALLS.items():
        there = contents(study.after[before]) if before else {}
        assert (contents(study.after[name]) != there) is (name != "all anew"), name
