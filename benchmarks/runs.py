"""What tracing costs and pruning saves, whole runs: `python -m benchmarks.runs --json`."""

from __future__ import annotations

import argparse
import json

import torch

import recast_probe as rp
from benchmarks.timing import alternate, print_rows
from recast_probe import pocket
from recast_probe.provenance import versions


def main() -> None:
    """Time the plain pipeline against the same run traced, profiled, pruned and merged."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--model", help="folder or repository; Pocket Kontext by default")
    parser.add_argument("--dtype", default="auto")
    parser.add_argument("--device", default="cpu")
    parser.add_argument("--steps", type=int, default=28)
    parser.add_argument("--repeats", type=int, default=5)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--json", action="store_true")
    arguments = parser.parse_args()

    probe = (
        rp.Probe.from_pretrained(arguments.model, arguments.dtype, arguments.device)
        if arguments.model
        else rp.Probe.pocket()
    )
    sample = pocket.samples()[0]
    image, prompt = sample.image, sample.prompts[0]
    settings = {"steps": arguments.steps, "seed": arguments.seed, "progress": False}
    call = probe.pipeline_arguments(image, prompt, arguments.steps, arguments.seed)
    probe.pipe.set_progress_bar_config(disable=True)
    tokens = probe.layout(image).reference_tokens
    budget = rp.Adaptive.paper(tokens)
    order = rp.rank.random(tokens, arguments.seed)

    def generate(*interventions: rp.Intervention, **more: object) -> None:
        probe.generate(image, prompt, interventions=interventions, **settings, **more)

    arms = {
        "plain pipeline": lambda: probe.pipe(
            **call | {"generator": torch.Generator().manual_seed(arguments.seed)}
        ),
        "traced, nothing recorded": generate,
        "profiled in step 0": lambda: generate(profile=True, profile_steps=0),
        "profiled in every step": lambda: generate(profile=True),
        "recast": lambda: probe.recast(image, prompt, **settings),
        "pruned from step 1": lambda: generate(rp.Prune(order, budget, start=1)),
        "merged from step 1": lambda: generate(rp.Merge(budget, start=1)),
        "no reference": lambda: generate(rp.WithoutReference()),
    }
    rows = alternate(arms, arguments.repeats, arguments.device, "plain pipeline")
    if arguments.json:
        facts = {"model": probe.name, "fingerprint": probe.fingerprint, "versions": versions()}
        layout = probe.layout(image).to_dict()
        print(json.dumps(facts | vars(arguments) | {"layout": layout, "arms": rows}))
        return
    print(f"{probe.name}, {arguments.steps} steps, {tokens} reference tokens")
    print_rows(rows, "plain pipeline")


if __name__ == "__main__":
    main()
