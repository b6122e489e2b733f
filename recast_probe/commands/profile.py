"""`recast-probe profile`: record attention on a user's model and image."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Annotated, Any

import typer

from recast_probe.commands.common import (
    Blocks,
    CpuOffload,
    DataType,
    Device,
    ImageEncoder,
    IPAdapter,
    Json,
    MaskInside,
    Model,
    NegativePrompt,
    References,
    Seed,
    Steps,
    TrueCfgScale,
    check_mask_of,
    emit,
    memory_noted,
    note,
    open_probe,
    output_folder,
    parse_blocks,
)
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
    steps: Steps = 28,
    seed: Seed = 0,
    blocks: Blocks = "all",
    profile_steps: Annotated[
        str, typer.Option(help="Step indices to record, such as 0,13,27; all by default.")
    ] = "",
    negative_prompt: NegativePrompt = None,
    true_cfg_scale: TrueCfgScale = None,
    dtype: DataType = "auto",
    device: Device = "cpu",
    cpu_offload: CpuOffload = False,
    ip_adapter: IPAdapter = None,
    image_encoder: ImageEncoder = None,
    as_json: Json = False,
) -> None:
    """Record how much attention each reference token gets; one run and one profile a prompt."""
    from recast_probe.commands.diagnose import numbers, results
    from recast_probe.errors import InputError

    named = [part.strip() for part in profile_steps.split(",") if part.strip()]
    if not all(re.fullmatch("[0-9]{1,9}", part) for part in named):
        raise InputError(
            f"--profile-steps takes indices such as 0,13,27, not {profile_steps[:60]!r}."
        )
    chosen = [int(part) for part in named] or None
    check_mask_of(image, mask)
    chosen_blocks = parse_blocks(blocks)
    probe = open_probe(model, dtype, device, ip_adapter, image_encoder, cpu_offload)
    grid_mask = None if mask is None else probe.reference_mask(mask, image[0], mask_inside)
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
    }
    reference: Any = image if len(image) > 1 else image[0]
    folder = output_folder(out)
    found: list[dict[str, Any]] = []
    for number, text in enumerate(prompt):
        try:
            with memory_noted(probe, device):
                each = probe.profile(reference, text, profile_steps=chosen, **settings)
        except KeyboardInterrupt:
            note(f"Interrupted: {number} of {len(prompt)} profiles are done and lie in {out}.")
            raise
        summaries = numbers(results(each, grid_mask))
        file = each.save(folder / f"profile-{number:02d}.nc")
        found.append({"file": str(file), "prompt": text, **summaries})
    emit(
        without_nan(
            {"model": probe.name, "fingerprint": probe.fingerprint, "seed": seed, "profiles": found}
            if as_json
            else dict(enumerate(found))
        ),
        as_json,
    )
    note(f"{len(found)} profile(s) in {out}; look at them with `recast-probe diagnose`.")
