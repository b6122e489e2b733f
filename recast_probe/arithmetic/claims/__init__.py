"""Every claim of the paper: its number, what arithmetic allows, what was measured, a verdict."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from recast_probe.arithmetic.claims.budget import budget
from recast_probe.arithmetic.claims.concentration import concentration
from recast_probe.arithmetic.claims.quality import quality
from recast_probe.arithmetic.claims.speed import speed
from recast_probe.arithmetic.claims.verdict import (
    GENERATION,
    MEASURED,
    REFERENCE,
    STEPS,
    TEXT,
    Measured,
    Verdict,
)
from recast_probe.arithmetic.config import TransformerConfig

__all__ = [
    "GENERATION",
    "MEASURED",
    "REFERENCE",
    "STEPS",
    "TEXT",
    "Measured",
    "Verdict",
    "check_claims",
]


def check_claims(
    config: TransformerConfig, measured: Mapping[str, Any] | None = None
) -> list[Verdict]:
    """Judge every claim for 1024 x 1024 pixels and 28 steps of a model of this config.

    "Impossible" is said only where arithmetic excludes a claim under the assumption named in its
    reason.

    Args:
        measured: numbers by the names in `MEASURED`, and "model", whose they are. A difference is
            a mapping with mean, low, high and p_value.
    """
    found = Measured(dict(measured or {}))
    return [*concentration(found), *budget(found), *speed(config, found), *quality(found)]
