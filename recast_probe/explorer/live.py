"""Runs that are started from the explorer: prune to a brush, cut a head, swap the reference."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from recast_probe.errors import InputError
from recast_probe.explorer.same_run import without_recording
from recast_probe.images.loading import ImageSources
from recast_probe.interventions import Intervention, Keep, Knockout
from recast_probe.probe import Probe
from recast_probe.profiles.profile import AttentionProfile
from recast_probe.runs.result import RunResult

SAME = ("prompts", "seed", "steps", "arguments", "layout", "image", "images")
"""Facts that a run must share with the one that is shown, whatever is done to it."""


class LiveRuns:
    """The run that is shown, made again with something changed.

    Args:
        probe: of the pipeline that made the run that is shown.
        image: its reference, or several, as they were given to the run.
        profile: of the run that is shown.
        swaps: other references by name.
        settings: arguments of the run besides image, prompt, steps and seed.

    Raises:
        InputError: what is shown does not say how it was run, or ran on another model.
    """

    def __init__(
        self,
        probe: Probe,
        image: ImageSources | None,
        profile: AttentionProfile,
        swaps: Mapping[str, ImageSources],
        settings: Mapping[str, Any],
    ) -> None:
        facts = profile.provenance
        missing = [name for name in ("prompt", "seed", "steps") if facts.get(name) is None]
        if missing:
            raise InputError(
                f"The profile does not say its {' and '.join(missing)}, so the run cannot be made "
                "again; leave probe= out."
            )
        changed = [each.get("name") for each in without_recording(facts.get("interventions")) or ()]
        if changed:
            raise InputError(
                f"The run that is shown was changed by {', '.join(map(str, changed))}, and runs "
                "from the explorer start from the full one: show the full run with probe=, and "
                "this one beside it with compare=."
            )
        if image is None:
            raise InputError(
                "Give image=, the reference that the run was made with, beside probe=."
            )
        model = facts.get("model")
        fingerprint = model.get("fingerprint") if isinstance(model, dict) else None
        if fingerprint is not None and fingerprint != probe.fingerprint:
            raise InputError(
                f"The profile is of a model with the fingerprint {fingerprint[:12]}..., and this "
                f"probe's is {probe.fingerprint[:12]}...; give the probe that made the run."
            )
        self.probe, self.image, self.facts = probe, image, facts
        self.swaps, self.settings = dict(swaps), dict(settings)

    def prune(self, tokens: Sequence[int]) -> RunResult:
        """The run with only these reference tokens kept: that of ``Keep(tokens)``."""
        return self._run(self.image, [Keep(tuple(tokens))])

    def cut(self, block: int, head: int | None) -> RunResult:
        """The run in which no generation token reads the reference in a head of a block, or in
        all of its heads."""
        cut = Knockout("reference", "generation", blocks=[block], heads=head)
        return self._run(self.image, [cut])

    def swap(self, name: str) -> RunResult:
        """The run with another reference.

        Raises:
            InputError: there is none of this name.
        """
        if name not in self.swaps:
            known = ", ".join(map(repr, self.swaps)) or "none; give swaps={name: image}"
            raise InputError(f"There is no reference {name!r} to swap in; there are {known}.")
        return self._run(self.swaps[name], [], same=("prompts", "seed", "steps"))

    def _run(
        self, image: ImageSources, changes: Sequence[Intervention], same: Sequence[str] = SAME
    ) -> RunResult:
        result = self.probe.generate(
            image,
            self.facts["prompt"],
            self.facts["steps"],
            self.facts["seed"],
            interventions=changes,
            progress=False,
            **self.settings,
        )
        model, now = self.facts.get("model"), result.provenance["model"]
        if isinstance(model, dict) and _plain(now["identity"]) != _plain(model.get("identity")):
            raise InputError(
                "The pipeline is no longer as it was in the run that is shown (its adapters, "
                "scheduler or settings); put it back, or show a new run."
            )
        for fact in same:
            now, shown = result.provenance.get(fact), self.facts.get(fact)
            if shown is not None and _plain(now) != _plain(shown):
                raise InputError(
                    f"The run that is shown had the {fact} {str(shown)[:200]}, and this one "
                    f"{str(now)[:200]}; give the same arguments, as settings={{...}}."
                )
        return result


def _plain(value: Any) -> Any:
    """Tuples as lists, as a file gives them back."""
    if isinstance(value, Mapping):
        return {str(name): _plain(each) for name, each in value.items()}
    return [_plain(each) for each in value] if isinstance(value, list | tuple) else value
