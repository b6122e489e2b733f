"""What the interventions of a run need, put together and checked against one another."""

from __future__ import annotations

from collections.abc import Collection, Sequence
from dataclasses import replace

from recast_probe.errors import InputError, UnsupportedPipelineError
from recast_probe.interventions.base import Intervention, RunContext
from recast_probe.interventions.needs import Needs
from recast_probe.pipelines.base import Family


class RunNeeds:
    """The needs of all interventions of a run, checked against one another.

    Args:
        profiled: steps that the user wants recorded.

    Attributes:
        demanded: steps that must be computed, since something reads or keeps what they compute.
        reuses: steps that compute no reference token.
        renews: steps that have all reference tokens, whatever is dropped.
        merges: steps that attend to merged reference tokens.
        recordings: what the interventions need recorded.

    Raises:
        InputError: interventions that cannot act in one run.
        UnsupportedPipelineError: one that works on attention calls that the model does not make.
    """

    def __init__(
        self,
        interventions: Sequence[Intervention],
        run: RunContext,
        family: Family,
        profiled: Collection[int] = (),
    ) -> None:
        needs = [each.needs(run) for each in interventions]
        self.reuses = {step for each in needs for step in each.reuses}
        self.renews = {step for each in needs for step in each.renews}
        self.merges = {step for each in needs for step in each.merges}
        self.recordings = [each.records for each in needs if each.records is not None]
        recorded = [step for each in self.recordings for step in each.steps]
        used = [step for each in needs for step in (*each.reads, *each.attends)]
        self.demanded = frozenset({*profiled, *recorded, *used, *self.renews})
        self._each: list[tuple[str, Needs]] = []
        for intervention, each in zip(interventions, needs, strict=True):
            if each.computes is not None:
                unread = set(range(run.steps)).difference(each.computes(self.demanded))
                each = replace(each, unread=unread)
            self._each.append((type(intervention).__name__, each))
            if each.inside_attention:
                check_dispatched(type(intervention).__name__, family)
            for group in each.queries:
                check_queries(type(intervention).__name__, group, family)
            if family.caches_reference and each.reuses:
                raise UnsupportedPipelineError(
                    f"{family.name} computes its reference tokens once and reuses their keys and "
                    f"values by itself, so {type(intervention).__name__} has nothing to do; leave "
                    "it out."
                )
        self._check_once()
        self._check_reference()
        self._check_attention()

    def _check_once(self) -> None:
        for once in {each.once: None for _, each in self._each if each.once}:
            names = [name for name, each in self._each if each.once == once]
            if len(names) > 1:
                raise InputError(
                    f"{' and '.join(names)} would {once} of one run twice; use one of them."
                )

    def _check_reference(self) -> None:
        """Reference tokens are there, and computed, where they must be."""
        for name, each in self._each:
            for other, others in self._each:
                steps = sorted({*each.full_reference} & {*others.drops} - self.renews)
                if steps:
                    raise InputError(
                        f"{name} needs the full reference in step {steps[0]}, but {other} drops "
                        "tokens there; let it act before tokens are dropped, or leave one out."
                    )
            steps = sorted(self.reuses & {*each.reference_rows})
            if steps:
                raise InputError(
                    f"{name} needs queries or hidden states of the reference in steps {steps}, but "
                    "they are not computed there, since its keys and values come from an earlier "
                    "step; leave one out."
                )

    def _check_attention(self) -> None:
        """Attention is computed, and its tokens can be told apart, where that is needed."""
        for name, each in self._each:
            for reader, reading in self._each:
                apart = {*reading.reads} & {*each.unread, *each.merges}
                steps = sorted(apart | ({*reading.attends} & {*each.unread}))
                if steps:
                    raise InputError(
                        f"{reader} works in the blocks in steps {steps}, which cannot be done "
                        f"while {name} acts; let it rank by something else, or leave one out."
                    )

    def check_recorded(self, steps: Collection[int], queries: str) -> None:
        """Raise InputError where the attention of a token group cannot be recorded in a step."""
        reused = sorted(self.reuses.intersection(steps))
        if queries == "reference" and reused:
            raise InputError(
                f"Attention of reference tokens cannot be recorded in steps {reused}: keys and "
                "values of the reference come from an earlier step there, and its queries are not "
                "computed. Record generation or text queries, or other steps."
            )
        for name, each in self._each:
            wrong = sorted({*each.unread, *each.merges}.intersection(steps))
            if wrong:
                raise InputError(
                    f"Attention cannot be recorded in steps {wrong} while {name} acts; choose "
                    "other profile_steps."
                )

    def check_drop(self, place: int, step: int) -> None:
        """Check that an intervention, by its place in the list, said that it drops tokens in a
        step; else nothing was checked against it, and InputError is raised."""
        name, needs = self._each[place]
        if step not in needs.drops:
            raise InputError(
                f"{name} drops reference tokens in step {step}; its needs() must say so in drops."
            )


def check_queries(name: str, group: str, family: Family) -> None:
    """Check that a token group's queries are computed in every step.

    Raises:
        UnsupportedPipelineError: they are not.
    """
    if group not in family.query_groups:
        raise UnsupportedPipelineError(
            f"{name} acts on what {group} tokens attend to, and {family.name} does not compute "
            f"that in every step; it does for {' and '.join(family.query_groups)} tokens."
        )


def check_dispatched(name: str, family: Family) -> None:
    """Check that the blocks attend to reference tokens in calls that can be changed.

    Args:
        name: what works on these calls.

    Raises:
        UnsupportedPipelineError: they do not.
    """
    if not all(call.operations for call in family.attention_calls()):
        raise UnsupportedPipelineError(
            f"{name} works on the blocks' own attention calls, and {family.name} attends to "
            "reference tokens beside them, where attention is read but cannot be changed, reused "
            "or mapped. Use it where reference tokens stand in the sequence, as in FLUX.1 Kontext, "
            "FLUX.2 and Qwen-Image-Edit."
        )
