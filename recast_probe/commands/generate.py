"""`recast-probe generate`: an image with all, some or no reference tokens, by a named method."""

from __future__ import annotations

from enum import StrEnum
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
from recast_probe.commands.values import MOST_STEPS, NUMBER, WHOLE, decimal, whole


class Method(StrEnum):
    """What is done to the reference tokens."""

    full = "full"
    recast = "recast"
    self_attention = "self-attention"
    cosine = "cosine"
    merge = "merge"
    random = "random"
    random_per_step = "random-per-step"
    uniform = "uniform"
    mask_oracle = "mask-oracle"
    reversed = "reversed"
    reuse = "reuse"
    reuse_step_cache = "reuse+step-cache"
    step_cache = "step-cache"
    none = "none"


class Clock(StrEnum):
    """What Eq. 4's t / T is."""

    step = "step"
    sigma = "sigma"


def generate(
    image: References,
    prompt: Annotated[list[str], typer.Option(help="A prompt; repeat for several.")],
    out: Annotated[Path, typer.Option(help="Folder for the images.")],
    method: Annotated[Method, typer.Option(help="Which reference tokens stay.")] = Method.full,
    budget: Annotated[
        int | None,
        typer.Option(
            help="The same number of tokens in every step.",
            parser=whole("--budget", 1),
            metavar=WHOLE,
        ),
    ] = None,
    minimum: Annotated[
        int | None,
        typer.Option(
            help="Eq. 4: tokens at the highest noise.", parser=whole("--minimum", 1), metavar=WHOLE
        ),
    ] = None,
    maximum: Annotated[
        int | None,
        typer.Option(
            help="Eq. 4: tokens at the lowest noise.", parser=whole("--maximum", 1), metavar=WHOLE
        ),
    ] = None,
    gamma: Annotated[
        float,
        typer.Option(
            help="Eq. 4: exponent.", parser=decimal("--gamma", 0, above=True), metavar=NUMBER
        ),
    ] = 2.0,
    clock: Annotated[Clock, typer.Option(help="Eq. 4: clock.")] = Clock.step,
    refresh: Annotated[
        int | None,
        typer.Option(
            help="Reuse: store keys and values every so many steps.",
            parser=whole("--refresh", 1, MOST_STEPS),
            metavar=WHOLE,
        ),
    ] = None,
    computed: Annotated[
        int | None,
        typer.Option(
            help="Step cache: how many steps are computed.",
            parser=whole("--computed", 1, MOST_STEPS),
            metavar=WHOLE,
        ),
    ] = None,
    blocks: Blocks = "paper",
    model: Model = "pocket",
    mask: Annotated[
        Path | None, typer.Option(help="Where the subject is, to score its identity.")
    ] = None,
    mask_inside: MaskInside = None,
    steps: Steps = 28,
    seed: Seed = 0,
    negative_prompt: NegativePrompt = None,
    true_cfg_scale: TrueCfgScale = None,
    dtype: DataType = "auto",
    device: Device = "cpu",
    cpu_offload: CpuOffload = False,
    ip_adapter: IPAdapter = None,
    image_encoder: ImageEncoder = None,
    as_json: Json = False,
) -> None:
    """Generate; the image and its provenance are written beside each other.

    With --mask the subject's identity is scored as if it stood in the same place in the output.
    """
    from recast_probe.errors import InputError
    from recast_probe.images.loading import load_image, load_mask_of
    from recast_probe.interventions.methods import REUSING, WITHOUT_BUDGET
    from recast_probe.interventions.methods import method as named

    if budget is not None and (minimum is not None or maximum is not None):
        raise InputError("Give either --budget or --minimum and --maximum.")
    if (minimum is None) != (maximum is None):
        raise InputError("Eq. 4 needs both --minimum and --maximum.")
    scheduled = budget is not None or minimum is not None
    if scheduled and method.value in WITHOUT_BUDGET:
        raise InputError(f"--method {method.value} takes no budget; it keeps all tokens or none.")
    chosen_blocks = parse_blocks(blocks)
    check_mask_of(image, mask)
    picture, *others = (load_image(each) for each in image)
    reference = [picture, *others] if others else picture
    subject = None
    if mask is not None:
        subject = load_mask_of(picture, mask, mask_inside)
    probe = open_probe(model, dtype, device, ip_adapter, image_encoder, cpu_offload)
    tokens = probe.layout(reference).reference_tokens
    schedule = None
    if scheduled or method.value not in REUSING:
        schedule = _schedule(budget, minimum, maximum, gamma, clock.value, tokens)
    interventions = named(
        method.value,
        schedule,
        probe.layout(reference),
        blocks=chosen_blocks,
        mask=None if mask is None else _oracle(probe, method, mask, picture, mask_inside),
        seed=seed,
        refresh=refresh,
        computed=computed,
    )
    folder = output_folder(out)
    rows = []
    for number, text in enumerate(prompt):
        try:
            with memory_noted(probe, device):
                result = probe.generate(
                    reference,
                    text,
                    steps=steps,
                    seed=seed,
                    interventions=interventions,
                    negative_prompt=negative_prompt,
                    true_cfg_scale=true_cfg_scale,
                )
        except KeyboardInterrupt:
            note(f"Interrupted: {number} of {len(prompt)} images are done and lie in {folder}.")
            raise
        identity = None if subject is None else _identity(result.image, picture, subject)
        stem = f"{method.value}-{number:02d}-seed{seed}"
        (file,) = result.save(folder / f"{stem}.png")
        row: dict[str, Any] = {
            "file": str(file),
            "prompt": text,
            "mean_budget": result.mean_budget,
            "seconds": result.seconds,
        }
        if result.profile is not None:
            row["profile"] = str(result.profile.save(folder / f"{stem}.nc"))
        if identity is not None:
            row["identity"] = identity
        rows.append(row)
    facts = {"model": probe.name, "method": method.value, "seed": seed, "steps": steps}
    emit(facts | {"images": rows if as_json else dict(enumerate(rows))}, as_json)


def _schedule(
    budget: int | None,
    minimum: int | None,
    maximum: int | None,
    gamma: float,
    clock: Any,
    tokens: int,
) -> Any:
    from recast_probe.selection import Adaptive, Fixed

    if budget is not None:
        return Fixed(budget)
    if minimum is not None and maximum is not None:
        return Adaptive(minimum, maximum, gamma, clock)
    paper = Adaptive.paper(tokens, clock)
    return Adaptive(paper.minimum, paper.maximum, gamma, clock)


def _oracle(probe: Any, method: Method, mask: Path, image: Any, inside: str | None) -> Any:
    """The mask on the reference's grid, where the method asks for it."""
    return probe.reference_mask(mask, image, inside) if method is Method.mask_oracle else None


def _identity(output: Any, reference: Any, mask: Any) -> dict[str, float]:
    from recast_probe.images.loading import fit_mask
    from recast_probe.metrics import IdentityScorer

    return IdentityScorer().score(
        output, fit_mask(mask, output), reference, fit_mask(mask, reference)
    )
