"""Options and output that the commands share."""

from __future__ import annotations

import json
import sys
import tempfile
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from recast_probe.commands.values import MOST_STEPS, NUMBER, WHOLE, decimal, whole
from recast_probe.errors import InputError
from recast_probe.files.input_files import is_file
from recast_probe.files.stray import sweep

if TYPE_CHECKING:
    from recast_probe.cost_model import TransformerConfig
    from recast_probe.probe import Probe

Model = Annotated[
    str, typer.Option(help="'pocket' (bundled), a local diffusers folder, or a hub repository.")
]
Device = Annotated[str, typer.Option(help="Where the model runs, such as cpu or cuda.")]
DataType = Annotated[str, typer.Option(help="auto, float32, bfloat16 or float16.")]
IPAdapter = Annotated[
    str | None,
    typer.Option(
        "--ip-adapter",
        help="For a FluxPipeline: the IP-Adapter's repository, folder or safetensors file.",
    ),
]
ImageEncoder = Annotated[
    str | None, typer.Option(help="The IP-Adapter's CLIP vision model: repository or folder.")
]
CpuOffload = Annotated[
    bool,
    typer.Option("--cpu-offload", help="Keep in the device's memory only the part that runs."),
]
Steps = Annotated[
    int,
    typer.Option(help="Denoising steps.", parser=whole("--steps", 1, MOST_STEPS), metavar=WHOLE),
]
Seed = Annotated[
    int, typer.Option(help="Seed of the whole run.", parser=whole("--seed"), metavar=WHOLE)
]
MaskInside = Annotated[
    str | None,
    typer.Option(
        help="The pixel value (a palette's index) or the colour, such as '#ff0000', that marks the "
        "inside of a mask which does not say it itself."
    ),
]
Json = Annotated[bool, typer.Option("--json", help="Print one JSON object and nothing else.")]
NegativePrompt = Annotated[
    str | None, typer.Option(help="What true classifier-free guidance leads away from.")
]
TrueCfgScale = Annotated[
    float | None,
    typer.Option(
        help="Its scale, above 1; the pipeline's own where it is left out.",
        parser=decimal("--true-cfg-scale"),
        metavar=NUMBER,
    ),
]
References = Annotated[
    list[Path],
    typer.Option("--image", help="The reference image; repeat for models that take several."),
]
Blocks = Annotated[
    str, typer.Option(help="all, double, single, paper, or indices and names: 2,5,single.0.")
]


def open_probe(
    model: str,
    dtype: str = "auto",
    device: str = "cpu",
    ip_adapter: str | Path | None = None,
    image_encoder: str | Path | None = None,
    cpu_offload: bool = False,
) -> Probe:
    """The probe of a model named on a command line; heavy imports happen here.

    Raises:
        InputError: the model cannot be had so, or is the bundled one with a setting that it does
            not have.
        UnsupportedPipelineError: it is another kind of pipeline.
    """
    from recast_probe.probe import Probe

    if model == "pocket":
        if cpu_offload:
            raise InputError("The bundled model runs on the CPU; leave --cpu-offload out.")
        if device != "cpu":
            raise InputError(
                f"The bundled model runs on the CPU; leave --device out, which is {device!r}."
            )
        if dtype not in ("auto", "float32"):
            raise InputError(
                f"The bundled model computes in float32; leave --dtype out, which is {dtype!r}."
            )
        if ip_adapter or image_encoder:
            raise InputError(
                "The bundled model takes no IP-Adapter; name a FluxPipeline with --model."
            )
        return Probe.pocket()
    return Probe.from_pretrained(
        model,
        dtype,
        device,
        cpu_offload=cpu_offload,
        ip_adapter=ip_adapter,
        image_encoder=image_encoder,
    )


@contextmanager
def memory_noted(probe: Probe, device: str) -> Iterator[None]:
    """Note the peak memory of each stage of what runs inside, once a stage, the largest of all."""
    from recast_probe._utils.memory import memory_by_stage

    peaks: dict[str, tuple[int, str]] = {}

    def tell(stage: str, peak: int, kind: str) -> None:
        peaks[stage] = max(peaks.get(stage, (0, kind)), (peak, kind))

    with memory_by_stage(probe.pipe, device, tell):
        yield
    for stage, (peak, kind) in peaks.items():
        note(f"peak {kind} memory, {stage}: {peak / 2**30:.2f} GiB")


def transformer_config(model: str) -> TransformerConfig:
    """The transformer's config of a published model by name, "pocket", a folder or a hub
    repository.

    No weights are read.

    Raises:
        InputError: there is none, or of another class.
    """
    from recast_probe.cost_model import PUBLISHED, config_from_dict, published_config

    if model in PUBLISHED:
        return published_config(model)
    if model == "pocket":
        from recast_probe import pocket

        model = str(pocket.folder())
    import diffusers

    try:
        # of any class; it only names the file
        config = diffusers.FluxTransformer2DModel.load_config(model, subfolder="transformer")
    except Exception as error:  # the hub client raises a different class for every cause
        raise InputError(
            f"No transformer config was found in {model!r} ({error}). Give a folder in the "
            "diffusers layout, or a repository that can be reached."
        ) from error
    return config_from_dict(config)


def check_mask_of(images: list[Path], mask: Path | None) -> None:
    """Check that a mask can be told to belong to one reference.

    Raises:
        InputError: there are several.
    """
    if mask is not None and len(images) > 1:
        raise InputError(
            f"--mask is drawn on one reference, but {len(images)} images are given; leave it out, "
            "and compare the output with one of them by `recast-probe score`."
        )


def parse_blocks(text: str) -> Any:
    """ "single", or a list for "2,5,single.0".

    Raises:
        InputError: nothing in it.
    """
    parts = [part.strip() for part in text.split(",") if part.strip()]
    if not parts:
        raise InputError("--blocks is empty; say all, double, single, paper, or name blocks.")
    chosen = [int(part) if part.isascii() and part.isdecimal() else part for part in parts]
    return chosen[0] if len(chosen) == 1 else chosen


def output_folder(out: Path) -> Path:
    """The folder for results, made if it is not there; what killed processes left is removed.

    Raises:
        InputError: it is a file, cannot be made, or nothing can be written in it.
    """
    if is_file(out):
        raise InputError(f"--out {out} is a file; give a folder.")
    try:
        out.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryFile(dir=out):
            pass
    except (OSError, ValueError) as error:
        reason = getattr(error, "strerror", None) or error
        raise InputError(f"--out {str(out)[:300]} cannot be written to: {reason}.") from error
    sweep(out)
    return out


def emit(values: Mapping[Any, Any], as_json: bool) -> None:
    """Print the results: one JSON object, or a line a number."""
    if as_json:
        print(json.dumps(values, ensure_ascii=False, allow_nan=False, default=str))
        return
    rows = _flat(values)
    width = max((len(name) for name, _ in rows), default=0)
    for name, value in rows:
        print(f"{name:{width}}  {f'{value:.4f}' if isinstance(value, float) else value}")


def note(message: str) -> None:
    """Tell the user something without touching standard output."""
    print(message, file=sys.stderr)


def _flat(values: Mapping[Any, Any], prefix: str = "") -> list[tuple[str, Any]]:
    rows: list[tuple[str, Any]] = []
    for name, value in values.items():
        if isinstance(value, Mapping):
            rows += _flat(value, f"{prefix}{name}.")
        else:
            rows.append((f"{prefix}{name}", value))
    return rows
