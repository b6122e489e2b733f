"""`recast-probe profile`: record attention on a user's model and image."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any

import typer

from recast_probe.commands.common import check_model, memory_noted, open_probe
from recast_probe.commands.inputs import (
    check_blocks,
    check_steps,
    mask_source,
    output_size,
    parse_blocks,
    parse_steps,
    read_image,
    read_mask_of,
    references,
    repainted,
)
from recast_probe.commands.options import (
    Blocks,
    CpuOffload,
    DataType,
    Device,
    FrameIndex,
    Height,
    ImageEncoder,
    IPAdapter,
    MaskImage,
    MaskInside,
    Model,
    NegativePrompt,
    NumFrames,
    Overwrite,
    References,
    Seed,
    Steps,
    TrueCfgScale,
    Width,
)
from recast_probe.commands.output import check_output, emit, note, output_folder
from recast_probe.files.atomic import without_nan


def profile(
    image: References,
    prompt: Annotated[list[str], typer.Option(help="A prompt; repeat for several.")],
    out: Annotated[Path, typer.Option(help="Folder for profiles.")],
    model: Model = "pocket",
    mask: Annotated[
        Path | None, typer.Option(help="Foreground mask of the reference, for overlap.")
    ] = None,
    mask_inside: MaskInside = None,
    mask_image: MaskImage = None,
    steps: Steps = 28,
    seed: Seed = 0,
    height: Height = None,
    width: Width = None,
    num_frames: NumFrames = None,
    frame_index: FrameIndex = None,
    blocks: Blocks = "all",
    profile_steps: Annotated[
        str,
        typer.Option(help="Step indices to record, such as 0,13,27.", show_default="all"),
    ] = "",
    negative_prompt: NegativePrompt = None,
    true_cfg_scale: TrueCfgScale = None,
    dtype: DataType = "auto",
    device: Device = "cpu",
    cpu_offload: CpuOffload = False,
    ip_adapter: IPAdapter = None,
    image_encoder: ImageEncoder = None,
    overwrite: Overwrite = False,
) -> None:
    """Record how much attention each reference token gets; one run and profile a prompt."""
    from recast_probe.commands.diagnose import lines, numbers, results
    from recast_probe.errors import InputError

    names = [f"profile-{number:02d}.nc" for number in range(len(prompt))]
    check_output(out, names, overwrite)
    chosen = parse_steps(profile_steps)
    check_steps(chosen, steps)
    chosen_blocks = parse_blocks(blocks)
    reference = references(image, mask)
    read_mask_of(read_image(image[0]), mask, mask_inside)
    own = repainted(mask_image, mask_inside)
    own |= output_size(height, width, num_frames, frame_index)
    check_model(model, dtype, device, ip_adapter, image_encoder, cpu_offload)
    check_blocks(chosen_blocks, model, ip_adapter is not None)
    probe = open_probe(model, dtype, device, ip_adapter, image_encoder, cpu_offload)
    grid_mask = None
    if mask is not None:
        drawn = mask_source(mask)
        grid_mask = probe.reference_mask(drawn, read_image(image[0]), mask_inside, **own)
    if grid_mask is not None and grid_mask.all():
        raise InputError(
            f"The mask {mask} covers every reference token, so there is nothing to compare; a "
            "token counts when more than half of it is covered."
        )
    settings: dict[str, Any] = {
        "steps": steps,
        "seed": seed,
        "blocks": chosen_blocks,
        "negative_prompt": negative_prompt,
        "true_cfg_scale": true_cfg_scale,
        **own,
    }
    found: list[dict[str, Any]] = []
    said: list[str] = []
    folder = output_folder(out)
    for name, text in zip(names, prompt, strict=True):
        try:
            with memory_noted(probe, device):
                each = probe.profile(reference, text, profile_steps=chosen, **settings)
        except KeyboardInterrupt:
            note(f"Interrupted: {len(found)} of {len(prompt)} profiles are done and lie in {out}.")
            raise
        of_each = results(each, grid_mask)
        file = each.save(folder / name)
        tokens = each.layout.reference_tokens
        row = {"file": str(file), "prompt": text, "reference_tokens": tokens, **numbers(of_each)}
        found.append(row)
        said += [f"{file}: {text}", f"  {tokens} reference tokens; {each.selection_text()}"]
        said += lines(of_each)
    facts = {"model": probe.name, "fingerprint": probe.fingerprint, "seed": seed}
    emit(without_nan(facts | {"profiles": found}), said)
    note(f"Look at it with `recast-probe diagnose {found[0]['file']} --out FOLDER`.")
