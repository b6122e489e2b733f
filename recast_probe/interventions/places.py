"""Where activations come up in a run: the visits that recording and patching share."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import replace
from typing import TYPE_CHECKING, Any, Self

import numpy as np
import torch
from torch import Tensor

from recast_probe.errors import InputError
from recast_probe.interventions.base import RunContext, blocks_with_states, text_first
from recast_probe.interventions.needs import Needs
from recast_probe.interventions.selective import Selective, SelectiveHook
from recast_probe.interventions.token_groups import TEXT_PARTS, positions
from recast_probe.layout import TokenLayout
from recast_probe.profiles.activations import (
    IN_ATTENTION,
    IN_STREAM,
    WHAT,
    HookPoint,
    some_of,
    token_positions,
)

if TYPE_CHECKING:
    from recast_probe.attention.inputs import AttentionInputs
    from recast_probe.pipelines.base import Family


def checked_what(what: str | Sequence[str]) -> tuple[str, ...]:
    """Kinds of activations, in a fixed order.

    Raises:
        InputError: none, or an unknown one.
    """
    names = (what,) if isinstance(what, str) else tuple(what)
    unknown = [name for name in names if name not in WHAT]
    if unknown or not names:
        raise InputError(f"what is one or several of {', '.join(WHAT)}, not {what!r}.")
    return tuple(name for name in WHAT if name in names)


def group_positions(
    run: RunContext, tokens: str, indices: Sequence[int] | None = None
) -> np.ndarray:
    """`activations.token_positions` of a run's conditional branch, which also knows the parts of
    its text: "padding", "vision" and "prompt".

    Raises:
        InputError: no such group or index, or text tokens in a run whose prompt and negative prompt
            are not alike.
    """
    if tokens not in TEXT_PARTS:
        lengths = sorted({run.layout_of(branch).text for branch in run.branches})
        if tokens in ("text", "all") and len(lengths) > 1:
            raise InputError(
                f"Prompt and negative prompt have {' and '.join(map(str, lengths))} text tokens, "
                f"so {tokens} tokens do not correspond; choose image tokens, prompts of one "
                "length, or true_cfg_scale=1."
            )
        return token_positions(run.layout, tokens, indices)
    found = [positions(tokens, run, branch) for branch in run.branches]
    if any(not np.array_equal(found[0], each) for each in found):
        raise InputError(
            f"The {tokens} tokens of the prompt and of the negative prompt stand at other "
            "positions; choose tokens='text' with indices."
        )
    return some_of(found[0], tokens, indices)


class AtHookPoints(Selective):
    """Acts on activations of a token group.

    Attributes:
        what: kinds of activations, one or several.
        tokens: a token group; ``indices`` are some of it, None for all.
    """

    what: Any
    tokens: Any
    indices: tuple[int, ...] | None

    def kinds(self) -> tuple[str, ...]:
        """Kinds of activations, in a fixed order."""
        return checked_what(self.what)

    def positions(self, run: RunContext) -> np.ndarray:
        """Positions of the tokens in a run, int64, ascending."""
        return group_positions(run, self.tokens, self.indices)

    def needs(self, run: RunContext) -> Needs:
        steps = self.chosen_steps(run)
        own = self.positions(run)
        full = own[-1] >= run.layout.span("reference").start
        queries = [
            group
            for group in run.layout.groups
            if ((own >= run.layout.span(group).start) & (own < run.layout.span(group).stop)).any()
        ]
        return Needs(
            reads=steps,
            reference_rows=steps,
            full_reference=steps if full else (),
            inside_attention=bool(set(self.kinds()) & set(IN_ATTENTION)),
            queries=queries if "attention output" in self.kinds() else (),
        )


class ActivationHook(SelectiveHook):
    """Is shown the activations of a token group at chosen points, and may answer with others.

    Attributes:
        positions: int64, ascending, in the conditional branch's attention sequence with all
            reference tokens.
    """

    def __init__(self, settings: AtHookPoints, run: RunContext) -> None:
        super().__init__(run, settings.chosen_blocks(run), settings.chosen_steps(run), run.branches)
        self.what, self.positions = settings.kinds(), settings.positions(run)
        self._here = self.positions

    def visit(self, point: HookPoint, values: list[Tensor]) -> list[Tensor] | None:
        """The group's activations at a point, in order of position, cut into the tensors that
        hold them (the text's and the image's stream); others of the same shapes, or None."""
        raise NotImplementedError

    def begin_call(self, step: int, branch: str, layout: TokenLayout) -> None:
        super().begin_call(step, branch, layout)
        # image tokens stand after the text, whose length may differ between branches
        own, self._layout = self.run.layout, layout
        image = self.positions >= own.text
        self._here = self.positions + np.where(image, layout.text - own.text, 0)

    def changes_attention(self, block: int) -> bool:
        return bool(set(self.what) & set(IN_ATTENTION)) and super().changes_attention(block)

    def attention_inputs(self, block: int, inputs: AttentionInputs) -> AttentionInputs:
        if "keys" in self.what:
            inputs = replace(inputs, key=self._shown("keys", block, [inputs.key])[0])
        if "values" in self.what:
            inputs = replace(inputs, value=self._shown("values", block, [inputs.value])[0])
        return inputs

    def attention_output(self, block: int, output: Tensor) -> Tensor:
        if "attention output" not in self.what:
            return output
        return self._shown("attention output", block, [output])[0]

    @contextmanager
    def watching(self, family: Family) -> Iterator[Self]:
        """Hooks on the blocks where the residual stream is wanted, taken off on the way out.

        Raises:
            UnsupportedPipelineError: the family's tokens have no residual stream.
        """
        self._family = family
        with ExitStack() as stack:
            wanted = set(self.what) & set(IN_STREAM)
            modules = blocks_with_states(family, self.run) if wanted else []
            if "embeddings" in self.what:
                hook = modules[0].register_forward_pre_hook(self._before, with_kwargs=True)
                stack.callback(hook.remove)
            if "residual" in self.what:
                for block in self.blocks:
                    hook = modules[block].register_forward_hook(self._after(block))
                    stack.callback(hook.remove)
            yield self

    def _before(self, _: Any, arguments: Any, named: dict[str, Any]) -> Any:
        if not self.acts:
            return None
        # a block of one stream may be given the whole sequence as one tensor
        text = ("encoder_hidden_states",) if self._family.text_in_sequence else ()
        names = [name for name in (*text, "hidden_states") if named.get(name) is not None]
        streams = [named[name] for name in names]
        shown = self._shown_states("embeddings", 0, streams)
        return arguments, {**named, **dict(zip(names, shown, strict=True))}

    def _after(self, block: int) -> Any:
        def hook(_: Any, __: Any, output: Tensor | tuple[Tensor, Tensor]) -> Any:
            if not self.acts:
                return None
            shown = self._shown_states("residual", block, text_first(self._family, output))
            return (
                shown[0] if isinstance(output, Tensor) else tuple(text_first(self._family, shown))
            )

        return hook

    def _shown_states(self, what: str, block: int, states: list[Tensor]) -> list[Tensor]:
        """What a block takes or gives, after the visit."""
        ordered = self._family.states_in_order(states, self._layout)
        return self._family.states_of_block(self._shown(what, block, ordered))

    def _shown(self, what: str, block: int, streams: list[Tensor]) -> list[Tensor]:
        """The streams, one after the other the whole sequence, after the visit."""
        point = HookPoint(what, self.branch, self.step, block)
        start, parts = 0, []
        for stream in streams:
            own = self._here[(self._here >= start) & (self._here < start + stream.shape[1])]
            parts.append(torch.as_tensor(own - start, device=stream.device))
            start += stream.shape[1]
        if sum(map(len, parts)) < len(self._here):
            raise InputError(
                f"Some of the tokens whose {what} are asked for are not there in step {self.step}, "
                f"block {block}; choose steps in which all reference tokens are present."
            )
        held = [stream.index_select(1, part) for stream, part in zip(streams, parts, strict=True)]
        given = self.visit(point, held)
        if given is None:
            return streams
        # autocast may have made a stream narrower than what was recorded of it
        return [
            stream.index_copy(1, part, new.to(stream.dtype)) if len(part) else stream
            for stream, part, new in zip(streams, parts, given, strict=True)
        ]
