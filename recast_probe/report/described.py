"""A result in one sentence."""

from __future__ import annotations

from recast_probe.diagnostics.results import Result
from recast_probe.report.numbers import formatted


def described(result: Result) -> str:
    """The headline numbers of a result with their labels, for who cannot see its figure.

    Examples:
        >>> import numpy as np
        >>> from recast_probe.testing.planted_profiles import planted
        >>> described(rp.entropy(planted(np.ones(16))))[:42]
        'Entropy at the first step 4.00 bits, Entro'
    """
    shown = [number for number in result.numbers() if number.value is not None]
    parts = [f"{number.label} {formatted(number.value)} {number.unit}".strip() for number in shown]
    return f"{', '.join(parts)}. {result.selection[:1].upper()}{result.selection[1:]}."
