"""Group strategies, one file each; this table is where a new one is added."""

from sessionfx.strategies.base import Strategy
from sessionfx.strategies.fixed_effects import FixedEffects
from sessionfx.strategies.marginal import Marginal
from sessionfx.strategies.meta import Meta
from sessionfx.strategies.mixed import Mixed
from sessionfx.strategies.session_model import SessionModel

STRATEGIES: dict[str, Strategy] = {
    strategy.name: strategy for strategy in (SessionModel(), FixedEffects(), Marginal(), Mixed(), Meta())
}
