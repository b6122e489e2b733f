"""`recast-probe bound`: work, bytes and the least time of a run, from the model's config alone."""

from __future__ import annotations

import re
from collections.abc import Iterator
from typing import TYPE_CHECKING, Annotated, Any

import typer

from recast_probe.commands.common import transformer_config
from recast_probe.commands.options import Steps
from recast_probe.commands.output import emit
from recast_probe.commands.values import NUMBER, WHOLE, decimal, whole
from recast_probe.errors import InputError

if TYPE_CHECKING:
    from recast_probe.cost_model import Bound, DeviceLimits, TransformerConfig

# text, generation and reference tokens where none are named
USUAL_TOKENS = {
    "pocket": (32, 256, 256),
    # the text is 37 x 37 tokens of a square picture and a short prompt
    "qwen-image-edit": (1400, 4096, 4096),
    "qwen-image-edit-inpaint": (1400, 4096, 4096),
    "qwen-image-edit-2509": (1400, 4096, 4096),
    "qwen-image-edit-2511": (1400, 4096, 4096),
    # a picture of half the size is 18 x 18 tokens, between two more; the prompt is padded to 512
    "longcat-image-edit": (838, 4096, 4096),
    # the whole picture and 4 layers of 640 x 640 pixels are generated
    "qwen-image-layered": (512, 5 * 1600, 1600),
}
MEGAPIXEL_TOKENS = (512, 4096, 4096)


def bound(
    model: Annotated[
        str,
        typer.Option(
            help="A published config ('flux-kontext', 'flux2-dev', 'flux2-klein-4b', "
            "'flux2-klein-9b', 'joyimage-edit', 'longcat-image-edit', 'qwen-image-edit', "
            "'qwen-image-edit-2509', 'qwen-image-edit-2511', 'qwen-image-layered'; with '-inpaint' "
            "behind the name where there is such a pipeline), 'pocket', 'tiny:FAMILY', a folder or "
            "a hub repository; only the transformer's config is read."
        ),
    ] = "flux-kontext",
    tokens: Annotated[
        str | None,
        typer.Option(
            help="Text, generation and reference tokens, such as 512,4096,4096.",
            show_default="the model's usual ones",
        ),
    ] = None,
    steps: Steps = 28,
    done: Annotated[
        list[str] | None,
        typer.Option(
            "--with",
            help="What is done to the run; repeat for several: none, prune=BUDGET (600, 25%, "
            "eq4:256:1024:2), reuse=1, compute=20, fp8, read=0.",
            show_default="a table of usual ones",
        ),
    ] = None,
    device: Annotated[
        str | None, typer.Option(help="h200, h100, a100, l40s or rtx-4090, for seconds.")
    ] = None,
    peak_tflops: Annotated[
        float | None,
        typer.Option(
            help="Dense bfloat16 peak of a device that is not listed.",
            parser=decimal("--peak-tflops", 0, above=True),
            metavar=NUMBER,
        ),
    ] = None,
    bandwidth_gb: Annotated[
        float | None,
        typer.Option(
            help="Memory bandwidth of such a device in GB/s.",
            parser=decimal("--bandwidth-gb", 0, above=True),
            metavar=NUMBER,
        ),
    ] = None,
    attention_slowdown: Annotated[
        float,
        typer.Option(
            help="How many times less efficiently than linear layers attention runs.",
            parser=decimal("--attention-slowdown", 0, above=True),
            metavar=NUMBER,
        ),
    ] = 1.0,
    calls: Annotated[
        int,
        typer.Option(
            help="Transformer calls a step: 2 with true guidance.",
            parser=whole("--calls", 1, 1000),
            metavar=WHOLE,
        ),
    ] = 1,
) -> None:
    """FLOP, bytes, the least time of a run, and the most that something can speed it up.

    Speed-ups assume that all FLOP take the same time, or attention's the stated multiple of it.
    They hold for the transformer; text encoders and autoencoder come on top in every arm.
    """
    from recast_probe.blocks import select_blocks
    from recast_probe.cost_model import PUBLISHED, SOURCES, RunPlan, readout_work
    from recast_probe.cost_model import bound as bound_of
    from recast_probe.cost_model.plan_parser import paper_rows, planned

    config = transformer_config(model)
    text, generation, reference = _tokens(tokens, model)
    limits = _limits(device, peak_tflops, bandwidth_gb)
    full = RunPlan.full(text, generation, reference, steps, calls=calls)
    rows = paper_rows(reference) if done is None else {"full": [], ", ".join(done): done}
    plans = {
        name: planned(full, words)
        for name, words in rows.items()
        if done is not None or _fits(words, steps)
    }
    found = {
        name: bound_of(config, plan, limits, attention_slowdown=attention_slowdown)
        for name, plan in plans.items()
    }
    kinds = ["double"] * config.double_blocks + ["single"] * config.single_blocks
    ranking = len(select_blocks("paper", kinds))
    readout = readout_work(config, generation, reference)
    table = readout_work(config, generation, reference, text=text, mass_table="all")
    read = {"flop": readout, "ranking": ranking * readout / len(kinds), "mass_table": table}
    step = full.step_work(config, full.steps[0])
    facts: dict[str, Any] = {
        "model": model,
        "config": SOURCES[PUBLISHED[model]] if model in PUBLISHED else None,
        "parameters": config.parameters,
        "tokens": {"text": text, "generation": generation, "reference": reference},
        "steps": steps,
        "device": None if limits is None else limits.name,
        "source": None if limits is None else limits.source,
        "full_step": {
            "linear": step.linear,
            "attention": step.attention,
            "modulation": step.modulation,
            "total": step.total,
        },
        "readout": read
        | {
            "ranking_blocks": ranking,
            "share_of_step": readout / step.total * calls,
            "share_of_run": readout * calls / (step.total * steps),
        },
    }
    bounds = {name: each.to_dict() for name, each in found.items()}
    emit(facts | {"bounds": bounds}, _lines(config, facts, found, limits))


def _tokens(text: str | None, model: str) -> tuple[int, int, int]:
    if text is None:
        return USUAL_TOKENS.get(model, MEGAPIXEL_TOKENS)
    parts = text.split(",")
    if len(parts) != 3 or not all(re.fullmatch(r"\s*[0-9]{1,9}\s*", part) for part in parts):
        raise InputError(
            "--tokens takes text, generation and reference tokens, such as 512,4096,4096, not "
            f"{text[:60]!r}."
        )
    first, second, third = map(int, parts)
    return first, second, third


def _limits(
    device: str | None, peak_tflops: float | None, bandwidth_gb: float | None
) -> DeviceLimits | None:
    from recast_probe.cost_model.devices import DeviceLimits, device_limits

    if peak_tflops is None and bandwidth_gb is None:
        return None if device is None else device_limits(device)
    if peak_tflops is None or bandwidth_gb is None or min(peak_tflops, bandwidth_gb) <= 0:
        raise InputError("Give --peak-tflops and --bandwidth-gb together, both above 0.")
    name = device or "a device as given"
    peak = peak_tflops * 1e12
    return DeviceLimits(name, peak, None, bandwidth_gb * 1e9, 0.0, "as given")


def _fits(words: list[str], steps: int) -> bool:
    """Rows of the usual table that a short run has no steps for are left out."""
    counts = [int(word.split("=")[1]) for word in words if word.startswith("compute=")]
    return steps > 1 or not words if not counts else min(counts) <= steps


def _lines(
    config: TransformerConfig,
    facts: dict[str, Any],
    found: dict[str, Bound],
    limits: DeviceLimits | None,
) -> Iterator[str]:
    tokens, step, readout = facts["tokens"], facts["full_step"], facts["readout"]
    yield (
        f"{facts['model']}: {config.parameters:,} parameters; {tokens['text']:,} text, "
        f"{tokens['generation']:,} generation and {tokens['reference']:,} reference tokens; "
        f"{facts['steps']} steps"
    )
    yield (
        f"a full step: {_tera(step['total'])} TFLOP ({_tera(step['linear'])} linear, "
        f"{_tera(step['attention'])} attention, {_tera(step['modulation'])} modulation)"
    )
    yield (
        f"reading attention to the reference in every block: {_tera(readout['flop'])} TFLOP, "
        f"{readout['share_of_step']:.2%} of a step, {readout['share_of_run']:.3%} of the run; in "
        f"the {readout['ranking_blocks']} blocks that ReCAST ranks by: "
        f"{_tera(readout['ranking'])} TFLOP; between all token groups: "
        f"{_tera(readout['mass_table'])} TFLOP"
    )
    if facts["config"] is not None:
        yield f"the config is {facts['config']}"
    if limits is not None:
        yield (
            f"{limits.name}: {limits.bfloat16 / 1e12:.1f} TFLOP/s, "
            f"{limits.bandwidth / 1e12:.3f} TB/s ({limits.source})"
        )
    columns = f"{'':28} {'TFLOP':>10} {'linear':>10} {'attention':>10} {'GB':>9} {'at most':>8}"
    yield columns + ("" if limits is None else f" {'at least':>10}")
    for name, each in found.items():
        row = f"{name:28} {_tera(each.total):>10} {_tera(each.linear):>10} "
        row += f"{_tera(each.attention):>10} "
        row += f"{(each.weight_bytes + each.activation_bytes) / 1e9:9,.4g} {each.speed_up:7.3f}x"
        if each.least_seconds is not None:
            row += f" {each.least_seconds:8.4g} s, {each.limited_by}-bound"
        yield row


def _tera(flop: float) -> str:
    return f"{flop / 1e12:,.2f}" if flop >= 1e11 else f"{flop / 1e12:.4g}"
