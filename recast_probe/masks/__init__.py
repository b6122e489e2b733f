"""Where the subject is, when no mask is given: U2-Netp with GrabCut, or any callable."""

from recast_probe.masks.finding import (
    FINDERS,
    MaskFinder,
    OncePerImage,
    find_mask,
    finder_identity,
    finder_name,
    mask_finder,
)
from recast_probe.masks.grabcut import GrabCut
from recast_probe.masks.u2net import U2NetP

__all__ = [
    "FINDERS",
    "GrabCut",
    "MaskFinder",
    "OncePerImage",
    "U2NetP",
    "find_mask",
    "finder_identity",
    "finder_name",
    "mask_finder",
]
