"""`recast-probe mask`: where the subject of a picture is."""

from __future__ import annotations

import io
from enum import StrEnum
from pathlib import Path
from typing import Annotated

import typer

from recast_probe.commands.inputs import SAMPLE, read_image
from recast_probe.commands.options import Overwrite
from recast_probe.commands.output import check_output, emit, note, output_folder
from recast_probe.errors import InputError


class Finder(StrEnum):
    """The ways to find a subject, of `recast_probe.masks.FINDERS`."""

    refined = "u2netp+grabcut"
    plain = "u2netp"


def mask(
    image: Annotated[Path, typer.Argument(help="The picture.")],
    out: Annotated[
        Path | None,
        typer.Option(help="The PNG to write.", show_default="the picture's name, with -mask.png"),
    ] = None,
    finder: Annotated[
        Finder, typer.Option(help="U2-Netp alone, or with its outline drawn to the colours.")
    ] = Finder.refined,
    overwrite: Overwrite = False,
) -> None:
    """Find the subject of a picture; write its mask.

    White is the subject. The network names the most salient object, which need not be the one that
    is meant: look at the mask before numbers rest on it.
    """
    if out is None:
        out = Path(f"{Path(image.name.removeprefix(SAMPLE)).stem}-mask.png")
    if out.suffix.lower() != ".png":
        raise InputError(f"--out must end in .png, not {out.name!r}.")
    check_output(out.parent, [out.name], overwrite)
    picture = read_image(image)

    from PIL import Image

    from recast_probe.files.atomic import write_bytes
    from recast_probe.masks import U2NetP, find_mask, mask_finder

    chosen = mask_finder(finder.value)
    assert chosen is not None
    found = find_mask(picture, chosen)
    sure = U2NetP().probabilities(picture)
    if not found.any() or found.all():
        what = "the whole picture" if found.all() else "no subject"
        raise InputError(
            f"{finder.value} found {what} in {image} (the network's probabilities go from "
            f"{sure.min():.2f} to {sure.max():.2f}), so there is nothing to write; draw the mask "
            "by hand."
        )
    output_folder(out.parent)
    buffer = io.BytesIO()
    Image.fromarray(found).convert("L").save(buffer, format="PNG")
    write_bytes(out, buffer.getvalue())
    facts = {
        "file": str(out),
        "finder": finder.value,
        "share": float(found.mean()),
        "probability_inside": float(sure[found].mean()),
        "probability_outside": float(sure[~found].mean()),
    }
    emit(
        facts,
        [
            f"{out}: {finder.value} takes {facts['share']:.0%} of the picture for the subject; "
            f"the network's mean probability is {facts['probability_inside']:.2f} inside of it "
            f"and {facts['probability_outside']:.2f} outside."
        ],
    )
    note("It is the most salient object; look whether it is the one that is meant.")
