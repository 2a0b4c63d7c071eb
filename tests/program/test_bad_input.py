"""Bad input: every mistake gets its exit code and one plain paragraph; the input is never touched.

A tiny dataset is simulated once, copied for every test, and broken in one place. `Study.call` runs the program in
this process and checks what holds for every call: no traceback, and not a byte of the input changed.
"""

from __future__ import annotations

import dataclasses
import gzip
import json
import os
import re
import shutil
import signal
import struct
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import nibabel as nib
import numpy as np
import pandas as pd
import pytest

from calls import Called, call_main, require, tree_state
from program import simulated
from sessionfx.cli import main

EXPRESSION = "incongruent - congruent"
LABEL = "incongruentMinusCongruent"
SPACE = "MNI152NLin2009cAsym"
STATISTICS = ("effect", "variance", "t", "z", "p")
RUN = "sub-01_ses-01_task-stroop_run-01"  # the run that is broken, unless a test says otherwise
GRID, SMALLER_GRID = "11×14×12 voxels of 14×14×14 mm", "10×14×12 voxels of 14×14×14 mm"


# Helpers ----------------------------------------------------------------------------------------------------


def names_below(root: Path, *, outside: Path) -> set[Path]:
    """Everything below `root` that is not `outside` or in it."""
    return {path for path in root.rglob("*") if path != outside and outside not in path.parents}


@dataclasses.dataclass
class Study:
    """A copy of the dataset to break, and where its results go."""

    pristine: Path
    folder: Path
    capsys: pytest.CaptureFixture[str]

    @property
    def root(self) -> Path:
        return self.folder / "bids"

    @property
    def out(self) -> Path:
        return self.folder / "out"

    @property
    def fmriprep(self) -> Path:
        return self.root / "derivatives" / "fmriprep"

    def call(
        self,
        *options: str,
        level: str = "participant",
        contrast: str | None = EXPRESSION,
        bids: Path | str | None = None,
        out: Path | str | None = None,
        report: bool = False,
        noise_model: str | None = "ols",
    ) -> Called:
        """Run the program; whatever happens, the input stays as it is and no traceback is shown.

        The noise model is the quickest one: no test here depends on it.
        """
        arguments = [str(bids or self.root), str(out or self.out), level, "--nprocs", "1"]
        arguments += [] if contrast is None else [f"--contrast={contrast}"]
        arguments += [] if noise_model is None else ["--noise-model", noise_model]
        arguments += [] if report else ["--no-report"]
        return call_main(self.capsys, [*arguments, *options], self.root)

    def done(self, *options: str, **choices: Any) -> Called:
        """Call the program, which must succeed."""
        called = self.call(*options, **choices)
        assert called.code == 0, called.error
        return called

    def repair(self) -> None:
        """Put the dataset back as it was, times included."""
        intact = {path.relative_to(self.pristine) for path in self.pristine.rglob("*")}
        for path in sorted(self.root.rglob("*"), reverse=True):
            if path.is_symlink() or path.is_fifo() or path.relative_to(self.root) not in intact:
                path.rmdir() if path.is_dir() and not path.is_symlink() else path.unlink()
        shutil.copytree(self.pristine, self.root, dirs_exist_ok=True)

    def events(self, run: str = RUN) -> Path:
        return self.root / _func(run) / f"{run}_events.tsv"

    def confounds(self, run: str = RUN) -> Path:
        return self.fmriprep / _func(run) / f"{run}_desc-confounds_timeseries.tsv"

    def bold(self, run: str = RUN) -> Path:
        return self.fmriprep / _func(run) / f"{run}_space-{SPACE}_desc-preproc_bold.nii.gz"

    def mask(self, run: str = RUN) -> Path:
        return self.fmriprep / _func(run) / f"{run}_space-{SPACE}_desc-brain_mask.nii.gz"

    def bold_json(self, run: str = RUN) -> Path:
        return self.bold(run).with_name(self.bold(run).name.replace(".nii.gz", ".json"))

    def log(self, participant: str = "sub-01") -> str:
        """The warnings of a participant."""
        (path,) = (self.out / "logs").glob(f"{participant}_*_log.txt")
        return path.read_text(encoding="utf-8")

    def session_map(self, statistic: str, run: str = RUN) -> Path:
        subject, session = run.split("_")[:2]
        name = f"{subject}_{session}_task-stroop_space-{SPACE}_contrast-{LABEL}_stat-{statistic}"
        return self.out / _func(run) / f"{name}_desc-fixedEffects_statmap.nii.gz"


def _func(run: str) -> Path:
    subject, session = run.split("_")[:2]
    return Path(subject, session, "func")


def maps_of(out: Path, participant: str) -> dict[str, bytes]:
    """Bytes of all statistical maps of a participant by name."""
    return {path.name: path.read_bytes() for path in (out / participant).rglob("*_statmap.nii.gz")}


def edit_table(path: Path, change: Callable[[pd.DataFrame], object]) -> None:
    """Change a TSV file through a table of text; `change` works in place or returns the new table."""
    table = pd.read_csv(path, sep="\t", dtype=str, keep_default_na=False)
    changed = change(table)
    table = changed if isinstance(changed, pd.DataFrame) else table
    table.to_csv(path, sep="\t", index=False)


def set_cell(path: Path, row: int, column: str, text: str) -> None:
    """Set one cell of a TSV file; the row counts from zero below the header."""

    def change(table: pd.DataFrame) -> None:
        table.loc[row, column] = text

    edit_table(path, change)


def edit_image(path: Path, change: Callable[[np.ndarray], np.ndarray], *, shift: float = 0.0) -> None:
    """Change the data of an image, and move it by `shift` mm."""
    image = nib.load(path)
    data = change(np.asarray(image.dataobj))
    affine = image.affine.copy()
    affine[:3, 3] += shift
    header = image.header.copy()
    header.set_data_dtype(data.dtype)
    edited = nib.Nifti1Image(data, affine, header)
    edited.header["pixdim"][4] = header["pixdim"][4]
    nib.save(edited, path)


def edit_json(path: Path, **fields: object) -> None:
    """Set fields of a JSON file; None removes one."""
    content = json.loads(path.read_text(encoding="utf-8")) | fields
    path.write_text(json.dumps({key: value for key, value in content.items() if value is not None}), encoding="utf-8")


def set_header_repetition_time(path: Path, seconds: float) -> None:
    image = nib.load(path)
    edited = nib.Nifti1Image(np.asarray(image.dataobj), image.affine, image.header)
    edited.header["pixdim"][4] = seconds
    nib.save(edited, path)


def edit_header(path: Path, offset: int, layout: str, *values: float) -> None:
    """Overwrite fields of a compressed NIfTI-1 header."""
    content = bytearray(gzip.decompress(path.read_bytes()))
    struct.pack_into(layout, content, offset, *values)
    path.write_bytes(gzip.compress(bytes(content)))


def become_pipe(path: Path) -> None:
    path.unlink()
    os.mkfifo(path)


def link_to_nothing(path: Path) -> None:
    """Make it a file of a DataLad dataset whose content was not fetched."""
    path.unlink()
    path.symlink_to("../../.git/annex/objects/nowhere")


def truncate(path: Path) -> None:
    content = path.read_bytes()
    path.write_bytes(content[: len(content) // 2])


def rename_entity(root: Path, old: str, new: str, *, keep: bool = False) -> None:
    """Replace a piece of all file names below a folder; with `keep`, add copies instead."""
    for path in sorted(root.rglob(f"*{old}*")):
        target = path.with_name(path.name.replace(old, new))
        shutil.copy2(path, target) if keep else path.rename(target)


# Fixtures ---------------------------------------------------------------------------------------------------


@pytest.fixture(scope="session")
def pristine(tmp_path_factory: pytest.TempPathFactory) -> Path:
    root = simulated(tmp_path_factory.mktemp("bad_input"))
    shutil.rmtree(root / "derivatives" / "truth")
    return root


@pytest.fixture(autouse=True)
def _own_signals() -> Iterator[None]:
    """The program takes SIGTERM for itself; give it back to pytest."""
    handler = signal.getsignal(signal.SIGTERM)
    yield
    signal.signal(signal.SIGTERM, handler)


@pytest.fixture
def study(pristine: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> Study:
    one = Study(pristine, tmp_path / "study", capsys)
    shutil.copytree(pristine, one.root)
    return one


@pytest.fixture(scope="session")
def intact_maps(pristine: Path, tmp_path_factory: pytest.TempPathFactory) -> dict[str, dict[str, bytes]]:
    """Maps of both participants where nothing is broken."""
    handler = signal.getsignal(signal.SIGTERM)
    out = tmp_path_factory.mktemp("intact") / "out"
    options = ["--contrast", EXPRESSION, "--nprocs", "1", "--no-report", "--noise-model", "ols"]
    assert main([str(pristine), str(out), "participant", *options]) == 0
    signal.signal(signal.SIGTERM, handler)
    maps = {participant: maps_of(out, participant) for participant in ("sub-01", "sub-02")}
    # two sessions, their mean and their difference, five statistics each; and where they are combined, their dof
    assert [len(files) for files in maps.values()] == [22, 22]
    return maps


# Refused as a whole -----------------------------------------------------------------------------------------


@dataclasses.dataclass(frozen=True)
class Refused:
    """A call that is refused: its exit code, words of the refusal, and what was damaged before.

    `{bids}`, `{out}`, `{folder}`, `{fmriprep}` and `{given}`, a file with options, stand for paths of the study.
    """

    name: str
    code: int
    words: tuple[str, ...]
    damage: Callable[[Study], object] = lambda study: None
    options: tuple[str, ...] = ()
    choices: dict[str, Any] = dataclasses.field(default_factory=dict)


def _describe(place: str, content: bytes | None) -> Callable[[Study], object]:
    def damage(study: Study) -> None:
        path = study.root / place / "dataset_description.json"
        path.unlink() if content is None else path.write_bytes(content)

    return damage


def _given(text: str | None) -> Callable[[Study], object]:
    return lambda study: None if text is None else (study.folder / "given").write_text(text, encoding="utf-8")


def _preprocessed_elsewhere(study: Study) -> None:
    shutil.copytree(study.fmriprep, study.folder / "preprocessed")


def _two_spaces(study: Study) -> None:
    rename_entity(study.fmriprep, f"_space-{SPACE}_", "_space-T1w_", keep=True)
    rename_entity(study.fmriprep, f"_space-{SPACE}_", "_space-MNI152NLin6Asym_")


def _without_runs(study: Study) -> None:
    for path in study.fmriprep.rglob("*_bold.nii.gz"):
        path.unlink()


NO_EXPRESSION = ("congruent -", "congruent incongruent", "(congruent", "congruent)", "", " ", "congruent*incongruent", "3",
                 "congruent/0", "congruent/incongruent", "congruent + 1", "`congruent", "congruent - congruent", "1e999*congruent",
                 "a - b\nc", "(" * 500 + "congruent")  # fmt: skip
IMPOSSIBLE = ("--nprocs=0", "--nprocs=-1", "--nprocs=two", "--omp-nthreads=0", "--mem-gb=0", "--alpha=2", "--alpha=0", "--alpha=nan",
              "--high-pass=0", "--high-pass=inf", "--smoothing-fwhm=-1", "--cluster-threshold=1.5", "--hrf-model=gamma",
              "--strategy=bayes")  # fmt: skip
LABEL_OPTIONS = ("--participant-label", "--session-label", "--task", "--space", "--res")
UNUSABLE_DESCRIPTIONS = {
    "not-json": (b"{Name: x}", ("cannot be read as JSON", "Correct the file")),
    "not-utf8": (b"\xff\xfe{}", ("UTF-16", "Save it as UTF-8")),
    "empty": (b"", ("cannot be read as JSON", "Correct the file")),
    "list": (b'["Name"]', ("JSON object", "Correct the file")),
    "no-BIDSVersion": (b'{"Name": "x"}', ("BIDSVersion", "Add it", "--skip-bids-validation")),
}
DESCRIPTION = "{bids}/dataset_description.json"
OTHER_PLACES = ("", "/results", "/sub-01/ses-01/func/x", "/derivatives/sessionfx", "/derivatives/fmriprep", "/a/../b")

REFUSED = [
    # the input dataset
    Refused("no-description", 16, ("{bids}", "dataset_description.json", "--skip-bids-validation", "BIDSVersion"), _describe(".", None)),
    *(Refused(f"description-{name}", 16, (DESCRIPTION, *words), _describe(".", content))
      for name, (content, words) in UNUSABLE_DESCRIPTIONS.items()),
    Refused("description-unvalidated", 16, (DESCRIPTION, "JSON object"), _describe(".", b'["Name"]'), ("--skip-bids-validation",)),
    Refused("no-folder", 16, ("{folder}/nowhere", "does not exist", "Give the root"), choices={"bids": "{folder}/nowhere"}),
    Refused("file-for-folder", 16, ("{bids}/README.md", "Give the root"), choices={"bids": "{bids}/README.md"}),
    Refused("no-derivatives", 16, ("{bids}/derivatives", "Run fMRIPrep", "--derivatives"), lambda s: shutil.rmtree(s.root / "derivatives")),
    Refused("no-such-derivatives", 16, ("--derivatives {folder}/none", "does not exist", "Give the folder"),
            options=("--derivatives", "{folder}/none")),
    *(Refused(f"derivatives-{name}", 16, ("{fmriprep}/dataset_description.json", "JSON", "Correct the file"),
              _describe("derivatives/fmriprep", content)) for name, content in {"not-json": b"not JSON", "list": b'["Name"]'}.items()),
    Refused("derivatives-without-description", 16, ("--derivatives {fmriprep}", "dataset_description.json", "Give the folder"),
            _describe("derivatives/fmriprep", None), ("--derivatives", "{fmriprep}")),
    Refused("no-preprocessed-runs", 16, ("{fmriprep}", "desc-preproc_bold.nii.gz", "Run fMRIPrep"), _without_runs),
    # filters that match nothing list what exists, and so do choices that are not made
    *(Refused(f"unknown{option}", 18, (f"{option} unknown9", "What exists", exists), options=(option, "unknown9"))
      for option, exists in zip(LABEL_OPTIONS, ("01, 02", "01, 02", "stroop", SPACE, "none"), strict=True)),
    Refused("unknown-resolution", 18, ("--res 1", "resolution", "What exists", ": 2."),
            lambda s: rename_entity(s.fmriprep, f"_space-{SPACE}_", f"_space-{SPACE}_res-2_"), ("--res", "1")),
    Refused("one-unknown-participant", 18, ("77", "01, 02"), options=("--participant-label", "01", "sub-77")),
    Refused("two-spaces", 2, ("MNI152NLin6Asym, T1w", "--space"), _two_spaces),
    # contrasts
    Refused("unknown-condition", 2, ("--contrast 'incongruent - neutral'", "'neutral'", "congruent, incongruent"),
            choices={"contrast": "incongruent - neutral"}),
    Refused("nearly-a-condition", 2, ("'Incongruent'", "Is 'incongruent' meant?"), choices={"contrast": "Incongruent - congruent"}),
    *(Refused(f"no-expression-{text[:25]!r}", 2, ("--contrast '", "such as", "incongruent - congruent"), choices={"contrast": text})
      for text in NO_EXPRESSION),
    # events
    *(Refused(f"events-{option}={value}", 2, (f"{option} {value}" if spelled is None else spelled, *words), options=(f"{option}={value}",))
      for option, value, spelled, *words in [
          ("--condition-column", "trial", None, "no events file has a column 'trial'", "Did you mean 'trial_type'?", "response_time"),
          ("--duration-column", "response", "--duration-column", "Did you mean 'response_time'?", "The columns are: onset"),
          ("--modulator", "congruent: rt", "--modulator 'congruent: rt'", "no events file has a column 'rt'"),
          ("--modulator", "rt + 3*", "--modulator 'rt + 3*'", "it ends where", "such as 'rt', 'go: rt'"),
          ("--event-filter", "response", "--event-filter 'response'", "cannot be read", "'rt < 2'"),
          ("--event-filter", "rt < 2", "--event-filter 'rt < 2'", "no events file has a column 'rt'"),
          ("--recode", "congruent", "--recode 'congruent'", "'old=new'")]),
    Refused("not-a-modulated-column", 2, ("'congruent_x_response_time'", "congruent, incongruent"),
            choices={"contrast": "congruent_x_response_time"}),
    Refused("no-trial_type", 2, ("'incongruent'", "Events without trial_type", "--condition-column ('kind' could be it)"),
            lambda s: [edit_table(path, lambda t: t.rename(columns={"trial_type": "kind"})) for path in s.root.rglob("*_events.tsv")]),
    Refused("one-label", 2, ("'x'", "'congruent'", "'incongruent'", "NAME=incongruent"), options=("--contrast=x=incongruent",),
            choices={"contrast": "x=congruent"}),
    Refused("one-label-of-sessions", 2, ("'x'", "'ses-01'", "'ses-02'", "NAME=ses-02"),
            options=("--session-contrast=x=ses-01", "--session-contrast=x=ses-02")),
    Refused("unknown-session", 2, ("--session-contrast 'ses-03 - ses-01'", "ses-03", "ses-01, ses-02", "Correct the name"),
            options=("--session-contrast", "ses-03 - ses-01")),
    *(Refused(f"name-{name}{option}", 2, (f"'{name}={body}'", "letter or digit"), options=(f"{option}={name}={body}",))
      for name in ("..", "/", "__", "") for option, body in (("--contrast", "congruent"), ("--session-contrast", "mean"))),
    # places that cannot be written
    Refused("output-is-a-file", 73, ("{out}", "is a file", "Choose another name"), lambda s: s.out.write_text("in the way")),
    *(Refused(f"output-in-input{place}-{level}", 73, ("{bids}" + place, "input dataset", "untouched", "Choose a folder"),
              choices={"out": "{bids}" + place, "level": level}) for place in OTHER_PLACES for level in ("participant", "group")),
    Refused("output-in-derivatives", 73, ("{folder}/preprocessed/sessionfx", "lies inside", "Choose a folder"), _preprocessed_elsewhere,
            ("--derivatives", "{folder}/preprocessed"), {"out": "{folder}/preprocessed/sessionfx"}),
    Refused("output-links-to-input", 73, ("{out}", "input dataset", "Choose a folder"),
            lambda s: s.out.symlink_to(s.root, target_is_directory=True)),
    Refused("output-cannot-be-made", 73, ("/proc/sessionfx-out", "Choose another"), choices={"out": "/proc/sessionfx-out"}),
    Refused("output-below-a-file", 73, ("{given}/out", "Choose another"), _given(""), choices={"out": "{given}/out"}),
    *(Refused(f"{option[2:]}-in{place}", 73, (f"{option} {place}/work", words, "Choose another"), _given(""), (option, f"{place}/work"))
      for option in ("--work-dir", "--bids-database-dir")
      for place, words in {"{bids}": "untouched", "{fmriprep}": "untouched", "/proc": "", "{given}": ""}.items()),
    # levels, and files with options
    Refused("group-before-participant", 17, ("{out}", "no first-level maps", "participant level first"), choices={"level": "group"}),
    *(Refused(f"filter-{name}", 2, ("--bids-filter-file {given}", word), _given(text), ("--bids-filter-file", "{given}"))
      for name, text, word in [
          ("not-json", "{bold: 1}", "JSON"), ("list", "[]", "object"), ("no-object", '{"bold": 1}', "object"),
          ("unknown-key", '{"bolt": {}}', "bold"), ("missing", None, "not exist")]),
    *(Refused(f"config-{name}", 2, words, _given(text), ("--config-file", "{given}"))
      for name, text, *words in [
          ("unknown-key", "smoothing = 6", "--config-file {given}", "'smoothing'", "sessionfx --help"),
          ("not-toml", "smoothing-fwhm: 6", "--config-file {given}", "TOML"),
          ("bad-value", "smoothing-fwhm = 'six'", "smoothing-fwhm", "'six'"),
          ("table", "[group]\nalpha = 0.05", "--config-file {given}", "'group'"),
          ("itself", "config-file = 'x'", "--config-file {given}", "'config-file'"),
          ("missing", None, "--config-file {given}", "does not exist")]),
    # the command line
    *(Refused(option, 2, (*option.split("="), "--help"), options=(option,)) for option in IMPOSSIBLE),
    Refused("unknown-option", 2, ("--smoothing", "--help"), options=("--smoothing", "6")),
    *(Refused(f"{option}={label}", 2, (option, "not a BIDS label", "letters and digits"), options=(f"{option}={label}",))
      for option in LABEL_OPTIONS for label in ("../../etc", "", "a/b", "01_ses-02", "*", ".", "0\n1")),
]  # fmt: skip


@pytest.mark.many
@pytest.mark.parametrize("case", REFUSED, ids=lambda case: case.name)
def test_a_call_that_cannot_be_is_refused_in_words_before_anything_is_written(study: Study, case: Refused) -> None:
    places = {
        "bids": study.root,
        "out": study.out,
        "folder": study.folder,
        "fmriprep": study.fmriprep,
        "given": study.folder / "given",
    }

    def placed(text: Any) -> Any:
        for name, path in places.items():
            text = text.replace(f"{{{name}}}", str(path)) if isinstance(text, str) else text
        return text

    case.damage(study)
    before = tree_state(study.folder)
    called = study.call(*map(placed, case.options), **{name: placed(value) for name, value in case.choices.items()})
    called.refused(case.code, *map(placed, case.words))
    assert tree_state(study.folder) == before


# The input dataset ------------------------------------------------------------------------------------------


@pytest.mark.slow
@pytest.mark.parametrize("text", [None, "not JSON", '{"Name": "x"}'], ids=["none", "text", "lacking"])
def test_skip_bids_validation_accepts_a_missing_or_broken_description(study: Study, text: str | None) -> None:
    path = study.root / "dataset_description.json"
    path.unlink()
    if text is not None:
        path.write_text(text, encoding="utf-8")
    study.done("--skip-bids-validation", "--participant-label", "01")
    assert len(maps_of(study.out, "sub-01")) == 22


# Filters that match nothing ---------------------------------------------------------------------------------


@pytest.mark.slow
def test_a_participant_without_any_preprocessed_run_is_named_as_left_out(study: Study) -> None:
    for path in (study.fmriprep / "sub-02").rglob("*_bold.nii.gz"):
        path.unlink()
    done = study.done()
    named = "Without a preprocessed run of task stroop in this selection, and left out: sub-02.\n"
    assert named in done.error
    assert not maps_of(study.out, "sub-02")
    assert named in study.call("--dry-run").error


def test_a_participant_who_was_not_preprocessed_is_named_as_left_out(study: Study) -> None:
    shutil.rmtree(study.fmriprep / "sub-02")
    named = "Without a preprocessed run of task stroop in this selection, and left out: sub-02.\n"
    assert named in study.call("--dry-run").error


def test_events_of_the_derivatives_are_used_and_said_in_the_log(study: Study) -> None:
    events = study.root / "sub-01/ses-01/func" / f"{RUN}_events.tsv"
    events.rename(study.fmriprep / "sub-01/ses-01/func" / events.name)
    study.done("--participant-label", "01")
    log = next((study.out / "logs").glob("sub-01_*_log.txt")).read_text()
    assert f"no events of this run; those of the derivatives are used: {study.fmriprep}" in log


def test_files_that_may_be_runs_of_their_own_are_said_on_screen(study: Study) -> None:
    for path in [*study.root.rglob(f"{RUN}*")]:
        shutil.copy(path, path.with_name(path.name.replace("_run-", "_acq-second_run-")))
    done = study.done("--participant-label", "01")
    assert "acq" in done.error.splitlines()[0]


# Several choices --------------------------------------------------------------------------------------------


@pytest.mark.slow
def test_the_default_space_is_taken_among_several(study: Study, intact_maps: dict[str, dict[str, bytes]]) -> None:
    rename_entity(study.fmriprep, f"_space-{SPACE}_", "_space-T1w_", keep=True)
    study.done()
    assert maps_of(study.out, "sub-01") == intact_maps["sub-01"]
    assert not list(study.out.rglob("*space-T1w*"))


# Contrasts --------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "text",
    ['__import__("os").system("touch X")', "@pd.read_csv", "congruent.__class__", "incongruent if 1 else congruent",
     "[c for c in (1,)]", "lambda: 0", "`congruent`.mean()", "{congruent}", "exec('open(\"X\", \"w\")')",
     "incongruent; open('X', 'w')", "${touch X}", "NAME=@open('X','w')"],
)  # fmt: skip
@pytest.mark.parametrize("option", ["--contrast", "--session-contrast"])
def test_a_contrast_never_reaches_python(study: Study, text: str, option: str, monkeypatch: pytest.MonkeyPatch) -> None:
    def forbidden(*_: object, **__: object) -> None:
        raise AssertionError("the text was executed")

    for owner, name in ((os, "system"), (pd, "eval"), (pd.DataFrame, "eval")):
        monkeypatch.setattr(owner, name, forbidden)
    monkeypatch.chdir(study.folder)
    before = names_below(study.folder, outside=study.out)
    options = () if option == "--contrast" else (f"{option}={text}",)
    done = study.call(*options, contrast=text if option == "--contrast" else EXPRESSION)
    done.refused(2, f"{option} '")
    assert names_below(study.folder, outside=study.out) == before
    assert not study.out.exists()


def test_no_contrast_and_unusable_events_give_the_reason(study: Study) -> None:
    for path in study.root.rglob("*_events.tsv"):
        edit_table(path, lambda table: table.drop(columns="duration"))
    study.call(contrast=None).refused(2, "No --contrast", str(study.events()), "'duration'", "so are 3 others")
    for path in study.root.rglob("*_events.tsv"):
        path.unlink()
    study.call(contrast=None).refused(2, "No --contrast", "No run has an events file")


@pytest.mark.slow
def test_a_condition_with_a_minus_sign_hints_at_backticks_which_work(study: Study) -> None:
    for path in study.root.rglob("*_events.tsv"):
        edit_table(path, lambda table: table.replace("incongruent", "stop-signal"))
    refusal = study.call(contrast="stop-signal - congruent").refused(2, "'stop'", "backticks", "stop-signal")
    (remedy,) = re.findall("--contrast '(`.*?)'", refusal)
    assert remedy == "`stop-signal` - congruent"
    study.done("--participant-label", "01", contrast=remedy)


def test_a_sum_that_could_be_a_condition_is_said(study: Study) -> None:
    """`in-congruent` is a condition, and `in` and `congruent` are others."""
    for path in study.root.rglob("*_events.tsv"):
        names = ("in", "congruent", "in-congruent")
        edit_table(path, lambda table, names=names: table.assign(trial_type=np.resize(names, len(table))))
    done = study.done("--participant-label", "01", "--dry-run", contrast="in-congruent")
    assert "--contrast '`in-congruent`'" in done.error


# One broken participant -------------------------------------------------------------------------------------


@dataclasses.dataclass(frozen=True)
class Broken:
    """One thing wrong with sub-01: how, and what the message must hold; `{name}` are paths of the study."""

    name: str
    damage: Callable[[Study], object]
    fragments: tuple[str, ...]
    options: tuple[str, ...] = ()


def _shorten_run(study: Study, n_volumes: int) -> None:
    edit_image(study.bold(), lambda data: data[..., :n_volumes])
    edit_table(study.confounds(), lambda table: table.head(n_volumes))
    edit_table(study.events(), lambda table: table.assign(onset=[str(0.1 * i) for i in range(len(table))]))


def _session_on_other_grid(study: Study) -> None:
    for path in (study.bold(), study.mask()):
        edit_image(path, lambda data: data[:-1])


def _no_repetition_time(study: Study) -> None:
    edit_json(study.bold_json(), RepetitionTime=None)
    set_header_repetition_time(study.bold(), 0.0)


def _move_mask(study: Study) -> None:
    edit_image(study.mask(), lambda data: data, shift=5.0)


BROKEN = [
    Broken("events-missing", lambda s: s.events().unlink(), (f"{RUN}_events.tsv", "Add it")),
    Broken("events-not-fetched", lambda s: link_to_nothing(s.events()), ("{events}", "not fetched", "Get the file")),
    Broken("bold-not-fetched", lambda s: link_to_nothing(s.bold()), ("{bold}", "not fetched", "Get the file")),
    Broken("events-without-trial_type", lambda s: edit_table(s.events(), lambda t: t.drop(columns="trial_type")),
           ("{events}", "'trial_type'", "response_time", "--condition-column")),
    Broken("events-header-only", lambda s: edit_table(s.events(), lambda t: t.head(0)), ("{events}", "no event")),
    Broken("onset-missing", lambda s: set_cell(s.events(), 3, "onset", "n/a"),
           ("{events}", "'onset'", "line 5", "n/a", "Correct or remove")),
    Broken(
        "onsets-in-milliseconds",
        lambda s: edit_table(s.events(), lambda t: t.assign(onset=(t["onset"].astype(float) * 1000).astype(str))),
        ("{events}", "no event falls into the run", "seconds", "correct the file"),
    ),
    Broken("duration-negative", lambda s: set_cell(s.events(), 2, "duration", "-1.5"),
           ("{events}", "'duration'", "line 4", "below zero", "Correct that row")),
    Broken("bold-truncated", lambda s: truncate(s.bold()), ("{bold}", "truncated", "anew")),
    Broken("bold-text", lambda s: s.bold().write_text("no image"), ("{bold}", "cannot be read", "anew")),
    Broken("bold-3d", lambda s: edit_image(s.bold(), lambda d: d[..., 0]), ("{bold}", "4-D", "whole run")),
    Broken("bold-one-volume", lambda s: _shorten_run(s, 1), ("{bold}", "whole run")),
    Broken("bold-constant", lambda s: edit_image(s.bold(), np.ones_like),
           ("{bold}", "no voxel", "varying", "Check this run")),
    Broken("fewer-volumes-than-regressors", lambda s: _shorten_run(s, 8),
           (RUN, "8 volumes", "regressors", "--confounds")),
    Broken("confounds-with-too-few-rows", lambda s: edit_table(s.confounds(), lambda t: t.head(37)),
           ("{confounds}", "37 rows", "40 volumes", "same preprocessing")),
    Broken("confound-column-missing", lambda s: edit_table(s.confounds(), lambda t: t.drop(columns="trans_y")),
           ("{confounds}", "'trans_y'", "global_signal", "Choose among them", "--confounds none")),
    Broken("confound-n/a-in-the-middle", lambda s: set_cell(s.confounds(), 20, "rot_x", "n/a"),
           ("{confounds}", "'rot_x'", "line 22", "n/a", "Leave this column out")),
    Broken("sessions-on-different-grids", _session_on_other_grid,
           ("sub-01", "ses-01", "ses-02", "different grids", "{grid}", "{smaller grid}", "Preprocess")),
    Broken("mask-empty", lambda s: edit_image(s.mask(), np.zeros_like), ("{mask}", "empty", "Check")),
    Broken("mask-cropped", lambda s: edit_image(s.mask(), lambda d: d[1:]), ("{mask}", "{bold}", "grid", "Use the")),
    Broken("mask-moved", _move_mask, ("{mask}", "grid", "{bold}", "Use the mask")),
    Broken("repetition-time-missing", _no_repetition_time, (RUN, "RepetitionTime", "_bold.json")),
    Broken("repetition-time-in-milliseconds", lambda s: edit_json(s.bold_json(), RepetitionTime=2000),
           (RUN, "RepetitionTime", "2000", "seconds", "Correct the sidecar")),
    Broken("events-pipe", lambda s: become_pipe(s.events()), ("{events}", "a pipe, not a file")),
    Broken("bold-pipe", lambda s: become_pipe(s.bold()), ("{bold}", "a pipe, not a file")),
    Broken("sidecar-not-fetched", lambda s: s.bold_json().write_text("/annex/objects/MD5E-s12--0123.json\n"),
           ("{bold_json}", "git-annex pointer", "datalad get")),
    Broken("sidecar-not-json", lambda s: s.bold_json().write_text("{RepetitionTime: 2}"),
           ("{bold_json}", "JSON", "Correct")),
]  # fmt: skip


@pytest.mark.slow
@pytest.mark.parametrize("case", BROKEN, ids=lambda case: case.name)
def test_a_broken_participant_fails_alone_and_completes_after_repair(
    study: Study, case: Broken, intact_maps: dict[str, dict[str, bytes]]
) -> None:
    case.damage(study)
    known = {
        "{events}": study.events(), "{bold}": study.bold(), "{mask}": study.mask(), "{confounds}": study.confounds(),
        "{bold_json}": study.bold_json(), "{grid}": GRID, "{smaller grid}": SMALLER_GRID,
    }  # fmt: skip
    failed = study.call(*case.options)
    failed.failed("sub-01", *(str(known.get(fragment, fragment)) for fragment in case.fragments))
    assert "sub-02: done" in failed.error
    assert maps_of(study.out, "sub-02") == intact_maps["sub-02"], "the other participant is finished and complete"
    assert not maps_of(study.out, "sub-01")
    assert not list((study.out / "logs").glob("sub-01_*_record.json"))
    assert list((study.out / "logs").glob("sub-01_*_crash.txt"))

    study.repair()
    done = study.done(*case.options)
    assert "sub-01: done" in done.error
    assert "sub-02: finished before, skipped" in done.error
    assert {participant: maps_of(study.out, participant) for participant in intact_maps} == intact_maps


@pytest.mark.slow
def test_a_participant_broken_after_success_is_no_longer_finished(
    study: Study, intact_maps: dict[str, dict[str, bytes]]
) -> None:
    assert study.call().code == 0
    truncate(study.bold())
    study.call().failed("sub-01", str(study.bold()))
    again = study.call()
    again.failed("sub-01", str(study.bold()))
    assert "sub-02: finished before" in again.error
    study.repair()
    done = study.call()
    assert done.code == 0
    assert "sub-01: done" in done.error
    assert maps_of(study.out, "sub-01") == intact_maps["sub-01"]


@pytest.mark.slow
def test_maps_from_before_a_participant_broke_do_not_enter_the_group_unsaid(study: Study) -> None:
    assert study.call().code == 0
    set_cell(study.events(), 3, "onset", "n/a")
    study.call().failed("sub-01", str(study.events()))
    assert not list(study.out.glob("sub-01/**/*_statmap.nii.gz")), "its maps are of input that is no longer there"
    group = study.call(level="group")
    assert group.code == 17
    assert "maps of one only (sub-02)" in group.error


@pytest.mark.slow
def test_a_repaired_participant_leaves_no_crash_report(study: Study) -> None:
    study.events().unlink()
    assert study.call().code == 1
    study.repair()
    assert study.call().code == 0
    assert not list((study.out / "logs").glob("*_crash.txt"))


@pytest.mark.slow
@pytest.mark.parametrize(("name", "near"), [("tarns_x", "trans_x"), ("motion36", "motion6")])
def test_a_confound_nobody_has_is_refused_once_with_presets_and_columns_listed(
    study: Study, name: str, near: str
) -> None:
    done = study.call("--confounds", name)
    done.refused(
        2,
        f"--confounds '{name}'",
        "motion6, motion12",
        "compcor",
        f"Did you mean '{near}'?",
        "global_signal",
        "Choose among them",
    )
    assert not study.out.exists()
    assert study.call("--confounds", "global_signal", "--dry-run").code == 0


@pytest.mark.slow
def test_a_confound_that_one_participant_lacks_fails_that_one(study: Study) -> None:
    edit_table(study.confounds(), lambda table: table.drop(columns="global_signal"))
    study.call("--confounds", "global_signal").failed("sub-01", "'global_signal'", str(study.confounds()))


@pytest.mark.slow
def test_stop_on_first_crash_leaves_the_rest_undone_and_says_so(study: Study) -> None:
    study.events().unlink()
    done = study.call("--stop-on-first-crash")
    assert done.code == 1
    assert "sub-01: FAILED" in done.error
    assert not maps_of(study.out, "sub-01")
    assert not maps_of(study.out, "sub-02")
    assert "the others are finished" not in done.error, "sub-02 was not analysed"
    study.repair()
    assert study.call("--stop-on-first-crash").code == 0


# Oddities that are no errors --------------------------------------------------------------------------------


@pytest.mark.slow
def test_a_negative_onset_is_kept_with_a_warning(study: Study) -> None:
    set_cell(study.events(), 0, "onset", "-3")
    done = study.done()
    require(study.log(), (study.events().name, "1 event", "negative onset"))
    assert "warning" in done.error


@pytest.mark.slow
@pytest.mark.parametrize("options", [(), ("--smoothing-fwhm", "20")], ids=["unsmoothed", "smoothed"])
def test_voxels_that_are_constant_or_not_finite_are_left_out_and_counted(
    study: Study, options: tuple[str, ...]
) -> None:
    runs = (RUN, RUN.replace("ses-01", "ses-02"))
    common = np.logical_and.reduce([np.asarray(nib.load(study.mask(run)).dataobj) > 0 for run in runs])
    voxels = np.argwhere(common)[:: int(common.sum()) // 6][:6]
    constant, bad = voxels[:2], voxels[2:6]

    def spoil(data: np.ndarray) -> np.ndarray:
        data = data.astype(np.float32)
        data[tuple(constant.T)] = 700.0
        data[tuple(bad[:2].T)] = np.nan
        data[(*bad[2], 11)] = np.nan  # a single volume is enough
        data[(*bad[3], 12)] = np.inf
        return data

    edit_image(study.bold(), spoil)
    study.done(*options)
    require(study.log(), (RUN, "4 voxels with NaN", "2 voxels without any variation"))
    paths = list((study.out / "sub-01").rglob("*_statmap.nii.gz"))
    assert len(paths) == 22
    spoiled = tuple(voxels.T)
    for path in paths:
        values = nib.load(path).get_fdata()
        assert np.isfinite(values).all(), path.name
        if "_ses-02_" not in path.name:
            assert (values[spoiled] == (1 if "_stat-p_" in path.name else 0)).all(), path.name
    variance = nib.load(study.session_map("variance")).get_fdata()
    mask = np.asarray(nib.load(study.mask()).dataobj) > 0
    mask[spoiled] = False
    assert np.array_equal(variance > 0, mask)
    design = json.loads((study.out / _func(RUN) / f"{RUN}_space-{SPACE}_design.json").read_text())
    assert design["FittedVoxels"] == mask.sum() == design["BrainMaskVoxels"] - 6


@pytest.mark.slow
def test_the_json_wins_over_a_contradicting_header_with_a_warning(
    study: Study, intact_maps: dict[str, dict[str, bytes]]
) -> None:
    set_header_repetition_time(study.bold(), 3.0)
    study.done()
    require(study.log(), (RUN, "3 s", "2 s", "JSON"))
    design = json.loads((study.out / _func(RUN) / f"{RUN}_space-{SPACE}_design.json").read_text())
    assert design["RepetitionTime"] == 2.0
    assert maps_of(study.out, "sub-01") == intact_maps["sub-01"]


@pytest.mark.slow
def test_rows_that_are_never_modelled_may_lack_anything(study: Study, intact_maps: dict[str, dict[str, bytes]]) -> None:
    """As in a real dataset, where six participants of nineteen have responses without onset."""
    rows = [{"onset": "n/a", "duration": "n/a", "trial_type": "n/a"}, {"onset": "3.5", "duration": "n/a"}]
    edit_table(study.events(), lambda table: pd.concat([table, pd.DataFrame(rows)]).fillna("n/a"))
    study.done()
    assert "2 events without trial_type (n/a) are not modelled" in study.log()
    assert maps_of(study.out, "sub-01") == intact_maps["sub-01"]


@pytest.mark.slow
def test_an_axis_of_length_one_changes_nothing(study: Study, intact_maps: dict[str, dict[str, bytes]]) -> None:
    edit_image(study.bold(), lambda data: data[:, :, :, None, :])
    study.done()
    maps = maps_of(study.out, "sub-01")
    assert maps == intact_maps["sub-01"]


@pytest.mark.slow
def test_what_the_confounds_json_says_is_part_of_the_work(study: Study) -> None:
    options = ("--participant-label", "01", "--confounds", "compcor")
    assert study.call(*options).code == 0
    assert "finished before" in study.call(*options).error
    sidecar = study.confounds().with_suffix(".json")
    content = json.loads(sidecar.read_text(encoding="utf-8"))
    masks = {key: {**value, "Mask": "CSF"} for key, value in content.items() if key == "a_comp_cor_00"}
    sidecar.write_text(json.dumps(content | masks), encoding="utf-8")
    assert "sub-01: done" in study.call(*options).error
    log = study.log()
    assert f"{RUN} is modelled without a_comp_cor_00, which other runs of this participant have" in log
    (methods,) = (study.out / "logs").glob("*_methods.txt")
    assert "anatomical CompCor components [" in methods.read_text(encoding="utf-8")


@pytest.mark.slow
def test_another_mask_can_be_chosen_where_one_holds_percentages(study: Study) -> None:
    """The remedy that the refusal names."""
    for path in study.fmriprep.rglob("sub-01_*_desc-brain_mask.nii.gz"):
        shutil.copy(path, path.with_name(path.name.replace("desc-brain", "desc-binary")))
        edit_image(path, lambda data: data * 90 + data * (np.arange(data.size).reshape(data.shape) % 9))
    filters = study.folder / "filters.json"
    filters.write_text('{"mask": {"desc": "binary"}}', encoding="utf-8")
    refused = study.call("--participant-label", "01")
    assert "percentages or labels" in refused.error
    assert "'mask' entry of --bids-filter-file" in refused.error
    study.done("--participant-label", "01", "--bids-filter-file", str(filters))


def test_a_run_with_a_condition_in_other_letters_says_so(study: Study) -> None:
    edit_table(study.events(), lambda table: table.replace("incongruent", "Incongruent"))
    study.done("--participant-label", "01")
    assert "condition incongruent does not occur in it (it has 'Incongruent')" in study.log()


@pytest.mark.slow
def test_quotation_marks_in_a_condition_go_through_to_the_page(study: Study) -> None:
    for path in study.root.rglob("sub-01_*_events.tsv"):
        path.write_text(path.read_text().replace("\tincongruent", '\t"in'))
    options, contrast = ("--participant-label", "01", "--session-contrast=mean"), '`"in` - congruent'
    study.done(*options, contrast=contrast, report=True)
    design = (study.out / _func(RUN) / f"{RUN}_space-{SPACE}_design.tsv").read_text().splitlines()[0].split("\t")
    assert design[:2] == ['"in', "congruent"]
    again = study.call(*options, "--reports-only", contrast=contrast, report=True)
    assert again.code == 0, again.error


# Levels -----------------------------------------------------------------------------------------------------


def test_group_with_one_participant_is_refused_and_the_report_says_so(study: Study) -> None:
    assert study.call("--participant-label", "01").code == 0
    sentence = study.call(level="group", report=True).refused(17, "two participants", "sub-01", "Run the")
    page = (study.out / "group.html").read_text(encoding="utf-8")
    assert sentence.removeprefix("sessionfx: ").strip() in page


@pytest.mark.slow
def test_group_with_an_unknown_contrast_lists_those_that_exist(study: Study) -> None:
    assert study.call().code == 0
    study.call(level="group", contrast="other").refused(18, "other", "What exists", LABEL)


def test_a_config_file_is_used_and_the_command_line_wins(study: Study) -> None:
    path = study.folder / "options.toml"
    path.write_text(
        'contrast = "incongruent"\nnoise_model = "ols"\ndrift-model = "polynomial"\nparticipant-label = ["02"]\n'
        "keep-run-maps = false\n",
        encoding="utf-8",
    )
    study.done("--config-file", str(path), "--drift-model", "none", noise_model=None)
    assert not (study.out / "sub-01").exists(), "participant-label comes from the file"
    assert {LABEL} == {re.findall("contrast-([^_]+)", name)[0] for name in maps_of(study.out, "sub-02")}
    sidecars = [json.loads(path.read_text()) for path in study.out.rglob("*ses-01*_statmap.json")]
    assert {sidecar["ModelParameters"]["NoiseModel"] for sidecar in sidecars} == {"ols"}
    assert {sidecar["ModelParameters"]["DriftModel"] for sidecar in sidecars} == {"none"}


@pytest.mark.slow
@pytest.mark.parametrize("given", [("-tstroop",), ("-t", "stroop"), ("--task-id=stroop",), ("--task_id", "stroop")])
def test_the_command_line_wins_over_the_config_file_in_every_spelling(study: Study, given: tuple[str, ...]) -> None:
    path = study.folder / "options.toml"
    path.write_text('task = "nback"\n', encoding="utf-8")
    study.call("--config-file", str(path)).refused(18, "--task nback", "stroop")
    study.done("--config-file", str(path), "--dry-run", *given)


def test_a_contrast_named_like_a_path_becomes_a_harmless_label(study: Study) -> None:
    before = names_below(study.folder, outside=study.out)
    options = ("--session-contrast=../../up=mean", "--keep-run-maps", "--participant-label", "01")
    study.done(*options, contrast=f"../../etc/x={EXPRESSION}")
    assert names_below(study.folder, outside=study.out) == before
    names = maps_of(study.out, "sub-01")
    assert {re.findall("_contrast-([^_]*)_", name)[0] for name in names} == {"etcX"}
    assert {found[0] for name in names if (found := re.findall("_sessions-([^_]*)_", name))} == {"up"}


# Reports ----------------------------------------------------------------------------------------------------


@pytest.mark.slow
def test_conditions_with_markup_are_escaped_in_the_reports(study: Study) -> None:
    script, image = "<script>alert(1)</script>", 'x"><img src=y onerror=alert(2)>'
    for path in study.root.rglob("*_events.tsv"):
        names = {"incongruent": script, "congruent": image}
        edit_table(path, lambda table, names=names: table.assign(trial_type=table["trial_type"].map(names)))
    options = ("--session-contrast=mean", "--session-label", "01", "--participant-label", "01")
    study.done(*options, contrast=f"`{script}` - `{image}`", report=True)
    page = (study.out / "sub-01.html").read_text(encoding="utf-8")
    assert "&lt;script&gt;alert(1)&lt;/script&gt;" in page
    for markup in (script, "<script>alert", "<img src=y"):
        assert markup not in page
    assert not [path for path in study.out.rglob("*") if set("<>\"'") & set(path.name)]
