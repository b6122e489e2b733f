"""Identity scores: how much of the reference's subject an image keeps.

`IdentityScorer` needs no download. `metric("dinov2")` makes any of `metric_names()`.
"""

from recast_probe.metrics.colour import colour_similarity, lab_histogram, srgb_to_lab
from recast_probe.metrics.encoder import cosine, features
from recast_probe.metrics.masking import isolate
from recast_probe.metrics.metric_types import (
    EncoderMetric,
    ImageMetric,
    Metric,
    SetMetric,
    TextMetric,
)
from recast_probe.metrics.registry import (
    metric,
    metric_names,
    metrics_of,
    missing,
    register_metric,
)
from recast_probe.metrics.scores import IdentityScorer, identity_score, retrieve
from recast_probe.metrics.settings import metric_settings

__all__ = [
    "EncoderMetric",
    "IdentityScorer",
    "ImageMetric",
    "Metric",
    "SetMetric",
    "TextMetric",
    "colour_similarity",
    "cosine",
    "features",
    "identity_score",
    "isolate",
    "lab_histogram",
    "metric",
    "metric_names",
    "metric_settings",
    "metrics_of",
    "missing",
    "register_metric",
    "retrieve",
    "srgb_to_lab",
]
