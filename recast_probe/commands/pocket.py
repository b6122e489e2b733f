"""`recast-probe pocket`: train and evaluate the bundled model."""

from __future__ import annotations

import shutil
import subprocess
import sys
import tarfile
import tempfile
from enum import Enum
from pathlib import Path
from typing import Annotated

import typer

from recast_probe.commands.common import Json, Seed, Steps, emit, note
from recast_probe.commands.values import NUMBER, WHOLE, decimal, whole

app = typer.Typer(help="Train and evaluate Pocket Kontext.", no_args_is_help=True)
FLUENT = "@lobehub/fluent-emoji-3d@1.1.0"
NAMES = "unicode-emoji-json@0.9.0"


class Precision(Enum):
    """Number format of the matrix products in training."""

    FLOAT32 = "float32"
    BFLOAT16 = "bfloat16"


@app.command()
def evaluate(
    model: Annotated[
        Path | None, typer.Option(help="A pipeline folder; the shipped model by default.")
    ] = None,
    subjects: Annotated[
        int,
        typer.Option(
            help="How many of the 150 held-out ones.", parser=whole("--subjects"), metavar=WHOLE
        ),
    ] = 150,
    steps: Steps = 28,
    seed: Seed = 0,
    as_json: Json = False,
) -> None:
    """Does the model copy subjects it never saw? Retrieval, removal and swap."""
    from tqdm import tqdm

    from recast_probe import pocket
    from recast_probe.loading import load_pipeline
    from recast_probe.pocket.evaluate import evaluate as run

    pipeline = pocket.load() if model is None else load_pipeline(model)
    with tqdm(total=3 * subjects, desc="Images", file=sys.stderr) as bar:

        def progress(done: int, _: int) -> None:
            bar.update(done - bar.n)

        result = run(pipeline, subjects=subjects, steps=steps, seed=seed, progress=progress)
    emit(result.summary(), as_json)


@app.command()
def assets(
    out: Annotated[Path, typer.Option(help="Folder for subjects.npz.")],
    fluent: Annotated[
        Path | None, typer.Option(help=f"Tarball of {FLUENT}; fetched with npm by default.")
    ] = None,
    names: Annotated[
        Path | None, typer.Option(help=f"Tarball of {NAMES}; fetched with npm by default.")
    ] = None,
    noto: Annotated[
        Path | None, typer.Option(help="NotoColorEmoji.ttf, for a second drawing style.")
    ] = None,
) -> None:
    """Make the training pack of drawn subjects."""
    from recast_probe.errors import InputError
    from recast_probe.pocket.subjects import build_pack

    for path in (fluent, names, noto):
        if path is not None and not path.is_file():
            raise InputError(f"There is no file {path}.")
    with tempfile.TemporaryDirectory() as scratch:
        tarballs = (
            fluent or _npm(FLUENT, Path(scratch)),
            names or _npm(NAMES, Path(scratch)),
        )
        try:
            found = build_pack(*tarballs, out, noto)
        except (tarfile.TarError, EOFError, KeyError, ValueError) as error:
            raise InputError(
                f"The tarballs are damaged or other ones than {FLUENT} and {NAMES}: {error}"
            ) from error
    note(f"{found['training']} training subjects in {out / 'subjects.npz'}.")


@app.command()
def train(
    pack: Annotated[Path, typer.Option(help="subjects.npz made by `pocket assets`.")],
    out: Annotated[Path, typer.Option(help="Folder for checkpoints and the model.")],
    small_samples: Annotated[
        int,
        typer.Option(
            help="Samples on the 64-pixel grid.", parser=whole("--small-samples"), metavar=WHOLE
        ),
    ] = 128_000,
    full_samples: Annotated[
        int,
        typer.Option(
            help="Samples on the 128-pixel grid.", parser=whole("--full-samples"), metavar=WHOLE
        ),
    ] = 146_000,
    minutes: Annotated[
        float | None,
        typer.Option(
            help="Stop after so many minutes; call again to go on.",
            parser=decimal("--minutes", 0, above=True),
            metavar=NUMBER,
        ),
    ] = None,
    device: Annotated[str, typer.Option(help="cpu or cuda.")] = "cpu",
    precision: Annotated[
        Precision | None,
        typer.Option(help="Of matrix products; by default bfloat16 on CUDA, float32 on a CPU."),
    ] = None,
    compiled: Annotated[
        bool | None,
        typer.Option("--compile/--no-compile", help="By default on CUDA only."),
    ] = None,
    workers: Annotated[
        int,
        typer.Option(
            help="Processes that draw scenes; 0 for none.",
            parser=whole("--workers", 0, 256),
            metavar=WHOLE,
        ),
    ] = 0,
    seed: Seed = 0,
    as_json: Json = False,
) -> None:
    """Train Pocket Kontext, or go on from the checkpoint in --out."""
    import torch

    from recast_probe.devices import known_device
    from recast_probe.pocket.recipe import run

    known_device(device)
    progress = run(
        pack,
        out,
        small_samples=small_samples,
        full_samples=full_samples,
        device=device,
        precision=None if precision is None else getattr(torch, precision.value),
        compiled=compiled,
        minutes=minutes,
        workers=workers,
        seed=seed,
        log=note,
    )
    emit(progress | {"model": str(out / "model")}, as_json)


def _npm(package: str, folder: Path) -> Path:
    from recast_probe.errors import InputError

    npm = shutil.which("npm")
    if npm is None:
        raise InputError(
            f"npm is not installed, so {package} cannot be fetched. Install Node.js, or fetch the "
            "two tarballs elsewhere and name them with --fluent and --names."
        )
    run = subprocess.run(
        [npm, "pack", "--silent", package], cwd=folder, capture_output=True, text=True
    )
    if run.returncode:
        raise InputError(f"npm could not fetch {package}: {run.stderr.strip()[-300:]}")
    return folder / run.stdout.strip().splitlines()[-1]
