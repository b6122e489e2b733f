"""`recast-probe diagnose`: numbers, figures and a report from stored profiles."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from recast_probe.commands.inputs import check_same_picture, mask_source, parse_blocks, read_image
from recast_probe.commands.options import Blocks, MaskInside, Overwrite
from recast_probe.commands.output import (
    check_output,
    emit,
    names_and_values,
    note,
    number,
    output_folder,
)
from recast_probe.errors import InputError
from recast_probe.files.atomic import without_nan, write_json
from recast_probe.files.envelope import sealed

if TYPE_CHECKING:
    import numpy as np
    from matplotlib.figure import Figure
    from PIL import Image

    from recast_probe.blocks import Blocks as ChosenBlocks
    from recast_probe.diagnostics import Result
    from recast_probe.profiles.profile import AttentionProfile


def results(
    profile: AttentionProfile, mask: np.ndarray | None, blocks: ChosenBlocks = "all"
) -> list[Result]:
    """What the diagnostics say of one profile; overlap where there is a mask."""
    from recast_probe.diagnostics import OF_A_PROFILE, overlap

    found: list[Result] = [diagnostic(profile, blocks=blocks) for diagnostic in OF_A_PROFILE]
    return found if mask is None else [*found, overlap(profile, mask, blocks=blocks)]


def numbers(found: Sequence[Result]) -> dict[str, Any]:
    """The headline numbers of the results of one profile, by the names of the diagnostics."""
    return {"selection": found[0].selection, **{each.name: each.summary() for each in found}}


def lines(found: Sequence[Result]) -> list[str]:
    """The same for people, by their labels."""
    said = {}
    for each in found:
        for one in each.numbers():
            unit = f" {one.unit}" if one.unit else ""
            said[f"  {one.label or one.name}"] = f"{number(one.value)}{unit}"
    return names_and_values(said)


def diagnose(
    profiles: Annotated[list[Path], typer.Argument(help="Profile files (.nc).")],
    out: Annotated[Path, typer.Option(help="Folder for figures and report.")],
    image: Annotated[
        Path | None, typer.Option(help="The reference image, to draw maps on.")
    ] = None,
    mask: Annotated[Path | None, typer.Option(help="Foreground mask of the reference.")] = None,
    mask_inside: MaskInside = None,
    blocks: Blocks = "all",
    overwrite: Overwrite = False,
) -> None:
    """Skew, entropy, overlap with a mask, and agreement between several profiles."""
    check_output(out, ("report.html", "diagnostics.json"), overwrite)
    from recast_probe.diagnostics import mask_to_grid, stability
    from recast_probe.images.loading import check_same_shape, read_mask
    from recast_probe.images.mask_values import check_divides
    from recast_probe.profiles.profile import AttentionProfile
    from recast_probe.report.diagnosis import write_diagnosis

    loaded = [AttentionProfile.load(path) for path in profiles]
    chosen = parse_blocks(blocks)
    picture = None if image is None else read_image(image)
    if picture is not None:
        _check_aspect(f"The image {image}", picture.size, loaded[0])
        for each in loaded:
            check_same_picture(f"The image {image}", picture, each)
    grid_mask = None
    if mask is not None:
        values = read_mask(mask_source(mask), mask_inside)
        _check_aspect(f"The mask {mask}", values.shape[::-1], loaded[0])
        if picture is not None:
            check_same_shape(values, picture)
        check_divides(values, f"The mask {mask}")
        grid_mask = mask_to_grid(values, loaded[0].layout.references[0])
    of_each = [results(profile, grid_mask, chosen) for profile in loaded]
    rows = [
        {"file": str(path), **numbers(each)} for path, each in zip(profiles, of_each, strict=True)
    ]
    found: dict[str, Any] = {"profiles": rows}
    shown = of_each[0]
    if len(loaded) > 1:
        agreement = stability([profile.sel(chosen) for profile in loaded], _labels(profiles))
        found[agreement.name] = agreement.summary()
        shown = [*shown, agreement]
    found = without_nan(found)
    # everything that can go wrong with the input has gone wrong before the first file is written
    drawn = {"importance": _importance(loaded[0].sel(chosen), picture)} | {
        each.name: each.plot(image=picture) if each.over_image else each.plot() for each in shown
    }
    folder = output_folder(out)
    stored = sealed(found, "Diagnostics")
    write_json(folder / "diagnostics.json", stored)
    write_diagnosis(folder, loaded[0], shown, drawn)
    said = []
    for path, of_one in zip(profiles, of_each, strict=True):
        said += [f"{path}: {of_one[0].selection}", *lines(of_one)]
    if len(loaded) > 1:
        said += [f"Between the {len(loaded)} profiles:", *lines([agreement])]
    emit(stored, said)
    note(f"Report: {folder / 'report.html'}")


def _check_aspect(what: str, size: tuple[int, ...], profile: AttentionProfile) -> None:
    """Refuse what was not drawn on the profile's reference: another shape, by over a token."""
    facts = profile.provenance.get("image")
    if not isinstance(facts, dict):
        return
    grid = profile.layout.references[0]
    difference = size[0] / size[1] * facts["height"] / facts["width"] - 1
    if abs(difference) > max(0.01, 1 / min(grid.rows, grid.columns)):
        raise InputError(
            f"{what} is {size[0]} x {size[1]} pixels, but the profile's reference is "
            f"{facts['width']} x {facts['height']}: their aspect ratios differ."
        )


def _labels(paths: list[Path]) -> list[str]:
    """Names that tell the files apart."""
    stems = [path.stem for path in paths]
    return stems if len(set(stems)) == len(stems) else [str(path) for path in paths]


def _importance(profile: AttentionProfile, image: Image.Image | None) -> Figure:
    from recast_probe import figures

    if profile.layout.placed:
        return figures.plot_importance(profile, image)
    if image is None:
        return figures.plot_importance_by_token(profile)
    raise InputError(
        "The reference tokens of this profile have no places in the image, so nothing can be "
        "drawn on it; leave --image out."
    )
