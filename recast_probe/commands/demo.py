"""`recast-probe demo`: the main job on the bundled model."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from recast_probe.commands.common import check_model, open_probe
from recast_probe.commands.options import Model, Overwrite, Seed, Steps
from recast_probe.commands.output import check_output, emit, note, output_folder, table
from recast_probe.commands.values import WHOLE, whole

if TYPE_CHECKING:
    from recast_probe.demo import DemoSettings
    from recast_probe.probe import Probe


def demo(
    out: Annotated[Path, typer.Option(help="Folder for results.")] = Path("out/demo"),
    references: Annotated[
        int,
        typer.Option(
            help="How many of the 24 shipped samples.", parser=whole("--references"), metavar=WHOLE
        ),
    ] = 4,
    prompts: Annotated[
        int,
        typer.Option(
            help="Prompts for each, 1 to 4; in place and moved in turns.",
            parser=whole("--prompts"),
            metavar=WHOLE,
        ),
    ] = 4,
    steps: Steps = 28,
    seed: Seed = 0,
    model: Model = "pocket",
    overwrite: Overwrite = False,
) -> None:
    """Profile, diagnose and prune on shipped references; write summary, figures and report.

    An interrupted demo goes on where it stopped when it is called again.
    """
    check_output(out, ("report.html", "summary.json"), overwrite)
    check_model(model)
    from recast_probe.demo import DemoSettings, run_demo

    settings = DemoSettings(references=references, prompts=prompts, steps=steps, seed=seed)
    probe = open_probe(model)
    folder = output_folder(out)
    note(_announcement(probe, settings))
    summary = run_demo(probe, folder, settings)
    emit(summary, _lines(summary))
    note(f"Report: {folder / 'report.html'}")


def _announcement(probe: Probe, settings: DemoSettings) -> str:
    """How much work it is and how long that takes, measured on two steps."""
    from recast_probe.demo.arms import ARMS, cases
    from recast_probe.pocket import samples

    case = cases(samples()[:1], 1, settings.seed)[0]
    seconds = probe.generate(case.reference, case.prompt, steps=2, progress=False).seconds / 2
    images = settings.references * settings.prompts * len(ARMS)
    minutes = max(1, round(images * settings.steps * seconds / 60))
    return (
        f"{images} images of {settings.steps} steps, about {minutes} min; those of an interrupted "
        "demo in the same folder are taken over."
    )


def _lines(found: Mapping[str, Any]) -> Iterator[str]:
    settings = found["settings"]
    yield (
        f"{found['model']}: {settings['references']} references, {settings['prompts']} prompts "
        f"each, {settings['steps']} steps, seed {settings['seed']}."
    )
    yield from table(
        [
            {
                "arm": arm,
                "identity": values["identity"]["mean"],
                "95 % interval": _interval(values["identity"]),
                "reference tokens": values["mean_budget"],
                "seconds": round(values["seconds_per_image"], 2),
            }
            for arm, values in found["arms"].items()
        ]
    )
    skew, overlap, entropy = found["skew"], found["overlap"], found["entropy"]
    yield (
        f"The top {skew['top_tokens'] / skew['tokens']:.0%} of the reference tokens hold "
        f"{skew['top25']:.0%} of the attention."
    )
    yield f"Attention finds the subject's mask with AUROC {overlap['auroc']:.2f}."
    yield (
        f"Its entropy goes from {entropy['first']:.2f} bits in the first step to "
        f"{entropy['last']:.2f} in the last, of {entropy['maximum']:.2f}."
    )


def _interval(values: Mapping[str, Any]) -> str:
    low, high = values.get("low"), values.get("high")
    return "-" if low is None or high is None else f"[{low:.3f}, {high:.3f}]"
