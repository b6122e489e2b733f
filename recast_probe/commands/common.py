"""Options and output that the commands share."""

from __future__ import annotations

import json
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from recast_probe.errors import InputError

if TYPE_CHECKING:
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
Steps = Annotated[int, typer.Option(help="Denoising steps.")]
Seed = Annotated[int, typer.Option(help="Seed of the initial noise.")]
Json = Annotated[bool, typer.Option("--json", help="Print one JSON object and nothing else.")]
Image = Annotated[Path, typer.Option(help="The reference image.")]
Blocks = Annotated[
    str, typer.Option(help="all, double, single, paper, or indices and names: 2,5,single.0.")
]


def open_probe(
    model: str,
    dtype: str,
    device: str,
    ip_adapter: str | None = None,
    image_encoder: str | None = None,
) -> Probe:
    """The probe of a model named on the command line; heavy imports happen here."""
    from recast_probe.probe import Probe

    if model == "pocket":
        if ip_adapter or image_encoder:
            raise InputError(
                "The bundled model takes no IP-Adapter; name a FluxPipeline with --model."
            )
        return Probe.pocket()
    return Probe.from_pretrained(
        model, dtype, device, ip_adapter=ip_adapter, image_encoder=image_encoder
    )


def parse_blocks(text: str) -> Any:
    """ "single", or a list for "2,5,single.0"."""
    parts = [part.strip() for part in text.split(",") if part.strip()]
    if not parts:
        raise InputError("--blocks is empty; say all, double, single, paper, or name blocks.")
    chosen = [int(part) if part.isdecimal() else part for part in parts]
    return chosen[0] if len(chosen) == 1 else chosen


def output_folder(out: Path) -> Path:
    """The folder for results, made if it is not there."""
    if out.exists() and not out.is_dir():
        raise InputError(f"--out {out} is a file; give a folder.")
    try:
        out.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise InputError(f"--out {out} cannot be made: {error.strerror}.") from error
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
