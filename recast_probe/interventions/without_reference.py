"""The run without any reference token: what the model makes of the prompt alone."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from recast_probe.interventions.base import Intervention, RunContext, StepContext
from recast_probe.interventions.needs import Needs


@dataclass(frozen=True)
class WithoutReference(Intervention):
    """Remove every reference token in every step; the lower end of every comparison.

    Examples:
        >>> from recast_probe.testing import tiny
        >>> probe = rp.Probe(tiny.build_tiny_pipeline())
        >>> settings = {"steps": 2, "progress": False, "interventions": [WithoutReference()]}
        >>> probe.generate(tiny.tiny_image(), "a cat", **settings).reference_tokens_per_step
        (0, 0)
    """

    def needs(self, run: RunContext) -> Needs:
        return Needs(drops=range(run.steps))

    def reference_tokens(self, step: StepContext) -> np.ndarray | None:
        return np.empty(0, dtype=np.int64)
