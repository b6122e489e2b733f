"""Measured numbers for the claims, from the summaries that the demo and the analyses write."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from recast_probe.errors import InputError
from recast_probe.files.envelope import read_json
from recast_probe.files.input_files import LARGEST_TEXT
from recast_probe.paper_claims.possible import check_possible, check_together
from recast_probe.paper_claims.quantity import Quantity

ADAPTER = "ip_adapter"  # how the names of an adapter's numbers begin


def collect(files: Sequence[str | Path]) -> dict[str, Any]:
    """Numbers by the names in `paper_claims.MEASURED`, and "model".

    Where several files hold a number, that of most subjects is taken, in whatever order they come;
    of equally many, the later file's. A number that does not say of how many it is counts as of as
    many as its file's other numbers.

    Raises:
        InputError: a file that cannot be read, that holds nothing of use or numbers that cannot be,
            or of another model, or other weights of it, than the first. Numbers of an adapter are
            of a model with weights of its own.
    """
    found: dict[str, Any] = {}
    counts: dict[str, int] = {}
    weights: dict[bool, tuple[str, str | Path]] = {}
    for path in files:
        try:
            summary = read_json(path, LARGEST_TEXT)
            model, numbers = summary["model"], _numbers(summary)
            fingerprint = summary.get("fingerprint")
            if not isinstance(model, str) or not model.strip():
                raise InputError(f"its model is {model!r:.60}")
            for name, value in numbers.items():
                check_possible(name, value)
            check_together(numbers)
        # KeyError and the like: it has another structure
        except (InputError, KeyError, TypeError, ValueError, AttributeError) as error:
            reason = str(error).rstrip(".") or type(error).__name__
            raise InputError(
                f"{str(path)[:300]} is no summary of the demo or of an analysis ({reason})."
            ) from error
        if not numbers:
            raise InputError(f"{path} holds nothing that a claim of the paper could be held to.")
        if found.get("model", model) != model:
            raise InputError(f"{path} is of {model}, the files before of {found['model']}.")
        if fingerprint is not None:
            of_adapter = all(name.startswith(ADAPTER) for name in numbers)
            known, first = weights.setdefault(of_adapter, (str(fingerprint), path))
            if known != str(fingerprint):
                raise InputError(
                    f"{path} is of other weights of {model} ({str(fingerprint)[:8]}) than {first} "
                    f"({known[:8]}); a verdict is about one of them."
                )
        found["model"] = model
        said = {name: _subjects(name, value) for name, value in numbers.items()}
        for name, value in numbers.items():
            count = said[name] or max(said.values())
            if count >= counts.get(name, 0):
                found[name], counts[name] = value, count
    check_together(found)
    return found


def _subjects(name: str, value: Any) -> int:
    """Independent subjects that a number is of; 0 where it is not said, or there is none."""
    return 0 if value is None else Quantity.read(name, value).count or 0


def _numbers(summary: Mapping[str, Any]) -> dict[str, Any]:
    found: dict[str, Any] = {}
    if "skew" in summary:
        skew, entropy = summary["skew"], summary["entropy"]
        overlap, stability = summary["overlap"], summary["stability"]
        # with its interval where the demo gives one
        found |= {
            "top25": skew.get("top25_interval", skew["top25"]),
            "top25_of_blocks": skew.get("top25_of_blocks"),
            "entropy_first": entropy["first"],
            "entropy_last": entropy["last"],
            "entropy_maximum": entropy.get("maximum"),
            "entropy_fall": entropy.get("fall"),
            "auroc": overlap.get("auroc_interval", overlap["auroc"]),
            "auroc_center": overlap.get("auroc_center"),
            "auroc_other_masks": overlap.get("auroc_other_masks"),
            "auroc_above_center": overlap.get("auroc_above_center"),
            "auroc_above_other_masks": overlap.get("auroc_above_other_masks"),
            "spearman": stability.get("spearman_interval", stability["spearman"]),
            "spearman_same_category": stability.get("spearman_same_kind"),
            "spearman_other_category": stability.get("spearman_other_kind"),
        }
    found |= summary.get("measured", {})
    return {name: value for name, value in found.items() if value is not None}
