"""The hooks of an intervention, and what it is told about the run."""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

import numpy as np

# the name is a part of the digests of users' classes, by which their stored runs are found
from recast_probe.content.description import describe_by_name as _by_name
from recast_probe.errors import InputError, UnsupportedPipelineError
from recast_probe.interventions.needs import Needs
from recast_probe.layout import TokenLayout

if TYPE_CHECKING:
    from torch import Tensor

    from recast_probe.attention.inputs import AttentionInputs
    from recast_probe.attention.readout import Readout
    from recast_probe.pipelines.base import Family
    from recast_probe.profiles.profile import AttentionProfile


def describe_tokens(tokens: Sequence[int]) -> tuple[int, str]:
    """How many token indices there are, and their SHA-256 (hexadecimal)."""
    return len(tokens), hashlib.sha256(np.array(tokens, dtype="<i8").tobytes()).hexdigest()


def _unknown_padding() -> Mapping[str, np.ndarray]:
    raise InputError("It is not known which text tokens of this run are padding.")


@dataclass
class RunContext:
    """A run, known before its first step.

    Attributes:
        layout: tokens of the full sequence, in the conditional branch.
        layouts: the same by branch, where branches differ in their text tokens.
        timesteps: float64, shape (step,), the scheduler's timesteps, descending.
        sigmas: float64, shape (step,), noise levels, 1 = pure noise.
        block_kinds: "double" or "single" for every block of the model.
        heads: attention heads of every block.
        prompts: number of prompts that run in one batch.
        demanded: steps that must be computed, since something reads or keeps what they compute.
        present: int64, the reference tokens that are present in the current step, in the numbering
            of the full sequence; None for all.
        padding: by branch, bool (prompt, text token): which text tokens are padding. A function,
            because few interventions ask; it raises where the family does not know.
        vision: the same for text tokens that stand for parts of a picture.
        branches: of guidance, by name.
        batched: branches are rows of one transformer call, and not calls of their own.

    Examples:
        >>> run = RunContext(
        ...     layout=rp.TokenLayout(3, rp.Grid(4, 4), (rp.Grid(4, 4),)),
        ...     timesteps=np.array([1000.0, 500.0]),
        ...     sigmas=np.array([1.0, 0.5]),
        ...     block_kinds=["double", "single"],
        ... )
        >>> run.steps, run.reference_tokens
        (2, 16)
    """

    layout: TokenLayout
    timesteps: np.ndarray
    sigmas: np.ndarray
    block_kinds: Sequence[str]
    prompts: int = 1
    heads: int = 1
    demanded: frozenset[int] = frozenset()
    present: np.ndarray | None = None
    padding: Callable[[], Mapping[str, np.ndarray]] = field(default=_unknown_padding)
    vision: Callable[[], Mapping[str, np.ndarray]] = field(default=dict)
    branches: Sequence[str] = ("conditional",)
    batched: bool = False
    layouts: dict[str, TokenLayout] = field(default_factory=dict)

    @property
    def steps(self) -> int:
        """Number of denoising steps."""
        return len(self.timesteps)

    def layout_of(self, branch: str) -> TokenLayout:
        """Tokens of the full sequence in a branch."""
        return self.layouts.get(branch, self.layout)

    @property
    def reference_tokens(self) -> int:
        """Number of reference tokens in the full sequence."""
        return self.layout.reference_tokens


@dataclass(frozen=True)
class StepContext:
    """One step of a run, before the transformer is called.

    Attributes:
        run: the run.
        step: step index, 0 = highest noise.
        profile: builds the profile of what has been recorded in the run so far.

    Examples:
        >>> layout = rp.TokenLayout(3, rp.Grid(4, 4))
        >>> run = RunContext(layout, np.array([1000, 500]), np.array([1, 0.5]), ["single"])
        >>> StepContext(run, step=1, profile=lambda: None).sigma
        0.5
    """

    run: RunContext
    step: int
    profile: Callable[[], AttentionProfile]

    @property
    def sigma(self) -> float:
        """Noise level of this step."""
        return float(self.run.sigmas[self.step])


def blocks_with_states(family: Family, run: RunContext) -> Sequence[Any]:
    """Every block, to have hooks on its hidden states; see ``Family.block_modules``.

    Raises:
        UnsupportedPipelineError: the family's tokens have none, or those of several branches of
            guidance are rows of one call.
    """
    if run.batched:
        raise UnsupportedPipelineError(
            f"{family.name} runs {' and '.join(run.branches)} as rows of one call, and hidden "
            "states are read and changed by call; switch guidance off."
        )
    if family.no_block_states:
        raise UnsupportedPipelineError(
            f"{family.name} {family.no_block_states}, so hidden states of its blocks can be "
            "neither read nor changed; keys, values and attention output can."
        )
    return family.block_modules()


def text_first(family: Family, output: Tensor | list[Tensor] | tuple[Tensor, ...]) -> list[Tensor]:
    """What a block returns, or what was made of it, the states of text before those of images; a
    second time it is as the block returns it."""
    states = list(output) if isinstance(output, list | tuple) else [output]
    return states[::-1] if family.image_states_first else states


class RunHook:
    """What an intervention does in one run; every method may be left as it is.

    In every step the tokens that stay are chosen first; in every call of the transformer its inputs
    are edited, and then its blocks run.

    Examples:
        >>> class HalveOutput(RunHook):
        ...     def changes_attention(self, block):
        ...         return block == 0
        ...     def attention_output(self, block, output):
        ...         return output / 2
        >>> HalveOutput().changes_attention(0), HalveOutput().skips()
        (True, False)
    """

    def reference_tokens(self, step: StepContext) -> np.ndarray | None:
        """Indices of the reference tokens that stay in this step, ascending, in the numbering of
        the full sequence; None leaves all of them. ``Needs.drops`` must hold the step."""
        return None

    def edit_inputs(
        self, step: StepContext, inputs: Mapping[str, Any], family: Family
    ) -> Mapping[str, Any] | None:
        """Other inputs for one transformer call of this step, after tokens were dropped; None
        leaves them."""
        return None

    def begin_call(self, step: int, branch: str, layout: TokenLayout) -> None:
        """A transformer call is about to run, with the tokens of this layout."""

    def begin_rows(self, branch: str) -> None:
        """What is asked next is of the rows of this branch, where one transformer call holds those
        of several; at the end of an attention call it is the first of them again."""

    def begin_inputs(self, inputs: Mapping[str, Any]) -> None:
        """The inputs of that call, as they enter the transformer."""

    def skips(self) -> bool:
        """No block runs in this call."""
        return False

    def stores_keys(self, block: int) -> bool:
        """Keys and values of this block are handed to ``store_keys`` in this call."""
        return False

    def store_keys(self, block: int, key: Tensor, value: Tensor) -> None:
        """What the block attends to, (batch, token, head, dim), rotary positions included."""

    def stored_keys(self, block: int) -> tuple[Tensor, Tensor] | None:
        """Keys and values of an earlier step, (batch, token, head, dim), that this block attends
        to in this call, after its own."""
        return None

    def attention_pairs(self, block: int) -> Sequence[tuple[str, str]]:
        """(query group, key group) pairs whose attention is read in this block in this call."""
        return ()

    def read_attention(self, block: int, readout: Readout) -> None:
        """What was read of ``attention_pairs``, all heads."""

    def changes_attention(self, block: int) -> bool:
        """Attention of this block goes through the three hooks below in this call."""
        return False

    def attention_inputs(self, block: int, inputs: AttentionInputs) -> AttentionInputs:
        """What the block attends with; statistics are those of the changed attention."""
        return inputs

    def attention_logits(self, block: int, inputs: AttentionInputs) -> AttentionInputs:
        """The same after ``attention_inputs`` of all interventions: what changes the logits, or
        reads them. Heads may be given more channels; those of the output are dropped again."""
        return inputs

    def attention_output(self, block: int, output: Tensor) -> Tensor:
        """The block's attention output (batch, query, head, dim), before its projection."""
        return output

    def facts(self) -> dict[str, Any]:
        """What was done in the run, ready for JSON; it is added to the provenance."""
        return {}

    def result(self, provenance: dict[str, Any]) -> Any:
        """What was found in the run, for ``RunResult.outcomes``; None for nothing.

        Args:
            provenance: how the run was made, ready for JSON.
        """
        return None

    def clear(self) -> None:
        """Let go of all tensors: the run is over, perhaps by an exception."""


class CallHook(RunHook):
    """One that knows which transformer call runs.

    Attributes:
        step, branch: of the call; step -1 before the first.
    """

    step = -1
    branch = ""

    def begin_call(self, step: int, branch: str, layout: TokenLayout) -> None:
        self.step, self.branch = step, branch

    def begin_rows(self, branch: str) -> None:
        self.branch = branch


class Intervention(RunHook):
    """Base of all interventions: settings, which serve any number of runs.

    What belongs to one run is kept in its ``hook``. An intervention that has nothing to keep serves
    as the hook itself.

    Examples:
        >>> from recast_probe.testing import tiny
        >>> probe = rp.Probe(tiny.build_tiny_pipeline())
        >>> class FirstFour(Intervention):
        ...     def needs(self, run):
        ...         return rp.interventions.Needs(drops=range(run.steps))
        ...     def reference_tokens(self, step):
        ...         return np.arange(4)
        >>> image, settings = tiny.tiny_image(), {"steps": 2, "progress": False}
        >>> result = probe.generate(image, "a cat", interventions=[FirstFour()], **settings)
        >>> result.reference_tokens_per_step
        (4, 4)
    """

    def prepare(self, run: RunContext) -> None:
        """Check the settings against the run, before anything is computed.

        Raises:
            InputError: the settings do not fit the run.
        """

    def needs(self, run: RunContext) -> Needs:
        """What it needs of a run that it was prepared for, and what it does to it."""
        return Needs()

    def hook(self, run: RunContext) -> RunHook:
        """What takes part in a run."""
        return self

    @contextmanager
    def attached(self, family: Family, run: RunContext) -> Iterator[RunHook]:
        """Around the whole run, before the probe attaches: a place to change the blocks.

        On the way out, also after an exception, everything is as it was before.

        Yields:
            The ``hook``.

        Raises:
            InputError: it does not fit; nothing has run.
        """
        hook = self.hook(run)
        try:
            yield hook
        finally:
            hook.clear()

    def describe(self) -> dict[str, Any]:
        """The settings, ready for JSON: the fields of a dataclass, or else all attributes; and of
        a user's class, the digest of its code and attributes."""
        return _by_name(self)


def as_interventions(given: Any) -> tuple[Intervention, ...]:
    """Interventions from one or several; none for None.

    Raises:
        InputError: something that is none.

    Examples:
        >>> as_interventions(rp.WithoutReference())
        (WithoutReference(),)
    """
    if given is None:
        return ()
    several = (given,) if isinstance(given, Intervention) else given
    if isinstance(several, str | Mapping) or not isinstance(several, Iterable):
        raise InputError(f"{given!r} is not an intervention, such as rp.Prune(ranking, 64).")
    found = tuple(several)
    for each in found:
        if isinstance(each, type) and issubclass(each, Intervention):
            raise InputError(f"{each.__name__} is a class; make one of it: {each.__name__}(...).")
        if not isinstance(each, Intervention):
            raise InputError(
                f"{each!r} is not an intervention, such as rp.Prune(ranking, 64); give one, or a "
                "list of them."
            )
    return found
