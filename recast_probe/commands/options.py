"""Options that several commands share."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from recast_probe.commands.values import MOST_STEPS, NUMBER, WHOLE, decimal, whole

Model = Annotated[
    str,
    typer.Option(
        help="'pocket' (bundled), a local diffusers folder, a hub repository, or 'tiny:FAMILY' for "
        "random weights without a download, such as tiny:flux2-klein (`recast-probe doctor` lists "
        "them)."
    ),
]
Device = Annotated[str, typer.Option(help="Where the model runs, such as cpu or cuda.")]
DataType = Annotated[str, typer.Option(help="auto, float32, bfloat16 or float16.")]
IPAdapter = Annotated[
    str | None,
    typer.Option(
        "--ip-adapter",
        help="For a FluxPipeline: the IP-Adapter's repository, folder or safetensors file; for "
        "the bundled model: pocket.",
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
MaskImage = Annotated[
    Path | None,
    typer.Option(
        "--mask-image",
        help="For a pipeline that repaints a part of its image: white where it does.",
    ),
]
Height = Annotated[
    int | None,
    typer.Option(
        help="Height of the output in pixels.",
        show_default="the pipeline's own",
        parser=whole("--height", 1),
        metavar=WHOLE,
    ),
]
Width = Annotated[
    int | None,
    typer.Option(
        help="Width of the output in pixels.",
        show_default="the pipeline's own",
        parser=whole("--width", 1),
        metavar=WHOLE,
    ),
]
NumFrames = Annotated[
    int | None,
    typer.Option(
        help="Frames of a video.",
        show_default="the pipeline's own",
        parser=whole("--num-frames", 1),
        metavar=WHOLE,
    ),
]
FrameIndex = Annotated[
    list[int] | None,
    typer.Option(
        help="For a video: the frame at which the reference is seen; repeat for several.",
        parser=whole("--frame-index"),
        metavar=WHOLE,
    ),
]
Overwrite = Annotated[
    bool, typer.Option("--overwrite", help="Replace results that are there already.")
]
NegativePrompt = Annotated[
    str | None, typer.Option(help="What true classifier-free guidance leads away from.")
]
TrueCfgScale = Annotated[
    float | None,
    typer.Option(
        help="Its scale, above 1.",
        show_default="the pipeline's own",
        parser=decimal("--true-cfg-scale"),
        metavar=NUMBER,
    ),
]
References = Annotated[
    list[Path],
    typer.Option(
        "--image",
        help="The reference image; repeat for models that take several. sample:waffle is one "
        "of the shipped samples; `recast-probe doctor` lists them.",
    ),
]
Blocks = Annotated[
    str, typer.Option(help="all, double, single, paper, or indices and names: 2,5,single.0.")
]
Refresh = Annotated[
    int | None,
    typer.Option(
        help="Reuse: store keys and values every so many steps.",
        parser=whole("--refresh", 1, MOST_STEPS),
        metavar=WHOLE,
        show_default="once, in step 0",
    ),
]
Computed = Annotated[
    int | None,
    typer.Option(
        help="Step cache and fewer steps: how many steps are computed.",
        parser=whole("--computed", 1, MOST_STEPS),
        metavar=WHOLE,
        show_default="5 of 7",
    ),
]
