"""Which branches of guidance the rows of a transformer call are, told by their text."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import torch

from recast_probe.errors import VerificationError
from recast_probe.pipelines.base import Family


class BranchFinder:
    """Tells the branches of a run apart.

    Args:
        family: of the pipeline that runs.
        embeddings: of the text, by branch; None where there is one branch only.
        prompts: rows of each branch.
    """

    def __init__(
        self, family: Family, embeddings: Mapping[str, torch.Tensor | None], prompts: int
    ) -> None:
        self._family, self._embeddings, self._prompts = family, dict(embeddings), prompts

    def rows(self, expected: tuple[str, ...], inputs: Mapping[str, Any]) -> tuple[str, ...]:
        """The branches that are the rows of a call.

        Args:
            expected: by the order of calls.
            inputs: of the transformer call.

        Raises:
            VerificationError: another number of rows, or rows in another order.
        """
        found, whole = int(inputs["hidden_states"].shape[0]), len(expected) * self._prompts
        if found != whole:
            raise VerificationError(
                f"The transformer was given {found} rows for {self._prompts} prompts, and {whole} "
                "are expected in a call: the pipeline runs guidance in one batch in its own way, "
                "or makes several images a prompt."
            )
        if len(expected) == 1:
            return (self._nearest(expected[0], inputs),)
        self._check_order(expected, inputs)
        return expected

    def _nearest(self, expected: str, inputs: Mapping[str, Any]) -> str:
        """The branch of a call; as expected where the embeddings are equal."""
        if len(self._embeddings) == 1:
            return expected
        distances = self._distances(self._family.observed_embedding(inputs))
        if len(set(distances.values())) < len(distances):
            return expected
        return min(distances, key=lambda branch: distances[branch])

    def _check_order(self, expected: Sequence[str], inputs: Mapping[str, Any]) -> None:
        parts = self._family.observed_embedding(inputs).split(self._prompts)
        for branch, part in zip(expected, parts, strict=True):
            distances = self._distances(part)
            nearest = min(distances, key=lambda name: distances[name])
            if distances[nearest] < distances[branch]:
                raise VerificationError(
                    f"The rows of a transformer call should be {' and '.join(expected)} in this "
                    f"order, and where {branch} should be, there is the text of {nearest}."
                )

    def _distances(self, given: torch.Tensor) -> dict[str, float]:
        """By branch, the largest difference of its text embedding from this one."""
        given = given.float()
        return {
            branch: float((given - embedding.to(given)).abs().max())
            if embedding.shape == given.shape
            else float("inf")
            for branch, embedding in self._embeddings.items()
            if embedding is not None
        }
