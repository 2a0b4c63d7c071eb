"""Which strategy to trust for a session contrast, from the design.

The rules follow from exact results and from simulated null designs (rates at a nominal 5 %): the fixed-effects
strategy stays at 4.4–5.4 % throughout; a pooled mean reaches 37.6 %; a session-model difference over three or
more sessions reaches 20.5 % without sphericity.
"""

from __future__ import annotations

from sessionfx.session_contrasts import SessionContrast
from sessionfx.strategies.base import MapLayout
from sessionfx.strategies.session_model import resolve_subject_effect


def verdict(session_contrast: SessionContrast, layout: MapLayout, subject_effect: str) -> str:
    """Say which strategy to trust, as sentences a reader can quote.

    Parameters
    ----------
    session_contrast : SessionContrast
    layout : MapLayout
        All maps of the analysis.
    subject_effect : {'auto', 'indicator', 'linear', 'none'}

    Returns
    -------
    str
    """
    sessions = [session for session in session_contrast.sessions if session in layout.sessions]
    n_maps = {participant: len(layout.rows_of(participant)) for participant in layout.unique_participants}
    balanced = all(count == len(sessions) for count in n_maps.values())
    if len(sessions) == 1:
        return "One map per participant: both strategies are the same one-sample model. Trust either."
    coding = resolve_subject_effect(subject_effect, session_contrast)
    if not session_contrast.is_within_participant:
        text = (
            "Trust fixed-effects. The session-model pools several maps of each participant as if they were independent "
            "people; its z values are inflated wherever participants differ."
            if coding != "indicator"
            else "Trust fixed-effects. The session-model tests a mean against within-participant error only."
        )
        if not balanced:
            text += (
                " Some participants miss sessions: if sessions truly differ, the fixed-effects mean mixes "
                "who was scanned when."
            )
        return text
    if coding != "indicator":
        return (
            f"Trust fixed-effects. With subject effect '{coding}' the session-model does not take each "
            "participant's own level out of the comparison."
        )
    if len(sessions) == 2:
        return (
            "Trust either: with two sessions, the session-model with participant indicators and the "
            "fixed-effects strategy "
            "are the same paired t test" + ("." if balanced else "; participants with one session add nothing to it.")
        )
    return (
        "Trust fixed-effects. It makes no assumption about how sessions co-vary; the session-model pools "
        f"error over all {len(sessions)} sessions, has more degrees of freedom, and is valid only if sphericity can "
        "be defended."
    )
