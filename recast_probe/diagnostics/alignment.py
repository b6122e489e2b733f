"""Does the output shift or zoom against the reference? A fit to where its tokens look."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import ClassVar

import numpy as np
from scipy.optimize import least_squares

from recast_probe.diagnostics.correspondence import Correspondence
from recast_probe.diagnostics.intervals import Interval, difference_interval, untold
from recast_probe.diagnostics.jackknife import jackknife_interval
from recast_probe.diagnostics.results import Result, Words
from recast_probe.errors import InputError

FEWEST_TOKENS = 8
TILES = 4  # a side; neighbouring tokens are no independent samples, so whole tiles are left out
ENDS = {"zoom": (0.0, math.inf), "shift_y": (-math.inf, math.inf), "shift_x": (-math.inf, math.inf)}


@dataclass(frozen=True, repr=False)
class Alignment(Result):
    """How the output lies over the reference: a common zoom about the middle, and a shift.

    A generation token at place g that shows what the reference has at r has
    g - middle = zoom (r - middle) + shift. Places are fractions of the image's height and width.

    Attributes:
        zoom: 1 is the reference's own size; 1.1 shows it larger by a tenth.
        shift_y, shift_x: down and to the right, as a fraction of the image's height and width.
        following: share of the tokens that look where the fit says, to within one token. Where it
            is small, most tokens do something else, and the fit says little.
        tokens: generation tokens that were fitted, over all correspondences.
        selection: what was averaged.

    Examples:
        >>> from PIL import Image
        >>> from recast_probe.testing.tiny import build_tiny_pipeline
        >>> probe = rp.Probe(build_tiny_pipeline())
        >>> image = Image.new("RGB", (64, 64))
        >>> maps = probe.attention_maps(image, "a fox", steps=2, progress=False)
        >>> found = rp.alignment(rp.correspondence(maps))
        >>> found.tokens, 0 <= found.following <= 1
        (16, True)
    """

    name: ClassVar[str] = "alignment"
    title: ClassVar[str] = "Does the output shift or zoom?"
    words: ClassVar[Words] = {
        "zoom": ("Zoom", "1 is the reference's own size, 1.1 larger by a tenth."),
        "zoom_low": ("Zoom, low end", "Of its 95 % interval."),
        "zoom_high": ("Zoom, high end", "Of its 95 % interval."),
        "shift_y": ("Shift down", "As a fraction of the image's height."),
        "shift_y_low": ("Shift down, low end", "Of its 95 % interval."),
        "shift_y_high": ("Shift down, high end", "Of its 95 % interval."),
        "shift_x": ("Shift to the right", "As a fraction of the image's width."),
        "shift_x_low": ("Shift to the right, low end", "Of its 95 % interval."),
        "shift_x_high": ("Shift to the right, high end", "Of its 95 % interval."),
        "following": ("Follow the fit", "Share of the tokens, to within one token."),
        "tokens": ("Generation tokens", "Those fitted.", "tokens"),
    }

    zoom: Interval
    shift_y: Interval
    shift_x: Interval
    following: float
    tokens: int
    selection: str

    def summary(self) -> dict[str, float]:
        found: dict[str, float] = {}
        for name in ENDS:
            interval: Interval = getattr(self, name)
            found |= {
                name: interval.mean,
                f"{name}_low": interval.low,
                f"{name}_high": interval.high,
            }
        return found | {"following": self.following, "tokens": self.tokens}

    def __repr__(self) -> str:
        return (
            f"Alignment(zoom {self.zoom}, shift down {self.shift_y}, right {self.shift_x}, "
            f"{self.following:.0%} of the tokens follow; {self.selection})"
        )


def alignment(found: Correspondence | Sequence[Correspondence]) -> Alignment:
    """Fit a common zoom and shift to a correspondence, or to several.

    A robust fit (Cauchy's loss of half a token) of the places that tokens look at most, weighted
    by the share of attention that is there. Of one correspondence, intervals leave out tiles of
    the image one by one ("jackknife t"); of several, such as subjects, they are over these.

    Raises:
        InputError: no correspondence, tokens of several layers, or too few tokens.

    Examples:
        >>> from PIL import Image
        >>> from recast_probe.testing.tiny import build_tiny_pipeline
        >>> probe = rp.Probe(build_tiny_pipeline())
        >>> image = Image.new("RGB", (64, 64))
        >>> maps = probe.attention_maps(image, "a fox", steps=2, progress=False)
        >>> alignment([rp.correspondence(maps, step=step) for step in (0, 1)]).zoom.count
        2
    """
    several = [found] if isinstance(found, Correspondence) else list(found)
    if not several or not all(isinstance(each, Correspondence) for each in several):
        raise InputError("Give what `correspondence` returned, or a list of it.")
    for each in several:
        if each.generation.layers > 1:
            raise InputError("Tokens of several layers lie over one another; take one layer.")
        if each.best.size < FEWEST_TOKENS:
            raise InputError(f"{each.best.size} tokens are too few; give {FEWEST_TOKENS} or more.")
    fits = [_fit(each, np.ones(each.best.size, bool)) for each in several]
    if len(several) == 1:
        intervals = _over_tiles(several[0], fits[0])
        selection = several[0].selection
    else:
        intervals = {
            name: difference_interval([np.array([fit[place]]) for fit in fits])
            for place, name in enumerate(ENDS)
        }
        selection = f"{several[0].selection} and {len(several) - 1} more"
    following = [_following(each, fit) for each, fit in zip(several, fits, strict=True)]
    tokens = sum(each.best.size for each in several)
    return Alignment(
        **intervals, following=float(np.mean(following)), tokens=tokens, selection=selection
    )


def _fit(found: Correspondence, kept: np.ndarray, start: np.ndarray | None = None) -> np.ndarray:
    """zoom, shift_y, shift_x of the tokens that are kept; from an earlier fit, if there is one."""
    # the reference's place as a function of the token's own, since only the former is uncertain
    own, seen = (each.values[kept] - 0.5 for each in (found.place, found.best_place))
    weight = np.repeat(np.sqrt(found.peak.values[kept]), 2)
    one = np.tile(np.eye(2), (len(own), 1))
    design = weight[:, None] * np.column_stack([own.ravel(), one])
    wanted = weight * seen.ravel()
    parts = np.array([1.0, 0.0, 0.0]) if start is None else _inverse(start)
    # Cauchy's loss forgets tokens that look elsewhere, and needs a start near the others
    for loss in ("soft_l1", "cauchy") if start is None else ("cauchy",):
        parts = least_squares(
            lambda x: design @ x - wanted,
            parts,
            jac=lambda _: design,
            loss=loss,
            f_scale=_half_token(found),
        ).x
    return _inverse(parts)


def _inverse(parts: np.ndarray) -> np.ndarray:
    """From the map of places to the one back, both as factor and shifts; NaN of factor 0."""
    factor = 1 / parts[0] if abs(parts[0]) > 1e-9 else math.nan
    return np.array([factor, *(-parts[1:] * factor)])


def _over_tiles(found: Correspondence, fit: np.ndarray) -> dict[str, Interval]:
    """Intervals by leaving out one tile of the image after the other."""
    tile = np.minimum((found.place.values * TILES).astype(int), TILES - 1) @ [TILES, 1]
    names = np.unique(tile)
    if len(names) < TILES:
        reason = "the tokens lie in too few parts of the image"
        return {
            name: untold(float(value), 0.95, len(names), "jackknife t", reason)
            for name, value in zip(ENDS, fit, strict=True)
        }
    left_out = [_fit(found, tile != name, fit) for name in names]
    return {
        name: jackknife_interval(float(fit[place]), np.array(left_out)[:, place], within=ends)
        for place, (name, ends) in enumerate(ENDS.items())
    }


def _following(found: Correspondence, fit: np.ndarray) -> float:
    """Share of tokens that look where the fit says, to within one token."""
    said = (found.place.values - 0.5 - fit[1:]) / fit[0] + 0.5
    near = np.abs(said - found.best_place.values).max(-1) <= 2 * _half_token(found)
    return float(near.mean())


def _half_token(found: Correspondence) -> float:
    return 0.5 / min(found.reference.rows, found.reference.columns)
