"""What may be given where a profile is wanted: a profile, or the result of a run that made one."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from recast_probe.errors import InputError
from recast_probe.profiles.profile import AttentionProfile


def as_profile(given: Any) -> AttentionProfile:
    """The profile itself, or the one of a ``RunResult``.

    Raises:
        InputError: something else, or a result without a profile or with several.

    Examples:
        >>> import numpy as np
        >>> from recast_probe.testing.planted_profiles import planted
        >>> as_profile(planted(np.arange(16.0))).layout.reference_tokens
        16
    """
    if isinstance(given, AttentionProfile):
        return given
    of_run = getattr(given, "profiles", None)
    if isinstance(of_run, tuple) and hasattr(given, "images"):
        if len(of_run) == 1:
            return of_run[0]
        if of_run:
            raise InputError(
                f"This result has {len(of_run)} profiles, one a prompt; choose one, such as "
                "result.profiles[0]."
            )
        raise InputError(
            "This result has no profile; run with profile=True, or profile on its own: "
            "probe.profile(image, prompt)."
        )
    raise InputError(f"An AttentionProfile is wanted here, not {_kind(given)}")


def _kind(given: Any) -> str:
    if isinstance(given, list | tuple):
        return (
            f"a {type(given).__name__} of {len(given)}: call this for each of them, such as "
            "[rp.skew(each) for each in profiles]."
        )
    if isinstance(given, str | Path):
        return f"a path: AttentionProfile.load({str(given)[:200]!r}) reads one."
    if type(given).__module__.startswith("PIL."):
        return "a picture: probe.profile(image, prompt) makes one of it."
    return f"an object of the type {type(given).__name__}."
