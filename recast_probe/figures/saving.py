"""Figures on disk: PNG and PDF, the same bytes for the same figure."""

from __future__ import annotations

from pathlib import Path

from matplotlib.figure import Figure

from recast_probe.figures.style import house_style
from recast_probe.files.atomic import atomic_path

DOTS_PER_INCH = 200
METADATA = {
    "png": {"Software": "recast_probe"},
    "pdf": {"Creator": "recast_probe", "Producer": "recast_probe", "CreationDate": None},
}


def save_figure(figure: Figure, stem: str | Path) -> list[Path]:
    """Write STEM.png and STEM.pdf and return their paths.

    Folders are made. Each file appears whole or not at all: it is written beside its place and
    then renamed. No dates are stored.

    Raises:
        OSError: the place cannot be written.

    Examples:
        >>> import tempfile
        >>> with tempfile.TemporaryDirectory() as folder:
        ...     [path.name for path in save_figure(Figure((1, 1)), f"{folder}/curve")]
        ['curve.png', 'curve.pdf']
    """
    stem = Path(stem)
    stem.parent.mkdir(parents=True, exist_ok=True)
    written = []
    for kind, metadata in METADATA.items():
        target = stem.with_name(f"{stem.name}.{kind}")
        with atomic_path(target) as temporary, house_style():
            figure.savefig(temporary, format=kind, dpi=DOTS_PER_INCH, metadata=metadata)
        written.append(target)
    return written
