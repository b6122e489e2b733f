"""`recast-probe generate`: images with all, some or no reference tokens, by named methods."""

from __future__ import annotations

import re
from collections.abc import Sequence
from itertools import count, groupby
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from recast_probe._utils.suggestions import did_you_mean
from recast_probe.commands.common import check_model, memory_noted, open_probe
from recast_probe.commands.inputs import (
    check_blocks,
    check_same_picture,
    mask_source,
    output_size,
    parse_blocks,
    read_image,
    read_mask_of,
    references,
    repainted,
)
from recast_probe.commands.options import (
    Blocks,
    Computed,
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
    Refresh,
    Seed,
    Steps,
    TrueCfgScale,
    Width,
)
from recast_probe.commands.output import check_output, emit, note, output_folder, table
from recast_probe.errors import InputError

if TYPE_CHECKING:
    import numpy as np
    from PIL import Image

    from recast_probe.interventions.base import Intervention
    from recast_probe.layout import TokenLayout
    from recast_probe.selection.rankings import Ranking

RANKED = "ranking"
METHODS = (
    *("full", "recast", "self-attention", "cosine", "merge", "random", "random-per-step"),
    *("uniform", "mask-oracle", "reversed", "reuse", "reuse+step-cache", "step-cache", "none"),
    RANKED,
)
LONGEST_WORDS = 40


def generate(
    image: References,
    prompt: Annotated[list[str], typer.Option(help="A prompt; repeat for several.")],
    out: Annotated[Path, typer.Option(help="Folder for the images.")],
    method: Annotated[
        str,
        typer.Option(
            help="Which reference tokens stay; several with commas between them, such as "
            f"full,recast,random: {', '.join(METHODS)}.",
            show_default="full, or ranking with --ranking",
            autocompletion=lambda: list(METHODS),
        ),
    ] = "",
    budget: Annotated[
        str | None,
        typer.Option(
            help="How many stay from step 1 on: 64 (tokens), 0.25 or 25% (of the reference), "
            "eq4:MIN:MAX:GAMMA (Eq. 4, in tokens; ':sigma' behind it for that clock), or eq4 (the "
            "paper's, scaled). Step 0 has all of them.",
            show_default="eq4; all of them for the methods that reuse",
        ),
    ] = None,
    ranking: Annotated[
        Path | None,
        typer.Option(
            help="For the method ranking: a stored profile (.nc) of the same picture, whose "
            "cross-image attention in step 0 says which tokens stay."
        ),
    ] = None,
    refresh: Refresh = None,
    computed: Computed = None,
    blocks: Blocks = "paper",
    model: Model = "pocket",
    mask: Annotated[
        Path | None, typer.Option(help="Where the subject is, to score its identity.")
    ] = None,
    mask_inside: MaskInside = None,
    mask_image: MaskImage = None,
    steps: Steps = 28,
    seed: Seed = 0,
    height: Height = None,
    width: Width = None,
    num_frames: NumFrames = None,
    frame_index: FrameIndex = None,
    negative_prompt: NegativePrompt = None,
    true_cfg_scale: TrueCfgScale = None,
    dtype: DataType = "auto",
    device: Device = "cpu",
    cpu_offload: CpuOffload = False,
    ip_adapter: IPAdapter = None,
    image_encoder: ImageEncoder = None,
    overwrite: Overwrite = False,
) -> None:
    """An image with all, some or no reference tokens, by one method or several.

    All share seed and noise. Image and provenance are written beside each other, named by method,
    budget, prompt and seed. With --mask the subject's identity is scored as if it stood in the same
    place in the output.
    """
    methods = _methods(method, ranking)
    reference, picture = references(image, mask), read_image(image[0])
    said = _budgets(budget, methods)
    given = {"refresh": refresh, "computed": computed}
    _check_settings(given, methods)
    stems = {
        (each, number): "-".join(part for part in (each, said[each], words, f"seed{seed}") if part)
        for each in methods
        for number, words in enumerate(_distinct(prompt))
    }
    files = [f"{stem}{kind}" for stem in stems.values() for kind in (".png", ".json", ".nc")]
    check_output(out, files, overwrite)
    chosen_blocks = parse_blocks(blocks)
    subject = read_mask_of(picture, mask, mask_inside)
    if subject is None and "mask-oracle" in methods:
        raise InputError("The mask oracle needs the subject's mask; give --mask.")
    own = repainted(mask_image, mask_inside)
    own |= output_size(height, width, num_frames, frame_index)
    check_model(model, dtype, device, ip_adapter, image_encoder, cpu_offload)
    check_blocks(chosen_blocks, model, ip_adapter is not None)
    stored = None if ranking is None else _stored_ranking(ranking, image, chosen_blocks)
    probe = open_probe(model, dtype, device, ip_adapter, image_encoder, cpu_offload)
    layout = probe.layout(reference, **own)
    oracle = None
    if mask is not None and "mask-oracle" in methods:
        oracle = probe.reference_mask(mask_source(mask), picture, mask_inside, **own)
    settings = {"blocks": chosen_blocks, "mask": oracle, "seed": seed, **given}
    arms = {each: _arm(each, budget, layout, stored, settings) for each in methods}
    folder = output_folder(out)
    rows: list[dict[str, Any]] = []
    for (name, number), stem in stems.items():
        try:
            with memory_noted(probe, device):
                result = probe.generate(
                    reference,
                    prompt[number],
                    steps=steps,
                    seed=seed,
                    interventions=arms[name],
                    negative_prompt=negative_prompt,
                    true_cfg_scale=true_cfg_scale,
                    **own,
                )
        except KeyboardInterrupt:
            note(f"Interrupted: {len(rows)} of {len(stems)} images are done and lie in {folder}.")
            raise
        (file,) = result.save(folder / f"{stem}.png")
        row: dict[str, Any] = {
            "file": str(file),
            "method": name,
            "prompt": prompt[number],
            "reference_tokens_per_step": list(result.reference_tokens_per_step),
            "mean_budget": result.mean_budget,
            "seconds": result.seconds,
        }
        if result.profile is not None:
            row["profile"] = str(result.profile.save(folder / f"{stem}.nc"))
        if subject is not None:
            row["identity"] = _identity(result.image, picture, subject)
        rows.append(row)
    facts = {
        "model": probe.name,
        "seed": seed,
        "steps": steps,
        "reference_tokens": layout.reference_tokens,
    }
    emit(facts | {"images": rows}, _lines(rows, layout.reference_tokens))


def _methods(text: str, ranking: Path | None) -> list[str]:
    """The methods that are named, in their order.

    Raises:
        InputError: one that there is not, one named twice, or a stored ranking without a use.
    """
    chosen = [part.strip() for part in text.split(",") if part.strip()]
    chosen = chosen or [RANKED if ranking is not None else "full"]
    for each in chosen:
        if each not in METHODS:
            raise InputError(
                f"There is no --method {each[:60]!r}; there is {', '.join(METHODS)}."
                f"{did_you_mean(each, METHODS)}"
            )
        if chosen.count(each) > 1:
            raise InputError(f"--method names {each} twice; its image would be the same.")
    if ranking is None and RANKED in chosen:
        raise InputError("--method ranking needs --ranking, a stored profile (.nc).")
    if ranking is not None and RANKED not in chosen:
        raise InputError("--ranking is for the method ranking; name it in --method, too.")
    return chosen


def _budgets(budget: str | None, methods: Sequence[str]) -> dict[str, str]:
    """What file names call each method's budget; empty for those that have none.

    Raises:
        InputError: no budget, or one that no method has a use for.
    """
    from recast_probe.interventions.methods import REUSING, WITHOUT_BUDGET
    from recast_probe.selection.budget_language import as_budget

    without = (*WITHOUT_BUDGET, *(REUSING if budget is None else ()))
    if budget is not None and set(methods) <= set(WITHOUT_BUDGET):
        raise InputError(
            f"--method {','.join(methods)} takes no budget; it keeps all tokens or none."
        )
    as_budget(budget or "eq4")
    said = re.sub(r"[\s:]+", "-", (budget or "eq4").strip().lower()).replace("-%", "%")
    return {each: "" if each in without else said.replace("%", "percent") for each in methods}


def _check_settings(given: dict[str, int | None], methods: Sequence[str]) -> None:
    for name, value in given.items():
        if value is not None and not any(_takes(name, each) for each in methods):
            raise InputError(f"--{name} {value} is of no use to --method {','.join(methods)}.")


def _takes(setting: str, method: str) -> bool:
    return ("reuse" if setting == "refresh" else "step-cache") in method


def _distinct(prompts: Sequence[str]) -> list[str]:
    """The beginning of each prompt as part of a file's name, with a number where two are alike."""
    words: list[str] = []
    for text in prompts:
        plain = re.sub(r"\W+", "-", text.lower()).strip("-_")
        short = plain[: LONGEST_WORDS + 1]
        if len(plain) > LONGEST_WORDS:
            short = short.rpartition("-")[0] or plain[:LONGEST_WORDS]
        words.append(short or "prompt")
    # a number may make a name that is another prompt's own
    found, taken = list[str](), set(words)
    for each in words:
        numbered = (f"{each}-{number}" for number in count(2))
        name = next(name for name in numbered if name not in taken) if each in found else each
        found.append(name)
        taken.add(name)
    return found


def _stored_ranking(path: Path, images: Sequence[Path], blocks: Any) -> Ranking:
    from recast_probe.profiles.profile import AttentionProfile
    from recast_probe.selection.rankings import cross_image

    profile = AttentionProfile.load(path)
    for each in images:
        check_same_picture(f"The image {each}", read_image(each), profile)
    return cross_image(profile, blocks)


def _arm(
    name: str, budget: str | None, layout: TokenLayout, stored: Ranking | None, settings: Any
) -> list[Intervention]:
    from recast_probe.interventions.methods import REUSING
    from recast_probe.interventions.methods import method as named
    from recast_probe.interventions.prune import Prune
    from recast_probe.selection.budget_language import budget_of

    chosen: Any = None
    if budget is not None or name not in REUSING:
        chosen = budget_of(budget or "eq4", layout.reference_tokens)
    if name == RANKED:
        assert stored is not None
        return [Prune(stored, chosen, start=1)]
    own = {
        key: value
        for key, value in settings.items()
        if key not in ("refresh", "computed") or _takes(key, name)
    }
    return named(name, chosen, layout, **own)


def _lines(rows: Sequence[dict[str, Any]], tokens: int) -> list[str]:
    shown = []
    for row in rows:
        counts = [each for each, _ in groupby(row["reference_tokens_per_step"])]
        later = counts[1:]
        said = [f"{counts[0]}"]
        if later:
            low, high = min(later), max(later)
            said.append(f"then {low}" if low == high else f"then {low} to {high}")
        shown.append(
            {
                "method": row["method"],
                "tokens by step": ", ".join(said),
                "mean": row["mean_budget"],
                "seconds": round(row["seconds"], 1),
                **{f"identity ({name})": value for name, value in row.get("identity", {}).items()},
                "file": row["file"],
            }
        )
    first = f"The reference has {tokens} tokens."
    if any(len(set(row["reference_tokens_per_step"])) > 1 for row in rows):
        first += " Step 0 runs with all of them, and the mean counts it."
    return [first, *table(shown)]


def _identity(output: Image.Image, reference: Image.Image, mask: np.ndarray) -> dict[str, float]:
    from recast_probe.images.loading import fit_mask
    from recast_probe.metrics import IdentityScorer

    return IdentityScorer().score(
        output, fit_mask(mask, output), reference, fit_mask(mask, reference)
    )
