"""The least time that a run takes, and the most that an intervention can speed it up."""

from __future__ import annotations

import math
from dataclasses import asdict, dataclass
from typing import Any

from recast_probe.cost_model.config import TransformerConfig
from recast_probe.cost_model.devices import DeviceLimits
from recast_probe.cost_model.plan import RunPlan
from recast_probe.cost_model.traffic import run_traffic
from recast_probe.errors import InputError

# every device of the table that has 8-bit products makes them twice as fast as bfloat16 ones
FLOAT8_SPEED = 2.0


@dataclass(frozen=True)
class Bound:
    """A run's work and its limits.

    Attributes:
        linear, attention, modulation, total: FLOP of the transformer; the readout is in attention.
        weight_bytes, activation_bytes: memory traffic, see `Traffic`.
        speed_up: the most by which it can be faster than the full run of the same model, if every
            FLOP takes the same time, whatever it is spent on; linear layers in 8 bits half of it.
        compute_seconds: at the device's dense peak; None without a device.
        memory_seconds: all weights and activations moved once at the device's bandwidth.
        least_seconds: no implementation takes less: the larger of the time to compute and the time
            to read the weights once a call.
        limited_by: "compute" or "memory", by which of the two is larger.

    Examples:
        >>> plan = RunPlan.full(512, 4096, 4096, steps=28)
        >>> found = bound(rp.cost_model.flux_kontext_dev(), plan)
        >>> found.speed_up, found.least_seconds
        (1.0, None)
    """

    linear: float
    attention: float
    modulation: float
    total: float
    weight_bytes: float
    activation_bytes: float
    speed_up: float
    compute_seconds: float | None = None
    memory_seconds: float | None = None
    least_seconds: float | None = None
    limited_by: str | None = None

    def to_dict(self) -> dict[str, Any]:
        """All fields."""
        return asdict(self)


def bound(
    config: TransformerConfig,
    plan: RunPlan,
    device: DeviceLimits | None = None,
    bytes_each: int = 2,
    attention_slowdown: float = 1.0,
) -> Bound:
    """Limits of a plan on a device.

    Args:
        bytes_each: bytes of a stored number, 2 for bfloat16.
        attention_slowdown: how many times less efficiently than linear layers attention runs; it
            raises the speed-up that removing tokens can give, and leaves the least time alone.

    Raises:
        InputError: 8-bit linear layers on a device that has none.

    Examples:
        >>> config, plan = rp.cost_model.flux_kontext_dev(), RunPlan.full(512, 4096, 4096, steps=28)
        >>> found = bound(config, plan.keep(512), rp.cost_model.device_limits("h200"))
        >>> round(found.speed_up, 2), found.limited_by
        (1.89, 'compute')
    """
    work, traffic = plan.work(config), run_traffic(config, plan, bytes_each)
    facts: dict[str, Any] = {}
    if device is not None:
        compute = _compute_seconds(plan, work.linear, work.attention + work.modulation, device)
        weights = traffic.weights / device.bandwidth
        facts = {
            "compute_seconds": compute,
            "memory_seconds": traffic.total / device.bandwidth,
            "least_seconds": max(compute, weights),
            "limited_by": "compute" if compute >= weights else "memory",
        }
    return Bound(
        linear=work.linear,
        attention=work.attention,
        modulation=work.modulation,
        total=work.total,
        weight_bytes=traffic.weights,
        activation_bytes=traffic.activations,
        speed_up=speed_up(config, plan, attention_slowdown),
        **facts,
    )


def full_plan(plan: RunPlan) -> RunPlan:
    """The run to compare with: every token in every step, in the model's own arithmetic."""
    return RunPlan.full(
        plan.text,
        plan.generation,
        plan.reference,
        len(plan.steps),
        calls=plan.calls,
        images=plan.images,
    )


def speed_up(config: TransformerConfig, plan: RunPlan, attention_slowdown: float = 1.0) -> float:
    """The most by which a plan can be faster than the full run of the same model."""
    if not 0 < attention_slowdown < math.inf:
        raise InputError(
            f"attention_slowdown must be a finite number above 0, not {attention_slowdown}."
        )
    full = _weighted(config, full_plan(plan), attention_slowdown)
    return full / _weighted(config, plan, attention_slowdown)


def _weighted(config: TransformerConfig, plan: RunPlan, attention_slowdown: float) -> float:
    """FLOP of a plan by the time they take: attention's more, those in 8 bits half."""
    work = plan.work(config)
    linear = work.linear / (FLOAT8_SPEED if plan.float8_linears else 1.0)
    return linear + work.modulation + work.attention * attention_slowdown


def _compute_seconds(plan: RunPlan, linear: float, rest: float, device: DeviceLimits) -> float:
    if not plan.float8_linears:
        return (linear + rest) / device.bfloat16
    if device.float8 is None:
        raise InputError(f"The {device.name} multiplies no 8-bit floats; leave fp8 out.")
    return linear / device.float8 + rest / device.bfloat16
