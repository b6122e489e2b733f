"""The pictures of the gallery: each is what the code of its section leaves as `figure`."""

from __future__ import annotations

import hashlib
from pathlib import Path

import recast_probe
from docs.site.pages import DOCS, blocks, run_python

PAGE = DOCS / "gallery.md"
PACKAGE = Path(recast_probe.__file__).parent


def draw(folder: Path) -> None:
    """Run the page and write FOLDER/plot_NAME.png for each of its figures.

    Nothing is done where page and package are as they were when the pictures were made.
    """
    stamp, state = folder / "made-from.txt", _state()
    if stamp.is_file() and stamp.read_text() == state:
        return
    folder.mkdir(parents=True, exist_ok=True)
    names: dict = {}
    for block in blocks(PAGE.read_text()):
        if block.language != "python":
            continue
        names.pop("figure", None)
        run_python(block, str(PAGE), names)
        if (figure := names.get("figure")) is not None:
            figure.savefig(folder / f"{block.heading}.png", dpi=110)
    stamp.write_text(state)


def _state() -> str:
    """Digest of everything that the pictures are made from."""
    found = hashlib.sha256()
    for path in [PAGE, *sorted(PACKAGE.rglob("*.py"))]:
        found.update(path.read_bytes())
    return found.hexdigest()
