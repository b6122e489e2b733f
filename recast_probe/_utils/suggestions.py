"""What was probably meant by a name that there is not."""

from __future__ import annotations

from collections.abc import Iterable
from difflib import get_close_matches


def did_you_mean(name: object, known: Iterable[str]) -> str:
    """ " Did you mean 'dinov2'?" for "dino"; nothing where no known name is near.

    >>> did_you_mean("dino", ["dinov2", "clip-i"])
    " Did you mean 'dinov2'?"
    """
    names = list(known)
    said = str(name).lower()
    near = get_close_matches(said, names, 1, 0.6) or [n for n in names if said and said in n][:1]
    return f" Did you mean {near[0]!r}?" if near else ""
