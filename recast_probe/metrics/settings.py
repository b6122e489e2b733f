"""What tells a metric from any other, for the settings of a study."""

from __future__ import annotations

from typing import Any

from recast_probe.content.description import described, is_own
from recast_probe.metrics.bundled import RawMobileNet
from recast_probe.metrics.metric_types import Metric, Whole
from recast_probe.metrics.sets import DistributionMetric


def metric_settings(metric: Metric) -> dict[str, Any]:
    """Everything that decides a metric's numbers, ready for JSON.

    This package's own are told by their provenance, which names all settings and files. A user's
    need not: what it does is added by the content of its code and attributes as they are now, also
    where a metric of this package works with it. What it only keeps from call to call, it can leave
    out by a `__getstate__`.

    Raises:
        NoContent: an InputError; the metric cannot be told from another one by its content.

    Examples:
        >>> metric_settings(rp.metrics.metric("colour"))
        {'metric': 'colour'}
    """
    found, inner = metric.provenance(), _innermost(metric)
    if isinstance(inner, Metric | RawMobileNet) and is_own(inner):
        return found
    return found | {"does": described(inner, strict=True, name=f"The metric {metric.name}")}


def _innermost(metric: Any) -> Any:
    """What a metric of this package hands its work on to."""
    if is_own(metric) and isinstance(metric, Whole):
        return _innermost(metric.metric)
    if is_own(metric) and isinstance(metric, DistributionMetric):
        return _innermost(metric.extractor)
    return metric
