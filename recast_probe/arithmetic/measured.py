"""Measured numbers for the claims, from the summaries that the demo and the analyses write."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from recast_probe.errors import InputError


def collect(files: Sequence[str | Path]) -> dict[str, Any]:
    """Numbers by the names in `claims.MEASURED`, and "model".

    A later file wins over an earlier one.

    Raises:
        InputError: a file that cannot be read, that holds nothing of use, or of another model than
            the first.
    """
    found: dict[str, Any] = {}
    for path in files:
        try:
            summary = json.loads(Path(path).read_text())
            model, numbers = str(summary["model"]), _numbers(summary)
        except (OSError, ValueError, KeyError, TypeError) as error:
            raise InputError(
                f"{path} is no summary of the demo or of an analysis ({error})."
            ) from error
        if not numbers:
            raise InputError(f"{path} holds nothing that a claim of the paper could be held to.")
        if found.get("model", model) != model:
            raise InputError(f"{path} is of {model}, the files before of {found['model']}.")
        found |= {"model": model, **numbers}
    return found


def _numbers(summary: Mapping[str, Any]) -> dict[str, Any]:
    found: dict[str, Any] = {}
    if "skew" in summary:
        found |= {
            "top25": summary["skew"]["top25"],
            "entropy_first": summary["entropy"]["first"],
            "entropy_last": summary["entropy"]["last"],
            "auroc": summary["overlap"]["auroc"],
            "spearman": summary["stability"]["spearman"],
        }
    found |= summary.get("measured", {})
    return {name: value for name, value in found.items() if value is not None}
