"""What the pipelines of FLUX.1 and FLUX.2 have in common: blocks, schedule and position ids."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import replace
from typing import Any

import numpy as np
import torch
from PIL import Image

from recast_probe.errors import InputError, VerificationError
from recast_probe.layout import Grid, TokenLayout
from recast_probe.pipelines.base import Family, Schedule
from recast_probe.pipelines.flow_schedule import shifted_schedule, unshifted_sigmas

LONGEST_PROMPT = 512
MEGAPIXEL = 1024 * 1024


def truncated(tokenizer: Any, prompts: list[str], length: int) -> list[tuple[int, int]]:
    """Number and lost tokens of each prompt that a tokenizer cuts to this length."""
    # verbose=False: the tokenizer would warn of a length that nothing is given
    found = tokenizer(prompts, truncation=False, verbose=False)["input_ids"]
    return [(n, len(ids) - length) for n, ids in enumerate(found) if len(ids) > length]


class Flux(Family):
    """Shared by the families of FLUX.1 and FLUX.2; not a family itself.

    Attributes:
        stacks: kind of block, and the transformer's list of them, in the order in which they run.
    """

    leaves_flow_sigmas = True
    stacks = (("double", "transformer_blocks"), ("single", "single_transformer_blocks"))

    def lacking(self) -> list[str]:
        transformer = self.transformer
        return [
            f"transformer.{stack}"
            for _, stack in self.stacks
            if not isinstance(getattr(transformer, stack, None), torch.nn.ModuleList)
        ]

    def block_places(self) -> Iterator[tuple[str, str, int]]:
        """Kind, stack and index in the stack of every block, in the order in which they run."""
        for kind, stack in self.stacks:
            for index in range(len(getattr(self.transformer, stack))):
                yield kind, stack, index

    @property
    def transformer(self) -> torch.nn.Module:
        return self.pipe.transformer

    @property
    def heads(self) -> int:
        return int(self.pipe.transformer.config.num_attention_heads)

    @property
    def width(self) -> int:
        return self.heads * int(self.pipe.transformer.config.attention_head_dim)

    def image_side(self) -> int:
        """Side in pixels of the square images that the model was made for."""
        side = getattr(self.pipe.vae.config, "sample_size", None)
        return side if isinstance(side, int) and side > 0 else 1024

    def default_side(self) -> int:
        """Side in pixels of an output without a given size: at one megapixel the pipeline's own
        default, for a smaller model that of the images it was made for."""
        side = self.image_side()
        if side * side == MEGAPIXEL:
            return int(self.pipe.default_sample_size * self.pipe.vae_scale_factor)
        return side

    def token_pixels(self) -> int:
        """Side in pixels of the square that one token stands for."""
        return int(self.pipe.vae_scale_factor) * 2

    def check_one_token(self, image: Image.Image) -> None:
        """Raise InputError where a reference has a side below that of a token."""
        pixels = self.token_pixels()
        if min(image.size) < pixels:
            raise InputError(
                f"The reference image is {image.width} x {image.height} pixels, smaller than one "
                f"token ({pixels} x {pixels} pixels); give a larger one."
            )

    def output_grid(self, arguments: Mapping[str, Any]) -> Grid:
        """Generation tokens of an output of ``height`` by ``width`` pixels.

        Raises:
            InputError: none fits.
        """
        pixels = self.token_pixels()
        rows, columns = arguments["height"] // pixels, arguments["width"] // pixels
        if min(rows, columns) < 1:
            raise InputError(
                f"height={arguments['height']}, width={arguments['width']} give {rows} x {columns} "
                f"generation tokens; choose at least {pixels} x {pixels} pixels."
            )
        return Grid(rows, columns)

    def text_tokens(self, arguments: Mapping[str, Any], branch: str) -> int:
        """Text tokens of a branch: those of its embeddings, or all that a prompt is padded to."""
        given = self.given_embeddings(arguments, branch)
        return int(arguments["max_sequence_length"] if given is None else given.shape[1])

    def branch_layouts(
        self, layout: TokenLayout, arguments: Mapping[str, Any]
    ) -> dict[str, TokenLayout]:
        return {
            branch: replace(layout, text=self.text_tokens(arguments, branch))
            for branch in self.branch_names(arguments)
        }

    def block_lists(self) -> list[tuple[torch.nn.Module, str]]:
        return [(self.transformer, stack) for _, stack in self.stacks]

    def shift(self, scheduler: Any, tokens: int, steps: int) -> float:
        """By how much the scheduler shifts its sigmas for so many generation tokens and steps."""
        raise NotImplementedError

    def unshifted_sigmas(self, scheduler: Any, arguments: Mapping[str, Any]) -> Any:
        """Sigmas that the pipeline hands to its scheduler; None where that makes its own."""
        flow = self.leaves_flow_sigmas and scheduler.config.get("use_flow_sigmas")
        return None if flow else unshifted_sigmas(arguments)

    def predict_schedule(self, layout: TokenLayout, arguments: Mapping[str, Any]) -> Schedule:
        steps, scheduler = arguments["num_inference_steps"], self.pipe.scheduler
        sigmas = self.unshifted_sigmas(scheduler, arguments)
        shift = self.shift(scheduler, layout.generation.size, steps)
        return shifted_schedule(self.pipe, steps, sigmas, shift)

    def observed_timestep(self, inputs: Mapping[str, Any]) -> torch.Tensor:
        return inputs["timestep"].detach().double().cpu() * 1000

    def observed_embedding(self, inputs: Mapping[str, Any]) -> torch.Tensor:
        return inputs["encoder_hidden_states"]

    def image_grids(self, inputs: Mapping[str, Any]) -> list[Grid]:
        """Grids of the images that the image position ids stand for, generation first.

        Raises:
            VerificationError: the position ids are not raster grids.
        """
        positions = inputs["img_ids"]
        positions = positions[0] if positions.ndim == 3 else positions
        positions = positions.detach().float().cpu().numpy().round().astype(np.int64)
        images, counts = np.unique(positions[:, 0], return_counts=True)
        grids, start = [], 0
        for count in counts:
            part = positions[start : start + count]
            rows, columns = (part[:, axis].max() - part[:, axis].min() + 1 for axis in (1, 2))
            raster = np.stack(np.divmod(np.arange(rows * columns), columns), axis=1)
            found = part[:, 1:3] - part[:, 1:3].min(axis=0)
            # besides row and column, all tokens of an image have the same numbers
            others = np.ptp(np.delete(part, (1, 2), axis=1), axis=0)
            if others.any() or found.shape != raster.shape or (found != raster).any():
                raise VerificationError(
                    "The transformer's image position ids are not raster grids one after the other "
                    f"(images {images.tolist()}, {counts.tolist()} tokens); this pipeline does not "
                    f"lay out tokens as {self.name} does."
                )
            grids.append(Grid(rows=int(rows), columns=int(columns)))
            start += count
        return grids
