"""The variables of a run that a BIDS Stats Model transforms: columns of events and of confounds."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path

from sessionfx.ask.contrasts import Contrast
from sessionfx.bids.runs import RunInputs, RunSelection
from sessionfx.bids.tables import numeric_column, read_header, read_table
from sessionfx.errors import CommandLineError, ParticipantError
from sessionfx.models.drawing import design_text
from sessionfx.models.plan import Recipe
from sessionfx.models.transformations import (
    Regressors,
    TransformationError,
    Variable,
    dense_variable,
    sparse_variables,
)
from sessionfx.participant.conditions import Events, counted_once
from sessionfx.participant.confounds import Confounds, read_confounds
from sessionfx.participant.events import place_events
from sessionfx.participant.timing import Timing
from sessionfx.process import write_out
from sessionfx.wording import did_you_mean, listed, normal_text, shortened


def modelled_run(run: RunInputs, recipe: Recipe, timing: Timing, response: str) -> tuple[Events, Confounds]:
    """Make a run's events and confounds as a model has them.

    Raises
    ------
    ParticipantError
        If a file cannot be read, or a transformation not be done.
    """
    assert run.events is not None  # noqa: S101 (the caller has said so)
    try:
        made, warnings = run_regressors(run, recipe, len(timing.times))
    except TransformationError as error:
        raise ParticipantError(f"{run.name}, node '{shortened(recipe.node)}' of --model: {error}") from None
    if made.response not in ("", response):
        raise ParticipantError(
            f"{run.name}, node '{shortened(recipe.node)}' of --model: X stands for columns of the response "
            f"'{made.response}' in this run, and for those of '{response}' elsewhere. Name the columns in X."
        )
    warnings += made.warnings
    placed = place_events(
        made.events, run.events, first_volume=float(timing.times[0]), end=timing.end, warnings=warnings
    )
    return Events(placed.reset_index(drop=True), tuple(warnings)), Confounds(made.dense)


def run_regressors(run: RunInputs, recipe: Recipe, n_volumes: int | None = None) -> tuple[Regressors, list[str]]:
    """Transform the variables of a run, which has events; give its regressors, and warnings on its files.

    The number of volumes is that of the confounds where it is not given.

    Raises
    ------
    ParticipantError
        If a file cannot be read.
    TransformationError
        If a transformation cannot be done.
    """
    assert run.events is not None  # noqa: S101 (the caller has said so)
    sparse, warnings = _of_events(run.events)
    dense = _of_confounds(run.confounds, recipe, n_volumes)
    both = next((name for name in dense if name in sparse), None)
    if both is not None:
        raise TransformationError(
            f"'{shortened(both)}' is a column of {run.events.name} and of the confounds, so it is not known which is "
            "meant. Rename one."
        )
    return recipe.regressors(sparse | dense), warnings


def _of_events(path: Path) -> tuple[dict[str, Variable], list[str]]:
    table = read_table(path)
    for column in ("onset", "duration"):
        if column not in table:
            raise ParticipantError(f"{path} has no column '{column}', which BIDS asks for. Add it.")
    warnings: list[str] = []
    table = counted_once(table, table.duplicated(), path, warnings)
    onset, duration = (numeric_column(table, column, path, allow_missing=True) for column in ("onset", "duration"))
    columns = table.drop(columns=["onset", "duration"]).map(normal_text, na_action="ignore")
    return sparse_variables(onset, duration, columns), warnings


def _of_confounds(path: Path | None, recipe: Recipe, n_volumes: int | None) -> dict[str, Variable]:
    """Read the confounds that a recipe names."""
    if path is None:
        return {}
    needed = [name for name in dict.fromkeys(read_header(path)) if recipe.names(name)]
    if not needed:
        return {}
    table = read_confounds(path, ("none", *needed), len(read_table(path)) if n_volumes is None else n_volumes).table
    return {name: dense_variable(table[name].to_numpy()) for name in needed}


def check_recipe(
    selections: Mapping[str, RunSelection], contrasts: Sequence[Contrast], recipe: Recipe, *, draws: bool
) -> None:
    """Make sure that a model can be done with the runs there are, and that each contrast names columns of some run.

    The design of the first run is drawn where that is asked for.

    Raises
    ------
    CommandLineError
    """
    if len(selections) > 1:
        raise CommandLineError(
            f"--model names no task in its Input, and there are runs of several: {listed(selections)}. Choose one "
            "with --task."
        )
    (selection,) = selections.values()
    recipe.check_runs([(run.name, run.entities) for run in selection.every_run])
    wanted = {name for contrast in contrasts for name in contrast.conditions}
    known: dict[str, None] = {}
    for run in selection.every_run:
        if run.events is None:
            continue  # reported when that participant is analysed
        try:
            made, _ = run_regressors(run, recipe)
        except ParticipantError:
            continue
        except TransformationError as error:
            raise CommandLineError(
                f"--model, node '{recipe.node}', with the events and confounds of {run.name}: {error}"
            ) from None
        if draws and not known:
            write_out(design_text(run.name, made))
        known.update(dict.fromkeys([*made.events["trial_type"], *map(str, made.dense.columns)]))
        known.update(dict.fromkeys(name for name in made.names if name.endswith(("_derivative", "_dispersion"))))
        if wanted <= known.keys():
            return
    if known:
        unknown = next(name for contrast in contrasts for name in contrast.missing_from(list(known)))
        raise CommandLineError(
            f"--model, node '{recipe.node}', Contrasts: '{unknown}' occurs in no run.{did_you_mean(unknown, known)} "
            f"Columns with events or values are: {listed(list(known))}."
        )
