"""Which blocks and heads the image needs for reading the reference: found by cutting them."""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager, nullcontext
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from PIL import Image
from tqdm import tqdm

from recast_probe._utils.checks import check_indices, check_int
from recast_probe._utils.provenance import versions
from recast_probe.blocks import select_blocks
from recast_probe.content.description import described, metric_identity
from recast_probe.errors import InputError
from recast_probe.experiments.attribution_result import Attribution, exact_effects, sampled_effects
from recast_probe.images.loading import image_digest, load_images
from recast_probe.interventions import Knockout
from recast_probe.interventions.base import Intervention
from recast_probe.runs.result import RunResult
from recast_probe.runs.text_inputs import check_one_prompt
from recast_probe.studies.engine.run import in_turns
from recast_probe.studies.store import Record, Store

if TYPE_CHECKING:
    from recast_probe.images.loading import ImageSources
    from recast_probe.probe import Probe

Edge = tuple[str, str]
Site = tuple[int, int | None]  # block and head; None for the whole block
READING: Edge = ("reference", "generation")


def attribution(
    probe: Probe,
    image: ImageSources,
    prompt: str | None,
    metric: Callable[[Image.Image], float] | None = None,
    *,
    over: str = "block",
    blocks: Any = "all",
    heads: int | Sequence[int] | None = None,
    edge: Edge = READING,
    removal: str = "renormalised",
    cut_steps: int | Sequence[int] | None = None,
    steps: int = 28,
    seeds: Sequence[int] = (0,),
    sample: int | None = None,
    share: float = 0.1,
    sample_seed: int = 0,
    store: str | Path | None = None,
    metric_name: str = "",
    progress: bool = True,
    **pipeline_arguments: Any,
) -> Attribution:
    """The effect of knocking out an edge in each block, or in each head.

    Exactly: one run for each block or head, beside the full run of the same noise. Sampled, for
    models with many heads: ``sample`` runs, in each of which every head is cut with a chance of
    ``share``; a head's effect is then the difference between runs with and without it, in the
    company of other cut heads, and its interval says how precise so few runs are. Before the
    first cut it prints on standard error how many runs are left, how long they take at the pace of
    the full run, and how much memory.

    Args:
        metric: of a generated image; larger is better, such as the identity of the subject. None
            for the distance of latents alone.
        over: "block" or "head".
        blocks, heads: which of them; see ``select_blocks``.
        edge: from group and to group; see ``Knockout``, also for ``removal``.
        cut_steps: steps in which it is cut; None for all.
        seeds: noises that everything is repeated with. With several, the exact effects have
            intervals over them.
        sample, share: see above; None runs all, exactly.
        sample_seed: of the draw of cut heads.
        store: a folder that keeps every finished run; make the same call again to resume.
        metric_name: what records and figures call the metric; its own name by default.

    The other arguments are those of ``Probe.generate``.

    Returns:
        Labelled effects on the metric and distances between the final latents.

    Raises:
        InputError: settings that do not fit; nothing has run. Also a metric that is not finite.
        VerificationError: a check of exactness failed during a run.

    Examples:
        >>> from recast_probe.testing import tiny
        >>> probe, image = rp.Probe(tiny.build_tiny_pipeline()), tiny.tiny_image()
        >>> found = attribution(probe, image, "a cat", blocks="double", steps=2, progress=False)
        >>> dict(found.data.sizes), found.data["runs"].values
        ({'block': 2}, array([1, 1]))
    """
    found = sites(probe, over, blocks, heads)
    noises = [check_int("seeds", seed, 0) for seed in seeds]
    if not noises or len(set(noises)) < len(noises):
        raise InputError(f"seeds must be one or several different numbers, not {seeds!r}.")
    check_one_prompt("Attribution takes", prompt, pipeline_arguments)
    check_no_callback(pipeline_arguments)
    cuts = _drawn(found, sample, share, sample_seed)
    name = metric_name or getattr(metric, "__name__", "metric" if metric else "")
    settings = {"edge": list(edge), "removal": removal, "cut_steps": described(cut_steps)}
    kept = None
    if store is not None:
        images = load_images(image, alpha=probe.family.reads_alpha)
        facts = {
            "model": probe.name,
            **probe.identity(),
            "versions": versions(),
            "images": [image_digest(each) for each in images],
            "prompt": prompt,
            "steps": steps,
            "metric": metric and metric_identity(metric, metric_name or None),
            **settings,
            "over": over,
            "sample": None if sample is None else [sample, share, sample_seed],
            # what is cut together is drawn among these
            "sites": None if sample is None else [list(each) for each in found],
            "arguments": described(pipeline_arguments, strict=True),
        }
        kept = Store(store, facts)

    def generate(seed: int, interventions: Sequence[Intervention]) -> tuple[RunResult, Any]:
        return with_latents(probe, image, prompt, steps, seed, interventions, **pipeline_arguments)

    def valued(result: RunResult) -> float:
        value = float("nan") if metric is None else float(metric(result.image))
        if metric is not None and not np.isfinite(value):
            raise InputError(f"The metric of an image is {value}.")
        return value

    def stored(seed: int, cut: str) -> Record | None:
        return None if kept is None else kept.load({"seed": str(seed), "cut": cut})

    def cut_run(seed: int, number: int, latents: torch.Tensor) -> dict[str, Any] | None:
        """The values of one cut, stored or new; None while another process makes them."""
        key = {"seed": str(seed), "cut": names[number]}
        with nullcontext(True) if kept is None else kept.claim(key) as ours:
            record = stored(seed, names[number])
            if record is not None or not ours:
                return None if record is None else record.values
            result, own = generate(seed, knockouts(cuts[number], edge, removal, cut_steps))
            values = {"value": valued(result), "distance": relative_distance(own, latents)}
            if kept is not None:
                kept.save(key, values, provenance=result.provenance)
            return values

    def all_cuts(seed: int) -> tuple[float | None, list[Any]]:
        """The full run's value, and every cut's values."""
        records = [stored(seed, each) for each in names]
        whole = stored(seed, "nothing")
        values: list[Any] = [None if each is None else each.values for each in records]
        full_value = None if whole is None else whole.values["value"]
        if None in values or whole is None:
            full, latents = generate(seed, ())
            full_value = valued(full)
            if kept is not None:
                kept.save({"seed": str(seed), "cut": "nothing"}, {"value": full_value})
            if progress and seed == noises[0]:
                bar.write(_plan(len(noises), cuts, values, full.seconds, latents), sys.stderr)

        def work(number: int) -> bool:
            if values[number] is None:
                values[number] = cut_run(seed, number, latents)
            bar.update(values[number] is not None)
            return values[number] is not None

        in_turns(range(len(cuts)), work, store)
        return full_value, values

    names = [_name(cut, sample, number) for number, cut in enumerate(cuts)]
    bar = tqdm(total=len(noises) * len(cuts), disable=not progress, desc="Runs", file=sys.stderr)
    try:
        rows = [all_cuts(seed) for seed in noises]
    finally:
        bar.close()
    number_of = np.vectorize(lambda value: np.nan if value is None else value, otypes=[float])
    full = number_of([value for value, _ in rows])
    value, distance = (
        number_of([[each[part] for each in values] for _, values in rows])
        for part in ("value", "distance")
    )
    named_heads = {head for _, head in found if head is not None}
    shape = (sorted({block for block, _ in found}), sorted(named_heads))
    make = exact_effects if sample is None else sampled_effects
    members = np.array([[site in cut for site in found] for cut in cuts])
    return Attribution(
        data=make(full, value, distance, members, shape),
        over=over,
        metric=name,
        edge=edge,
        sampled=sample,
        full=float(np.mean(full)),
        selection=_selection(probe, over, edge, removal, sample, share, noises, steps),
    )


def sites(
    probe: Probe, over: str, blocks: Any = "all", heads: int | Sequence[int] | None = None
) -> list[Site]:
    """The blocks, or the heads of the blocks, in order.

    Raises:
        InputError: an unknown ``over``, block or head, or heads where blocks are asked for.
    """
    if over not in ("block", "head") or (over == "block" and heads is not None):
        raise InputError(
            f'over is "block" or "head", and heads can be chosen with "head" alone; got {over!r} '
            f"and heads={heads!r}."
        )
    chosen = select_blocks(blocks, probe.block_kinds)
    if over == "block":
        return [(block, None) for block in chosen]
    return [
        (block, head) for block in chosen for head in check_indices("heads", heads, probe.heads)
    ]


def knockouts(
    cut: Sequence[Site], edge: Edge = READING, removal: str = "renormalised", steps: Any = None
) -> list[Knockout]:
    """Knockouts of an edge at these sites, one for each block."""
    found: dict[int, list[int] | None] = {}
    for block, head in cut:
        if head is None:
            found[block] = None
        else:
            found[block] = [*(found.get(block) or []), head]
    return [
        Knockout(*edge, blocks=block, heads=named, steps=steps, removal=removal)  # type: ignore[arg-type]
        for block, named in found.items()
    ]


def with_latents(
    probe: Probe,
    image: ImageSources | None,
    prompt: str | None,
    steps: int,
    seed: int,
    interventions: Sequence[Intervention],
    **pipeline_arguments: Any,
) -> tuple[RunResult, torch.Tensor]:
    """A run, and its latents after the last step, as the pipeline packs them, on the CPU.

    Raises:
        InputError: a custom callback, or as ``Probe.generate``; nothing has run.
    """
    check_no_callback(pipeline_arguments)
    with _last_latents() as (last, callback):
        result = probe.generate(
            image,
            prompt,
            steps=steps,
            seed=seed,
            interventions=interventions,
            progress=False,
            callback_on_step_end=callback,
            **pipeline_arguments,
        )
    return result, last[0]


def check_no_callback(pipeline_arguments: Mapping[str, Any]) -> None:
    """Raise InputError where the pipeline is given a callback, since its place is taken."""
    given = [name for name in pipeline_arguments if name.startswith("callback_on_step_end")]
    if given:
        raise InputError(
            f"{given[0]} is used here to keep the last latents, and the pipeline takes one "
            "callback; leave it out, or call generate."
        )


@contextmanager
def _last_latents() -> Iterator[tuple[list[torch.Tensor], Callable]]:
    last: list[torch.Tensor] = []

    def keep(_: Any, __: int, ___: Any, tensors: dict[str, torch.Tensor]) -> dict:
        last[:] = [tensors["latents"].detach().float().cpu()]
        return {}

    yield last, keep


def relative_distance(latents: torch.Tensor, full: torch.Tensor) -> float:
    """Length of the difference over the length of the full run's latents; 0 for the same."""
    return float((latents - full).norm() / full.norm())


def _drawn(
    found: Sequence[Site], sample: int | None, share: float, seed: int
) -> list[tuple[Site, ...]]:
    if sample is None:
        return [(site,) for site in found]
    sample = check_int("sample", sample, 4)
    if not 0 < share < 1:
        raise InputError(f"share must lie between 0 and 1, not {share}.")
    rng = np.random.default_rng(check_int("sample_seed", seed, 0))
    drawn = []
    for _ in range(sample):
        chosen = rng.random(len(found)) < share
        if not chosen.any():
            chosen[rng.integers(len(found))] = True
        drawn.append(tuple(site for site, cut in zip(found, chosen, strict=True) if cut))
    return drawn


def _name(cut: Sequence[Site], sample: int | None, number: int) -> str:
    if sample is not None:
        return f"draw {number}"
    ((block, head),) = cut
    return f"block {block}" if head is None else f"block {block} head {head}"


def _plan(
    seeds: int, cuts: Sequence[Any], values: Sequence[Any], seconds: float, latents: torch.Tensor
) -> str:
    done = sum(value is not None for value in values)
    runs = seeds * (len(cuts) + 1) - done - 1
    # a run with a cut computes some attention twice; how much depends on the edge
    return (
        f"{runs} runs to go, about {runs * seconds:.0f} s at the {seconds:.2f} s of the full run; "
        f"memory of one run, and {2 * latents.nbytes / 1e6:.2g} MB of latents."
    )


def _selection(
    probe: Probe,
    over: str,
    edge: Edge,
    removal: str,
    sample: int | None,
    share: float,
    seeds: Sequence[int],
    steps: int,
) -> str:
    how = f"every {over} by itself" if sample is None else f"{sample} draws of {share:.0%} cut"
    noises = f"seed {seeds[0]}" if len(seeds) == 1 else f"{len(seeds)} seeds"
    return f"{probe.name}, {edge[0]} to {edge[1]} cut, {removal}, {how}, {steps} steps, {noises}"
