"""Claims about speed, held to the FLOP that the config implies."""

from __future__ import annotations

from recast_probe.arithmetic.caching import cached_run_work, mean_fresh
from recast_probe.arithmetic.claims.budget import PAPER_BUDGET
from recast_probe.arithmetic.claims.verdict import (
    FAILS,
    GENERATION,
    HOLDS,
    IMPOSSIBLE,
    REFERENCE,
    STEPS,
    TEXT,
    UNTESTED,
    Measured,
    Verdict,
)
from recast_probe.arithmetic.config import TransformerConfig
from recast_probe.arithmetic.work import (
    Work,
    needed_attention_slowdown,
    readout_work,
    run_work,
    step_work,
)
from recast_probe.interventions.token_cache import TokenCache

A100_PEAK = 312e12  # dense bfloat16 FLOP/s of an A100, from its data sheet


def speed(config: TransformerConfig, found: Measured) -> list[Verdict]:
    """Speed-ups and times against the work that is left."""
    full, kept_600 = _step(config, REFERENCE), _step(config, 600)
    none = _step(config, 0)
    whole = run_work(config, TEXT, GENERATION, [REFERENCE] * STEPS)
    recast = run_work(
        config, TEXT, GENERATION, [REFERENCE, *PAPER_BUDGET.schedule(STEPS)[1:].tolist()]
    )
    bound, ceiling = full.total / kept_600.total, full.total / none.total
    slowdown = needed_attention_slowdown(whole, recast, 2.4)
    needed = "no slowdown is enough" if slowdown is None else f"{slowdown:.1f} times"
    rates = [work.total / seconds for work, seconds in ((whole, 14.2), (recast, 5.9))]
    sweep = [(2048, 1.5), (1024, 2.0), (512, 2.6), (256, 2.9)]
    bounds = [full.total / _step(config, tokens).total for tokens, _ in sweep]
    above = sum(speed > limit for (_, speed), limit in zip(sweep, bounds, strict=True))
    readout = readout_work(config, GENERATION, REFERENCE)
    together, share = _with_toca(config, whole.total), found.number("amortised_speed_up")
    both = found.number("token_cache_speed_up")
    equal = "if attention is as efficient as linear layers"
    return [
        Verdict(
            "2.4x faster at 600 tokens",
            "2.4x (Table 1)",
            f"at most {bound:.3f}x a step at 600 tokens, {whole.total / recast.total:.2f}x for the "
            f"run, {ceiling:.3f}x without any reference",
            "-",
            IMPOSSIBLE if ceiling < 2.4 else UNTESTED,
            f"Above the bound for no reference at all, {equal}; attention would have to run "
            f"{needed} less efficiently.",
        ),
        Verdict(
            "The budget sweep's speeds",
            ", ".join(f"{speed}x at {tokens}" for tokens, speed in sweep) + " (Section 3.4)",
            ", ".join(f"{limit:.2f}x" for limit in bounds),
            "-",
            IMPOSSIBLE if above == len(sweep) else FAILS if above else UNTESTED,
            f"{above} of {len(sweep)} are above their bound, {equal}.",
        ),
        Verdict(
            "14.2 s for the full run and 5.9 s for ReCAST on an A100",
            "14.2 s, 5.9 s (Table 1)",
            " and ".join(f"{rate / 1e12:.0f} TFLOP/s" for rate in rates)
            + f" needed; the dense peak is {A100_PEAK / 1e12:.0f}",
            "-",
            IMPOSSIBLE if min(rates) > A100_PEAK else UNTESTED,
            "Every one of the 28 steps must be computed densely in bfloat16 for this to count; "
            "fewer steps, sparsity or 8-bit arithmetic would change it.",
        ),
        Verdict(
            "Profiling is cheap",
            "amortised (Section 3.4)",
            f"{readout / 1e12:.1f} TFLOP: {readout / full.total:.1%} of its step, "
            f"{readout / whole.total:.2%} of the run",
            "-",
            HOLDS,
            "True where the row log-sum-exp of the fused kernel is known; a materialised softmax "
            "costs memory for the whole table.",
        ),
        Verdict(
            "2.59x after 100 generations with one ranking",
            "2.59x (Section 3.4)",
            f"at most {full.total / _step(config, PAPER_BUDGET.minimum).total:.2f}x at the least "
            f"budget, {ceiling:.2f}x without any reference",
            "-" if share is None else f"at most {share:.2f}x by FLOP ({found.model})",
            IMPOSSIBLE if ceiling < 2.59 else UNTESTED,
            f"Above the bound for no reference at all, {equal}.",
        ),
        Verdict(
            "3.38x together with ToCa",
            "3.38x (Section 3.4)",
            f"at most {together:.2f}x with ToCa's published schedule for FLUX",
            "-" if both is None else f"at most {both:.2f}x by FLOP ({found.model})",
            IMPOSSIBLE if together < 3.38 else UNTESTED,
            "Most steps come from the cache, so arithmetic does not exclude it; the time needs "
            "trained weights and a GPU to be measured."
            if together >= 3.38
            else f"Above the bound, {equal}.",
        ),
    ]


def _with_toca(config: TransformerConfig, whole: float) -> float:
    """Bound on the speed-up of ReCAST and ToCa together, by FLOP."""
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
    return whole / work


def _step(config: TransformerConfig, reference: int) -> Work:
    return step_work(config, TEXT, GENERATION, reference)
