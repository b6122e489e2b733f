"""What a model's config alone says: parameters, work, bounds and limits."""

from __future__ import annotations

from recast_probe.cost_model.bounds import Bound, bound
from recast_probe.cost_model.bria_fibo import BriaFiboConfig
from recast_probe.cost_model.caching import cached_run_work, mean_fresh
from recast_probe.cost_model.config import Flux2Config, FluxConfig, TransformerConfig
from recast_probe.cost_model.devices import DEVICES, DeviceLimits, device_limits
from recast_probe.cost_model.joyimage import JoyImageConfig
from recast_probe.cost_model.limits import (
    entropy_range,
    eq_4_mean,
    gamma_for_mean,
    largest_top_share,
)
from recast_probe.cost_model.longcat import LongCatConfig
from recast_probe.cost_model.plan import RunPlan, StepPlan
from recast_probe.cost_model.published_configs import (
    PUBLISHED,
    SOURCES,
    config_from_dict,
    config_of,
    flux_kontext_dev,
    published_config,
)
from recast_probe.cost_model.qwen import QwenImageConfig
from recast_probe.cost_model.work import Work, readout_work, run_work, step_work

__all__ = [
    "DEVICES",
    "PUBLISHED",
    "SOURCES",
    "Bound",
    "BriaFiboConfig",
    "DeviceLimits",
    "Flux2Config",
    "FluxConfig",
    "JoyImageConfig",
    "LongCatConfig",
    "QwenImageConfig",
    "RunPlan",
    "StepPlan",
    "TransformerConfig",
    "Work",
    "bound",
    "cached_run_work",
    "config_from_dict",
    "config_of",
    "device_limits",
    "entropy_range",
    "eq_4_mean",
    "flux_kontext_dev",
    "gamma_for_mean",
    "largest_top_share",
    "mean_fresh",
    "published_config",
    "readout_work",
    "run_work",
    "step_work",
]
