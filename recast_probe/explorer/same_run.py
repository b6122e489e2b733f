"""Whether two recordings are of one run, and whether two runs had the same references."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from recast_probe.errors import InputError

RECORDING = ("AttentionMaps", "Record")
"""Names of interventions that change nothing."""


def check_same_run(profile: Mapping[str, Any], maps: Mapping[str, Any]) -> None:
    """Refuse maps of another run than the profile's. What either does not tell is not compared.

    Args:
        profile, maps: their provenance.

    Raises:
        InputError: they differ in the model, the reference, or how it was run.
    """
    for (name, one), two in zip(_facts(profile).items(), _facts(maps).values(), strict=True):
        if one is not None and two is not None and one != two:
            if isinstance(one, Mapping) and isinstance(two, Mapping):
                other = [key for key in {**one, **two} if one.get(key) != two.get(key)]
                one, two = ({key: each.get(key) for key in other} for each in (one, two))
            raise InputError(
                f"The maps are of a run with {name} {_short(two)}, the profile of one with "
                f"{_short(one)}; give those of one run."
            )


def same_references(one: Mapping[str, Any], two: Mapping[str, Any]) -> bool | None:
    """Whether two runs had the same pictures, by their provenance; None where one does not tell.

    Examples:
        >>> one, other = ({"image": {"sha256": digest}} for digest in ("ab", "cd"))
        >>> same_references(one, one), same_references(one, other), same_references(one, {})
        (True, False, None)
    """
    first, second = reference_digests(one), reference_digests(two)
    return None if first is None or second is None else first == second


def reference_digests(provenance: Mapping[str, Any]) -> list[str] | None:
    """The digests of a run's reference pictures; None where it does not tell."""
    found = provenance.get("images", provenance.get("image"))
    if found is None:
        return None
    every = found if isinstance(found, list) else [found]
    return [str(each.get("sha256")) if isinstance(each, Mapping) else str(each) for each in every]


def without_recording(settings: Any) -> list[dict[str, Any]] | None:
    """Interventions of a run as they describe themselves, without those that change nothing; None
    where it is not known."""
    if not isinstance(settings, list):
        return None
    # a user's class may have such a name, too, and tells its content
    return [
        each
        for each in settings
        if isinstance(each, dict) and (each.get("name") not in RECORDING or "its content" in each)
    ]


def _facts(provenance: Mapping[str, Any]) -> dict[str, Any]:
    """What two recordings of one run have in common, by its name in words."""
    model = provenance.get("model")
    model = model if isinstance(model, Mapping) else {}
    return {
        "the fingerprint": model.get("fingerprint"),
        "the pipeline": model.get("identity"),
        **{name: provenance.get(name) for name in ("seed", "steps", "prompts", "arguments")},
        "the reference": reference_digests(provenance),
        "interventions": without_recording(provenance.get("interventions")),
    }


def _short(value: Any) -> str:
    text = str(value)
    return text if len(text) <= 200 else f"{text[:197]}..."
