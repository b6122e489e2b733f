"""`recast-probe explore`: one HTML file to look into a run, from a model or from stored files."""

from __future__ import annotations

import re
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from recast_probe.commands.common import check_model, memory_noted, open_probe
from recast_probe.commands.inputs import (
    check_blocks,
    check_mask_of,
    check_same_picture,
    check_steps,
    mask_source,
    parse_blocks,
    parse_steps,
    read_image,
    read_mask_of,
    repainted,
)
from recast_probe.commands.options import (
    Blocks,
    CpuOffload,
    DataType,
    Device,
    MaskImage,
    MaskInside,
    Model,
    Overwrite,
    Seed,
    Steps,
)
from recast_probe.commands.output import check_output, emit, note, output_folder
from recast_probe.commands.values import NUMBER, decimal
from recast_probe.errors import InputError

if TYPE_CHECKING:
    from PIL import Image

    from recast_probe.explorer import Explorer

PAGE = "HTML file to write."


def explore(
    out: Annotated[Path, typer.Option(help=PAGE)],
    profile: Annotated[
        Path | None, typer.Argument(help="A stored profile (.nc); without it a model is run.")
    ] = None,
    image: Annotated[
        list[Path] | None, typer.Option(help="The reference image; repeat for several.")
    ] = None,
    prompt: Annotated[str | None, typer.Option(help="The prompt, where a model is run.")] = None,
    maps: Annotated[
        Path | None, typer.Option(help="Stored attention maps (.nc) of the profile's run.")
    ] = None,
    generated: Annotated[
        Path | None, typer.Option(help="The picture that the profile's run made.")
    ] = None,
    compare: Annotated[
        Path | None, typer.Option(help="A second stored profile, shown beside the first.")
    ] = None,
    model: Model = "pocket",
    mask: Annotated[
        Path | None, typer.Option(help="Mask of the reference, drawn as an outline.")
    ] = None,
    mask_inside: MaskInside = None,
    mask_image: MaskImage = None,
    steps: Steps = 28,
    seed: Seed = 0,
    blocks: Blocks = "all",
    profile_steps: Annotated[
        str, typer.Option(help="Step indices to record, such as 0,13,27.", show_default="all")
    ] = "",
    region: Annotated[
        str,
        typer.Option(
            help="Generation tokens to map: rows and columns as 'FIRST:LAST,FIRST:LAST', both "
            "included.",
            show_default="all",
        ),
    ] = "",
    each_head: Annotated[
        bool, typer.Option("--each-head", help="Map every head by itself, not their mean.")
    ] = False,
    save: Annotated[
        Path | None,
        typer.Option(help="Folder for what the run gave: profile.nc, maps.nc and image.png."),
    ] = None,
    megabytes: Annotated[
        float,
        typer.Option(
            help="Most megabytes of the page.",
            parser=decimal("--megabytes", 0, above=True),
            metavar=NUMBER,
        ),
    ] = 20.0,
    dtype: DataType = "auto",
    device: Device = "cpu",
    cpu_offload: CpuOffload = False,
    overwrite: Overwrite = False,
) -> None:
    """One HTML file to look into a run: hover a token to see where it looks, or who reads it."""
    if out.suffix.lower() != ".html":
        raise InputError(f"--out must end in .html, not {out.name!r}.")
    check_output(out.parent, [out.name], overwrite)
    if save is not None:
        check_output(save, ("profile.nc", "maps.nc", "image.png", "image.json"), overwrite)
    most = round(megabytes * 1_000_000)
    paths = image or []
    check_mask_of(paths, mask)
    if profile is not None:
        if prompt is not None or save is not None:
            raise InputError(
                "--prompt and --save are for a run of a model; a stored profile needs none, leave "
                "them out."
            )
        pictures = [read_image(each) for each in paths]
        folder = output_folder(out.parent)
        made = _stored(profile, maps, pictures, generated, compare, mask, mask_inside, most)
    else:
        given = {"--maps": maps, "--generated": generated, "--compare": compare}
        wrong = [name for name, value in given.items() if value is not None]
        if wrong:
            raise InputError(f"{wrong[0]} goes with a stored profile; name its file first.")
        if not paths or not prompt:
            raise InputError("Name a stored profile, or give --image and --prompt to run a model.")
        chosen = {
            "blocks": parse_blocks(blocks),
            "profile_steps": parse_steps(profile_steps),
            "queries": _region(region),
            "mean_over": () if each_head else ("head",),
            **repainted(mask_image, mask_inside),
        }
        check_steps(chosen["profile_steps"], steps)
        pictures = [read_image(each) for each in paths]
        read_mask_of(pictures[0], mask, mask_inside)
        check_model(model, dtype, device, cpu_offload=cpu_offload)
        check_blocks(chosen["blocks"], model, False)
        folder = output_folder(out.parent)
        kept = None if save is None else output_folder(save)
        probe = open_probe(model, dtype, device, cpu_offload=cpu_offload)
        with memory_noted(probe, device):
            made = _run(probe, pictures, prompt, steps, seed, mask, mask_inside, chosen, kept, most)
    made.save(folder / out.name)
    emit({"file": str(out), "bytes": out.stat().st_size}, [f"{made!r} in {out}"])
    note("Open it with a browser.")


def _stored(
    profile: Path,
    maps: Path | None,
    image: list[Image.Image],
    generated: Path | None,
    compare: Path | None,
    mask: Path | None,
    mask_inside: str | None,
    most: int,
) -> Explorer:
    from recast_probe.explorer import explore as show
    from recast_probe.images.loading import read_mask
    from recast_probe.profiles.maps import AttentionMaps
    from recast_probe.profiles.profile import AttentionProfile

    first = AttentionProfile.load(profile)
    for each in image:
        check_same_picture("--image", each, first)
    second = None if compare is None else AttentionProfile.load(compare)
    return show(
        first,
        None if maps is None else AttentionMaps.load(maps),
        image=image or None,
        generated=generated,
        outlines=None if mask is None else {"mask": read_mask(mask_source(mask), mask_inside)},
        compare=second,
        max_bytes=most,
    )


def _run(
    probe: Any,
    pictures: list[Image.Image],
    prompt: str,
    steps: int,
    seed: int,
    mask: Path | None,
    mask_inside: str | None,
    chosen: dict[str, Any],
    kept: Path | None,
    most: int,
) -> Explorer:
    from recast_probe.explorer import explore as show
    from recast_probe.explorer import record_run
    from recast_probe.explorer.explorer import shown_references

    reference: Any = pictures if len(pictures) > 1 else pictures[0]
    repaint = {name: value for name, value in chosen.items() if name == "mask_image"}
    outlines = None
    if mask is not None:
        inside = probe.reference_mask(mask_source(mask), pictures[0], mask_inside, **repaint)
        outlines = {"mask": inside.reshape(-1)}
    result, maps = record_run(probe, reference, prompt, steps, seed, **chosen)
    if kept is not None:
        assert result.profile is not None
        result.profile.save(kept / "profile.nc")
        maps.save(kept / "maps.nc")
        result.save(kept / "image.png")
    words = probe.family.text_words(prompt, maps.layout.text, {})
    return show(
        result,
        maps,
        image=shown_references(reference, probe, repaint),
        outlines=outlines,
        words=words,
        max_bytes=most,
    )


def _region(text: str) -> list[tuple[int, int]] | None:
    """Places of "2:5,0:7": rows 2 to 5, columns 0 to 7."""
    if not text.strip():
        return None
    found = re.fullmatch(r"([0-9]{1,5}):([0-9]{1,5}),([0-9]{1,5}):([0-9]{1,5})", text.strip())
    if not found:
        raise InputError(f"--region takes rows and columns such as '2:5,0:7', not {text[:60]!r}.")
    top, bottom, left, right = map(int, found.groups())
    if top > bottom or left > right or (bottom - top + 1) * (right - left + 1) > 2**20:
        raise InputError(f"--region {text[:60]!r} has no tokens: give first before last.")
    return [(row, column) for row in range(top, bottom + 1) for column in range(left, right + 1)]
