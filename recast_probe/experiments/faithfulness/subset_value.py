"""What sets of reference tokens are worth, found by running with them alone."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
from PIL import Image

from recast_probe.errors import InputError
from recast_probe.experiments.faithfulness.curves import Curves, token_counts
from recast_probe.images.loading import ImageSources
from recast_probe.interventions import Keep
from recast_probe.probe import Probe
from recast_probe.selection.rankings import Ranking

SHARES = (1 / 16, 1 / 8, 1 / 4, 1 / 2)


class SubsetValue:
    """The score of the image that is made with some of the reference tokens; each set runs once.

    Args:
        probe, image, prompt: of every run.
        score: of a generated image; larger is better.
        steps, seed: of every run, so that all start from the same noise.
        start: first step in which tokens are missing.

    Attributes:
        tokens: number of reference tokens.
        runs: how many runs it took so far.

    Raises:
        InputError: no reference, or several prompts.

    Examples:
        >>> from recast_probe.testing import tiny
        >>> probe, image = rp.Probe(tiny.build_tiny_pipeline()), tiny.tiny_image()
        >>> def brightness(picture):
        ...     return float(np.asarray(picture).mean())
        >>> value = SubsetValue(probe, image, "a cat", brightness, steps=2)
        >>> value(np.array([0, 1])) == value(np.array([1, 0])), value.runs
        (True, 1)
    """

    def __init__(
        self,
        probe: Probe,
        image: ImageSources,
        prompt: str,
        score: Callable[[Image.Image], float],
        *,
        steps: int = 28,
        seed: int = 0,
        start: int = 0,
        **pipeline_arguments: Any,
    ) -> None:
        if not isinstance(prompt, str):
            raise InputError("Tokens have their worth for one prompt; ask for each of them.")
        self.tokens = probe.layout(image, **pipeline_arguments).reference_tokens
        if not self.tokens:
            raise InputError("There are no reference tokens; give a reference image.")
        self.runs = 0
        self._probe, self._given, self._score, self._start = probe, (image, prompt), score, start
        self._settings = {"steps": steps, "seed": seed, "progress": False, **pipeline_arguments}
        self._known: dict[bytes, float] = {}

    def __call__(self, tokens: np.ndarray) -> float:
        """The score with these tokens present and no others.

        Raises:
            InputError: a score that is not a finite number.
        """
        present = np.unique(np.asarray(tokens, np.int64))
        key = present.tobytes()
        if key not in self._known:
            keep = Keep(tuple(present.tolist()), self._start)
            result = self._probe.generate(*self._given, interventions=[keep], **self._settings)
            self.runs += 1
            found = float(self._score(result.image))
            if not np.isfinite(found):
                raise InputError(f"The score of an image with {len(present)} tokens is {found}.")
            self._known[key] = found
        return self._known[key]


def faithfulness_curves(
    worth: SubsetValue, ranking: Ranking, shares: tuple[float, ...] = SHARES
) -> Curves:
    """Deletion and insertion curves of a ranking; with points at 0, the shares, and 1.

    After the curves of RISE (Petsiuk et al., arXiv 1806.07421), for tokens in place of pixels.

    Args:
        worth: shared by all rankings of one reference and prompt, so that no run is made twice.
        shares: of the tokens, each between 0 and 1; the same for all rankings that are compared.

    Raises:
        InputError: shares out of range, or a ranking of another number of tokens.

    Examples:
        >>> from recast_probe.testing import tiny
        >>> probe, image = rp.Probe(tiny.build_tiny_pipeline()), tiny.tiny_image()
        >>> def brightness(picture):
        ...     return float(np.asarray(picture).mean())
        >>> value = SubsetValue(probe, image, "a cat", brightness, steps=2)
        >>> curves = faithfulness_curves(value, rp.rank.random(16, seed=0), (0.5,))
        >>> curves.counts, value.runs
        (array([ 0,  8, 16]), 4)
    """
    if ranking.tokens != worth.tokens:
        raise InputError(
            f"The ranking {ranking.name!r} orders {ranking.tokens} tokens, but this run has "
            f"{worth.tokens}."
        )
    counts = np.array([0, *token_counts(worth.tokens, tuple(shares)), worth.tokens])
    order = ranking.order
    return Curves(
        ranking,
        counts,
        np.array([worth(order[:count]) for count in counts]),
        np.array([worth(order[count:]) for count in counts]),
    )
