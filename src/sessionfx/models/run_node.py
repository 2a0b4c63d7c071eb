"""A run node: the recipe for the designs of its runs, and its contrasts."""

from __future__ import annotations

import fnmatch

from sessionfx.models.draft import Draft, place_of
from sessionfx.models.node_checks import check_dummy_test, check_plain, refuse_empty
from sessionfx.models.plan import Estimated, Recipe, stands_for
from sessionfx.models.reader import INTERCEPT, Hrf, Node, StatsModel
from sessionfx.models.transformations import GLOB, response_name
from sessionfx.options.table import choices_of
from sessionfx.wording import did_you_mean, quoted, shortened


def recipe_of(node: Node, model: StatsModel, draft: Draft) -> Recipe:
    """Say what a run node means: the options it stands for go to the draft, its designs are a recipe.

    Parameters
    ----------
    node : Node
    model : StatsModel
        That it is from.
    draft : Draft

    Raises
    ------
    CommandLineError
        If a run is not modelled so here.
    """
    place = place_of(node)
    check_plain(node, draft)
    if node.model.type != "glm":
        draft.refuse(f"{place}, Model.Type", "a run is modelled with 'glm'. Correct it.")
    if "subject" not in node.group_by:
        draft.refuse(
            f"{place}, GroupBy", "without 'subject' the runs of all participants would stand in one design. Add it."
        )
    if "contrast" in node.group_by:
        draft.refuse(f"{place}, GroupBy", "a run has no contrasts to be grouped by. Remove 'contrast'.")
    draft.group(node, node.group_by, "run")
    hrf = _hrf(node, draft)
    response = _response(node, hrf, draft)
    draft.say("hrf_model", response, f"{place}, {'Model.HRF' if node.model.hrf else 'Transformations'}")
    _drifts(node, draft)
    confounds = [name for name in node.model.x if name != INTERCEPT and not _is_of_events(name, node)]
    draft.say("confounds", tuple(confounds) or ("none",), f"{place}, Model.X")
    if INTERCEPT not in node.model.x:
        draft.warnings.append(
            f"Node '{node.name}': X has no 1. The design of a run has a constant here all the same, as in FitLins "
            "and SPM."
        )
    return Recipe(node=node.name, instructions=node.instructions, hrf=hrf, x=node.model.x, model=model)


def _response(node: Node, hrf: Hrf | None, draft: Draft) -> str:
    """Name the response of all regressors; its further columns are used where X has them."""
    place, x = place_of(node), node.model.x
    convolved = [item for item in node.instructions if item.name == "Convolve"]
    responses = [response_name(item.arguments) for item in convolved] + ([hrf.model] if hrf else [])
    if not responses:
        draft.refuse(place, "no variable is convolved. Add Convolve to Transformations, or HRF to Model.")
    if hrf is not None and not convolved:
        return hrf.model
    names = [name for item in convolved for name in (item.outputs or item.inputs)]
    parts = []
    for part in ("derivative", "dispersion"):
        columns = [f"{name}_{part}" for name in names]
        if any(part in response for response in responses) and any(stands_for(pattern, columns) for pattern in x):
            parts.append(part)
    base = responses[0].split(" + ")[0]
    return " + ".join([base, *parts])


def _hrf(node: Node, draft: Draft) -> Hrf | None:
    """Read Model.HRF; its response is written as options write it."""
    hrf = node.model.hrf
    if hrf is None or not hrf.variables:
        return None
    place = f"{place_of(node)}, Model.HRF"
    name = " + ".join(part.strip().lower() for part in hrf.model.split("+"))
    responses = [choice for choice in choices_of("hrf_model") if choice != "fir"]  # whose columns X cannot name
    if name not in responses:
        draft.refuse(f"{place}.Model", f"'{shortened(hrf.model)}' is no response here. There are {quoted(responses)}.")
    if hrf.parameters:
        draft.refuse(f"{place}.Parameters", "responses have no parameters here. Remove them.")
    for variable in hrf.variables:
        if not any(stands_for(pattern, [variable]) for pattern in node.model.x):
            draft.refuse(f"{place}.Variables", f"'{shortened(variable)}' is not in X. Add it there, or remove it here.")
    return Hrf(variables=hrf.variables, model=name)


def _drifts(node: Node, draft: Draft) -> None:
    """Say how slow drifts are modelled."""
    place, options = f"{place_of(node)}, Model", node.model.options
    cutoff = options.get("HighPassFilterCutoffHz")
    if cutoff is None:
        draft.say("drift_model", "none", f"{place} (Options has no HighPassFilterCutoffHz)")
        if not any(fnmatch.fnmatchcase("cosine00", pattern) for pattern in node.model.x):
            draft.warnings.append(
                f"Node '{node.name}': neither HighPassFilterCutoffHz nor cosine* in X, so slow drifts are not "
                "modelled; FitLins and SPM would model some of their own."
            )
        return
    if not 0 < cutoff <= 1:
        draft.refuse(
            f"{place}.Options.HighPassFilterCutoffHz", f"{cutoff:g} Hz is no cut-off. Give one above 0, up to 1."
        )
    draft.say("drift_model", "cosine", f"{place}.Options.HighPassFilterCutoffHz")
    draft.say("high_pass", cutoff, f"{place}.Options.HighPassFilterCutoffHz")


def _is_of_events(name: str, node: Node) -> bool:
    """Whether a column of X comes from events: convolved, or made of what is."""
    convolved = [
        found for item in node.instructions if item.name == "Convolve" for found in (item.outputs or item.inputs)
    ]
    convolved += node.model.hrf.variables if node.model.hrf else ()
    columns = [f"{found}{suffix}" for found in convolved for suffix in ("", "_derivative", "_dispersion")]
    factored = [found for item in node.instructions if item.name == "Factor" for found in item.inputs]
    made = [found for item in node.instructions if item.name != "Convolve" for found in item.outputs]
    return any(stands_for(name, [column]) or stands_for(column, [name]) for column in [*columns, *made]) or any(
        name.startswith(f"{column}.") for column in factored
    )


def run_contrasts(node: Node, draft: Draft) -> tuple[list[Estimated], list[Estimated]]:
    """List the contrasts of a run node.

    Returns
    -------
    t_tests : list of Estimated
        Those that are handed on.
    f_tests : list of Estimated
        Those that end here.

    Raises
    ------
    CommandLineError
        If one is of columns that X has not, or there is none.
    """
    place = place_of(node)
    found: dict[str, Estimated] = {}
    f_tests: list[Estimated] = []
    dummies = node.dummy_contrasts
    if dummies is not None:
        check_dummy_test(dummies, node, draft)
        names = dummies.contrasts
        if names is None:
            open_ended = [name for name in node.model.x if GLOB.search(name) or name == INTERCEPT]
            if open_ended:
                draft.refuse(
                    f"{place}, DummyContrasts",
                    f"without Contrasts it asks for every column of X, '{open_ended[0]}' too, which stands for "
                    "columns not known before. Name those that are meant in Contrasts.",
                )
            names = node.model.x
        for name in names:
            _check_in_x(name, node, f"{place}, DummyContrasts.Contrasts", draft)
            found[name] = Estimated(name=name, weights={name: 1.0})
    for contrast in node.contrasts:
        of = f"{place}, contrast '{shortened(contrast.name)}'"
        for name in contrast.conditions:
            _check_in_x(name, node, f"{of}, ConditionList", draft)
        if contrast.test == "F":
            f_tests.append(Estimated(name=contrast.name, rows=tuple(contrast.rows)))
        else:
            found[contrast.name] = Estimated(name=contrast.name, weights=contrast.rows[0])
    if not found and not f_tests:
        refuse_empty(node, draft)
    return list(found.values()), f_tests


def _check_in_x(name: str, node: Node, place: str, draft: Draft) -> None:
    """Refuse a contrast of a column that no name or glob of X stands for."""
    if name == INTERCEPT:
        draft.refuse(
            place,
            "the constant of a run is the mean of its signal, which says nothing of a response. Leave it out.",
        )
    if not any(stands_for(pattern, [name]) for pattern in node.model.x):
        draft.refuse(
            place,
            f"'{shortened(name)}' is not in X.{did_you_mean(name, node.model.x)} X has "
            f"{quoted(node.model.x, most=12)}.",
        )
    if "`" in name:
        draft.refuse(place, f"'{shortened(name)}' has a backtick in its name. Rename it.")
