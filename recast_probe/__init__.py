"""recast_probe: find out how an in-context diffusion transformer uses its reference image."""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from recast_probe import rank
    from recast_probe.acceleration import Acceleration, accelerate
    from recast_probe.activations import Activations
    from recast_probe.diagnostics import (
        CopyHeads,
        Correspondence,
        Entropy,
        Flow,
        Interval,
        Overlap,
        PairedDifference,
        Skew,
        Stability,
        Survey,
        bootstrap_mean,
        copy_heads,
        correspondence,
        entropy,
        flow,
        mask_to_grid,
        overlap,
        paired_difference,
        skew,
        stability,
        stability_over,
        survey,
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
        Knockout,
        Merge,
        Patch,
        Prune,
        Recast,
        Record,
        ReuseReference,
        Similarity,
        StepCache,
        TokenCache,
        WithoutReference,
    )
    from recast_probe.layout import Grid, TokenLayout
    from recast_probe.path_recording import path_profiles
    from recast_probe.probe import Probe
    from recast_probe.profile import AttentionProfile
    from recast_probe.result import RunResult
    from recast_probe.selection import Adaptive, Fixed, FreshShare, Ranking

__version__ = "0.1.0"

# Names are loaded when first used, so that `import recast_probe` does not wait for torch.
_ROOMS = {
    "activations": ("Activations",),
    "acceleration": ("Acceleration", "accelerate"),
    "diagnostics": (
        "CopyHeads",
        "Correspondence",
        "Entropy",
        "Flow",
        "Interval",
        "Overlap",
        "PairedDifference",
        "Skew",
        "Stability",
        "Survey",
        "bootstrap_mean",
        "copy_heads",
        "correspondence",
        "entropy",
        "flow",
        "mask_to_grid",
        "overlap",
        "paired_difference",
        "skew",
        "stability",
        "stability_over",
        "survey",
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
        "Knockout",
        "Merge",
        "Patch",
        "Prune",
        "Recast",
        "Record",
        "ReuseReference",
        "Similarity",
        "StepCache",
        "TokenCache",
        "WithoutReference",
    ),
    "layout": ("Grid", "TokenLayout"),
    "path_recording": ("path_profiles",),
    "probe": ("Probe",),
    "profile": ("AttentionProfile",),
    "result": ("RunResult",),
    "selection": ("Adaptive", "Fixed", "FreshShare", "Ranking"),
}
_HOME = {name: room for room, names in _ROOMS.items() for name in names}

__all__ = [
    "Acceleration",
    "Activations",
    "Adaptive",
    "AttentionProfile",
    "CopyHeads",
    "Correspondence",
    "Entropy",
    "Fixed",
    "Flow",
    "FreshShare",
    "Grid",
    "InputError",
    "Interval",
    "Intervention",
    "Keep",
    "Knockout",
    "Merge",
    "MissingPackageError",
    "MissingWeightsError",
    "Overlap",
    "PairedDifference",
    "Patch",
    "Probe",
    "ProfileFileError",
    "Prune",
    "Ranking",
    "Recast",
    "RecastProbeError",
    "Record",
    "ReuseReference",
    "RunResult",
    "Similarity",
    "Skew",
    "Stability",
    "StepCache",
    "Survey",
    "TokenCache",
    "TokenLayout",
    "UnsupportedPipelineError",
    "VerificationError",
    "WithoutReference",
    "accelerate",
    "bootstrap_mean",
    "budget",
    "copy_heads",
    "correspondence",
    "entropy",
    "flow",
    "mask_to_grid",
    "overlap",
    "paired_difference",
    "path_profiles",
    "rank",
    "skew",
    "stability",
    "stability_over",
    "survey",
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
