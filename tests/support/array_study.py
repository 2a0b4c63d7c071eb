"""A design with covariates of participants and of sessions, and maps as arrays: the group level without any file."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import pandas as pd
from numpy.typing import NDArray
from scipy import special

from array_maps import MapsInMemory, estimate_in_blocks
from map_stacks import gather_evidence, stack_of
from sessionfx.ask.covariates import Covariates, code_covariates, resolve_group_contrasts
from sessionfx.ask.session_contrasts import resolve_session_contrasts
from sessionfx.errors import NotEstimableError
from sessionfx.group.calibrated import Rates
from sessionfx.group.results import Answer, StrategyResult, Verdict
from sessionfx.group.strategies import STRATEGIES
from sessionfx.group.strategies.base import GroupOptions, MapLayout, Plan, Question
from sessionfx.group.verdict import judge
from sessionfx.space.grid import Grid
from sessionfx.space.stat_map import StatMap
from sessionfx.statistics.estimates import Estimate, FTest

N_VOXELS = 8_000


class Study:
    """A design with covariates of participants and of sessions, as the program codes them."""

    def __init__(
        self,
        attendance: NDArray[np.bool_],
        covariates: dict[str, list[float] | list[str]] | None = None,
        measured: dict[str, NDArray[np.float64]] | None = None,
        times: tuple[str, ...] = (),
        interactions: tuple[tuple[str, str], ...] = (),
    ) -> None:
        n, k = attendance.shape
        self.attendance, measured = attendance, measured or {}
        self.sessions = [f"{j + 1:02d}" for j in range(k)]
        self.owners, self.places = np.nonzero(attendance)
        labels = [f"{i + 1:02d}" for i in range(n)]
        rows = list(zip(self.owners, self.places, strict=True))
        values = {(labels[i], self.sessions[j]): tuple(float(v[i, j]) for v in measured.values()) for i, j in rows}
        self.covariates = (
            code_covariates(
                labels,
                covariates or {},
                interactions=interactions,
                session_columns=tuple(measured),
                session_values=values,
            )
            if covariates or measured
            else Covariates.none(labels)
        )
        self.layout = MapLayout(
            tuple(labels[i] for i in self.owners),
            tuple(self.sessions[j] for j in self.places),
            self.covariates.columns,
            np.array([self.covariates.row_of(labels[i]) for i in self.owners]).reshape(len(rows), -1),
            tuple(measured),
            np.array([values[labels[i], self.sessions[j]] for i, j in rows]).reshape(len(rows), -1),
            times,
        )

    @classmethod
    def of_table(
        cls, table: pd.DataFrame, covariates: Sequence[str], measured: Sequence[str] = (), *, whole: bool = False,
        **options: Any,
    ) -> tuple[Study, NDArray[np.bool_]]:  # fmt: skip
        """Make the study of a table of R in which everybody has a row for every session; with which rows are maps."""
        people = table.drop_duplicates("participant")
        there = np.ones(len(table), dtype=bool) if whole else table["there"].to_numpy() == 1
        of_people = {name: people[name].astype(str if name == "group" else float).tolist() for name in covariates}
        of_sessions = {name: table[name].to_numpy(dtype=float).reshape(len(people), -1) for name in measured}
        return cls(there.reshape(len(people), -1), of_people, of_sessions, **options), there

    def question(self, sessions: str, group: str = "intercept") -> Question:
        (asked,) = resolve_session_contrasts([sessions], self.sessions)
        (about,) = resolve_group_contrasts([group], self.covariates)
        return Question(asked, about)

    def maps(
        self,
        seed: int,
        *,
        participant_sd: NDArray[np.float64] | float = 1.0,
        session_sd: NDArray[np.float64] | float = 1.0,
        icc: float = 0.5,
        level: NDArray[np.float64] | float = 0.0,
        n_voxels: int = N_VOXELS,
    ) -> NDArray[np.float64]:
        """Normal null maps; `level` is added to all maps of a participant."""
        n, k = self.attendance.shape
        rng = np.random.default_rng(seed)
        cube = np.sqrt(icc) * rng.standard_normal((n, 1, n_voxels))
        cube = cube + np.sqrt(1 - icc) * rng.standard_normal((n, k, n_voxels))
        cube = cube * np.broadcast_to(session_sd, k)[None, :, None] * np.broadcast_to(participant_sd, n)[:, None, None]
        cube = cube + np.broadcast_to(level, n)[:, None, None]
        return np.ascontiguousarray(cube[self.owners, self.places])

    def answer(
        self, name: str, question: Question, maps: NDArray[np.float64], **options: str
    ) -> tuple[Plan, Estimate | FTest]:
        plan = STRATEGIES[name].plan(self.layout, question, GroupOptions(**options))
        return estimate_in_blocks(plan, MapsInMemory(maps))

    def results(
        self, question: Question, maps: NDArray[np.float64], names: tuple[str, ...], **options: str
    ) -> tuple[list[StrategyResult], dict[str, Estimate | FTest]]:
        mask = np.ones((maps.shape[1], 1, 1), dtype=bool)
        grid = Grid(mask.shape, np.eye(4))
        results: list[StrategyResult] = []
        answers = {}
        for name in names:
            try:
                plan, answers[name] = self.answer(name, question, maps, **options)
            except NotEstimableError as refusal:
                results.append(StrategyResult(STRATEGIES[name], str(refusal)))
                continue
            stat_map = StatMap(answers[name], mask, grid)
            results.append(Answer(strategy=STRATEGIES[name], plan=plan, stat_map=stat_map, threshold=3.0))
        return results, answers

    def verdict(
        self, question: Question, maps: NDArray[np.float64], rates: Rates | None = None, **options: str
    ) -> tuple[Verdict, dict[str, Estimate | FTest]]:
        """The star, from marginal and summary-statistics, and the answers."""
        stack = stack_of(self.layout, maps, np.ones((maps.shape[1], 1, 1), dtype=bool))
        evidence, _ = gather_evidence(stack, self.sessions)
        results, answers = self.results(question, maps, ("summary-statistics", "marginal"), **options)
        return judge(question, self.layout, results, evidence, GroupOptions(**options), rates), answers


def p_of(found: Estimate | FTest) -> NDArray[np.float64]:
    """Two-sided p of t, upper-tail p of F."""
    return found.p if isinstance(found, FTest) else np.asarray(2 * special.stdtr(found.dof, -np.abs(found.t)))


def rate(found: Estimate | FTest, alpha: float = 0.05) -> float:
    return float((p_of(found) <= alpha).mean())


def everyone(n: int, k: int) -> NDArray[np.bool_]:
    return np.ones((n, k), dtype=bool)


def patients(n: int, controls: int) -> dict[str, list[float] | list[str]]:
    return {"group": ["patient"] * n + ["control"] * controls}


def sessions_without_patients() -> NDArray[np.bool_]:
    attendance = everyone(24, 3)
    attendance[:8, 2] = False
    return attendance
