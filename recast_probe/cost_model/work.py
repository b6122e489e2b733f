"""FLOP of a step and of a run, and how much faster pruning can make it at most.

A multiply-add counts as two. Bounds assume that every FLOP takes the same time; attention that
runs less efficiently than linear layers raises them, see `needed_attention_slowdown`.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from recast_probe.cost_model.config import TransformerConfig
from recast_probe.errors import InputError


@dataclass(frozen=True)
class Work:
    """FLOP by what they are spent on.

    Attributes:
        linear: linear layers on tokens, including the embedders and the output.
        attention: query-key and probability-value products.
        modulation: layers that act on one vector a step.

    Examples:
        >>> (Work(linear=2.0, attention=1.0) + Work(linear=3.0, attention=1.0)).total
        7.0
    """

    linear: float
    attention: float
    modulation: float = 0.0

    @property
    def total(self) -> float:
        """All of it."""
        return self.linear + self.attention + self.modulation

    def __add__(self, other: Work) -> Work:
        return Work(
            self.linear + other.linear,
            self.attention + other.attention,
            self.modulation + other.modulation,
        )


def step_work(
    config: TransformerConfig, text: int, generation: int, reference: int, *, reused: bool = False
) -> Work:
    """FLOP of one transformer call.

    Args:
        text, generation, reference: tokens.
        reused: the reference's keys and values come from an earlier step, so its rows are not
            computed; the other tokens still attend to them.

    Raises:
        InputError: a negative number of tokens.

    Examples:
        >>> config = rp.cost_model.flux_kontext_dev()
        >>> with_reference, without = (step_work(config, 512, 4096, n).total for n in (4096, 0))
        >>> round(with_reference / without, 2)
        2.22
    """
    if min(text, generation, reference) < 0:
        raise InputError(f"Token counts cannot be negative: {text}, {generation}, {reference}.")
    width = config.width
    rows = text + generation + (0 if reused else reference)
    keys = text + generation + reference
    image_rows = rows - text
    blocks = config.blocks * 2 * config.block_linear * rows
    ends = 2 * (2 * width * config.channels * image_rows + config.text_linear * text)
    return Work(
        linear=float(blocks + ends),
        attention=float(config.blocks * 4 * width * rows * keys),
        modulation=float(2 * config.modulation_linear),
    )


def readout_work(
    config: TransformerConfig,
    generation: int,
    reference: int,
    *,
    text: int = 0,
    mass_table: str = "scores",
    blocks: int | None = None,
) -> float:
    """FLOP of reading generation-to-reference attention exactly in one step, where the row
    log-sum-exp is known: one more query-key product of what is read.

    Args:
        text, generation, reference: tokens.
        mass_table: as in ``Probe.profile``. "scores" reads generation queries and reference keys;
            "queried" the text keys as well, and the mass on generation keys is what is left of 1;
            "all" reads all queries and keys.
        blocks: so many blocks; None for all.

    Raises:
        InputError: another ``mass_table``.

    Examples:
        >>> readout_work(rp.cost_model.flux_kontext_dev(), 4096, 4096) / 1e12
        5.875515260928
    """
    pairs = {
        "scores": generation * reference,
        "queried": generation * (text + reference),
        "all": (text + generation + reference) ** 2,
    }
    if mass_table not in pairs:
        raise InputError(f"mass_table is one of {', '.join(pairs)}, not {mass_table!r}.")
    count = config.blocks if blocks is None else blocks
    return float(count * 2 * config.width * pairs[mass_table])


def run_work(
    config: TransformerConfig,
    text: int,
    generation: int,
    reference_per_step: Sequence[int],
    *,
    reused_from: int | None = None,
    computed: int | None = None,
) -> Work:
    """FLOP of a whole run.

    Args:
        reference_per_step: reference tokens in each step.
        reused_from: first step in which the reference's keys and values are reused.
        computed: compute only so many of the steps, the first one among them, and take the others
            from a cache that costs nothing; the rest is spread over the later steps' mean.

    Raises:
        InputError: no steps, or more computed steps than there are.

    Examples:
        >>> config = rp.cost_model.flux_kontext_dev()
        >>> full, pruned = (run_work(config, 512, 4096, [4096, n, n]).total for n in (4096, 512))
        >>> round(full / pruned, 2)
        1.48
    """
    counts = list(reference_per_step)
    if not counts or (computed is not None and not 1 <= computed <= len(counts)):
        raise InputError(f"computed={computed} does not fit a run of {len(counts)} steps.")
    works = [
        step_work(
            config,
            text,
            generation,
            count,
            reused=reused_from is not None and step >= reused_from,
        )
        for step, count in enumerate(counts)
    ]
    if computed is None or computed == len(works):
        return sum(works[1:], works[0])
    rest = sum(works[2:], works[1])
    share = (computed - 1) / (len(works) - 1)
    return works[0] + Work(rest.linear * share, rest.attention * share, rest.modulation * share)


def needed_attention_slowdown(full: Work, pruned: Work, speed_up: float) -> float | None:
    """How many times less efficiently than linear layers attention must run for a speed-up.

    Returns:
        The factor s of which (linear + s * attention) has that ratio, at least 1; None where no
        factor is enough, because even attention alone is not made that much faster.
    """
    gain = full.attention - speed_up * pruned.attention
    lack = speed_up * (pruned.linear + pruned.modulation) - (full.linear + full.modulation)
    if lack <= 0:
        return 1.0
    return max(1.0, lack / gain) if gain > 0 else None
