"""The page that gathers what all scripts found: `python -m analyses.findings --markdown FILE`.

It holds the paper's claims with their verdicts, and what became of each finding when Pocket's
weights were trained anew. Both are made from what the scripts wrote with `--measured`.
"""

from __future__ import annotations

import argparse
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from recast_probe._utils.ending import run_program
from recast_probe.cost_model import flux_kontext_dev
from recast_probe.errors import InputError
from recast_probe.files.atomic import atomic_path
from recast_probe.files.envelope import read_json
from recast_probe.paper_claims import check_claims, markdown_table
from recast_probe.paper_claims.measurements import collect
from recast_probe.recipes.page import ends, side
from recast_probe.studies import markdown

FOLDER = Path("docs/measured")
BEFORE = "first-edition"


@dataclass(frozen=True)
class Finding:
    """A quantity, and the value on whose side it lies: that is what is found.

    Attributes:
        name: in the files.
        words: what it is.
        value: that it is held against: the paper's, chance, or no difference.
        study: whose number is taken where several hold it.
    """

    name: str
    words: str
    value: float = 0.0
    study: str | None = None


FINDINGS = (
    Finding("top25", "share of attention on the top 25 % of tokens", 0.8),
    Finding("entropy_fall", "fall of the entropy over the steps, bits"),
    Finding("auroc_above_center", "AUROC on the subject, minus that of a map of the middle"),
    Finding("auroc_above_other_masks", "AUROC on the subject, minus that on other masks"),
    Finding("spearman_same_category", "agreement of rankings between prompts of one kind"),
    Finding("spearman_other_category", "agreement of rankings between kinds of edits"),
    Finding("retention", "identity that ReCAST keeps", 0.973),
    Finding("reference_gain", "share of what the reference adds that ReCAST keeps", 0.973),
    Finding("recast_above_self_attention", "identity, ReCAST minus self-attention"),
    Finding("self_attention_above_merge", "identity, self-attention minus merge"),
    Finding("merge_above_random", "identity, merge minus random"),
    Finding("adaptive_above_flat", "identity, growing budget minus a flat one", study="schedules"),
    Finding("reused_above_fresh", "identity, a ranking of another prompt minus one of its own"),
    Finding("style_transfer_above_others", "loss by pruning, style minus other kinds"),
    Finding("token_cache_above_recast", "identity, ReCAST with token caching minus without"),
    Finding("shape_lost_with_reference_to_generation", "shape on the direct edge", 0.5),
    Finding("shape_lost_with_reference_to_text", "shape on the edge to the text"),
    Finding("style_lost_with_reference_to_generation", "style on the direct edge", 0.5),
    Finding("style_lost_with_reference_to_text", "style on the edge to the text", 0.5),
    Finding(
        "shape_lost_with_generation_to_reference", "shape lost where the reference sees no canvas"
    ),
    Finding("margin_of_cross_image_above_random", "faithfulness, attention minus random"),
    Finding("margin_of_self_attention_above_random", "faithfulness, self-attention minus random"),
    Finding("margin_of_cosine_above_random", "faithfulness, cosine minus random"),
    Finding("effect_with_information", "effect of a head with its information, Spearman"),
    Finding("effect_with_mass", "effect of a head with its mass, Spearman"),
)

INTRODUCTION = """# Findings on Pocket Kontext

What the [studies](study.md) show on the bundled model, each with a page of its own: {pages}. \
The [IP-Adapter](adapter.md) has one, too. These are results about a small model on composed \
scenes; numbers do not transfer to the 12 B model, where the same commands run with `--model`. \
Every page names the command that wrote it. What was found on the first edition of the weights is \
in [a page of its own](findings-first-edition.md).

This page is written by `python -m analyses.findings --markdown docs/findings.md`, from the files \
that the scripts wrote with `--measured` ([measured](measured))."""

CLAIMS = """## The paper's claims, one by one

The table is what `recast-probe claims --markdown` prints with those of these files as \
`--measured` that hold a number for it; where several hold one, that of most subjects is taken. \
Numbers of the third column follow from FLUX.1 Kontext's config. What they allow also rests on the \
last column: speeds on how efficiently attention runs beside linear layers, times on the A100's \
dense peak. "Impossible" is said where even attention that runs 4 times less efficiently does not \
explain a speed (an estimate for a softmax that writes its probabilities out, not a measurement); \
"fails under equal efficiency" where less would. "Not decided" was tested without a result, "not \
measured" is what a command would measure, and "not testable here" what none can. Verdicts beside \
a measurement are about Pocket Kontext; their p-values are corrected for one another."""

EDITIONS = """## What a better model changes

Pocket Kontext was trained anew: a moved subject came out right in 12 % of the cases with the \
first edition and in 92 % with the second where references show it in the middle, and in 11 % and \
33 % where it stands anywhere ([model card](../recast_probe/pocket/model/README.md)). Its \
benchmark changed, too: references show their subject in the middle. A finding lies on one side of \
the value that it is held against, or it is not decided (the interval holds the value); that goes \
by intervals alone, as most of these have no p-value. It survives where both editions lie on the \
same side. Numbers of the first edition are those of its own runs, sizes and intervals (see the \
files in [{before}](measured/{before})). In identity rows the first edition compares local edits \
with the reference, the second with their true target, so these rows differ in the measure as well \
as in the model. With fewer subjects (n) less is decided, and differences between two editions are \
those of two trained models, not of many."""


def main(arguments: list[str] | None = None) -> dict[str, Any]:
    """Print the page, and write it to --markdown."""
    parser = argparse.ArgumentParser(prog="python -m analyses.findings", description=__doc__)
    parser.add_argument("--measured", type=Path, default=FOLDER, help="folder of the files")
    parser.add_argument("--markdown", type=Path, help="write the page here, too")
    chosen = parser.parse_args(arguments)
    text = page(chosen.measured)
    print(text)
    if chosen.markdown is not None:
        with atomic_path(chosen.markdown) as temporary:
            temporary.write_text(text)
    return {"page": text}


def page(folder: Path) -> str:
    """The whole page.

    Raises:
        InputError: the folder holds no measurements.
    """
    files = sorted(folder.glob("*.json"))
    if not files:
        raise InputError(f"{folder} holds no files of measurements; scripts write them.")
    of_claims = [path for path in files if read_json(path).get("measured")]
    numbers = collect(of_claims)
    claims = markdown_table(check_claims(flux_kontext_dev(), numbers), numbers["model"])
    pages = [path.stem for path in files if path.stem != "ip_adapter"]
    links = ", ".join(f"[{name.replace('_', ' ')}](findings/{name}.md)" for name in pages)
    parts = [INTRODUCTION.format(pages=links), CLAIMS, claims]
    earlier = sorted((folder / BEFORE).glob("*.json"))
    if earlier:
        rows = compared(together(earlier), together(files))
        counts = ", ".join(
            f"{kind}: {sum(row['what became of it'] == kind for row in rows)}" for kind in BECAME
        )
        parts += [EDITIONS.format(before=BEFORE), markdown(rows), f"In all: {counts}."]
    return "\n\n".join(parts) + "\n"


def together(files: Sequence[Path]) -> dict[str, Any]:
    """All numbers of several files by name; where two hold one, that of the finding's study.

    Raises:
        InputError: two files hold a number, and its finding does not say which is taken.
    """
    studies = {finding.name: finding.study for finding in FINDINGS}
    found: dict[str, Any] = {}
    held_by: dict[str, str] = {}
    for path in files:
        held = read_json(path)
        for name, value in {**held.get("measured", {}), **held.get("findings", {})}.items():
            if name in found and studies.get(name) not in (path.stem, held_by[name]):
                raise InputError(
                    f"{held_by[name]} and {path.stem} both hold {name}; say in FINDINGS which "
                    "study's number is taken."
                )
            if name not in found or studies.get(name) == path.stem:
                found[name], held_by[name] = value, path.stem
    return found


BECAME = ("survives", "reversed", "decided now", "not decided any more", "not decided in either")


def compared(before: Mapping[str, Any], after: Mapping[str, Any]) -> list[dict[str, Any]]:
    """One row a finding that both editions have, with what became of it."""
    rows = []
    for finding in FINDINGS:
        pair = [numbers.get(finding.name) for numbers in (before, after)]
        if not all(isinstance(each, Mapping) and "low" in each for each in pair):
            continue
        rows.append(
            {
                "finding": finding.words,
                "held against": f"{finding.value:g}",
                "first edition": _counted(pair[0]),
                "second edition": _counted(pair[1]),
                "what became of it": became(*(side(each, finding.value) for each in pair)),
            }
        )
    return rows


def _counted(found: Mapping[str, Any]) -> str:
    """With the subjects, or other independent samples, that the interval is over."""
    count = found.get("count", found.get("subjects"))
    return ends(found) + ("" if count is None else f", n={count:.0f}")


def became(before: int, after: int) -> str:
    """In words, of the sides on which the two editions lie; 0 is not decided."""
    if before == after:
        return "survives" if before else "not decided in either"
    if before == -after:
        return "reversed"
    return "decided now" if after else "not decided any more"


if __name__ == "__main__":
    run_program(main, "findings")
