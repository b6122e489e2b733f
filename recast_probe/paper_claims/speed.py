"""Claims about speed, held to the FLOP that the config implies.

A config gives FLOP, and FLOP give a bound on a speed-up only together with how efficiently they
run. Attention that runs less efficiently than linear layers raises the bound, since pruning takes
away more attention than anything else; every row says how much less efficient it would have to be.
"""

from __future__ import annotations

from recast_probe.cost_model.caching import cached_run_work, mean_fresh
from recast_probe.cost_model.config import TransformerConfig
from recast_probe.cost_model.work import (
    Work,
    needed_attention_slowdown,
    readout_work,
    run_work,
    step_work,
)
from recast_probe.interventions.token_cache import TokenCache
from recast_probe.paper_claims.budget import PAPER_BUDGET
from recast_probe.paper_claims.verdict import (
    ARITHMETIC,
    FAILS,
    FAILS_IF_EQUAL,
    GENERATION,
    HOLDS,
    IMPOSSIBLE,
    REFERENCE,
    STEPS,
    TEXT,
    UNTESTABLE,
    Measured,
    Verdict,
)

A100_PEAK = 312e12  # dense bfloat16 FLOP/s of an A100, from its data sheet
# An eager softmax writes its probabilities out and reads them back, which may take 2 to 4 times
# as long as the same FLOP in linear layers: an estimate from memory traffic, not a measurement.
PLAUSIBLE_SLOWDOWN = 4.0
SWEEP = ((2048, 1.5), (1024, 2.0), (512, 2.6), (256, 2.9))
NO_GPU = "needs trained weights and a GPU to be timed"


def speed(config: TransformerConfig, found: Measured) -> list[Verdict]:
    """Speed-ups and times against the work that is left.

    Examples:
        >>> found = speed(rp.cost_model.flux_kontext_dev(), Measured({}))
        >>> sorted({each.verdict for each in found})
        ['fails under equal efficiency', 'holds', 'impossible', 'not testable here']
    """
    full, none = _step(config, REFERENCE), _step(config, 0)
    budgets = PAPER_BUDGET.schedule(STEPS).tolist()
    whole = run_work(config, TEXT, GENERATION, [REFERENCE] * STEPS)
    recast = run_work(config, TEXT, GENERATION, [REFERENCE, *budgets[1:]])
    ranked = run_work(config, TEXT, GENERATION, budgets)
    ceiling = f"{full.total / none.total:.3f}x without any reference"
    return [
        _speed_up(
            "2.4x faster at 600 tokens",
            "2.4x (Table 1)",
            2.4,
            {
                "at 600 tokens in every step": (full, _step(config, 600)),
                "by Eq. 4": (whole, recast),
            },
            ceiling,
        ),
        *(
            _speed_up(
                f"The budget sweep: {claimed}x at {tokens:,} tokens",
                f"{claimed}x (Section 3.4)",
                claimed,
                {"in every step": (full, _step(config, tokens))},
            )
            for tokens, claimed in SWEEP
        ),
        _times(whole, recast),
        _profiling(config, full, whole),
        _speed_up(
            "2.59x after 100 generations with one ranking",
            "2.59x (Section 3.4)",
            2.59,
            {
                "at the least budget in every step": (full, _step(config, PAPER_BUDGET.minimum)),
                "by Eq. 4 from step 0 on": (whole, ranked),
            },
            ceiling,
            _by_flop(found, "amortised_speed_up"),
        ),
        _token_cache(config, whole.total, found),
    ]


def _speed_up(
    claim: str,
    paper: str,
    claimed: float,
    readings: dict[str, tuple[Work, Work]],
    ceiling: str = "",
    measured: str = "-",
) -> Verdict:
    """A speed-up against what is left of the work, in the reading that allows most.

    Args:
        readings: by words, the work of the full run and the work that is left.
    """
    bounds = {words: full.total / left.total for words, (full, left) in readings.items()}
    slowdowns = {
        words: needed_attention_slowdown(full, left, claimed)
        for words, (full, left) in readings.items()
    }
    allowed = ", ".join(f"{bound:.3f}x {words}" for words, bound in bounds.items())
    needed = ", ".join(
        f"no slowdown is enough {words}" if factor is None else f"{factor:.1f} times {words}"
        for words, factor in slowdowns.items()
    )
    least = min((factor for factor in slowdowns.values() if factor is not None), default=None)
    if max(bounds.values()) >= claimed:
        verdict, rests_on = UNTESTABLE, f"below its bound, so it {NO_GPU}"
    elif least is None or least > PLAUSIBLE_SLOWDOWN:
        verdict = IMPOSSIBLE
        rests_on = (
            f"attention runs at most {PLAUSIBLE_SLOWDOWN:.0f} times less efficiently than linear "
            f"layers; needed: {needed}"
        )
    else:
        verdict = FAILS_IF_EQUAL
        rests_on = (
            "attention runs as efficiently as linear layers; what would explain it is attention "
            f"less efficient by {needed}"
        )
    return Verdict(
        claim,
        paper,
        f"at most {allowed}" + (f"; {ceiling}" if ceiling else ""),
        measured,
        verdict,
        ARITHMETIC,
        rests_on,
    )


def _times(whole: Work, recast: Work) -> Verdict:
    rates = [work.total / seconds for work, seconds in ((whole, 14.2), (recast, 5.9))]
    above = sum(rate > A100_PEAK for rate in rates)
    return Verdict(
        "14.2 s for the full run and 5.9 s for ReCAST on an A100",
        "14.2 s, 5.9 s (Table 1)",
        " and ".join(f"{rate / 1e12:.0f} TFLOP/s" for rate in rates)
        + f" needed; the dense peak is {A100_PEAK / 1e12:.0f}",
        "-",
        IMPOSSIBLE if above == len(rates) else FAILS if above else UNTESTABLE,
        ARITHMETIC,
        "all 28 steps are computed densely in bfloat16; fewer steps, sparsity or 8-bit arithmetic "
        "would change it",
    )


def _profiling(config: TransformerConfig, full: Work, whole: Work) -> Verdict:
    readout = readout_work(config, GENERATION, REFERENCE)
    return Verdict(
        "Profiling is cheap",
        "amortised (Section 3.4)",
        f"{readout / 1e12:.1f} TFLOP for all {config.blocks} blocks: {readout / full.total:.1%} of "
        f"its step, {readout / whole.total:.2%} of the run",
        "-",
        HOLDS,
        ARITHMETIC,
        "only the attention from generation to reference tokens is read, and the kernel gives the "
        "row log-sum-exp; a materialised softmax costs memory for the whole table",
    )


def _token_cache(config: TransformerConfig, whole: float, found: Measured) -> Verdict:
    """ReCAST and ToCa together, against the bound of ToCa's published schedule."""
    cache = TokenCache()
    work = cached_run_work(
        config,
        TEXT,
        GENERATION,
        [REFERENCE, *PAPER_BUDGET.schedule(STEPS)[1:].tolist()],
        cache.full_steps(STEPS),
        mean_fresh(cache.share, config, STEPS),
        pool=cache.pool,
    )
    together = whole / work
    return Verdict(
        "3.38x together with ToCa",
        "3.38x (Section 3.4)",
        f"at most {together:.2f}x with ToCa's published schedule for FLUX",
        _by_flop(found, "token_cache_speed_up"),
        FAILS_IF_EQUAL if together < 3.38 else UNTESTABLE,
        ARITHMETIC,
        "attention runs as efficiently as linear layers"
        if together < 3.38
        else f"most steps come from the cache, so arithmetic does not exclude it: it {NO_GPU}",
    )


def _by_flop(found: Measured, name: str) -> str:
    value = found.get(name)
    return "-" if value is None else f"at most {value.mean:.2f}x by FLOP"


def _step(config: TransformerConfig, reference: int) -> Work:
    return step_work(config, TEXT, GENERATION, reference)
