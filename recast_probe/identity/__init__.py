"""Identity scores: how much of the reference's subject an image keeps."""

from recast_probe.identity.colour import colour_similarity, lab_histogram, srgb_to_lab
from recast_probe.identity.encoder import cosine, features
from recast_probe.identity.masking import isolate
from recast_probe.identity.scores import IdentityScorer, identity_score, retrieve

__all__ = [
    "IdentityScorer",
    "colour_similarity",
    "cosine",
    "features",
    "identity_score",
    "isolate",
    "lab_histogram",
    "retrieve",
    "srgb_to_lab",
]
