"""Other ways to save work on the same model and run: `python -m benchmarks.peers`.

Each peer is applied as its own documentation says, runs once to see whether it works on this
pipeline at all, and is taken off again. One that fails is reported with its error; one that leaves
the image as it was is reported as having no effect. Bounds are counted while a peer runs, as the
FLOP of the transformer with and without it; what a threshold skips depends on the weights, so on
random weights the time of a caching peer says nothing about the model that it was made for.
"""

from __future__ import annotations

import functools
import importlib
from collections.abc import Callable, Iterator, Sequence
from contextlib import AbstractContextManager, contextmanager, nullcontext
from typing import Any

import numpy as np
import torch
from torch.utils.flop_counter import FlopCounterMode, sdpa_flop_count

from benchmarks.command import add_model, config_of, finish, kernels, open_probe, parser
from benchmarks.timing import Row, alternate
from recast_probe import pocket
from recast_probe._utils.ending import run_program

FULL = "full"


def _attention_flop(query: Any, key: Any, value: Any, *_: Any, **__: Any) -> int:
    return sdpa_flop_count(query, key, value)


# torch counts its attention kernels for GPUs, and not the one for CPUs
UNCOUNTED = {torch.ops.aten._scaled_dot_product_flash_attention_for_cpu: _attention_flop}
Peer = Callable[[Any, int], AbstractContextManager[None]]


@contextmanager
def _diffusers_cache(pipe: Any, config: Any) -> Iterator[None]:
    pipe.transformer.enable_cache(config)
    try:
        yield
    finally:
        pipe.transformer.disable_cache()


@contextmanager
def open_context(pipe: Any, inner: AbstractContextManager[None]) -> Iterator[None]:
    """What the pipeline does not do: name the call that the cache belongs to."""
    with inner, pipe.transformer.cache_context("cond"):
        yield


def mag_cache(pipe: Any, steps: int) -> AbstractContextManager[None]:
    """diffusers' MagCache with the ratios that it has for FLUX."""
    from diffusers.hooks import MagCacheConfig
    from diffusers.hooks.mag_cache import FLUX_MAG_RATIOS

    config = MagCacheConfig(mag_ratios=FLUX_MAG_RATIOS, num_inference_steps=steps)
    return _diffusers_cache(pipe, config)


def first_block_cache(
    pipe: Any, steps: int, threshold: float | None = None
) -> AbstractContextManager[None]:
    """diffusers' FirstBlockCache, by default with its own threshold."""
    from diffusers.hooks import FirstBlockCacheConfig

    given = {} if threshold is None else {"threshold": threshold}
    return _diffusers_cache(pipe, FirstBlockCacheConfig(**given))


def taylor_seer(pipe: Any, steps: int) -> AbstractContextManager[None]:
    """diffusers' TaylorSeer with its defaults."""
    from diffusers.hooks import TaylorSeerCacheConfig

    return _diffusers_cache(pipe, TaylorSeerCacheConfig())


@contextmanager
def cache_dit(pipe: Any, steps: int) -> Iterator[None]:
    """cache-dit's one call, with its defaults."""
    module = importlib.import_module("cache_dit")
    module.enable_cache(pipe)
    try:
        yield
    finally:
        module.disable_cache(pipe)


@contextmanager
def tomesd(pipe: Any, steps: int) -> Iterator[None]:
    """tomesd's patch at its usual ratio."""
    module = importlib.import_module("tomesd")
    module.apply_patch(pipe, ratio=0.5)
    try:
        yield
    finally:
        module.remove_patch(pipe)


PEERS: dict[str, Peer] = {
    FULL: lambda pipe, steps: nullcontext(),
    "MagCache (diffusers)": mag_cache,
    "FirstBlockCache (diffusers)": first_block_cache,
    "FirstBlockCache, context opened": lambda pipe, steps: open_context(
        pipe, first_block_cache(pipe, steps)
    ),
    "TaylorSeer (diffusers)": taylor_seer,
    "TaylorSeer, context opened": lambda pipe, steps: open_context(pipe, taylor_seer(pipe, steps)),
    "cache-dit": cache_dit,
    "ToMe (tomesd)": tomesd,
}


def main(arguments: Sequence[str] | None = None) -> dict[str, Any]:
    """Try every peer, then alternate those that work."""
    found = parser(__doc__)
    add_model(found)
    options = found.parse_args(arguments)
    probe = open_probe(options)
    sample = pocket.samples()[0]
    call = probe.pipeline_arguments(sample.image, sample.prompts[0], options.steps, options.seed)

    def run(peer: Peer, pipe: Any) -> np.ndarray:
        generator = torch.Generator().manual_seed(options.seed)
        with peer(pipe, options.steps):
            output = pipe(**call | {"generator": generator})
        return np.asarray(output.images[0])

    tried: dict[str, Row] = {}
    flop: dict[str, float] = {}
    changed_by: dict[str, Any] = {}
    plain = run(PEERS[FULL], probe.pipe)
    for name, peer in PEERS.items():
        try:
            with FlopCounterMode(display=False, custom_mapping=UNCOUNTED) as counter:
                image = run(peer, probe.pipe)
        except Exception as error:
            tried[name] = {"error": _said(error)}
        else:
            changed = float(np.abs(image.astype(float) - plain).mean())
            count = _transformer_flop(counter, probe.pipe.transformer)
            if name != FULL and changed == 0 and count == flop[FULL]:
                tried[name] = {"error": "had no effect here: same work, same image"}
            else:
                flop[name] = count
                tried[name] = {"flop": flop[name], "mean_pixel_difference": changed}
        if not np.array_equal(run(PEERS[FULL], probe.pipe), plain):
            tried[name]["left_behind"] = "the pipeline makes another image after it was taken off"
            # it goes on with this pipeline, and all others with one that is as it was
            if "error" not in tried[name]:
                changed_by[name] = probe.pipe
            probe = open_probe(options)
    working = {
        name: functools.partial(run, PEERS[name], changed_by.get(name, probe.pipe))
        for name, row in tried.items()
        if "error" not in row
    }
    timed = alternate(working, options.repeats, options.device, FULL, flop, may_fail=True)
    rows = {name: row | timed.get(name, {}) for name, row in tried.items()}
    config = config_of(probe)
    dtype = next(probe.pipe.transformer.parameters()).dtype
    facts = {
        "model": probe.name,
        "kernels": kernels(config.heads, config.head_dim, dtype, options.device),
        "peers": {name: _version(name) for name in ("diffusers", "cache-dit", "tomesd")},
        "arms": rows,
    }
    return finish(options, facts, FULL)


def _transformer_flop(counter: FlopCounterMode, transformer: torch.nn.Module) -> float:
    counts = counter.get_flop_counts()
    return float(sum(counts[type(transformer).__name__].values()))


def _said(error: Exception) -> str:
    """Class and first line; without the package, what to install."""
    if isinstance(error, ModuleNotFoundError):
        return f"not installed (pip install --no-deps {str(error.name).replace('_', '-')})"
    first = (str(error).strip().splitlines() or [""])[0]
    return f"{type(error).__name__}: {first}"[:500]


def _version(name: str) -> str | None:
    from importlib import metadata

    try:
        return metadata.version(name)
    except metadata.PackageNotFoundError:
        return None


if __name__ == "__main__":
    run_program(main, "peers")
