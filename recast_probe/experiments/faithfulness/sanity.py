"""Controls: an explanation of a model must change when the model, or what it sees, changes."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager

import numpy as np
import pandas as pd
import torch
from PIL import Image
from scipy import stats

from recast_probe.diagnostics.arrays import top_count
from recast_probe.errors import InputError, UnsupportedPipelineError
from recast_probe.layout import Grid
from recast_probe.probe import Probe
from recast_probe.selection.rankings import Ranking

Rank = Callable[[Image.Image, str, int], Ranking]


@contextmanager
def randomised_blocks(probe: Probe, blocks: Sequence[int], seed: int = 0) -> Iterator[None]:
    """While inside, the weights of these blocks are shuffled, each tensor within itself.

    Their distribution stays, what was learned goes. Afterwards, also after an exception, the
    weights are the same bits as before. Needs memory for a copy of the blocks' weights.

    Raises:
        InputError: a block that the model does not have.
        UnsupportedPipelineError: weights that are not in memory (offloaded to disk).

    Examples:
        >>> from recast_probe.testing import tiny
        >>> probe = rp.Probe(tiny.build_tiny_pipeline())
        >>> before = probe.fingerprint
        >>> with randomised_blocks(probe, [0]):
        ...     changed = probe.fingerprint != before
        >>> changed, probe.fingerprint == before
        (True, True)
    """
    modules = probe.family.block_modules()
    outside = [block for block in blocks if not 0 <= block < len(modules)]
    if outside:
        raise InputError(f"There is no block {outside[0]}; this model has {len(modules)}.")
    chosen = [(block, p) for block in blocks for p in modules[block].parameters()]
    if any(parameter.is_meta for _, parameter in chosen):
        raise UnsupportedPipelineError("Offloaded weights cannot be shuffled; keep them in memory.")
    before = [parameter.detach().clone() for _, parameter in chosen]
    generators = {b: torch.Generator().manual_seed(seed * 1_000_003 + b) for b in blocks}
    try:
        with torch.no_grad():
            for block, parameter in chosen:
                order = torch.randperm(parameter.numel(), generator=generators[block])
                flat = parameter.detach().reshape(-1)[order.to(parameter.device)]
                parameter.copy_(flat.reshape(parameter.shape))
        yield
    finally:
        with torch.no_grad():
            for (_, parameter), kept in zip(chosen, before, strict=True):
                parameter.copy_(kept)


def shuffled_reference(
    image: Image.Image, grid: Grid, seed: int = 0
) -> tuple[Image.Image, np.ndarray]:
    """The reference with the squares of its tokens in another order.

    The image is first scaled so that every token is a whole number of pixels.

    Args:
        image: the reference, of any size.
        grid: of its reference tokens.
        seed: of the order.

    Returns:
        The image; int64 (tokens,): which token of the original stands at each place.

    Examples:
        >>> image, order = shuffled_reference(Image.new("RGB", (64, 48)), Grid(3, 4))
        >>> image.size, sorted(order.tolist()) == list(range(12))
        ((64, 48), True)
    """
    tile = (max(1, image.width // grid.columns), max(1, image.height // grid.rows))
    whole = image.convert("RGB").resize((tile[0] * grid.columns, tile[1] * grid.rows))
    pixels = np.asarray(whole).reshape(grid.rows, tile[1], grid.columns, tile[0], 3)
    squares = pixels.swapaxes(1, 2).reshape(grid.size, tile[1], tile[0], 3)
    order = np.random.default_rng(seed).permutation(grid.size)
    moved = squares[order].reshape(grid.rows, grid.columns, tile[1], tile[0], 3)
    return Image.fromarray(
        np.ascontiguousarray(moved.swapaxes(1, 2)).reshape(whole.height, -1, 3)
    ), order


def sanity_checks(
    probe: Probe,
    image: Image.Image,
    prompt: str,
    rank: Rank,
    *,
    other_prompt: str,
    fraction: float = 0.25,
    seed: int = 0,
) -> pd.DataFrame:
    """How alike a ranking stays to itself when something changes that should change it.

    After the sanity checks for saliency maps (Adebayo et al., arXiv 1810.03292).

    Args:
        rank: makes a ranking of the reference tokens from (image, prompt, seed) by asking the
            probe's model as it is at that time.
        other_prompt: asks for something else.
        fraction: top share of the tokens whose overlap is given.
        seed: of the noise, and of all shuffling.

    Returns:
        One row a check: "check", "blocks" (how many are randomised), "spearman" of the places of
        all tokens, "jaccard" of the best ones (about fraction / (2 - fraction) by chance). Checks:
        "another seed" (should stay alike), "another prompt", "shuffled reference, by place"
        (should fall to 0), "shuffled reference, by content" (stays if the ranking follows what a
        token shows), "block b randomised" for each block, and "from block b on randomised", from
        the last block up.

    Raises:
        InputError: several references, or a ranking of another number of tokens.

    Examples:
        >>> from recast_probe.testing import tiny
        >>> probe, image = rp.Probe(tiny.build_tiny_pipeline()), tiny.tiny_image()
        >>> def rank(image, prompt, seed):
        ...     profile = probe.profile(image, prompt, 2, seed, profile_steps=0, progress=False)
        ...     return rp.rank.cross_image(profile, blocks="all")
        >>> table = sanity_checks(probe, image, "a cat", rank, other_prompt="a dog")
        >>> len(table), list(table.columns)
        (14, ['check', 'blocks', 'spearman', 'jaccard'])
    """
    layout = probe.layout(image)
    if len(layout.references) != 1:
        raise InputError("The checks shuffle one reference image; give exactly one.")
    own = rank(image, prompt, seed)
    shuffled, order = shuffled_reference(image, layout.references[0], seed)
    moved = _places(rank(shuffled, prompt, seed))
    back = np.empty_like(moved)
    back[order] = moved
    found = {
        ("another seed", 0): _places(rank(image, prompt, seed + 1)),
        ("another prompt", 0): _places(rank(image, other_prompt, seed)),
        ("shuffled reference, by place", 0): moved,
        ("shuffled reference, by content", 0): back,
    }
    blocks = range(len(probe.block_kinds))
    parts = {f"block {b} randomised": [b] for b in blocks}
    parts |= {f"from block {b} on randomised": list(blocks[b:]) for b in reversed(blocks)}
    for name, part in parts.items():
        with randomised_blocks(probe, part, seed):
            found[name, len(part)] = _places(rank(image, prompt, seed))
    places, count = _places(own), top_count(own.tokens, fraction)
    rows = []
    for (name, randomised), other in found.items():
        both = int(((places < count) & (other < count)).sum())
        rows.append(
            {
                "check": name,
                "blocks": randomised,
                "spearman": float(stats.spearmanr(places, other).statistic),
                "jaccard": both / (2 * count - both),
            }
        )
    return pd.DataFrame(rows)


def _places(ranking: Ranking) -> np.ndarray:
    place = np.empty(ranking.tokens, np.int64)
    place[ranking.order] = np.arange(ranking.tokens)
    return place
