"""The least and largest value that a measured column can have."""

from __future__ import annotations

Limits = tuple[float, float]

SHARE: Limits = (0.0, 1.0)
COSINE: Limits = (-1.0, 1.0)
# a column has the limits of what its name begins with before these words: "identity_to_full", but
# not "colour_distance"
FOLLOWING = ("", "to", "of", "area")
KNOWN: dict[str, Limits] = {
    "identity": COSINE,
    "insertion": COSINE,
    "deletion": COSINE,
    "dinov2": COSINE,
    "clip-i": COSINE,
    "clip-t": COSINE,
    "auraface": COSINE,
    "ssim": COSINE,
    "agreement": COSINE,
    "spearman": COSINE,
    "colour": SHARE,
    "target_error": SHARE,
    "error_to_full": SHARE,
    "auroc": SHARE,
    "top25": SHARE,
}


def limits_of(column: str) -> Limits | None:
    """Limits of a column of a study's table, such as (-1, 1) of a cosine; None if there are none.

    "identity_to_full" and "identity to target" have those of "identity".
    """
    first, _, rest = column.replace("_", " ").partition(" ")
    same = rest.split(" ")[0] in FOLLOWING
    return KNOWN.get(column, KNOWN.get(first) if same else None)
