"""recast_probe: find out how an in-context diffusion transformer uses its reference image."""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from recast_probe import rank
    from recast_probe.diagnostics import (
        Entropy,
        Interval,
        Overlap,
        PairedDifference,
        Skew,
        Stability,
        bootstrap_mean,
        entropy,
        mask_to_grid,
        overlap,
        paired_difference,
        skew,
        stability,
        stability_over,
    )
    from recast_probe.errors import (
        InputError,
        MissingPackageError,
        MissingWeightsError,
        ProfileFileError,
        RecastProbeError,
        UnsupportedPipelineError,
        VerificationError,
    )
    from recast_probe.interventions import (
        Intervention,
        Keep,
        Merge,
        Prune,
        Recast,
        Similarity,
        TokenCache,
        WithoutReference,
    )
    from recast_probe.layout import Grid, TokenLayout
    from recast_probe.probe import Probe
    from recast_probe.profile import AttentionProfile
    from recast_probe.result import RunResult
    from recast_probe.selection import Adaptive, Fixed, FreshShare, Ranking

__version__ = "0.1.0"

# Names are loaded when first used, so that `import recast_probe` does not wait for torch.
_ROOMS = {
    "diagnostics": (
        "Entropy",
        "Interval",
        "Overlap",
        "PairedDifference",
        "Skew",
        "Stability",
        "bootstrap_mean",
        "entropy",
        "mask_to_grid",
        "overlap",
        "paired_difference",
        "skew",
        "stability",
        "stability_over",
    ),
    "errors": (
        "InputError",
        "MissingPackageError",
        "MissingWeightsError",
        "ProfileFileError",
        "RecastProbeError",
        "UnsupportedPipelineError",
        "VerificationError",
    ),
    "interventions": (
        "Intervention",
        "Keep",
        "Merge",
        "Prune",
        "Recast",
        "Similarity",
        "TokenCache",
        "WithoutReference",
    ),
    "layout": ("Grid", "TokenLayout"),
    "probe": ("Probe",),
    "profile": ("AttentionProfile",),
    "result": ("RunResult",),
    "selection": ("Adaptive", "Fixed", "FreshShare", "Ranking"),
}
_HOME = {name: room for room, names in _ROOMS.items() for name in names}

__all__ = [
    "Adaptive",
    "AttentionProfile",
    "Entropy",
    "Fixed",
    "FreshShare",
    "Grid",
    "InputError",
    "Interval",
    "Intervention",
    "Keep",
    "Merge",
    "MissingPackageError",
    "MissingWeightsError",
    "Overlap",
    "PairedDifference",
    "Probe",
    "ProfileFileError",
    "Prune",
    "Ranking",
    "Recast",
    "RecastProbeError",
    "RunResult",
    "Similarity",
    "Skew",
    "Stability",
    "TokenCache",
    "TokenLayout",
    "UnsupportedPipelineError",
    "VerificationError",
    "WithoutReference",
    "bootstrap_mean",
    "budget",
    "entropy",
    "mask_to_grid",
    "overlap",
    "paired_difference",
    "rank",
    "skew",
    "stability",
    "stability_over",
]


def __getattr__(name: str) -> Any:
    if name in ("budget", "rank"):
        return importlib.import_module(f"recast_probe.{name}")
    if name not in _HOME:
        raise AttributeError(f"module 'recast_probe' has no attribute {name!r}")
    value = getattr(importlib.import_module(f"recast_probe.{_HOME[name]}"), name)
    globals()[name] = value
    return value


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__})
