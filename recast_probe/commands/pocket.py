"""`recast-probe pocket`: train and evaluate the bundled model."""

from __future__ import annotations

import hashlib
import shutil
import subprocess
import sys
import tempfile
from enum import Enum
from pathlib import Path
from typing import Annotated

import typer

from recast_probe.commands.common import Json, Seed, Steps, emit, note
from recast_probe.commands.values import NUMBER, WHOLE, decimal, whole
from recast_probe.errors import InputError
from recast_probe.files.input_files import is_file, opened

app = typer.Typer(help="Train and evaluate Pocket Kontext.", no_args_is_help=True)
FLUENT = "@lobehub/fluent-emoji-3d@1.1.0"
NAMES = "unicode-emoji-json@0.9.0"
# as the registry publishes them, there in base 64: `npm view PACKAGE dist.integrity`
SHA512 = {
    FLUENT: "5a5ab69554ad4e7afc043a48274a449d328ee0bb83c71a931214ef46d0f50cb4"
    "45d267bba207914232a87a10c75ee549d9069e720979c1106feb4954006de1ee",
    NAMES: "1ddad05bfed275b5d4b1377cb93013bfb2ef4099024a06c08110830ad3a143ac"
    "67dc4031fb164742d46788e5d624adf2c08a8f7a090d84fe14e046ee16c8909e",
}


class Domain(Enum):
    """Where references show their subjects."""

    MIDDLE = "middle"
    ANYWHERE = "anywhere"


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
    references: Annotated[
        Domain,
        typer.Option(
            help="Where references show their subjects: middle, moved at the same size, as in "
            "training and in most benchmarks; or anywhere, moved and resized."
        ),
    ] = Domain.MIDDLE,
    steps: Steps = 28,
    seed: Seed = 0,
    as_json: Json = False,
) -> None:
    """Does the model copy subjects it never saw? Retrieval, removal and swap."""
    from tqdm import tqdm

    from recast_probe import pocket
    from recast_probe.pipelines.loading import load_pipeline
    from recast_probe.pocket.evaluate import evaluate as run

    pipeline = pocket.load() if model is None else load_pipeline(model)
    with tqdm(total=3 * subjects, desc="Images", file=sys.stderr) as bar:

        def progress(done: int, _: int) -> None:
            bar.update(done - bar.n)

        result = run(
            pipeline,
            subjects=subjects,
            steps=steps,
            seed=seed,
            references=references.value,
            progress=progress,
            announce=lambda text: bar.write(text, file=sys.stderr),
        )
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
    from recast_probe.pocket.subjects import build_pack

    for path in (fluent, names, noto):
        if path is not None and not is_file(path):
            raise InputError(f"There is no file {str(path)[:300]}.")
    with tempfile.TemporaryDirectory() as scratch:
        tarballs = (
            fluent or _npm(FLUENT, Path(scratch)),
            names or _npm(NAMES, Path(scratch)),
        )
        for path, package in zip(tarballs, (FLUENT, NAMES), strict=True):
            _check_tarball(path, package)
        try:
            found = build_pack(*tarballs, out, noto)
        except OSError as error:
            if error.errno is not None or noto is None:  # the disk, not the font
                raise
            raise InputError(f"The font {noto} cannot be used: {error}.") from error
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
    init: Annotated[
        Path | None,
        typer.Option(help="Weights to go on from: safetensors, every name with model/ before it."),
    ] = None,
    rate: Annotated[
        float,
        typer.Option(
            help="Scales the learning rates; about 0.4 to go on from trained weights.",
            parser=decimal("--rate", 0, above=True),
            metavar=NUMBER,
        ),
    ] = 1.0,
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

    from recast_probe._utils.devices import known_device
    from recast_probe.pocket.recipe import run

    known_device(device)
    progress = run(
        pack,
        out,
        small_samples=small_samples,
        full_samples=full_samples,
        init=init,
        rate=rate,
        device=device,
        precision=None if precision is None else getattr(torch, precision.value),
        compiled=compiled,
        minutes=minutes,
        workers=workers,
        seed=seed,
        log=note,
    )
    emit(progress | {"model": str(out / "model")}, as_json)


def _check_tarball(path: Path, package: str) -> None:
    """Refuse another file than the published one: it decides what is trained on and held out."""
    with opened(path, "The tarball") as file:
        digest = hashlib.file_digest(file, "sha512").hexdigest()  # type: ignore[arg-type]
    if digest != SHA512[package]:
        raise InputError(
            f"{path} is damaged or not {package}: its SHA-512 is not the published one. Fetch it "
            f"again with `npm pack {package}`."
        )


def _npm(package: str, folder: Path) -> Path:
    npm = shutil.which("npm")
    if npm is None:
        raise InputError(
            f"npm is not installed, so {package} cannot be fetched. Install Node.js, or fetch the "
            "two tarballs elsewhere and name them with --fluent and --names."
        )
    run = subprocess.run(
        [npm, "pack", "--silent", package], cwd=folder, capture_output=True, text=True
    )
    lines = run.stdout.strip().splitlines()
    if run.returncode or not lines:
        raise InputError(f"npm could not fetch {package}: {run.stderr.strip()[-300:]}")
    return folder / lines[-1]
