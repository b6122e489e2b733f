"""Patching: activations of another run in the place of a run's own."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
from torch import Tensor

from recast_probe._utils.checks import check_indices
from recast_probe.errors import InputError, UnsupportedPipelineError
from recast_probe.interventions.base import RunContext
from recast_probe.interventions.places import ActivationHook, AtHookPoints, checked_what
from recast_probe.interventions.token_groups import TEXT_PARTS
from recast_probe.profiles.activations import Activations, HookPoint, token_positions

if TYPE_CHECKING:
    from recast_probe.pipelines.base import Family


class PatchHook(ActivationHook):
    """Answers with what was recorded in another run."""

    def __init__(self, settings: Patch, run: RunContext) -> None:
        super().__init__(settings, run)
        self._source, self._wanted = settings.source, settings.source_positions(run)
        self._patched = 0

    def visit(self, point: HookPoint, values: list[Tensor]) -> list[Tensor]:
        new = self._source.select(point, self._wanted).to(values[0].device)
        if len(new) == 1:
            new = new.expand(len(values[0]), *new.shape[1:])
        self._patched += 1
        return list(new.split([each.shape[1] for each in values], dim=1))

    def facts(self) -> dict[str, Any]:
        return {"places_patched": self._patched}


@dataclass(frozen=True)
class Patch(AtHookPoints):
    """Put activations of another run into this one, at the same blocks and steps.

    Activation patching, as in causal tracing (Meng et al., arXiv 2202.05262).

    The source is a run of the same model from the same noise, with another reference or prompt;
    only the patched group must be alike in both layouts, so text activations of a run with a
    reference fit into a run without one. Several patches, and other interventions, act in their
    order in the list. Patched residual states are those that later blocks read; what the block
    itself computed from them stays.

    Attributes:
        source: what was recorded; see ``Probe.record``.
        what: "keys", "values", "attention output", "residual", "embeddings", several of them, or
            None for all that the source has.
        tokens: a token group; None for the source's own.
        indices: some tokens of the group, by index within it; None for all, or where ``tokens`` is
            None all of the source's.
        blocks: see ``select_blocks``; None for all that the source has.
        steps: step index or indices; None for all that the source has.

    Raises:
        InputError: a source that holds no activations, an unknown kind of them, or ``indices``
            without ``tokens``. When the run is prepared: a run that is not like the source.

    Examples:
        >>> from recast_probe.testing import tiny
        >>> probe = rp.Probe(tiny.build_tiny_pipeline())
        >>> settings = {"steps": 2, "progress": False}
        >>> found = probe.record(tiny.tiny_image(), "a cat", tokens="text", **settings)
        >>> patch = Patch(found, blocks="double")
        >>> probe.generate(None, "a cat", interventions=[patch], **settings).image.size
        (64, 64)
    """

    source: Activations
    what: str | tuple[str, ...] | None = None
    tokens: str | None = None
    indices: tuple[int, ...] | None = None
    blocks: Any = None
    steps: Any = None

    def __post_init__(self) -> None:
        if not isinstance(self.source, Activations):
            raise InputError(f"A patch takes recorded activations, not {self.source!r}.")
        if self.what is not None:
            checked_what(self.what)
        if self.tokens is None and self.indices is not None:
            raise InputError("indices count within a token group; give tokens as well.")

    def kinds(self) -> tuple[str, ...]:
        return self.source.what if self.what is None else super().kinds()

    def chosen_blocks(self, run: RunContext) -> list[int]:
        return self.source.blocks if self.blocks is None else super().chosen_blocks(run)

    def chosen_steps(self, run: RunContext) -> list[int]:
        return (
            self.source.steps
            if self.steps is None
            else check_indices("steps", self.steps, run.steps)
        )

    def positions(self, run: RunContext) -> np.ndarray:
        return self.source.positions if self.tokens is None else super().positions(run)

    def source_positions(self, run: RunContext) -> np.ndarray:
        """Positions of the same tokens in the source's run; parts of the text are this run's."""
        if self.tokens is None or self.tokens in TEXT_PARTS:
            return self.positions(run)
        return token_positions(self.source.layout, self.tokens, self.indices)

    def prepare(self, run: RunContext) -> None:
        source = self.source
        if tuple(run.block_kinds) != source.block_kinds:
            raise InputError(
                f"The activations are from a model of {len(source.block_kinds)} blocks, and this "
                f"one has {len(run.block_kinds)} or other kinds of them."
            )
        if source.prompts not in (1, run.prompts):
            raise InputError(
                f"The activations are of {source.prompts} prompts, and this run has {run.prompts}."
            )
        self._check_steps(run)
        self._check_layout(run)
        absent = [branch for branch in run.branches if branch not in source.branches]
        if absent:
            raise InputError(
                f"The activations have no {absent[0]} branch, and this run has one; record them "
                "with the same true_cfg_scale and negative_prompt."
            )
        wanted = self.source_positions(run)
        for point in self._points(run):
            source.select(point, wanted)

    def _check_steps(self, run: RunContext) -> None:
        source = self.source
        for step in self.chosen_steps(run):
            if step >= min(run.steps, len(source.timesteps)) or not np.isclose(
                run.timesteps[step], source.timesteps[step], rtol=1e-6, atol=1e-6
            ):
                raise InputError(
                    f"Step {step} of the two runs is not at the same timestep: the activations are "
                    f"of a run of {len(source.timesteps)} steps, this one has {run.steps}. Record "
                    "and patch with the same steps and image size."
                )

    def _check_layout(self, run: RunContext) -> None:
        """The patched groups must be alike; what is not patched need not be."""
        layout, source = run.layout, self.source.layout
        mine, theirs = self.positions(run), self.source_positions(run)
        pairs: list[tuple[str, Any, Any]] = [("text", layout.text, source.text)]
        if mine[-1] >= layout.text:
            pairs.append(("generation", layout.generation, source.generation))
        if mine[-1] >= layout.text + layout.generation.size:
            pairs.append(("reference", layout.references, source.references))
        for group, own, other in pairs:
            if own != other:
                raise InputError(
                    f"The {group} tokens of the two runs differ: {_named(other)} in the "
                    f"activations, {_named(own)} here. Patch between runs of one image size."
                )
        if not np.array_equal(mine, theirs):
            raise InputError("The tokens to patch stand at other positions in the two runs.")

    def _points(self, run: RunContext) -> Iterator[HookPoint]:
        for what in self.kinds():
            for block in [0] if what == "embeddings" else self.chosen_blocks(run):
                for step in self.chosen_steps(run):
                    for branch in run.branches:
                        yield HookPoint(what, branch, step, block)

    @contextmanager
    def attached(self, family: Family, run: RunContext) -> Iterator[PatchHook]:
        transformer = family.transformer
        if self.source.dtype != transformer.dtype:
            raise InputError(
                f"The activations are {self.source.dtype}, and the model runs in "
                f"{transformer.dtype}; record them with the same dtype."
            )
        text = self.positions(run)[0] < run.layout.text
        if text and family.replaces_text_states and "residual" in self.kinds():
            raise UnsupportedPipelineError(
                f"{family.name} replaces a part of every text token's state before each block, so "
                "a patched residual of text would not reach the next one whole; patch image "
                "tokens, or keys, values or embeddings."
            )
        with PatchHook(self, run).watching(family) as hook:
            yield hook

    def describe(self) -> dict[str, Any]:
        settings = super().describe()
        chosen = ("blocks", "steps")
        return settings | {
            "what": list(self.kinds()),
            "tokens": self.source.tokens if self.tokens is None else self.tokens,
            "indices": "all" if self.indices is None else settings["indices"],
            **{name: "recorded" for name in chosen if getattr(self, name) is None},
        }


def _named(group: Any) -> str:
    if isinstance(group, tuple):
        return " and ".join(map(str, group)) or "none"
    return str(group)
