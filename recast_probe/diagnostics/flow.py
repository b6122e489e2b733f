"""Where attention flows: from the reference straight to the generation, or through the text.

A direct score (Eq. 2) does not see content that text tokens read from the reference in one block
and hand on to generation tokens in a later one. Here text tokens are taken together: their mean
attention to a reference token, times the attention that generation tokens pay to the text. That is
exact where text tokens are alike, and a first approximation elsewhere; what it means for the image
only a knockout can tell.
"""

from __future__ import annotations

import warnings
from dataclasses import dataclass
from typing import Any, ClassVar

import numpy as np
import xarray as xr

from recast_probe.diagnostics import arrays
from recast_probe.diagnostics.results import (
    Result,
    Words,
    checked_fraction,
    checked_scores,
    labelled,
    mean_over,
)
from recast_probe.diagnostics.stability import Stability
from recast_probe.errors import InputError
from recast_probe.layout import Grid
from recast_probe.profiles.profile import AttentionProfile

RESIDUAL = 0.5


@dataclass(frozen=True, repr=False)
class Flow(Result):
    """Direct and text-mediated importance of reference tokens.

    Attributes:
        direct: (step, token), mean over blocks of the attention that generation tokens pay to a
            reference token: Eq. 2 and 3.
        mediated: (step, token), mean over blocks of the attention that generation tokens pay to the
            text, times the mean attention that text tokens paid to the reference token in earlier
            blocks. Both are fractions of a generation token's attention in a block.
        spearman, kendall, jaccard: agreement of the two, each averaged over the steps; Jaccard of
            the top fraction of tokens. NaN where all scores are equal.
        step_spearman: (step,), Spearman correlation within each step.
        rollout: (path, step, token), what rollout gives, or None: see ``flow``. Paths are "all"
            and "without text".
        mass: (step, block, head, query_group, key_group), who attends to whom, fractions.
        fraction: the top share of tokens.
        references: grids of the reference images.
        selection: what was averaged.

    Examples:
        >>> from recast_probe.testing.planted_profiles import planted
        >>> generation = planted(np.arange(32.0).reshape(1, 2, 1, 16) / 500)
        >>> text = rp.AttentionProfile(generation.dataset.assign_attrs(queries="text"))
        >>> found = rp.flow(generation, text)
        >>> found.direct.shape, round(found.spearman, 3)
        ((1, 16), 1.0)
    """

    name: ClassVar[str] = "flow"
    title: ClassVar[str] = "Directly, or through the text?"
    over_image: ClassVar[bool] = True
    words: ClassVar[Words] = {
        "direct": ("Attention to the reference", "Share of a generation token's attention."),
        "mediated": (
            "Attention to what the text had read",
            "Attention to text tokens, times what these had paid to the reference before.",
        ),
        "mediated_share": ("Share that goes through the text", "Of both paths together."),
        **{name: Stability.words[name] for name in ("spearman", "kendall", "jaccard")},
        "rollout": ("Rollout", "Share of a generation token that stems from the reference."),
        "rollout_without_text": ("Rollout without the text", "The same if the text forgot it."),
    }

    direct: xr.DataArray
    mediated: xr.DataArray
    spearman: float
    kendall: float
    jaccard: float
    step_spearman: xr.DataArray
    rollout: xr.DataArray | None
    mass: xr.DataArray
    fraction: float
    references: tuple[Grid, ...]
    selection: str

    @property
    def direct_total(self) -> xr.DataArray:
        """(step,), fraction of generation's attention that goes to the reference directly."""
        return self.direct.sum("token")

    @property
    def mediated_total(self) -> xr.DataArray:
        """(step,), fraction that goes to what text tokens had read of the reference."""
        return self.mediated.sum("token")

    @property
    def mediated_share(self) -> float:
        """Mediated over direct plus mediated, 0..1, over all steps."""
        direct, mediated = float(self.direct_total.sum()), float(self.mediated_total.sum())
        return mediated / (direct + mediated) if direct + mediated else float("nan")

    def summary(self) -> dict[str, float]:
        found = {
            "direct": float(self.direct_total.mean()),
            "mediated": float(self.mediated_total.mean()),
            "mediated_share": self.mediated_share,
            "spearman": self.spearman,
            "kendall": self.kendall,
            "jaccard": self.jaccard,
        }
        if self.rollout is not None:
            whole, without = (float(path.sum("token").mean()) for path in self.rollout)
            found |= {"rollout": whole, "rollout_without_text": without}
        return found

    def __repr__(self) -> str:
        return (
            f"Flow(direct {float(self.direct_total.mean()):.3f}, through the text "
            f"{float(self.mediated_total.mean()):.3f}, Spearman {self.spearman:.2f}; "
            f"{self.selection})"
        )


def flow(
    generation: AttentionProfile,
    text: AttentionProfile,
    fraction: float = 0.25,
    *,
    rollout: bool = False,
) -> Flow:
    """Direct and text-mediated flow from the reference to the generation.

    The order of blocks counts: the mediated path needs a block in which the text reads the
    reference before one in which the generation reads the text.

    Args:
        generation: a profile of one run, with its whole mass table (``mass_table="all"``).
        text: the same run with ``queries="text"``; ``path_profiles`` makes both at once.
        fraction: top share of tokens whose sets are compared.
        rollout: also attention rollout over the blocks (after Abnar and Zuidema 2020): half of
            every token stays itself in a block, half becomes what it attends to, group by group.
            It says how much of a generation token stems from each reference token in the end.

    Raises:
        InputError: profiles of different runs or selections, with the wrong queries, with tokens
            that were pruned, or without the mass table that is needed.

    Examples:
        >>> from recast_probe.testing.planted_profiles import planted
        >>> generation = planted(np.arange(32.0).reshape(1, 2, 1, 16) / 500)
        >>> text = rp.AttentionProfile(generation.dataset.assign_attrs(queries="text"))
        >>> round(flow(generation, text).mediated_share, 3)
        0.075
    """
    _check_pair(generation, text)
    fraction = checked_fraction(fraction)
    score, text_score = checked_scores(generation), checked_scores(text)
    for name in ("step", "block", "head"):
        if not np.array_equal(score[name], text_score[name]):
            raise InputError(f"The two profiles recorded different {name}s; select what both have.")
    mass = generation.mass
    table = mean_over(mass, "head")
    needed = table if rollout else table[:, :, 1]
    if np.isnan(needed).any():
        raise InputError(
            'Some attention masses are NaN; profile with mass_table="all", which reads every query.'
        )
    to_reference, from_text = mean_over(score, "head"), mean_over(text_score, "head")
    direct = to_reference.mean(1)
    mediated = mediated_importance(table[:, :, 1, 0], from_text)
    found = _agreement(direct, mediated, arrays.top_count(score.sizes["token"], fraction))
    rolled = None
    if rollout:
        paths = [
            rolled_out(table, to_reference, from_text, through_text=each) for each in (True, False)
        ]
        rolled = xr.concat(
            [labelled(path, score, "rollout", "step", "token") for path in paths],
            dim=xr.DataArray(["all", "without text"], dims="path", name="path"),
        )
    spearman, kendall, jaccard = (_mean(values) for values in found.T)
    return Flow(
        direct=labelled(direct, score, "direct", "step", "token"),
        mediated=labelled(mediated, score, "mediated", "step", "token"),
        spearman=spearman,
        kendall=kendall,
        jaccard=jaccard,
        step_spearman=labelled(found[:, 0], score, "spearman", "step"),
        rollout=rolled,
        mass=mass,
        fraction=fraction,
        references=generation.layout.references,
        selection=generation.selection_text(),
    )


def mediated_importance(to_text: np.ndarray, from_text: np.ndarray) -> np.ndarray:
    """Attention composed over two blocks, (..., token).

    Args:
        to_text: (..., block), what generation tokens pay to the text.
        from_text: (..., block, token), what text tokens pay to each reference token.

    Returns:
        Mean over blocks of ``to_text`` times the mean of ``from_text`` in earlier blocks; in the
        first block nothing has been read yet.

    Examples:
        >>> mediated_importance(np.array([0.2, 0.4]), np.array([[0.1, 0.3], [0.0, 0.0]]))
        array([0.02, 0.06])
    """
    blocks = to_text.shape[-1]
    earlier = np.cumsum(from_text, axis=-2)[..., :-1, :]
    earlier = earlier / np.arange(1, blocks)[:, None]
    return (to_text[..., 1:, None] * earlier).sum(-2) / blocks


def rolled_out(
    mass: np.ndarray,
    to_reference: np.ndarray,
    from_text: np.ndarray,
    *,
    through_text: bool = True,
    residual: float = RESIDUAL,
) -> np.ndarray:
    """How much of the mean generation token stems from each reference token, (..., token).

    Each group is followed as its mean token. Reference tokens keep apart what is still their own
    from what they took from others; what they read of one another counts as their own.

    Args:
        mass: (..., block, query group, key group), groups text, generation, reference.
        to_reference, from_text: (..., block, token), what generation and text tokens pay to each
            reference token.
        through_text: False forgets what text tokens read of the reference.
        residual: the share of a token that stays itself in a block.
    """
    shape = to_reference.shape[:-2] + to_reference.shape[-1:]
    text, generation, shared = np.zeros((3, *shape))
    own = np.ones(shape[:-1])[..., None]
    new = 1 - residual
    for block in range(mass.shape[-3]):
        here = mass[..., block, :, :, None]
        before = text, generation, shared, own

        def taken(query: int, here: Any = here, before: Any = before) -> np.ndarray:
            return sum(here[..., query, key, :] * before[key] for key in range(3))

        generation = residual * before[1] + new * (taken(1) + to_reference[..., block, :] * own)
        text = residual * before[0] + new * (taken(0) + from_text[..., block, :] * own)
        if not through_text:
            text = np.zeros(shape)
        shared = residual * before[2] + new * taken(2)
        own = residual * own + new * here[..., 2, 2, :] * own
    return generation


def _agreement(direct: np.ndarray, mediated: np.ndarray, count: int) -> np.ndarray:
    """Spearman, Kendall and Jaccard of each step, (step, 3); NaN where there is no order."""
    found = np.full((len(direct), 3), np.nan)
    for step, pair in enumerate(zip(direct, mediated, strict=True)):
        scores = np.stack(pair)
        if (np.ptp(scores, axis=-1) == 0).any():
            continue
        found[step] = [
            arrays.spearman_matrix(scores)[0, 1],
            arrays.kendall_matrix(scores)[0, 1],
            arrays.jaccard_matrix(scores, count)[0, 1],
        ]
    if np.isnan(found).any():
        warnings.warn(
            "In some steps all tokens have one importance, directly or through the text: there is "
            "no order to agree with. They are left out.",
            stacklevel=3,
        )
    return found


def _mean(values: np.ndarray) -> float:
    known = values[~np.isnan(values)]
    return float(known.mean()) if known.size else float("nan")


def _check_pair(generation: AttentionProfile, text: AttentionProfile) -> None:
    if (generation.queries, text.queries) != ("generation", "text"):
        raise InputError(
            "Flow needs a profile of generation tokens and one of text tokens, in this order, not "
            f'of {generation.queries} and {text.queries}; make both with "path_profiles", or the '
            'second with queries="text".'
        )
    same = ("model", "seed", "steps", "prompt", "layout")
    first, second = generation.provenance, text.provenance
    other = [name for name in same if first.get(name) != second.get(name)]
    if other or generation.layout != text.layout:
        raise InputError(
            f"The two profiles are of different runs, with another {', '.join(other) or 'layout'}."
        )
