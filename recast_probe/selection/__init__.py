"""Which reference tokens stay, and how many."""

from __future__ import annotations

from recast_probe.selection.budgets import Adaptive, Budget, Fixed
from recast_probe.selection.fresh_tokens import FreshShare
from recast_probe.selection.rankings import Ranking, cross_image, random

__all__ = ["Adaptive", "Budget", "Fixed", "FreshShare", "Ranking", "cross_image", "random"]
