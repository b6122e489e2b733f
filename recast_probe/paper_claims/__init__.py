"""Every claim of the paper: its number, what arithmetic allows, what was measured, a verdict."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from recast_probe.cost_model.config import TransformerConfig
from recast_probe.paper_claims.budget import budget
from recast_probe.paper_claims.concentration import concentration
from recast_probe.paper_claims.quality import quality
from recast_probe.paper_claims.speed import speed
from recast_probe.paper_claims.table import markdown_table
from recast_probe.paper_claims.verdict import (
    GENERATION,
    MEASURED,
    REFERENCE,
    STEPS,
    TEXT,
    VERDICTS,
    Measured,
    Verdict,
)

__all__ = [
    "GENERATION",
    "MEASURED",
    "REFERENCE",
    "STEPS",
    "TEXT",
    "VERDICTS",
    "Measured",
    "Verdict",
    "check_claims",
    "markdown_table",
]


def check_claims(
    config: TransformerConfig, measured: Mapping[str, Any] | None = None
) -> list[Verdict]:
    """Judge every claim for 1024 x 1024 pixels and 28 steps of a model of this config.

    "Impossible" is said only where arithmetic excludes a claim under the assumption that the
    verdict names.

    Args:
        measured: numbers by the names in `MEASURED`, and "model", whose they are. A number may
            come as a mapping with mean, low, high, p_value and count; a difference must, to be
            decided.

    Raises:
        InputError: a measured value that cannot be read; see `Quantity.read`.

    Examples:
        >>> config = rp.cost_model.flux_kontext_dev()
        >>> verdicts = check_claims(config, {"model": "a model", "entropy_first": 11.5})
        >>> [each.verdict for each in verdicts if each.claim.startswith("Eq. 4 keeps")]
        ['fails']
    """
    found = Measured(measured or {})
    return [*concentration(found), *budget(found), *speed(config, found), *quality(found)]
