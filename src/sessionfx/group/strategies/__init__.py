"""Group strategies, one file each; this table is where a new one is added."""

from sessionfx.group.strategies.marginal import Marginal
from sessionfx.group.strategies.meta import Meta
from sessionfx.group.strategies.mixed import Mixed
from sessionfx.group.strategies.session_model import SessionModel
from sessionfx.group.strategies.strategy import Strategy
from sessionfx.group.strategies.summary_statistics import SummaryStatistics

# in the order of tables and pages
STRATEGIES: dict[str, Strategy] = {
    strategy.name: strategy for strategy in (SessionModel(), SummaryStatistics(), Marginal(), Mixed(), Meta())
}
# whose mean over sessions shows where there is an effect: it uses every map, and keeps its rate in the most designs
REFERENCE = STRATEGIES[Marginal.name]
