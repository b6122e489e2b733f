"""What an intervention needs of a run, declared once; ``run_needs`` checks all of a run."""

from __future__ import annotations

from collections.abc import Callable, Collection
from dataclasses import dataclass
from typing import Any


@dataclass(frozen=True)
class Selection:
    """Attention that a run records: blocks, step indices, heads and the token group whose attention
    to the reference is read, as in ``Probe.profile``.

    Attributes:
        scores_only: nothing but the scores is needed, no masses and no entropies.

    Examples:
        >>> Selection(blocks="single", steps=[0]).queries
        'generation'
    """

    blocks: Any = "all"
    steps: Any = None
    heads: Any = None
    queries: str = "generation"
    scores_only: bool = False


@dataclass(frozen=True)
class Needs:
    """What one intervention needs of a run, and what it does to it; nothing by default.

    Attributes:
        reads: steps in which it reads or changes attention or hidden states of single tokens.
        attends: steps in which it changes attention of whole groups, merged tokens or not.
        reference_rows: steps in which the reference tokens' own queries or hidden states must be
            computed, and not just their keys and values.
        full_reference: steps in which all reference tokens must be present.
        drops: steps in which it drops reference tokens.
        merges: steps in which reference tokens stand for several, so that none can be told apart.
        reuses: steps that compute no reference token: keys and values of those that stay come from
            ``RunHook.stored_keys``.
        renews: steps that compute all reference tokens, also those that others would drop.
        unread: steps in which no attention is computed.
        computes: for one that skips steps: given the steps that others read, record or renew, those
            that it computes. It raises InputError where it cannot.
        records: attention that the run records for it, in steps that are listed.
        inside_attention: it works on queries, keys and values of the blocks' attention calls.
        queries: token groups whose queries it changes, or reads what they attend to.
        once: what it does that a run allows once, as in "rank the tokens"; "" for nothing.

    Examples:
        >>> Needs(drops=range(1, 4)).drops
        range(1, 4)
    """

    reads: Collection[int] = ()
    attends: Collection[int] = ()
    reference_rows: Collection[int] = ()
    full_reference: Collection[int] = ()
    drops: Collection[int] = ()
    merges: Collection[int] = ()
    reuses: Collection[int] = ()
    renews: Collection[int] = ()
    unread: Collection[int] = ()
    computes: Callable[[Collection[int]], Collection[int]] | None = None
    records: Selection | None = None
    inside_attention: bool = False
    queries: Collection[str] = ()
    once: str = ""
