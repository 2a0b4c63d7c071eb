"""Sentences for users claim no more than is shown: phrases that promised too much do not come back."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from sessionfx.group import judgement, verdict
from sessionfx.group.participant_evidence import FEWEST
from sessionfx.group.strategies import marginal, summary_statistics
from sessionfx.group.strategies.strategy import FEW_DOF

ROOT = Path(__file__).parents[2]
TEXTS = [
    *(ROOT / name for name in ("README.md", "CONTRIBUTING.md", "boutiques.json")),
    *sorted((ROOT / "docs").glob("*.md")),
    *sorted((ROOT / "benchmarks").glob("*.py")),
    *sorted(path for path in (ROOT / "src" / "sessionfx").rglob("*") if path.suffix in (".py", ".j2", ".txt")),
]
TOO_MUCH = (
    r"to the (last )?digit|digit by digit",
    r"whatever (the|their|its) ((true|working) )?(co)?varianc|whoever misses",
    r"valid whatever|valid for any|exact for any|right for any data",
    r"no strategy (here )?(mends|repairs|corrects)",
    r"degrees of freedom are exact",
    r"errors (do not depend|hold even)",
    r"(needs|makes) no assumptions?\b|free of assumptions|assumption-free",
    r"(always|never) (valid|biased|wrong|fails)|cannot be wrong",
    r"guarantee|bullet-?proof|foolproof|unconditionally",
    r"all (the )?usual ways",
)
RATE = re.compile(r"at most \d+(\.\d+)? % false positives[^|]{0,100}")


def of_one_line(path: Path) -> str:
    """Read a text whose sentences run over lines; in code, adjacent strings are one."""
    text = path.read_text(encoding="utf-8")
    return " ".join(re.sub(r'"\s*\n\s*f?"', "", text).split())


@pytest.mark.parametrize("path", TEXTS, ids=lambda path: path.relative_to(ROOT).as_posix())
def test_no_text_promises_too_much(path: Path) -> None:
    text = of_one_line(path)
    for pattern in TOO_MUCH:
        found = re.search(pattern, text, flags=re.IGNORECASE)
        assert found is None, f"… {text[max(found.start() - 80, 0) : found.end() + 80]} …"


def test_a_highest_rate_is_said_of_the_designs_that_were_simulated() -> None:
    quoted = [found[0] for path in TEXTS if path.suffix == ".md" for found in RATE.finditer(of_one_line(path))]
    assert quoted
    for sentence in quoted:
        assert "simulated" in sentence, sentence


def test_the_limits_of_the_verdict_are_those_of_the_docs() -> None:
    text = of_one_line(ROOT / "docs" / "statistics.md").partition("### The verdict")[2].partition("### Why")[0]
    for sentence in (
        f"below {FEW_DOF:g} degrees of freedom; fewer than {marginal.MANY_IN_A_CELL} participants in a session",
        f"`any` with fewer than {marginal.FEW_IN_A_CELL} in a session, and less than a quarter of all",
        f"standard deviations of the sessions {judgement.NOTABLE_SPREAD:g}-fold apart",
        f"groups' standard deviations are {judgement.NOTABLE_SPREAD:g}-fold apart",
        f"a variance for each group, below {summary_statistics.FEW_DOF_OF_GROUPS:g} degrees of freedom",
        f"values are **skewed** ($p\\le{judgement.NOTABLE_P:g}$)".replace("0.", "."),
        f"exceeds {judgement.NOTABLE_SKEWNESS:g}",
        f"fewer than {FEWEST} participants",
        f"(leverage {verdict.HIGH_LEVERAGE:g})",
        f"Where {100 * verdict.NOTABLE_SHARE_MISSING:g} % of the participants",
    ):
        assert sentence in text, sentence
