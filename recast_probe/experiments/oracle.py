"""The causal oracle: rank reference tokens by what they do to the image, run by run."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np
from PIL import Image
from tqdm.auto import tqdm

from recast_probe.errors import InputError
from recast_probe.interventions.keep import Keep
from recast_probe.runs.text_inputs import check_one_prompt
from recast_probe.selection.group_effects import check_groups, effects, ranking_of, tiles, trials
from recast_probe.selection.rankings import Ranking

if TYPE_CHECKING:
    from recast_probe.images.loading import ImageSources
    from recast_probe.probe import Probe


def causal_oracle(
    probe: Probe,
    image: ImageSources,
    prompt: str | None,
    score: Callable[[Image.Image], float],
    *,
    method: str = "leave-out",
    tile: int = 2,
    groups: Sequence[Sequence[int] | np.ndarray] | None = None,
    chosen: int | None = None,
    steps: int = 28,
    seeds: Sequence[int] = (0,),
    start: int = 0,
    order_seed: int = 0,
    progress: bool = True,
    **pipeline_arguments: Any,
) -> Ranking:
    """Rank reference tokens by the effect that having them has on a score of the image.

    No readout of attention enters. Leaving one group out misses what several groups hold in common,
    so this is a strong reference for rankings, not an upper bound.
    All runs of one seed start from the same noise, and the same seeds serve every group, so that
    differences are those of the tokens. It runs the pipeline ``len(seeds)`` times for each of
    ``groups + 1`` ("leave-out") or up to ``groups * (groups + 1) / 2 + 1`` ("greedy") choices of
    tokens.

    Args:
        score: of a generated image; larger is better, such as the identity of the subject.
        method: "leave-out", the loss of score without a group; or "greedy", the gain from adding
            it to those chosen before. See ``selection.effects``.
        tile: groups are square tiles of so many tokens a side, on the reference's own grid.
        groups: token indices of each group, in place of tiles; every token in exactly one.
        chosen: groups that "greedy" chooses one by one before the rest follow; None for all.
        seeds: noises over which the score is averaged.
        start: first step in which tokens are missing; earlier steps have all.
        order_seed: decides between equal effects, and the order inside a group.

    The other arguments are those of ``Probe.generate``.

    Returns:
        A ranking; its details hold the effect of each group, in units of ``score``. After
        "leave-out" its own score is that effect, shared out among the group's tokens.

    Raises:
        InputError: settings that do not fit; nothing has run. Also a score that is not a finite
            number.
        VerificationError: a check of exactness failed during a run.

    Examples:
        >>> from recast_probe.testing import tiny
        >>> probe, image = rp.Probe(tiny.build_tiny_pipeline()), tiny.tiny_image()
        >>> def brightness(picture):
        ...     return float(np.asarray(picture).mean())
        >>> found = causal_oracle(probe, image, "a cat", brightness, steps=2, progress=False)
        >>> found.name, found.tokens, found.details["runs"]
        ('causal leave-out', 16, 5)
    """
    layout = probe.layout(image, **pipeline_arguments)
    if not layout.reference_tokens:
        raise InputError("There are no reference tokens to rank; give a reference image.")
    check_one_prompt("The causal oracle takes", prompt, pipeline_arguments)
    noises = list(seeds)
    if not noises or len(set(noises)) < len(noises):
        raise InputError(f"seeds must be one or several different numbers, not {seeds!r}.")
    parts = (
        tiles(layout.references, tile)
        if groups is None
        else [np.asarray(group, np.int64) for group in groups]
    )
    if len(check_groups(parts)) != layout.reference_tokens:
        raise InputError(
            f"The groups hold {sum(map(len, parts))} tokens, but this run has "
            f"{layout.reference_tokens} reference tokens."
        )
    bar = tqdm(
        total=trials(len(parts), method, chosen) * len(noises),
        disable=not progress,
        desc="Runs",
    )

    def value(tokens: np.ndarray) -> float:
        scores = []
        for seed in noises:
            result = probe.generate(
                image,
                prompt,
                steps=steps,
                seed=seed,
                interventions=[Keep(tuple(tokens.tolist()), start)],
                progress=False,
                **pipeline_arguments,
            )
            scores.append(float(score(result.image)))
            bar.update()
        return float(np.mean(scores))

    with bar:
        found = effects(value, parts, method, chosen, order_seed)
    details = {
        "method": method,
        "groups": len(parts),
        "tile": tile if groups is None else None,
        "chosen": chosen,
        "prompt": prompt,
        "steps": steps,
        "seeds": [int(seed) for seed in noises],
        "start": start,
        "order_seed": order_seed,
        "runs": found.trials * len(noises),
        "score_at_start": found.start,
        "effects": found.effect.tolist(),
    }
    return ranking_of(found, parts, f"causal {method}", details, order_seed)
