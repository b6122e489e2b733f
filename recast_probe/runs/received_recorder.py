"""What every token of the sequence receives, collected during one run."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from recast_probe.attention.readout import Readout
from recast_probe.errors import InputError, UnsupportedPipelineError, VerificationError
from recast_probe.interventions.base import RunContext
from recast_probe.interventions.needs import Needs
from recast_probe.interventions.selective import Selective, SelectiveHook
from recast_probe.profiles.received import ReceivedAttention

MASS_TOLERANCE = 1e-3


@dataclass(frozen=True)
class RecordReceived(Selective):
    """Record the mean attention that each token gets from one token group; change nothing.

    It reads the group's sums over queries once for each group of keys, as a profile does, and never
    holds a row. The run's outcome is the ``ReceivedRecorder``.

    Attributes:
        queries: "generation", "text" or "reference".
        blocks: see ``select_blocks``.
        steps: an index, several, or None for all.
    """

    queries: str = "generation"
    blocks: Any = "all"
    steps: Any = None

    def needs(self, run: RunContext) -> Needs:
        steps = self.chosen_steps(run)
        rows = steps if self.queries == "reference" else ()
        return Needs(
            reads=steps, reference_rows=rows, inside_attention=True, queries=[self.queries]
        )

    def hook(self, run: RunContext) -> ReceivedRecorder:
        return ReceivedRecorder(self, run)


class ReceivedRecorder(SelectiveHook):
    """Received attention of one run of one prompt, in float32 on the CPU."""

    def __init__(self, settings: RecordReceived, run: RunContext) -> None:
        super().__init__(
            run, settings.chosen_blocks(run), settings.chosen_steps(run), ["conditional"]
        )
        self.queries = settings.queries
        layout = run.layout_of("conditional")
        self._layout = layout
        sizes = {name: layout.span(name).stop - layout.span(name).start for name in layout.groups}
        self._groups = [name for name, size in sizes.items() if size]
        shape = (len(self.steps), len(self.blocks), run.heads, layout.total)
        self._values = np.full(shape, np.nan, np.float32)
        self._seen: set[tuple[int, int]] = set()

    def changes_attention(self, block: int) -> bool:
        return False

    def attention_pairs(self, block: int) -> Sequence[tuple[str, str]]:
        if not self.acts or block not in self.blocks:
            return ()
        return [(self.queries, group) for group in self._groups if self._present(group)]

    def read_attention(self, block: int, readout: Readout) -> None:
        place = (self.steps.index(self.step), self.blocks.index(block))
        total = 0.0
        for group in self._groups:
            if not self._present(group):
                continue
            score = readout.pairs[self.queries, group].score[0].float().cpu().numpy()
            span = self._layout.span(group)
            where = np.arange(span.start, span.stop)
            if group == "reference" and self.run.present is not None:
                where = where[self.run.present]
            self._values[*place][:, where] = score
            total = total + score.sum(-1, dtype=np.float64)
        # written so that NaN fails
        if not np.abs(total - 1).max() <= MASS_TOLERANCE:
            raise VerificationError(
                f"What tokens receive in block {block}, step {self.step} misses the sum 1 by "
                f"{np.abs(total - 1).max():.2g}."
            )
        self._seen.add((self.step, block))

    def result(self, provenance: dict[str, Any]) -> ReceivedRecorder:
        return self

    def received(self, selection: str, provenance: dict[str, Any]) -> ReceivedAttention:
        """What was recorded, with its labels.

        Raises:
            VerificationError: a block that did not fire.
        """
        missing = len(self.steps) * len(self.blocks) - len(self._seen)
        if missing:
            raise VerificationError(f"{missing} attention calls were not seen.")
        return ReceivedAttention.build(
            self._values,
            layout=self._layout,
            text_parts=_text_parts(self.run, self._layout.text),
            steps=self.steps,
            blocks=self.blocks,
            heads=list(range(self.run.heads)),
            queries=self.queries,
            selection=selection,
            provenance=provenance,
        )

    def _present(self, group: str) -> bool:
        return group != "reference" or self.run.present is None or len(self.run.present) > 0


def _text_parts(run: RunContext, count: int) -> np.ndarray | None:
    """The part of each text token of the conditional branch; None where it cannot be told."""
    try:
        padding = run.padding()["conditional"][0]
        vision = run.vision().get("conditional")
    except (InputError, UnsupportedPipelineError):
        return None
    if len(padding) != count:
        return None
    parts = np.where(padding, "padding", "prompt")
    return parts if vision is None else np.where(vision[0] & ~padding, "vision", parts)
