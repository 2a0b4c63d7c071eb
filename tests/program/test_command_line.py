"""The command line: exact names, one plain paragraph per mistake, and a configuration file that says the same."""

from __future__ import annotations

import importlib
import json
import math
import os
import re
import shlex
import shutil
import subprocess
import sys
import tomllib
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import tomli_w
from hypothesis import given
from hypothesis import strategies as st

import sessionfx
from properties import examples
from sessionfx.ask.confounds import PRESETS
from sessionfx.cli import main, parse_options
from sessionfx.errors import CommandLineError
from sessionfx.group.strategies import STRATEGIES
from sessionfx.options import Options, Selection
from sessionfx.options.groups import GROUP_OF
from sessionfx.options.table import BY_FLAG, OPTIONS, choices_of
from sessionfx.options.toml import to_toml

REPOSITORY = Path(__file__).parents[2]
POSITIONS = ("/data/bids", "/data/out", "participant")


def parsed(*options: str) -> dict[str, Any]:
    return parse_options([*POSITIONS, *options]).values()


def run_python(*arguments: object) -> subprocess.CompletedProcess[str]:
    return subprocess.run([sys.executable, *map(str, arguments)], capture_output=True, text=True, check=False)


@pytest.fixture
def parsed_with_file(tmp_path: Path) -> Callable[..., dict[str, Any]]:
    """Parse options together with a configuration file of these entries."""

    def parse(entries: dict[str, Any] | str, *options: str) -> dict[str, Any]:
        path = tmp_path / "config.toml"
        path.write_text(entries if isinstance(entries, str) else tomli_w.dumps(entries), encoding="utf-8")
        return parsed("--config-file", str(path), *options)

    return parse


# Starting ---------------------------------------------------------------------------------------------------


def test_help_exits_with_zero_and_names_every_option() -> None:
    done = run_python("-m", "sessionfx", "--help")
    assert done.returncode == 0
    assert done.stderr == ""
    assert [flag for flag in BY_FLAG if flag not in done.stdout] == []


def test_help_begins_with_examples_that_are_understood_and_names_the_documentation() -> None:
    lines = run_python("-m", "sessionfx", "--help").stdout.splitlines()
    examples = [shlex.split(line) for line in lines if line.startswith("  sessionfx ")]
    assert lines[: 1 + len(examples)] == ["examples:", *(line for line in lines if line.startswith("  sessionfx "))]
    assert [parse_options(words[1:]).bids_dir for words in examples] == [Path("bids")] * len(examples)
    (documentation,) = (line for line in lines if line.startswith("documentation: "))
    assert all((REPOSITORY / path).is_file() for path in re.findall(r"docs/\w+\.md", documentation))


def test_the_tables_of_options_and_exit_codes_in_the_documentation_are_current(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.syspath_prepend(REPOSITORY / "tools")
    tables = importlib.import_module("options_table")
    for path, made in (tables.options_page(), tables.exit_codes_page()):
        assert made == path.read_text(encoding="utf-8"), "run: python tools/options_table.py (make boutiques)"
    assert set(re.findall(r"^\| `(--[a-z-]+)`", tables.options_page()[1], re.MULTILINE)) >= {
        option.flag for option in OPTIONS.values() if option.is_in_file
    }


def test_every_option_fills_a_field_of_a_group_and_every_field_has_an_option() -> None:
    assert {option.name for option in OPTIONS.values() if option.is_in_file} == set(GROUP_OF)
    others = {
        "bids_dir",
        "output_dir",
        "levels",
        "help",
        "version",
        "report_bug",
        "config_file",
        "config_over_defaults",
    }
    assert OPTIONS.keys() - GROUP_OF.keys() == others


def test_help_names_the_presets_of_confounds() -> None:
    assert OPTIONS["confounds"].help.endswith(f"presets: {', '.join(PRESETS)}")


def test_the_command_line_needs_the_standard_library_alone() -> None:
    """Help answers at once."""
    done = run_python("-c", "import json, sys, sessionfx.cli; print(json.dumps(sorted(sys.modules)))")
    before = run_python("-c", "import json, sys; print(json.dumps(sorted(sys.modules)))")
    loaded = {name.partition(".")[0] for name in set(json.loads(done.stdout)) - set(json.loads(before.stdout))}
    assert loaded - set(sys.stdlib_module_names) == {"sessionfx"}


@pytest.mark.slow
@pytest.mark.parametrize(
    "command",
    [
        [sys.executable, "-m", "sessionfx"],
        [sys.executable, REPOSITORY / "run.py"],
        [Path(sys.executable).parent / "sessionfx"],
    ],
    ids=["module", "run.py", "script"],
)
def test_every_entry_point_is_the_same_program(command: list[object]) -> None:
    done = subprocess.run([*map(str, command), "--version"], capture_output=True, text=True, check=False)
    assert (done.returncode, done.stdout) == (0, f"sessionfx {sessionfx.__version__}\n")


def test_run_py_hears_sigterm_before_anything_slow_is_imported(tmp_path: Path) -> None:
    """The first process of a container would not hear it at all."""
    package = tmp_path / "sessionfx"
    package.mkdir()
    (package / "__init__.py").touch()
    for name in ("__main__", "process"):
        shutil.copy(REPOSITORY / "src" / "sessionfx" / f"{name}.py", package)
    (package / "cli.py").write_text("import os, signal, time\nos.kill(os.getpid(), signal.SIGTERM)\ntime.sleep(20)\n")
    command = [sys.executable, str(REPOSITORY / "run.py"), "--version"]
    done = subprocess.run(command, env=os.environ | {"PYTHONPATH": str(tmp_path)}, capture_output=True, check=False)
    assert (done.returncode, done.stdout, done.stderr) == (143, b"", b"")


def test_strategies_on_the_command_line_are_those_there_are() -> None:
    assert tuple(STRATEGIES) == choices_of("strategy")


# Spellings --------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("options", "name", "value"),
    [
        (["--participant_label", "01", "02"], "participant_label", ("01", "02")),
        (["--participant-label", "sub-01", "02"], "participant_label", ("01", "02")),
        (["--session_label", "ses-pre", "post"], "session_label", ("pre", "post")),
        (["--task_id", "stroop"], "task", ("stroop",)),
        (["--task-id", "task-stroop"], "task", ("stroop",)),
        (["-t", "task-stroop"], "task", ("stroop",)),
        (["--work-dir", "."], "work_dir", Path()),
        (["--task=stroop"], "task", ("stroop",)),
        (["--space", "space-MNI152NLin6Asym"], "space", "MNI152NLin6Asym"),
        (["--res", "res-2"], "res", "2"),
        (["--n_cpus", "3"], "nprocs", 3),
        (["--n-cpus", "3"], "nprocs", 3),
        (["--n_procs=3"], "nprocs", 3),
        (["--nprocs", "3"], "nprocs", 3),
        (["--omp_nthreads", "2"], "omp_nthreads", 2),
        (["--mem_gb", "7.5"], "mem_gb", 7.5),
        (["--skip_bids_validation"], "skip_bids_validation", True),
        (["--stop_on_first_crash"], "stop_on_first_crash", True),
        (["-w", "/work"], "work_dir", Path("/work")),
        (["--work_dir", "/work"], "work_dir", Path("/work")),
        (["-d", "/a", "/b"], "derivatives", (Path("/a"), Path("/b"))),
        (["--bids_database_dir=/a_b"], "bids_database_dir", Path("/a_b")),
        (["--bids_filter_file", "/a_b.json"], "bids_filter_file", Path("/a_b.json")),
        (["--contrast=word_1 - word_2"], "contrast", ("word_1 - word_2",)),
        (["--contrast", "a - b", "--contrast", "c=a"], "contrast", ("a - b", "c=a")),
        (["--contrast", "-a + b"], "contrast", ("-a + b",)),
        (["--session_contrast", "ses-02 - ses-01"], "session_contrast", ("ses-02 - ses-01",)),
        (["--hrf_model", "spm + derivative"], "hrf_model", "spm + derivative"),
        (["--smoothing-fwhm", "6"], "smoothing_fwhm", 6.0),
        (["--smoothing-fwhm", "0"], "smoothing_fwhm", None),
        (["--confounds", "motion6", "a_comp_cor_0[0-4]"], "confounds", ("motion6", "a_comp_cor_0[0-4]")),
        (["--strategy", "summary-statistics"], "strategy", ("summary-statistics",)),
        (["--strategy", "fixed-effects", "summary-statistics"], "strategy", ("summary-statistics",)),
        (["-v"], "verbose", 1),
        (["-vv"], "verbose", 2),
    ],
)
def test_option_is_understood(options: list[str], name: str, value: object) -> None:
    assert parsed(*options)[name] == value


def test_defaults_are_those_of_the_groups() -> None:
    expected = Options(bids_dir=Path("/data/bids"), output_dir=Path("/data/out"), levels=("participant",))
    assert parse_options(POSITIONS) == expected


@pytest.mark.parametrize("name", [name for name in OPTIONS if choices_of(name) and name not in {"levels", "executor"}])
def test_every_choice_is_accepted(name: str) -> None:
    for choice in choices_of(name):
        needed = ("--fir-delays", "1") if choice == "fir" else ()
        assert parsed(OPTIONS[name].flag, choice, *needed)[name] in (choice, (choice,))


def test_what_is_given_twice_counts_once() -> None:
    values = parsed("--participant-label", "01", "sub-01", "02", "--contrast", "a", "--contrast", "a")
    assert values["participant_label"] == ("01", "02")
    assert values["contrast"] == ("a",)


@pytest.mark.parametrize(
    ("levels", "expected"),
    [
        (["participant"], ("participant",)),
        (["group"], ("group",)),
        (["participant", "group"], ("participant", "group")),
        (["group", "participant"], ("participant", "group")),
        (["group", "group"], ("group",)),
    ],
)
def test_levels_run_in_their_own_order(levels: list[str], expected: tuple[str, ...]) -> None:
    assert parse_options(["/data/bids", "/data/out", *levels]).levels == expected


# Mistakes ---------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("options", "mentioned"),
    [
        (["--hrf-model", "box"], ["--hrf-model", "'box'", "glover"]),
        (["--drift-model", "linear"], ["--drift-model", "cosine"]),
        (["--noise-model", "ar9"], ["--noise-model", "ols"]),
        (["--fixed-effects", "inverse"], ["--fixed-effects", "precision"]),
        (["--subject-effect", "random"], ["--subject-effect", "indicator"]),
        (["--correction", "fwe"], ["--correction", "bonferroni"]),
        (["--strategy", "magic"], ["--strategy", "session-model"]),
        (["--strategy", "marginl"], ["--strategy", "Did you mean 'marginal'?"]),
        (["--smoothing", "6"], ["Unrecognized arguments: --smoothing. Did you mean '--smoothing-fwhm'?"]),
        (["--drymodel=none"], ["--drymodel. Did you mean '--model'?"]),
        (["--alpha", "0"], ["--alpha", "between 0 and 1"]),
        (["--alpha", "1"], ["--alpha", "between 0 and 1"]),
        (["--alpha", "nan"], ["--alpha", "'nan'", "not a finite number"]),
        (["--high-pass", "0"], ["--high-pass", "not above zero"]),
        (["--high-pass", "fast"], ["--high-pass", "'fast' is not a number"]),
        (["--smoothing-fwhm", "-1"], ["--smoothing-fwhm"]),
        (["--smoothing-fwhm=-1"], ["--smoothing-fwhm", "below zero"]),
        (["--mem-gb", "inf"], ["--mem-gb", "not a finite number"]),
        (["--nprocs", "0"], ["--nprocs", "from 1 on"]),
        (["--nprocs", "1.5"], ["--nprocs", "whole number"]),
        (["--nprocs", "9" * 5000], ["--nprocs"]),
        (["--omp-nthreads", "0"], ["--omp-nthreads", "from 1 on"]),
        (["--cluster-threshold=-1"], ["--cluster-threshold", "whole number"]),
        (["--participant-label", "sub_01"], ["--participant-label", "'sub_01'", "not a BIDS label"]),
        (["--participant-label", "1" * 300], ["--participant-label", "longer than a file name can be"]),
        (["--participant-label", "../01"], ["--participant-label", "not a BIDS label"]),
        (["--participant-label"], ["--participant-label", "expected at least one"]),
        (["--session-label", "ses-"], ["--session-label", "not a BIDS label"]),
        (["--task", "a/b"], ["--task", "not a BIDS label"]),
        (["--space", "MNI:res-2"], ["--space", "not a BIDS label"]),
        (["--particip", "01"], ["--particip"]),
        (["--no-such-option"], ["--no-such-option"]),
        (["session"], ["'session'", "participant", "group"]),
        (["--no-report", "--reports-only"], ["--no-report", "--reports-only"]),
        (["--force", "--reports-only"], ["--force", "--reports-only", "drawn anew"]),
        (["--force=yes"], ["--force"]),
    ],
)
def test_a_mistake_gives_exit_code_2_and_one_paragraph(
    options: list[str], mentioned: list[str], capsys: pytest.CaptureFixture[str]
) -> None:
    assert main([*POSITIONS, *options]) == 2
    out, err = capsys.readouterr()
    assert out == ""
    assert err.startswith("sessionfx: ")
    assert err.count("\n") == 1
    assert "Traceback" not in err
    for words in mentioned:
        assert words in err


@pytest.mark.parametrize("arguments", [[], ["/data/bids"], ["/data/bids", "/data/out"]])
def test_missing_arguments_are_named(arguments: list[str]) -> None:
    done = run_python("-m", "sessionfx", *arguments)
    assert done.returncode == 2
    assert "{participant,group}" in done.stderr
    assert "Traceback" not in done.stderr


def test_verbose_adds_the_traceback(capsys: pytest.CaptureFixture[str]) -> None:
    assert main([*POSITIONS, "--alpha", "2", "-v"]) == 2
    assert "Traceback" in capsys.readouterr().err


# Configuration file -----------------------------------------------------------------------------------------

WORDS = st.text(min_size=1, max_size=12)
QUOTES = st.sampled_from(
    ["'a' - \"b\"", "`x = 1` - y", 'say "hi" \\ # no comment', "顔 - 家", "a\r\nb", "[x]", "-a + b"]
)
LABELS = st.from_regex("[a-zA-Z0-9]{1,4}", fullmatch=True)
PATHS = st.sampled_from(["/data/a b", "/data/ü 'quoted'", 'rel/"x"', "C:\\windows", "/data/#1"]).map(Path)


def several(items: st.SearchStrategy[Any]) -> st.SearchStrategy[tuple[Any, ...]]:
    return st.lists(items, max_size=3, unique=True).map(tuple)


def chosen(name: str) -> st.SearchStrategy[str]:
    return st.sampled_from(choices_of(name))


def positive(largest: float) -> st.SearchStrategy[float]:
    return st.floats(0, largest, exclude_min=True)


@st.composite
def any_options(draw: st.DrawFn) -> Options:
    reports = draw(st.sampled_from([{}, {"no_report": True}, {"reports_only": True, "force": False}]))
    fields = {
        "participant_label": several(LABELS),
        "session_label": several(LABELS),
        "task": several(LABELS),
        "space": st.none() | LABELS,
        "res": st.none() | LABELS,
        "derivatives": several(PATHS),
        "bids_filter_file": st.none() | PATHS,
        "bids_database_dir": st.none() | PATHS,
        "skip_bids_validation": st.booleans(),
        "contrast": several(WORDS | QUOTES),
        "drift_model": chosen("drift_model"),
        "high_pass": positive(1.0),
        "noise_model": chosen("noise_model"),
        "smoothing_fwhm": st.none() | positive(20.0),
        "confounds": several(st.sampled_from(["motion6", "none", "a_comp_cor_0[0-4]", "cosine*", "trans_x"])),
        "fixed_effects": chosen("fixed_effects"),
        "fixed_effects_dof": chosen("fixed_effects_dof"),
        "keep_run_maps": st.booleans(),
        "session_contrast": several(WORDS | QUOTES),
        "strategy": several(chosen("strategy")),
        "subject_effect": chosen("subject_effect"),
        "alpha": st.floats(0, 1, exclude_min=True, exclude_max=True),
        "correction": chosen("correction"),
        "cluster_threshold": st.integers(0, 500),
        "equivalence": st.none() | positive(100.0),
        "bayes_factor": st.none() | positive(10.0),
        "nprocs": st.integers(1, 64),
        "omp_nthreads": st.integers(1, 64),
        "mem_gb": st.none() | positive(1e4),
        "work_dir": st.none() | PATHS,
        "force": st.booleans(),
        "dry_run": st.booleans(),
        "stop_on_first_crash": st.booleans(),
        "verbose": st.integers(0, 3),
    }
    options = {name: draw(strategy) for name, strategy in fields.items()}
    levels = draw(st.sampled_from([("participant",), ("group",), ("participant", "group")]))
    folders = {"bids_dir": Path("/data/bids"), "output_dir": Path("/data/out")}
    hrf_model = draw(chosen("hrf_model"))
    delays = {"fir_delays": (0, 2, 1)} if hrf_model == "fir" else {}
    responses = {"hrf_model": hrf_model, **delays}
    return Options.from_values({**folders, "levels": levels, **options, **reports, **responses})


@pytest.fixture(scope="session")
def config_path(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("config") / "config.toml"


def read_back(written: Options, path: Path) -> Options:
    path.write_text(to_toml(written), encoding="utf-8")
    positions = [str(written.bids_dir), str(written.output_dir), *written.levels]
    return parse_options([*positions, "--config-file", str(path)])


@given(written=any_options())
@examples(60)
def test_saved_options_are_read_back_as_they_were(written: Options, config_path: Path) -> None:
    assert read_back(written, config_path) == written


@pytest.mark.parametrize("folder", ["/data/two\nlines", "/data/x\nforce = true", "/data/bell\x07", "/data/cr\rlf\r\n"])
def test_no_folder_name_breaks_or_changes_the_saved_options(folder: str, config_path: Path) -> None:
    written = Options(
        bids_dir=Path(folder),
        output_dir=Path("/data/out"),
        levels=("participant",),
        selection=Selection(task=("stroop",)),
    )
    assert read_back(written, config_path) == written


def test_saved_options_name_the_folders_and_levels_for_people() -> None:
    text = to_toml(parse_options([*POSITIONS, "group"]))
    assert "/data/bids /data/out participant group" in text.splitlines()[0]
    assert not {"bids-dir", "output-dir", "levels"} & set(tomllib.loads(text))


@pytest.mark.parametrize(
    ("entries", "name", "value"),
    [
        ({"task": "rest"}, "task", ("rest",)),
        ({"task-id": "task-rest"}, "task", ("rest",)),
        ({"participant_label": ["sub-01", "02"]}, "participant_label", ("01", "02")),
        ({"participant-label": "01"}, "participant_label", ("01",)),
        ({"participant-label": []}, "participant_label", ()),
        ({"n_cpus": 3}, "nprocs", 3),
        ({"contrast": "a - b"}, "contrast", ("a - b",)),
        ({"contrast": ["a - b", "-a + b"]}, "contrast", ("a - b", "-a + b")),
        ({"strategy": ["fixed-effects", "mixed"]}, "strategy", ("summary-statistics", "mixed")),
        ({"bayes-factor": True}, "bayes_factor", math.sqrt(0.5)),
        ({"force": True}, "force", True),
        ({"force": False}, "force", False),
        ({"verbose": 2}, "verbose", 2),
        ({"smoothing-fwhm": 0}, "smoothing_fwhm", None),
        ({"alpha": 0.001}, "alpha", 0.001),
    ],
)
def test_entries_are_the_options_of_the_command_line(
    entries: dict[str, Any], name: str, value: object, parsed_with_file: Callable[..., dict[str, Any]]
) -> None:
    assert parsed_with_file(entries)[name] == value


@pytest.mark.parametrize(
    ("entries", "options", "name", "value"),
    [
        ({"task": "rest"}, ["--task", "stroop"], "task", ("stroop",)),
        ({"task": "rest"}, ["--task=stroop"], "task", ("stroop",)),
        ({"task": "rest"}, ["--task_id", "stroop"], "task", ("stroop",)),
        ({"task": "rest"}, ["-t", "stroop"], "task", ("stroop",)),
        ({"task": "rest"}, ["-tstroop"], "task", ("stroop",)),
        ({"work-dir": "/a"}, ["-w/b"], "work_dir", Path("/b")),
        ({"derivatives": ["/a", "/b"]}, ["-d", "/c"], "derivatives", (Path("/c"),)),
        ({"n-cpus": 8}, ["--nprocs", "2"], "nprocs", 2),
        ({"participant-label": ["01", "02"]}, ["--participant-label", "03"], "participant_label", ("03",)),
        ({"contrast": ["a", "b"]}, ["--contrast", "c"], "contrast", ("c",)),
        ({"contrast": ["a"]}, ["--contrast=c", "--contrast=d"], "contrast", ("c", "d")),
        ({"session-contrast": ["mean"]}, ["--session_contrast", "linear"], "session_contrast", ("linear",)),
        ({"verbose": 1}, ["-v"], "verbose", 1),
        ({"verbose": 1}, ["-vv"], "verbose", 2),
    ],
)
def test_the_command_line_wins_over_the_file(
    entries: dict[str, Any],
    options: list[str],
    name: str,
    value: object,
    parsed_with_file: Callable[..., dict[str, Any]],
) -> None:
    assert parsed_with_file(entries, *options)[name] == value


def test_what_the_command_line_leaves_open_comes_from_the_file(parsed_with_file: Callable[..., dict[str, Any]]) -> None:
    values = parsed_with_file({"task": "rest", "alpha": 0.01}, "--task", "stroop")
    assert (values["task"], values["alpha"]) == (("stroop",), 0.01)


@pytest.mark.parametrize("entries", [{"alpha": 0.01}, {"session-label": ["pre", "post"]}])
def test_a_double_dash_ends_a_list_of_labels_with_a_file_too(entries: dict[str, Any], tmp_path: Path) -> None:
    path = tmp_path / "config.toml"
    path.write_text(tomli_w.dumps(entries))
    labels = ["--participant-label", "01", "02"]
    assert parse_options([*labels, "--", *POSITIONS]).selection.participant_label == ("01", "02")
    options = parse_options(["--config-file", str(path), *labels, "--", *POSITIONS])
    assert (options.selection.participant_label, options.levels) == (("01", "02"), ("participant",))


@pytest.mark.parametrize(
    ("entries", "mentioned"),
    [
        ({"taks": "rest"}, "'taks' is not an option. Did you mean 'task'"),
        ({"bids-dir": "/data"}, "'bids-dir' is not an option"),
        ({"levels": ["group"]}, "'levels' is not an option"),
        ({"config-file": "x.toml"}, "'config-file' is not an option"),
        ({"version": True}, "'version' is not an option"),
        ({"selection": {"task": "rest"}}, "'selection' is not an option"),
        ({"task": {"name": "rest"}}, "'task' should be plain or a list"),
        ({"contrast": [["a"]]}, "'contrast' should be plain or a list"),
        ({"alpha": 2}, "between 0 and 1"),
        ({"nprocs": 1.5}, "whole number"),
        ({"force": "yes"}, "'force': the value should be true, false or a small number"),
        ({"strategy": ["margnal"]}, "'strategy': invalid choice.*Did you mean 'marginal'"),
        ("task = rest", "not valid TOML"),
    ],
)
def test_a_mistake_in_the_file_is_refused(
    entries: dict[str, Any] | str, mentioned: str, parsed_with_file: Callable[..., dict[str, Any]]
) -> None:
    with pytest.raises(CommandLineError, match=mentioned):
        parsed_with_file(entries)


@pytest.mark.parametrize("content", [None, b"task = '\xff'"])
def test_an_unreadable_file_is_named(content: bytes | None, tmp_path: Path) -> None:
    path = tmp_path / "config.toml"
    if content is not None:
        path.write_bytes(content)
    with pytest.raises(CommandLineError, match=r"config\.toml (does not exist|.*is not UTF-8)"):
        parsed("--config-file", str(path))
