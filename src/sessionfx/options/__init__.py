"""What one call was asked to do: small frozen groups of options that travel, each option with its default."""

from sessionfx.options.groups import Execution, FirstLevelModel, GroupModel, Options, Selection, StrategyModel

__all__ = ["Execution", "FirstLevelModel", "GroupModel", "Options", "Selection", "StrategyModel"]
