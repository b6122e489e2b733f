"""Are there attention sinks, and do they matter? Found on some subjects, cut on others.

Where no token passes for a sink, those that come nearest are cut in their place.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import pandas as pd
from PIL import Image

from recast_probe.datasets import Case
from recast_probe.diagnostics import Sinks, sinks
from recast_probe.errors import InputError
from recast_probe.experiments import SinkKnockout, received_attention, sink_knockout
from recast_probe.experiments.sink_knockout import MEASURES
from recast_probe.probe import Probe
from recast_probe.recipes.benchmark import bench
from recast_probe.recipes.page import Page, Section, against, corrected, decided, ends, warned
from recast_probe.recipes.recipe import Recipe
from recast_probe.recipes.results import finish, open_store
from recast_probe.studies import markdown
from recast_probe.studies.scored_area import scored_on
from recast_probe.studies.tables import p_value

OPTIONS: dict[str, dict[str, Any]] = {
    "--times": {"type": float, "default": 5.0, "help": "of the mean that a sink receives"},
    "--share": {"type": float, "default": 0.5, "help": "of the heads in which it does"},
    "--nearest": {"type": int, "default": 4, "help": "tokens that are cut if there are no sinks"},
}


def run(chosen: Any, probe: Probe) -> dict[str, Any]:
    """Record, find and cut; print the tables and write everything to --out."""
    finding, testing = halves(bench(chosen))
    store = open_store(
        chosen, probe, times=chosen.times, share=chosen.share, nearest=chosen.nearest
    )
    found = look(probe, finding, chosen)
    cut = {
        group: at for group in ("text", "generation", "reference") if (at := found.of_group(group))
    }
    nearest = not cut
    if nearest:
        cut = nearest_tokens(found, chosen.nearest)
    names = {"sinks": cut} | (
        {"first text token": {"text": [0]}} if "text" in groups(found) else {}
    )
    settings = {"steps": chosen.steps, "seed": chosen.seed}
    knockouts = {
        name: sink_knockout(
            probe, testing, at, folder=chosen.out / name.replace(" ", "_"), **settings
        )
        for name, at in names.items()
    }
    rows = {"mass": mass_rows(found)} | {name: cut_rows(each) for name, each in knockouts.items()}
    for each in rows.values():
        print(markdown(each), end="\n\n")
    findings = findings_of(found, knockouts)
    page = page_on(found, knockouts, rows, nearest, chosen)
    finish(
        chosen,
        store,
        {name.replace(" ", "_"): each.runs for name, each in knockouts.items()}
        | {"halves": halves_table(finding, testing)},
        {**rows, "cut": cut, "findings": findings},
        {"sinks": found.plot()},
        page,
    )
    return {**rows, "cut": cut}


def halves(cases: Sequence[Case]) -> tuple[list[Case], list[Case]]:
    """One case of each subject of the first half, to find sinks in, and all cases of the others, to
    test them in. So no subject finds and tests, and the runs that find are independent.

    Raises:
        InputError: there are fewer than 4 subjects.
    """
    first: dict[str, Case] = {}
    for case in cases:
        first.setdefault(case.subject, case)
    finders = list(first)[: len(first) // 2]
    if len(finders) < 2:
        raise InputError(
            f"Half of the subjects find sinks and half test them, and there are {len(first)}; give "
            "4 or more."
        )
    return [first[name] for name in finders], [c for c in cases if c.subject not in finders]


def halves_table(finding: Sequence[Case], testing: Sequence[Case]) -> pd.DataFrame:
    """Which cases found sinks, and which tested them."""
    return pd.DataFrame(
        [
            {"subject": case.subject, "prompt": case.prompt, "used to": what}
            for what, cases in (("find", finding), ("test", testing))
            for case in cases
        ]
    )


def look(probe: Probe, cases: Sequence[Case], chosen: Any) -> Sinks:
    """Sinks of runs on these cases, and of as many on references of noise."""

    def received(case: Case, image: Any) -> Any:
        return received_attention(
            probe, image, case.prompt, chosen.steps, case.seed, progress=False
        )

    return sinks(
        [received(case, case.reference) for case in cases],
        times=chosen.times,
        share=chosen.share,
        contentless=[received(case, noise(case)) for case in cases],
        seed=chosen.seed,
    )


def noise(case: Case) -> Image.Image:
    """A picture of the reference's size without anything in it."""
    width, height = case.reference.size
    random = np.random.default_rng(case.seed)
    return Image.fromarray(random.integers(0, 256, (height, width, 3), dtype=np.uint8))


def groups(found: Sinks) -> list[str]:
    """The token groups that there are."""
    return list(dict.fromkeys(found.is_sink["group"].values.tolist()))


def nearest_tokens(found: Sinks, count: int) -> dict[str, list[int]]:
    """By group, the tokens that stand out in most heads."""
    mean = found.prevalence.mean("run")
    chosen = np.argsort(-mean.values, kind="stable")[:count]
    cut: dict[str, list[int]] = {}
    for place in np.sort(chosen):
        cut.setdefault(str(mean["group"].values[place]), []).append(int(mean["index"][place]))
    return cut


def mass_rows(found: Sinks) -> list[dict[str, str]]:
    """Share of attention of each part beside its share of the tokens."""
    return [
        {
            "part": name,
            "share of attention": str(mass),
            "share of tokens": f"{found.tokens[name]:.3f}",
            "ratio": f"{mass.mean / found.tokens[name]:.2f}",
        }
        for name, mass in found.mass.items()
    ]


def effects_of(knockout: SinkKnockout) -> dict[str, dict[str, Any]]:
    """By measure, what cutting does beyond random cuts, corrected over the measures."""
    names = ("low", "high", "p_value", "subjects")
    found = [
        {"mean": float(row["difference"]), **{name: float(row[name]) for name in names}}
        for _, row in knockout.effects.iterrows()
    ]
    return dict(zip(map(str, knockout.effects.index), corrected(found), strict=True))


def cut_rows(knockout: SinkKnockout) -> list[dict[str, str]]:
    """The rows of a knockout, with corrected p-values."""
    rows = zip(knockout.rows(), effects_of(knockout).values(), strict=True)
    scored = scored_on(knockout.runs)
    return [
        {name: cell for name, cell in row.items() if name != "p"}
        | {"p (Holm)": p_value(effect["p_holm"])}
        | ({} if scored is None else {"scored on": scored})
        for row, effect in rows
    ]


def findings_of(found: Sinks, knockouts: dict[str, SinkKnockout]) -> dict[str, Any]:
    """Numbers for `--measured`."""
    numbers: dict[str, Any] = {
        f"mass_on_{name.replace(' ', '_')}": mass.to_dict() for name, mass in found.mass.items()
    }
    for name, each in knockouts.items():
        for measure, row in each.effects.iterrows():
            words = MEASURES[str(measure)].replace(" ", "_")
            numbers[f"{words}_by_cutting_{name.replace(' ', '_')}_above_random"] = {
                "mean": row["difference"],
                **{key: row[key] for key in ("low", "high", "p_value", "subjects")},
            }
    return numbers


def page_on(
    found: Sinks,
    knockouts: dict[str, SinkKnockout],
    rows: dict[str, list[dict[str, str]]],
    nearest: bool,
    chosen: Any,
) -> Page:
    """The page on sinks."""
    count = int(found.is_sink.sum())
    most = float(found.prevalence.mean("run").max())
    says = [
        f"{found.is_sink.size} tokens were looked at, and {count or 'none'} passed for sinks: at "
        f"least {chosen.times:g} times the mean in {chosen.share:.0%} of the heads, at the same "
        f"place in all contents. The token that stands out most does so in {most:.0%} of the heads."
    ]
    for name, mass in found.mass.items():
        even = found.tokens[name]
        words = f"an even share ({even:.3f})"
        says.append(against(f"Attention on {name}", mass.to_dict(), even, words))
    sections = [
        Section(
            text=f"{found.prevalence.sizes['run']} subjects with a prompt each, and the same "
            f"prompts on references of noise, {chosen.steps} steps, attention from "
            f"{found.queries} tokens in all blocks, heads and steps.",
            rows=rows["mass"],
            figure="sinks",
            alt="How often each token stands out, and shares of attention by part",
            says=says,
        )
    ]
    for name, each in knockouts.items():
        cut = ", ".join(f"{group} {list(at)}" for group, at in each.tokens.items())
        first, effects = name != "sinks", effects_of(each)
        title = (
            "Cutting the first text token"
            if first
            else f"Cutting {'what comes nearest to a sink' if nearest else 'the sinks'}"
        )
        sections.append(
            Section(
                title,
                f"On {each.runs['subject'].nunique()} other subjects, "
                f"{' and '.join(each.to_groups)} tokens do not see {cut}; beside them as many "
                "random tokens of the same group, the mean of 4 sets for each case. The change is "
                "the mean absolute difference from the uncut run, as a fraction of the range."
                + scored_words(each.runs),
                rows[name],
                says=[_says(MEASURES[measure], effect) for measure, effect in effects.items()]
                + warned(list(effects.values())),
            )
        )
    return Page("Attention sinks", sections)


def scored_words(runs: pd.DataFrame) -> str:
    """What identity and colour were scored on, where not all masks were given."""
    scored = scored_on(runs)
    return "" if scored is None else f" Identity and colour are scored on {scored}."


def _says(measure: str, found: dict[str, Any]) -> str:
    words = {
        1: "higher than with random tokens cut",
        -1: "lower than with random tokens cut",
        0: "not told apart from that with random tokens cut",
    }
    number = f"{ends(found, '.4f')}, p (Holm) {p_value(found['p_holm'])}"
    return f"{measure.capitalize()} is {words[decided(found)]}: {number}."


RECIPE = Recipe(
    run,
    sizes={"subjects": (32, 4), "prompts": (1, 1), "steps": (8, 2)},
    options=OPTIONS,
    engines=False,  # the first half of its runs must be looked at together
)
