"""The page on Pocket's IP-Adapter: its training record, evaluations and measured claims."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from recast_probe.errors import InputError
from recast_probe.pocket.adapter.views import WINDOWS
from recast_probe.recipes.page import Page, Section, corrected, decided, ends, higher

EVALUATE = "recast-probe pocket evaluate --ip-adapter pocket"
RUNS = {"none": "one without any", "other picture": "one with those of another subject's picture"}
WORDS = {"identity": "identity", "colour": "likeness in colour"}
TRAINED = "right subject", "right subject, image removed", "follows a swapped image"


def page_on(
    *,
    training: Mapping[str, Any] | None,
    evaluations: Sequence[Mapping[str, Any]],
    diagnostics: Sequence[Mapping[str, Any]],
    rows: Sequence[Mapping[str, Any]],
    retained: Mapping[str, Mapping[str, Any]],
    adds: Mapping[tuple[str, str], Mapping[str, Any]],
    sizes: tuple[int, int, int, int, int],
    scored: str,
) -> Page:
    """The whole page.

    Args:
        training: the adapter's training record, of Pocket's own.
        evaluations: summaries of `recast-probe pocket evaluate --ip-adapter pocket --json`.
        diagnostics, rows: the tables of `ip_adapter`.
        retained: of identity with half of the tokens, and its share of what the image adds.
        adds: by another arm, "none" and "other picture", and score, "identity" and "colour", that
            of the full run minus that of the arm.
        sizes: image tokens, tokens kept, runs an arm, subjects, steps.
        scored: what identity is of, such as "the subjects".
    """
    tokens, kept, runs, subjects, steps = sizes
    sections = []
    if training is not None:
        card = "../recast_probe/pocket/adapter/weights/README.md"
        sections.append(
            Section(
                "How far it was trained",
                f"What the adapter is and how it was made says its [card]({card}). "
                + trained(training),
                curve(training["measured"]),
            )
        )
    if evaluations:
        sections.append(
            Section(
                "Does it show the subject?",
                f"`{EVALUATE}{asked_for(evaluations)} --json`: nearest of the 150 "
                "held-out subjects by masked MobileNetV2 features, every candidate cut out with "
                'the same mask (chance: 0.7 %). Captions say "the subject". Shares with Wilson\'s '
                "95 % intervals.",
                [evaluated(each) for each in evaluations],
            )
        )
    windows = f", {len(WINDOWS)} windows of {tokens // len(WINDOWS)}" if training else ""
    sections += [
        Section(
            "How attention is shared out",
            f"{tokens} image tokens{windows}; {runs} runs of {steps} steps, {subjects} subjects. "
            "The mass on image tokens is 1 by construction; an even spread gives 25 % on the top "
            "25 %.",
            diagnostics,
        ),
        Section(
            f"What {kept} of {tokens} tokens keep",
            f"Recast, reversed and random keep {kept} tokens from step 1 on: recast those that "
            "generation tokens attend to most in step 0, reversed those they attend to least, "
            "random any. Other picture has all tokens of the next subject's picture; what full has "
            "above it is what the subject's own picture tells. Identity is the cosine of "
            f"MobileNetV2 features of {scored} to the reference, colour what their colour "
            "histograms share with its, `to full` identity to the image of the full run, error the "
            "mean distance of pixels to it. Intervals are of means over subjects, differences are "
            "paired.",
            rows,
            "ip_adapter",
            "Identity with all image tokens, half of them, and none",
            kept_words(retained, adds),
        ),
    ]
    title = "Pocket's IP-Adapter, measured" if training else "An IP-Adapter, measured"
    return Page(title, sections)


def asked_for(evaluations: Sequence[Mapping[str, Any]]) -> str:
    """The option for the subjects of the evaluations, if all have as many."""
    counts = {each.get("subjects") for each in evaluations}
    return f" --subjects {counts.pop()}" if len(counts) == 1 and None not in counts else ""


def trained(training: Mapping[str, Any]) -> str:
    """Samples, hours and machine in a sentence."""
    samples = " and ".join(
        f"{count:,} samples at {stage['pixels']} pixels"
        for count, stage in zip(training["samples"], training["plan"]["stages"], strict=True)
        if count
    )
    machine = training["machine"]
    count = machine["threads"]
    threads = f"{count} thread{'s' if count != 1 else ''} of {machine['cores']} cores"
    before = "".join(
        f"Until {sum(each['samples']):,} samples the plan was one of "
        f"{sum(stage['samples'] for stage in each['plan']['stages']):,}. "
        for each in training.get("plans_before", ())
    )
    return (
        f"{samples}, {training['steps']:,} steps in {training['seconds'] / 3600:.2f} hours "
        f"({threads}, {machine['processor']}), seed {training['plan']['seed']}. {before}The loss "
        "on held-out subjects at 128 pixels, with the same noise in all columns, while training "
        "went on:"
    )


def curve(measured: Sequence[Mapping[str, float]], rows: int = 8) -> list[dict[str, Any]]:
    """Some of the held-out errors, the last among them.

    Raises:
        InputError: none were taken.
    """
    if not measured:
        raise InputError("The training record has no held-out errors; train for more steps.")
    step = max(1, -(-len(measured) // rows))
    picked = [*measured[::-1][::step]][::-1]
    return [
        {name: f"{value:,}" if name == "samples" else f"{value:.4f}" for name, value in row.items()}
        for row in picked
    ]


def evaluated(found: Mapping[str, Any]) -> dict[str, Any]:
    """A row of the table of evaluations.

    Raises:
        InputError: not the summary of an evaluation.
    """
    try:
        shares = {"full": found["retrieval"]["full"], "none": found["retrieval"]["none"]}
        shares["swap"] = found["swap_follows"]
        told = {name: f"{found[name]}" for name in ("references", "subjects", "steps")}
        words = {name: _share(share, found["intervals"][name]) for name, share in shares.items()}
        scale = found["ip_adapter_scale"]
    except (KeyError, TypeError) as error:
        raise InputError(
            f"An evaluation has no {error}; give what `recast-probe pocket evaluate --ip-adapter "
            "pocket --json` printed."
        ) from error
    return {"scale": scale, **told, **dict(zip(TRAINED, words.values(), strict=True))}


def kept_words(
    retained: Mapping[str, Mapping[str, Any]], adds: Mapping[tuple[str, str], Mapping[str, Any]]
) -> list[str]:
    """What the image adds, retention, and the share of what it adds that is kept."""
    tested = dict(zip(adds, corrected([*adds.values()]), strict=True))
    found = [
        higher("A run with all tokens", RUNS[arm], each, WORDS[score])
        for (arm, score), each in tested.items()
    ]
    half = f"Half of them keep {ends(retained['retention'], '.1%')} of the identity"
    gain = retained.get("reference_gain")
    if min(decided(tested[arm, "identity"]) for arm in RUNS) <= 0:
        half += "; but the subject's own picture is not shown to add any, so that says nothing"
    elif gain is not None:
        half += f", and {ends(gain, '.1%')} of what the picture adds"
    return [*found, f"{half}."]


def _share(mean: float, interval: Sequence[float]) -> str:
    low, high = interval
    return f"{mean:.1%} [{low:.1%}, {high:.1%}]"
