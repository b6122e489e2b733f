"""Rankings of reference tokens, as `recast_probe.rank.cross_image(profile)`."""

from __future__ import annotations

from recast_probe.selection.rankings import Ranking, cross_image, random

__all__ = ["Ranking", "cross_image", "random"]
