"""Links to files beside a report."""

from __future__ import annotations

from pathlib import PurePosixPath
from urllib.parse import quote

from recast_probe.errors import InputError


def relative(path: str) -> str:
    """A path below the report's folder as an address.

    Raises:
        InputError: a path that leads out of the folder.

    Examples:
        >>> relative("figures/nine o'clock.png")
        'figures/nine%20o%27clock.png'
    """
    parts = PurePosixPath(path)
    if parts.is_absolute() or ".." in parts.parts or not parts.parts:
        raise InputError(f"A report links to files in its own folder, not to {path!r}.")
    # a colon would make the first part the name of a protocol
    return quote(path)
