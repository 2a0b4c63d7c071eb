"""The slips of tools/mutants.py can be made: a slip whose text has moved would test nothing."""

from __future__ import annotations

import importlib.util
import sys
from pathlib import Path

import pytest

REPOSITORY = Path(__file__).parents[2]

_spec = importlib.util.spec_from_file_location("mutants", REPOSITORY / "tools/mutants.py")
assert _spec and _spec.loader
mutants = sys.modules["mutants"] = importlib.util.module_from_spec(_spec)  # its named tuples look themselves up there
_spec.loader.exec_module(mutants)


@pytest.mark.parametrize("mutant", mutants.MUTANTS, ids=lambda mutant: mutant.name)
def test_what_a_slip_replaces_stands_once_in_the_source(mutant: mutants.Mutant) -> None:
    module = REPOSITORY / "src/sessionfx" / mutant.path
    assert module.is_file(), f"{mutant.path} has moved: mend tools/mutants.py"
    found = module.read_text(encoding="utf-8").count(mutant.old)
    assert found == 1, f"{mutant.old!r} stands {found} times in {mutant.path}: mend tools/mutants.py"


def test_tests_of_slips_are_there_and_slips_have_names_of_their_own() -> None:
    for mutant in mutants.MUTANTS:
        file, *keywords = mutant.tests.replace("'", " ").split()
        text = (REPOSITORY / file).read_text(encoding="utf-8")
        words = {*keywords} - {"-k", "or", "and", "not"}
        assert [word for word in words if word not in text] == [], f"{mutant.name}: mend tools/mutants.py"
    assert len({mutant.name for mutant in mutants.MUTANTS}) == len(mutants.MUTANTS)
