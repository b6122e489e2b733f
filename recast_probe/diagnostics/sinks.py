"""Attention sinks: tokens that draw attention whatever they hold."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import ClassVar

import numpy as np
import xarray as xr

from recast_probe._utils.checks import check_int
from recast_probe.diagnostics.intervals import Interval, mean_interval
from recast_probe.diagnostics.results import Result, Words
from recast_probe.errors import InputError
from recast_probe.profiles.received import ReceivedAttention

LEVEL = 0.05
FIRST, SINKS = "first text token", "sinks"
OF_ALL = "Of all attention that the queries pay; mean over runs."
OF_TOKENS = "What it would get if all tokens got as much."


@dataclass(frozen=True, repr=False)
class Sinks(Result):
    """Which tokens are attention sinks, and where the attention goes.

    Attributes:
        factor: (token,), what a token receives over the mean of all tokens; 1 is an even share.
            Mean over runs, steps, blocks and heads.
        prevalence: (run, token), share of a run's heads (of all blocks and steps) in which the
            token receives at least ``times`` the mean.
        p_value: (token,), how often a group's highest mean prevalence is as high, if every run's
            values stood at random places within the group.
        contentless: (token,), mean prevalence over the runs without content; None without such.
        is_sink: (token,), see `sinks`.
        mass: share of attention by part of the sequence ("padding", "prompt", "generation",
            "reference", ...), of the first text token and of the sinks.
        tokens: share of the tokens that these are.
        times, share: as given.
        queries: the group whose attention it is.
        selection: what was recorded.
    """

    name: ClassVar[str] = "sinks"
    title: ClassVar[str] = "Do some tokens draw attention whatever they hold?"
    words: ClassVar[Words] = {
        "runs": ("Runs", "Independent ones, such as subjects."),
        "sinks": ("Sinks", "Tokens that draw attention in every content.", "tokens"),
        "sink_mass": ("Attention on sinks", OF_ALL),
        "sink_tokens": ("Their share of the tokens", OF_TOKENS),
        "padding_mass": ("Attention on padding", OF_ALL),
        "padding_tokens": ("Its share of the tokens", OF_TOKENS),
        "first_mass": ("Attention on the first text token", OF_ALL),
        "first_tokens": ("Its share of the tokens", OF_TOKENS),
        "highest_prevalence": (
            "Most heads with one token",
            "Share of heads in which the token most often above the limit is so; mean over runs.",
        ),
    }

    factor: xr.DataArray
    prevalence: xr.DataArray
    p_value: xr.DataArray
    contentless: xr.DataArray | None
    is_sink: xr.DataArray
    mass: Mapping[str, Interval]
    tokens: Mapping[str, float]
    times: float
    share: float
    queries: str
    selection: str

    def of_group(self, group: str) -> list[int]:
        """Indices, within their group, of its sinks; for ``Knockout(group, ..., tokens=...)``."""
        chosen = self.is_sink.values & (self.is_sink["group"].values == group)
        return self.is_sink["index"].values[chosen].tolist()

    def summary(self) -> dict[str, float]:
        found = {
            "runs": float(self.prevalence.sizes["run"]),
            "sinks": float(self.is_sink.sum()),
            "highest_prevalence": float(self.prevalence.mean("run").max()),
        }
        for name, part in (("sink", SINKS), ("padding", "padding"), ("first", FIRST)):
            if part in self.mass:
                found |= {
                    f"{name}_mass": self.mass[part].mean,
                    f"{name}_tokens": self.tokens[part],
                }
        return found

    def __repr__(self) -> str:
        found = {group: self.of_group(group) for group in ("text", "generation", "reference")}
        named = ", ".join(f"{len(at)} {group}" for group, at in found.items() if at) or "none"
        return f"Sinks({named}, in {self.prevalence.sizes['run']} runs; {self.selection})"


def sinks(
    runs: Sequence[ReceivedAttention],
    *,
    times: float = 5.0,
    share: float = 0.5,
    contentless: Sequence[ReceivedAttention] = (),
    draws: int = 999,
    seed: int = 0,
) -> Sinks:
    """Find tokens that receive a multiple of the mean in most heads, at the same place in all runs.

    A sink draws attention that the softmax must put somewhere, irrespective of what the token holds
    (Xiao et al. 2023, "Efficient streaming language models with attention sinks"; in images, Darcet
    et al. 2023, "Vision transformers need registers"). So a token is one here where all of these
    hold:

    - it receives at least ``times`` the mean of all tokens in at least ``share`` of the heads of
      all blocks and steps, on average over the runs;
    - the same place does so in other runs, whose pictures and prompts differ: its mean prevalence
      is higher than what the highest of its group reaches in 95 % of the draws that put every run's
      values at random places within the group (``p_value``, corrected for the group's tokens);
    - the first also holds in the runs without content, where there are any.

    The null holds content that is independent of place. Subjects that all stand in the middle break
    it for reference and generation tokens; runs on a reference of noise tell place from content.

    Args:
        runs: of two or more different pictures and prompts, independent of each other, of one
            layout and selection; see ``rp.received_attention``.
        times: of the mean over all tokens, above 1.
        share: of the heads, above 0 and up to 1.
        contentless: runs of the same kind whose reference holds nothing, such as noise.
        draws, seed: of random places.

    Raises:
        InputError: fewer than two runs, runs that cannot be compared (their layouts, queries or
            selections differ), tokens that were absent, or settings out of range.

    Examples:
        >>> from recast_probe.testing.planted_received import planted_received
        >>> runs = [planted_received(seed, high=[0]) for seed in range(6)]
        >>> found = rp.sinks(runs)
        >>> found, found.of_group("text")
        (Sinks(1 text, in 6 runs; planted), [0])
    """
    if not np.isfinite(times) or times <= 1:
        raise InputError(f"times is a multiple of the mean and above 1, got {times}.")
    if not 0 < share <= 1:
        raise InputError(f"share of the heads lies above 0 and up to 1, got {share}.")
    draws, seed = check_int("draws", draws, 19), check_int("seed", seed, 0)
    every = list(runs)
    if len(every) < 2:
        raise InputError(
            f"Only tokens that stand out in several runs are sinks; give 2 runs or more, of "
            f"different pictures and prompts, not {len(every)}."
        )
    first = _checked([*every, *contentless])
    token = first.data.isel(step=0, block=0, head=0, drop=True).drop_vars("part")
    count = token.sizes["token"]
    received = np.stack([each.per_token().values for each in every])
    prevalence = np.stack([_prevalence(each, times) for each in every])
    p_value = _p_values(prevalence, token["group"].values, draws, seed)
    mean = prevalence.mean(0)
    is_sink = (mean >= share) & (p_value <= LEVEL)
    without = None
    if len(contentless):
        without = np.mean([_prevalence(each, times) for each in contentless], axis=0)
        is_sink &= without >= share

    def labelled(values: np.ndarray, name: str) -> xr.DataArray:
        return token.copy(data=values).rename(name).drop_attrs()

    mass, tokens = {}, {}
    for name, chosen in _parts(every, is_sink):
        # masses of a few tokens lie near 0 in all runs: an observation at 1 would be another world
        mass[name] = mean_interval([np.array([each]) for each in (received * chosen).sum(1)])
        tokens[name] = float(np.mean(chosen.mean(1)))
    return Sinks(
        factor=labelled(received.mean(0) * count, "factor"),
        prevalence=labelled(mean, "prevalence")
        .expand_dims(run=range(len(every)))
        .copy(data=prevalence),
        p_value=labelled(p_value, "p_value"),
        contentless=None if without is None else labelled(without, "contentless"),
        is_sink=labelled(is_sink, "is_sink"),
        mass=mass,
        tokens=tokens,
        times=float(times),
        share=float(share),
        queries=first.queries,
        selection=first.selection,
    )


def _checked(runs: Sequence[ReceivedAttention]) -> ReceivedAttention:
    """The first of runs that can be compared."""
    for each in runs:
        if not isinstance(each, ReceivedAttention):
            raise InputError(
                f"Sinks are found in what rp.received_attention(...) gives, not in a "
                f"{type(each).__name__}."
            )
        if np.isnan(each.data).any():
            raise InputError(
                "Some tokens were absent in a recorded step; record the full sequence."
            )
    first = runs[0]
    for each in runs[1:]:
        for name in ("layout", "queries", "selection"):
            one, other = getattr(first, name), getattr(each, name)
            if one != other:
                raise InputError(
                    f"These runs cannot be compared token by token: the {name} of one is {one}, of "
                    f"another {other}."
                )
    return first


def _prevalence(run: ReceivedAttention, times: float) -> np.ndarray:
    """Share of heads (token,) in which a token receives so many times the mean."""
    return (run.data.values * run.data.sizes["token"] >= times).mean((0, 1, 2))


def _p_values(values: np.ndarray, groups: np.ndarray, draws: int, seed: int) -> np.ndarray:
    """Of the mean over runs of values (run, token), against the highest of its group at random
    places."""
    random, found = np.random.default_rng(seed), np.ones(values.shape[1])
    for group in np.unique(groups):
        chosen = np.flatnonzero(groups == group)
        part = values[:, chosen]
        drawn = np.array([random.permuted(part, axis=1).mean(0).max() for _ in range(draws)])
        # rounding must not make an equal one lower
        above = drawn[None] >= part.mean(0)[:, None] - 1e-12
        found[chosen] = (1 + above.sum(1)) / (1 + draws)
    return found


def _parts(
    runs: Sequence[ReceivedAttention], is_sink: np.ndarray
) -> Iterator[tuple[str, np.ndarray]]:
    """Parts of the sequence, each with which tokens are of it, bool (run, token)."""
    parts = np.stack([each.data["part"].values for each in runs])
    for name in dict.fromkeys(parts.ravel().tolist()):
        yield str(name), parts == name
    if runs[0].layout.text:
        first = np.zeros(parts.shape, bool)
        first[:, 0] = True
        yield FIRST, first
    if is_sink.any():
        yield SINKS, np.broadcast_to(is_sink, parts.shape)
