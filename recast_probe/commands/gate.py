"""`recast-probe gate`: does a way of saving work lose too little to matter?"""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from recast_probe._utils.suggestions import did_you_mean
from recast_probe.commands.common import check_model, open_probe
from recast_probe.commands.generate import METHODS, RANKED
from recast_probe.commands.inputs import check_blocks, parse_blocks
from recast_probe.commands.options import (
    Blocks,
    Computed,
    CpuOffload,
    DataType,
    Device,
    Model,
    Refresh,
    Seed,
    Steps,
)
from recast_probe.commands.output import check_output, emit, note, output_folder
from recast_probe.commands.values import WHOLE, whole
from recast_probe.errors import InputError

if TYPE_CHECKING:
    from recast_probe.datasets import Case
    from recast_probe.masks import MaskFinder

SAVING = (*(name for name in METHODS if name not in ("full", RANKED, "none")), "fewer-steps")
EXIT_CODES = {"passes": 0, "fails": 1, "cannot tell": 3}


def gate(
    method: Annotated[
        str, typer.Option(help=f"How work is saved: {', '.join(SAVING)}.", show_default=False)
    ],
    out: Annotated[Path, typer.Option(help="Folder for the runs and the results.")],
    limit: Annotated[
        str,
        typer.Option(
            help="The loss that is still allowed: 0.03 of the metric, or 8% of the full run's mean."
        ),
    ] = "8%",
    metric: Annotated[
        str,
        typer.Option(
            help="identity, colour, or a metric such as dinov2 or dinov2=FOLDER; `recast-probe "
            "doctor` lists all."
        ),
    ] = "identity",
    images: Annotated[
        str,
        typer.Option(
            help="Your references and prompts: a CSV or JSONL file, or the folder that holds one; "
            "or a benchmark as NAME or NAME=FOLDER: pocket, kontextbench, dreambench, dreambooth."
        ),
    ] = "pocket",
    subjects: Annotated[
        int | None,
        typer.Option(
            help="Subjects at most, fixed before the first run; all by default.",
            parser=whole("--subjects", 1),
            metavar=WHOLE,
        ),
    ] = None,
    prompts: Annotated[
        int,
        typer.Option(help="Prompts for each subject.", parser=whole("--prompts", 1), metavar=WHOLE),
    ] = 1,
    looks: Annotated[
        int,
        typer.Option(
            help="How often the verdict is looked at.", parser=whole("--looks", 1), metavar=WHOLE
        ),
    ] = 5,
    budget: Annotated[
        str | None,
        typer.Option(
            help="How many tokens stay from step 1 on: 64, 0.25 or 25% of the reference, or "
            "eq4:MIN:MAX:GAMMA.",
            show_default="eq4; all of them for the methods that reuse",
        ),
    ] = None,
    refresh: Refresh = None,
    computed: Computed = None,
    blocks: Blocks = "paper",
    masks: Annotated[
        str,
        typer.Option(
            help="What finds the subject where no mask is given: u2netp+grabcut, u2netp, or none "
            "to score whole images."
        ),
    ] = "u2netp+grabcut",
    no_controls: Annotated[
        bool,
        typer.Option("--no-controls", help="Only the verdict, and the run without a reference."),
    ] = False,
    model: Model = "pocket",
    steps: Steps = 28,
    seed: Seed = 0,
    dtype: DataType = "auto",
    device: Device = "cpu",
    cpu_offload: CpuOffload = False,
) -> None:
    """Decide whether a saving loses less than a limit, and whether it beats other ones.

    The exit code is 0 where it passes, 1 where it fails, 3 where it cannot be told, and 2 for an
    error. The same command goes on where it was stopped.
    """
    from recast_probe.figures import save_figure
    from recast_probe.report.gate_page import write_gate_page
    from recast_probe.selection.budget_language import as_budget
    from recast_probe.studies import markdown
    from recast_probe.studies.gate import gate as run_gate
    from recast_probe.studies.gate.equal_cost import CONTROLS, NONE
    from recast_probe.studies.gate.loss_limit import Limit
    from recast_probe.studies.gate.runs import fewer_steps

    if method not in SAVING:
        raise InputError(
            f"--method {method} is no saving that a gate knows; there are {', '.join(SAVING)}."
            + did_you_mean(method, SAVING)
        )
    allowed, chosen_blocks = Limit.parse(limit), parse_blocks(blocks)
    if budget is not None:
        as_budget(budget)
    fewer_steps(method, computed, steps)
    # the same command goes on with its own runs, so what is there is no other result
    check_output(out, (), overwrite=True)
    check_model(model, dtype, device, cpu_offload=cpu_offload)
    check_blocks(chosen_blocks, model, False)
    name, cases, finder = _cases(images, subjects, prompts, seed, masks)
    probe = open_probe(model, dtype, device, cpu_offload=cpu_offload)
    folder = output_folder(out)
    found = run_gate(
        probe,
        cases,
        method,
        limit=allowed,
        out=folder,
        metric=metric,
        steps=steps,
        budget=budget,
        blocks=chosen_blocks,
        refresh=refresh,
        computed=computed,
        controls=[NONE] if no_controls else CONTROLS,
        looks=looks,
        seed=seed,
        finder=finder,
        settings={"benchmark": name, "prompts": prompts, "masks": masks},
        announce=note,
    )
    figure = found.plot()
    pictures = save_figure(figure, folder / "gate")
    page = write_gate_page(folder / "report.html", found, figure)
    found.save(folder, [*pictures, page])
    emit(
        found.to_dict(),
        [found.sentence(), "", *found.control_sentences(), "", markdown([*found.rows()])],
    )
    note(f"Report: {page}")
    raise typer.Exit(EXIT_CODES[found.verdict])


def _cases(
    images: str, subjects: int | None, prompts: int, seed: int, masks: str
) -> tuple[str, list[Case], MaskFinder | None]:
    """The benchmark's name, its cases, and what finds subjects in outputs."""
    from recast_probe.datasets import load_benchmark, named_benchmark
    from recast_probe.masks import mask_finder

    name, path = named_benchmark(images)
    # PocketBench has all masks
    finder = None if name == "pocket" else mask_finder(masks)
    cases = load_benchmark(name, path, subjects=subjects, prompts=prompts, seed=seed, masks=finder)
    if not cases:
        raise InputError(f"--images {images} holds no cases.")
    return name, cases, finder
