"""What is done to a run: small objects with the same few hooks, composable in a list."""

from __future__ import annotations

from recast_probe.interventions.base import Intervention, RunContext, RunHook, StepContext
from recast_probe.interventions.keep import Keep
from recast_probe.interventions.knockout import Knockout
from recast_probe.interventions.merge import Merge
from recast_probe.interventions.methods import METHODS, method
from recast_probe.interventions.needs import Needs, Selection
from recast_probe.interventions.patch import Patch
from recast_probe.interventions.prune import Prune
from recast_probe.interventions.recast import Recast
from recast_probe.interventions.record import Record
from recast_probe.interventions.reuse import ReuseReference
from recast_probe.interventions.similarity import Similarity
from recast_probe.interventions.step_cache import StepCache
from recast_probe.interventions.token_cache import TokenCache
from recast_probe.interventions.weigh import Weigh
from recast_probe.interventions.without_reference import WithoutReference

__all__ = [
    "METHODS",
    "Intervention",
    "Keep",
    "Knockout",
    "Merge",
    "Needs",
    "Patch",
    "Prune",
    "Recast",
    "Record",
    "ReuseReference",
    "RunContext",
    "RunHook",
    "Selection",
    "Similarity",
    "StepCache",
    "StepContext",
    "TokenCache",
    "Weigh",
    "WithoutReference",
    "method",
]
