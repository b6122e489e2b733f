"""The least and largest value that a measured column can have."""

from __future__ import annotations

Limits = tuple[float, float]

SHARE: Limits = (0.0, 1.0)
COSINE: Limits = (-1.0, 1.0)
# by the column's name, or its first word
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
    first = column.replace("_", " ").split(" ")[0]
    return KNOWN.get(column, KNOWN.get(first))
