"""The text-to-image lens: what the text tokens of a run with a reference carry, made visible.

In an in-context transformer text tokens read the reference too, and hand on what they read. Put
into a run that has no reference, their activations can only bring what they carry themselves.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
import xarray as xr
from PIL import Image
from tqdm.auto import tqdm

from recast_probe._utils.checks import check_indices
from recast_probe._utils.markup import html_table
from recast_probe._utils.text_format import spans
from recast_probe.blocks import select_blocks
from recast_probe.errors import InputError
from recast_probe.experiments.block_groups import windows
from recast_probe.interventions.patch import Patch
from recast_probe.interventions.record import LIMIT, Record
from recast_probe.interventions.token_groups import TEXT_PARTS
from recast_probe.runs.text_inputs import check_one_prompt

if TYPE_CHECKING:
    from recast_probe.images.loading import ImageSources
    from recast_probe.probe import Probe

Window = tuple[int, ...]


@dataclass(frozen=True, eq=False)
class TextLens:
    """Images of a run without a reference, into which text activations were patched.

    Attributes:
        images: by (blocks, steps) that were patched.
        without, full: the run without a reference as it is, and the run with it.
        prompt, steps, seed: of all runs; no prompt where embeddings were given.
        provenance: of the recorded run, and of every image by (blocks, steps).

    Examples:
        >>> from PIL import Image
        >>> black, grey = Image.new("RGB", (8, 8)), Image.new("RGB", (8, 8), (51, 51, 51))
        >>> lens = TextLens({((0,), (0, 1)): grey}, black, grey, "a cat", 2, 0, {})
        >>> lens.change().values
        array([[0.2]])
    """

    images: Mapping[tuple[Window, Window], Image.Image]
    without: Image.Image
    full: Image.Image
    prompt: str | None
    steps: int
    seed: int
    provenance: Mapping[Any, dict[str, Any]]

    @property
    def blocks(self) -> list[Window]:
        """Windows of blocks, in order."""
        return list(dict.fromkeys(blocks for blocks, _ in self.images))

    @property
    def patched_steps(self) -> list[Window]:
        """Windows of steps, in order."""
        return list(dict.fromkeys(steps for _, steps in self.images))

    def change(self) -> xr.DataArray:
        """How far each image is from the unpatched run, (block, step), as a fraction of the
        range of a pixel: mean absolute difference. 0 means that the text brought nothing."""
        plain = np.asarray(self.without, np.float64)
        values = [
            [
                float(np.abs(np.asarray(self.images[b, s], np.float64) - plain).mean() / 255)
                for s in self.patched_steps
            ]
            for b in self.blocks
        ]
        return xr.DataArray(
            values,
            dims=("block", "step"),
            coords={
                "block": [spans(window) for window in self.blocks],
                "step": [spans(window) for window in self.patched_steps],
            },
            name="change",
            attrs={"units": "fraction of the range of a pixel"},
        )

    def rows(self) -> tuple[list[dict[str, Image.Image | None]], list[str]]:
        """Rows of images and their labels, for ``figures.plot_images``: one row a window of
        blocks, one column a window of steps, then the two whole runs."""
        rows: list[dict[str, Image.Image | None]] = [
            {
                **{f"steps {spans(s)}": self.images[b, s] for s in self.patched_steps},
                "no reference": self.without,
                "with reference": self.full,
            }
            for b in self.blocks
        ]
        return rows, [f"text after block {spans(window)}" for window in self.blocks]

    def _repr_html_(self) -> str:
        change = self.change()
        least, most = float(change.min()), float(change.max())
        return html_table(f"TextLens of {self.prompt!r}, change {least:.4f} to {most:.4f}")


def text_lens(
    probe: Probe,
    image: ImageSources,
    prompt: str | None,
    blocks: Any = "all",
    lens_steps: int | Sequence[int] | None = None,
    block_window: int = 1,
    step_window: int | None = None,
    tokens: str = "text",
    indices: Sequence[int] | None = None,
    steps: int = 28,
    seed: int = 0,
    limit: int = LIMIT,
    progress: bool = True,
    **pipeline_arguments: Any,
) -> TextLens:
    """Decode intermediate text activations of a run through a run with no reference.

    The residual stream of the text tokens, as it leaves a block of the run with the reference, is
    put into the run without one, at the same block and step; everything else is that run's own.
    The prompt is embedded anew in every step, so what one step was given is gone in the next:
    by default all steps are patched together. Later blocks read no more of the reference, so an
    early block shows less than what the text carries in the end. Needs two runs, and one for each
    pair of windows.

    Args:
        blocks: see ``select_blocks``.
        lens_steps: step indices; None for all.
        block_window, step_window: neighbours that are patched together; None for all.
        tokens: "text", or one of its parts: "padding", "vision" or "prompt".
        indices: some of these tokens; None for all.
        limit: most bytes to record.

    The other arguments are those of ``Probe.generate``.

    Raises:
        InputError: settings that do not fit; nothing has run.
        VerificationError: a check of exactness failed during a run.

    Examples:
        >>> from recast_probe.testing import tiny
        >>> probe, image = rp.Probe(tiny.build_tiny_pipeline()), tiny.tiny_image()
        >>> lens = text_lens(probe, image, "a cat", blocks=[1, 4], steps=2, progress=False)
        >>> lens.blocks, lens.patched_steps
        ([(1,), (4,)], [(0, 1)])
    """
    check_one_prompt("The text lens takes", prompt, pipeline_arguments)
    if tokens not in ("text", *TEXT_PARTS):
        parts = ", ".join(TEXT_PARTS)
        raise InputError(f"The text lens shows text tokens or a part ({parts}), not {tokens!r}.")
    if probe.family.needs_reference:
        raise InputError(
            f"The text lens needs a run without a reference, and {type(probe.pipe).__name__} makes "
            "no image without one."
        )
    layout = probe.layout(image, **pipeline_arguments)
    if not layout.reference_tokens:
        raise InputError("There is no reference to look for in the text; give a reference image.")
    chosen = None if indices is None else tuple(indices)
    block_windows = windows(select_blocks(blocks, probe.block_kinds), block_window)
    step_windows = windows(check_indices("steps", lens_steps, steps), step_window)
    record = Record("residual", tokens, chosen, blocks, lens_steps, limit)
    settings = {"steps": steps, "seed": seed, "progress": False, **pipeline_arguments}
    bar = tqdm(total=2 + len(block_windows) * len(step_windows), disable=not progress, desc="Runs")
    with bar:
        full = probe.generate(image, prompt, interventions=[record], **settings)
        bar.update()
        assert full.activations is not None
        # where the pipeline takes the size from the reference, the other runs have the same
        made = probe.pipeline_arguments(image, prompt, steps, seed, **pipeline_arguments)
        settings |= {name: made[name] for name in ("height", "width") if name in made}
        without = probe.generate(None, prompt, **settings)
        bar.update()
        images, provenance = {}, {"full": full.provenance, "without": without.provenance}
        for place in [(b, s) for b in block_windows for s in step_windows]:
            patch = Patch(full.activations, blocks=place[0], steps=place[1])
            result = probe.generate(None, prompt, interventions=[patch], **settings)
            images[place], provenance[str(place)] = result.image, result.provenance
            bar.update()
    return TextLens(images, without.image, full.image, prompt, steps, seed, provenance)
