"""Bytes that a transformer call moves to and from memory, at the least."""

from __future__ import annotations

from dataclasses import dataclass

from recast_probe.cost_model.config import TransformerConfig
from recast_probe.cost_model.plan import RunPlan, StepPlan


@dataclass(frozen=True)
class Traffic:
    """Bytes by what is moved.

    Attributes:
        weights: every parameter read once a call.
        activations: inputs and outputs of every linear layer and every attention, each moved once,
            with everything between them fused. Caches may keep some of it, so only `weights` enters
            a bound.
    """

    weights: float
    activations: float

    @property
    def total(self) -> float:
        """All of it."""
        return self.weights + self.activations


def step_traffic(
    config: TransformerConfig, plan: RunPlan, step: StepPlan, bytes_each: int = 2
) -> Traffic:
    """One step of a plan, over all calls and images.

    Args:
        bytes_each: bytes of a number; 2 for bfloat16. Linear layers in 8 bits have weights of 1.
    """
    if not step.computed:
        return Traffic(0.0, 0.0)
    width, mlp = config.width, config.mlp_width
    rows = plan.text + plan.generation + (0 if step.reused else step.reference)
    keys = plan.text + plan.generation + step.reference
    # embedders and output
    ends = rows * width + plan.text * config.text_width + 2 * (rows - plan.text) * config.channels
    if step.fresh is not None:
        # both MLP layers, and a single-stream block's output projection, of the fresh tokens
        fresh = sum(step.fresh_blocks(config).values())
        numbers = fresh * 2 * (width + mlp) * plan.generation + ends
    else:
        attention = 2 * width * (rows + keys)
        # a double block: q, k, v, output and both MLP layers; a single one has one input for all
        double = rows * (width * (1 + 3 + 1 + 1 + 1 + 1) + 2 * mlp)
        single = rows * (width * (1 + 3 + 1 + 1) + 2 * mlp)
        numbers = (
            config.double_blocks * (double + attention)
            + config.single_blocks * (single + attention)
            + ends
        )
    linears = config.parameters - config.modulation_parameters
    weights = linears * (1 if plan.float8_linears else bytes_each)
    weights += config.modulation_parameters * bytes_each
    return Traffic(
        weights=float(weights * plan.calls),
        activations=float(numbers * bytes_each * plan.calls * plan.images),
    )


def run_traffic(config: TransformerConfig, plan: RunPlan, bytes_each: int = 2) -> Traffic:
    """A whole run."""
    parts = [step_traffic(config, plan, step, bytes_each) for step in plan.steps]
    return Traffic(sum(p.weights for p in parts), sum(p.activations for p in parts))
