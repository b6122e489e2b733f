"""The hooks of an intervention, and what it is told about the run."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, ClassVar

import numpy as np

from recast_probe.content.description import described
from recast_probe.errors import InputError
from recast_probe.layout import TokenLayout

if TYPE_CHECKING:
    from torch import Tensor

    from recast_probe.attention.inputs import AttentionInputs
    from recast_probe.attention.readout import Readout
    from recast_probe.pipelines.base import Family
    from recast_probe.profiles.activations import Activations
    from recast_probe.profiles.profile import AttentionProfile
    from recast_probe.selection.rankings import Ranking


@dataclass(frozen=True)
class Recording:
    """Attention statistics that an intervention needs from its own run.

    Attributes:
        blocks: block selection, as in ``Probe.profile``.
        steps: step indices.
        queries: the token group whose attention to the reference is read.
    """

    blocks: Any
    steps: tuple[int, ...]
    queries: str = "generation"


def describe_blocks(blocks: Any) -> Any:
    """A block selection, ready for JSON."""
    return described(blocks if isinstance(blocks, str | int | np.integer) else list(blocks))


def _unknown_padding() -> Mapping[str, np.ndarray]:
    raise InputError("It is not known which text tokens of this run are padding.")


@dataclass
class RunContext:
    """A run, known before its first step.

    Attributes:
        layout: tokens of the full sequence, in the conditional branch.
        layouts: the same by branch, where branches differ in their text tokens.
        timesteps: float64, shape (step,), the scheduler's timesteps.
        sigmas: float64, shape (step,).
        block_kinds: "double" or "single" for every block of the model.
        prompts: number of prompts that run in one batch.
        ranking: left here by an intervention that ranks the tokens during the run.
        similarity: by step, float64 (prompt, block, reference token): cosine with the mean
            generation token, left here by an intervention that records it.
        demanded: steps that must be computed, since something reads or keeps what they compute.
        present: int64, the reference tokens that are present in the current step, in the numbering
            of the full sequence; None for all.
        group_sizes: of merged reference tokens in the current call, int64: how many tokens each of
            them stands for; None where none are merged.
        padding: by branch, bool (prompt, text token): which text tokens are padding. A function,
            because few interventions ask; it raises where the family does not know.
        vision: the same for text tokens that stand for parts of a picture.
        branches: the transformer calls of one step, by name.
        activations: left here by an intervention that records them.
    """

    layout: TokenLayout
    timesteps: np.ndarray
    sigmas: np.ndarray
    block_kinds: Sequence[str]
    prompts: int = 1
    ranking: Ranking | None = field(default=None)
    similarity: dict[int, np.ndarray] = field(default_factory=dict)
    demanded: frozenset[int] = frozenset()
    present: np.ndarray | None = field(default=None)
    group_sizes: Tensor | None = field(default=None)
    padding: Callable[[], Mapping[str, np.ndarray]] = field(default=_unknown_padding)
    vision: Callable[[], Mapping[str, np.ndarray]] = field(default=dict)
    branches: Sequence[str] = ("conditional",)
    layouts: dict[str, TokenLayout] = field(default_factory=dict)
    activations: Activations | None = field(default=None)

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
    """

    run: RunContext
    step: int
    profile: Callable[[], AttentionProfile]

    @property
    def sigma(self) -> float:
        """Noise level of this step."""
        return float(self.run.sigmas[self.step])


class Attachment:
    """What an intervention does inside the blocks of one run; see ``Intervention.attached``."""

    def begin_call(self, step: int, branch: str, layout: TokenLayout) -> None:
        """A transformer call is about to run, with the tokens of this layout."""

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
        """Attention of this block goes through the two hooks below in this call."""
        return False

    def attention_inputs(self, block: int, inputs: AttentionInputs) -> AttentionInputs:
        """What the block attends with; statistics are those of the changed attention."""
        return inputs

    def attention_output(self, block: int, output: Tensor) -> Tensor:
        """The block's attention output (batch, query, head, dim), before its projection."""
        return output

    def facts(self) -> dict[str, Any]:
        """What was done in the run, ready for JSON."""
        return {}


class Intervention:
    """Base of all interventions; every hook may be left as it is.

    An intervention holds its settings only. What belongs to one run is kept in the RunContext, so
    the same object may serve any number of runs.

    Attributes:
        needs_full_reference: it cannot be combined with interventions that drop reference tokens.
        needs_reference_rows: it cannot be combined with one that does not compute these tokens.
        ranks: it leaves a ranking in the RunContext; one in a run may.
        caches: it skips work of the blocks by a cache; one in a run may.
    """

    needs_full_reference: ClassVar[bool] = False
    needs_reference_rows: ClassVar[bool] = False
    ranks: ClassVar[bool] = False
    caches: ClassVar[bool] = False

    def recording(self, run: RunContext) -> Recording | None:
        """The statistics this intervention needs from its own run; None for none."""
        return None

    def prepare(self, run: RunContext) -> None:
        """Check the settings against the run, before anything is computed.

        Raises:
            InputError: the settings do not fit the run.
        """

    def reference_tokens(self, step: StepContext) -> np.ndarray | None:
        """Indices of the reference tokens that stay in this step, ascending, in the numbering of
        the full sequence; None leaves all of them."""
        return None

    def edit_inputs(
        self, step: StepContext, inputs: Mapping[str, Any], family: Family
    ) -> Mapping[str, Any] | None:
        """Other inputs for one transformer call of this step, after tokens were dropped; None
        leaves them."""
        return None

    def unrecordable_steps(self, run: RunContext) -> set[int]:
        """Steps in which attention cannot be recorded while this intervention acts."""
        return set()

    def reading_steps(self, run: RunContext) -> set[int]:
        """Steps in which this intervention reads or changes attention or hidden states itself."""
        return set()

    def reference_row_steps(self, run: RunContext) -> set[int]:
        """Those of ``reading_steps`` in which it needs the reference tokens' own queries or hidden
        states, and not just their keys and values."""
        return self.reading_steps(run)

    def full_reference_steps(self, run: RunContext) -> set[int]:
        """Steps in which it needs all reference tokens, whatever other interventions do."""
        return set()

    def reused_steps(self, run: RunContext) -> set[int]:
        """Steps that compute no reference token: keys and values of those that stay come from
        ``Attachment.stored_keys``."""
        return set()

    def renewed_steps(self, run: RunContext) -> set[int]:
        """Steps that compute all reference tokens, also those that others would drop."""
        return set()

    @contextmanager
    def attached(self, family: Family, run: RunContext) -> Iterator[Attachment | None]:
        """Around the whole run, before the probe attaches: a place to change the blocks.

        On the way out, also after an exception, everything is as it was before.

        Yields:
            What takes part in the run; None for nothing.

        Raises:
            InputError: it does not fit; nothing has run.
        """
        yield None

    def describe(self) -> dict[str, Any]:
        """The settings, ready for JSON."""
        return {"name": type(self).__name__}
