"""Simulate how often the starred answer and every strategy are wrong in studies like real ones; write docs/validity.md.

    python benchmarks/validity.py [--voxels N] [--processes P] [--seed S] [--kinds KIND …]

Exits with 1 and names the cells where a starred answer that comes without a warning exceeds the limits.
"""

from __future__ import annotations

import argparse
import multiprocessing
import os
import sys
import time
from collections.abc import Sequence
from concurrent.futures import ProcessPoolExecutor
from dataclasses import replace
from pathlib import Path
from typing import Any

import pandas as pd
from situations import ORDINARY, STRUCTURES, drawn_situations, situations, tails
from starred import ALPHAS, DEFAULT, SILENT, STARRED, Found, Situation, false_positives, power
from threadpoolctl import threadpool_limits
from tqdm import tqdm
from validity_page import draw_validity, write_page

DOCS = Path(__file__).parents[1] / "docs"

# What a starred answer without a warning may have at 5 % and at 1 ‰
LIMITS = {0.05: 0.058, 0.001: 0.002}
# 20,000 voxels of a valid test exceed these about once in a thousand cells …
SUSPICIOUS = {0.05: 0.055, 0.001: 0.0017}
# … so a cell that does is simulated anew with so many times the voxels, and the new rate counts, …
CONFIRM = 10
# … unless the rate is so far above that chance is no explanation.
BEYOND_CHANCE = {0.05: 0.075, 0.001: 0.005}
POWER_SHARE = 10  # power needs this many times fewer voxels
POWER_VOXELS = 250
MOST_STUDIES = 20  # studies of few voxels take long
TAIL_VOXELS = 1_000_000
ROWS = (*DEFAULT, STARRED, SILENT)


def run(situation: Situation, n_voxels: int, seed: int, number: int) -> pd.DataFrame:
    """Simulate a situation, a second time what is suspicious; one row per question."""
    if situation.kind not in ORDINARY:
        n_voxels = min(n_voxels // 2, MOST_STUDIES * situation.voxels_per_study)
    found = false_positives(situation, n_voxels, [seed, number])
    for index, asked in enumerate(situation.asked):
        if is_suspicious(found[index], situation.kind):
            (found[index],) = false_positives(
                replace(situation, asked=(asked,)), CONFIRM * n_voxels, [seed, number, index, 1]
            )
    strengths: Sequence[Found | None] = [None] * len(found)
    if situation.kind in STRUCTURES:
        # several studies, as an effect may change what the evidence says, and with it the star
        studies = replace(situation, voxels_per_study=POWER_VOXELS)
        strengths = power(studies, n_voxels // POWER_SHARE, [seed, number, 2])
    rows = [
        row_of(situation, asked, answer, strength)
        for asked, answer, strength in zip(situation.asked, found, strengths, strict=True)
    ]
    return pd.DataFrame(rows)


def row_of(situation: Situation, asked: tuple[str, str], found: Found, strength: Found | None) -> dict[str, Any]:
    """Write down what was found: rates at 5 % in percent, at 1 ‰ in per mille, power at 5 % in percent."""
    row: dict[str, Any] = {
        "kind": situation.kind, "situation": situation.name, "n": situation.n, "k": situation.k, "icc": situation.icc,
        "ratio": situation.ratio, "contrast": contrast_name(asked[0], situation.k), "group": asked[1],
        "n_voxels": found.tallies[STARRED].n_voxels, "star": found.stars.most_common(1)[0][0] or "none",
        "warned": round(found.n_warned / found.n_studies, 3),
    }  # fmt: skip
    for name in ROWS:
        rates = found.tallies[name].rates
        row |= {f"{name} %": round(100 * rates[0], 2), f"{name} ‰": round(1000 * rates[ALPHAS.index(0.001)], 2)}
    if strength is not None:
        for name in (*DEFAULT, STARRED):
            row[f"power of {name} %"] = round(100 * strength.tallies[name].rates[0], 1)
    row["warnings"] = " | ".join(text for text, _ in found.warnings.most_common(2))
    return row


def contrast_name(text: str, k: int) -> str:
    """Name a session contrast whatever the number of sessions."""
    return "last - first" if text == f"ses-{k:02d} - ses-01" else text


def is_suspicious(found: Found, kind: str) -> bool:
    """Whether a rate may be above the limits by chance: of the starred answer, or of one that should never be."""
    watched = [SILENT] + (["summary-statistics", "marginal"] if kind in STRUCTURES else [])
    for name in watched:
        rates = dict(zip(ALPHAS, found.tallies[name].rates, strict=True))
        above = [alpha for alpha, limit in SUSPICIOUS.items() if rates[alpha] > limit]
        if above and (name == SILENT or all(rates[alpha] <= BEYOND_CHANCE[alpha] for alpha in above)):
            return True
    return False


def failures(table: pd.DataFrame) -> pd.DataFrame:
    """Find where a starred answer without a warning exceeds the limits."""
    return table[(table[f"{SILENT} %"] > 100 * LIMITS[0.05]) | (table[f"{SILENT} ‰"] > 1000 * LIMITS[0.001])]


def run_tail(situation: Situation, n_voxels: int, seed: int, number: int) -> pd.DataFrame:
    """Count rejections at all nominal rates among millions of voxels."""
    rows = []
    for asked, found in zip(situation.asked, false_positives(situation, n_voxels, [seed, number, 3]), strict=True):
        row: dict[str, Any] = {"kind": situation.kind, "situation": situation.name, "ratio": situation.ratio}
        row |= {"contrast": contrast_name(asked[0], situation.k), "group": asked[1]}
        row |= {
            "star": found.stars.most_common(1)[0][0] or "none",
            "warned": round(found.n_warned / found.n_studies, 3),
        }
        row["n_voxels"] = found.tallies[STARRED].n_voxels
        for name in ("summary-statistics", "marginal", STARRED):
            row |= {f"{name} {alpha:g}": count for alpha, count in zip(ALPHAS, found.tallies[name].counts, strict=True)}
        rows.append(row)
    return pd.DataFrame(rows)


def main() -> int:
    """Run all cells and write the page."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument(
        "--voxels", type=int, default=20_000, help="per design without covariates, of others half (20000)"
    )
    parser.add_argument("--processes", type=int, default=len(os.sched_getaffinity(0)), help="default: one per core")
    parser.add_argument("--seed", type=int, default=2024)
    parser.add_argument("--kinds", nargs="+", help="simulate these kinds of situations only, and write no page")
    parser.add_argument("--output", type=Path, default=DOCS, help="folder of validity.md (docs)")
    arguments = parser.parse_args()

    started = time.perf_counter()
    every = [*situations(), *drawn_situations()] if arguments.kinds else situations()
    todo = [case for case in every if not arguments.kinds or case.kind in arguments.kinds]
    extreme = [] if arguments.kinds else tails()
    # the longest first, so that no process ends with a long one alone; results do not depend on the order
    order = sorted(range(len(todo)), key=lambda index: -todo[index].cost)
    with ProcessPoolExecutor(
        arguments.processes, multiprocessing.get_context("spawn"), threadpool_limits, (1,)
    ) as pool:  # results do not depend on the number of processes: each computes with one thread
        n_tail = TAIL_VOXELS * arguments.voxels // 20_000
        far = [pool.submit(run_tail, case, n_tail, arguments.seed, number) for number, case in enumerate(extreme)]
        near = {index: pool.submit(run, todo[index], arguments.voxels, arguments.seed, index) for index in order}
        done = {index: near[index].result() for index in tqdm(order, unit="cell", disable=None)}
        tail = pd.concat([future.result() for future in far], ignore_index=True) if far else pd.DataFrame()
    table = pd.concat([done[index] for index in range(len(todo))], ignore_index=True)
    seconds = time.perf_counter() - started

    failed = failures(table)
    columns = ["kind", "situation", "icc", "ratio", "contrast", "group", "star", "warned", f"{SILENT} %", f"{SILENT} ‰"]
    print(f"{len(todo)} situations, {len(table)} questions in {seconds:.0f} s with {arguments.processes} processes.")
    if arguments.kinds:
        print(table[[*columns, *(f"{name} %" for name in ROWS[:-1])]].to_string(index=False))
    else:
        write(table, tail, failed, arguments)
    if len(failed):
        print(f"{len(failed)} starred answers without a warning exceed 5.8 % at .05 or 2 ‰ at .001:")
        print(failed[columns].to_string(index=False))
        return 1
    print("No starred answer without a warning exceeds 5.8 % at .05 or 2 ‰ at .001.")
    return 0


def write(table: pd.DataFrame, tail: pd.DataFrame, failed: pd.DataFrame, arguments: argparse.Namespace) -> None:
    """Write page, tables and picture."""
    pictures = arguments.output / "pictures"
    pictures.mkdir(parents=True, exist_ok=True)
    kept = table.drop(columns="warnings")
    kept.to_csv(arguments.output / "validity.tsv", sep="\t", index=False, na_rep="")
    tail.to_csv(arguments.output / "validity_tails.tsv", sep="\t", index=False, na_rep="")
    (pictures / "validity.png").write_bytes(draw_validity(table[table["kind"].isin(STRUCTURES)]))
    page = write_page(table, tail, failed, ORDINARY, arguments.voxels, CONFIRM, arguments.seed)
    (arguments.output / "validity.md").write_text(page, encoding="utf-8")


if __name__ == "__main__":
    sys.exit(main())
