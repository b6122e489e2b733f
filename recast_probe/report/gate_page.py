"""The page of a gate: the verdict, every arm with its work, and how to read them."""

from __future__ import annotations

from pathlib import Path

from matplotlib.figure import Figure

from recast_probe.figures.page_svg import page_figure
from recast_probe.report.numbers import Number
from recast_probe.report.page import Section, Verdict, write_report
from recast_probe.report.pictures import Picture, caption
from recast_probe.studies.gate.result import Gate


def write_gate_page(path: str | Path, result: Gate, figure: Figure | None = None) -> Path:
    """Write the self-contained page of a gate and return its path.

    Args:
        figure: of `Gate.plot`.

    Examples:
        >>> import tempfile
        >>> import numpy as np, pandas as pd
        >>> from recast_probe.studies.gate.noninferiority import non_inferiority
        >>> full = np.linspace(0.7, 0.9, 40)
        >>> test = non_inferiority(full, full - 0.1, 0.03, failure=0.3)
        >>> scores = pd.DataFrame({"full": full, "reuse": full - 0.1})
        >>> found = Gate("tiny", "reuse", "identity", test, (), (), {}, scores, scores, {})
        >>> with tempfile.TemporaryDirectory() as place:
        ...     page = write_gate_page(f"{place}/report.html", found)
        ...     "reuse fails" in page.read_text(encoding="utf-8")
        True
    """
    test = result.test
    share = next((arm.share for arm in result.arms if arm.arm == result.method), None)
    percent = 100 if test.limit.relative else 1
    unit = "%" if test.limit.relative else ""
    cards = {
        "loss": Number(
            value=percent * test.loss,
            unit=unit,
            label=f"Loss of {result.metric}",
            explanation=f"Full run minus {result.method}, mean over subjects. Allowed: "
            f"{test.limit}.",
        ),
        "subjects": Number(
            value=f"{test.subjects} of {test.planned}",
            label="Subjects",
            explanation=f"Look {test.look} of {len(test.looks)}; {test.spent:.2%} of the "
            f"{test.alpha:.0%} error rate of each verdict is spent.",
        ),
        "worst": Number(
            value=test.worst,
            label="Largest loss of a subject",
            explanation="In the metric's unit."
            if test.failure is None
            else "In the metric's unit. The verdict allows for one subject more that loses "
            f"{test.failure:.3g}.",
        ),
    }
    if share is not None:
        cards["work"] = Number(
            value=f"{share:.1%}",
            label="Work",
            explanation="FLOP of the transformer, of the full run's.",
        )
    sections = [
        Section("Losses, and scores by work", figures=_pictures(result, figure)),
        Section("Arms", "Same references, prompts, seeds and noise in every arm.", table=[
            *result.rows()
        ]),
        Section("What else costs as little", "\n\n".join(result.control_sentences())),
        Section(
            "How to read it",
            "A method passes where the whole interval of its loss lies below the limit, and fails "
            "where it lies above. The interval holds over all looks, so that stopping early does "
            "not make errors more likely. P-values against the controls hold over all looks too, "
            "and are corrected for the number of controls (Holm).",
        ),
    ]  # fmt: skip
    return write_report(
        path,
        title=f"{result.method}: {test.verdict}",
        subtitle=f"{result.model}, {result.metric}, limit {test.limit}",
        summary=cards,
        sections=[each for each in sections if each.text or each.table or each.figures],
        provenance=result.provenance,
        verdict=Verdict(f"{result.method}: {test.verdict}", result.sentence()),
    )


def _pictures(result: Gate, figure: Figure | None) -> list[Picture]:
    if figure is None:
        return []
    shown = page_figure(figure)
    return [Picture(shown.svg, alt=result.sentence(), caption=caption(shown.note, shown.selection))]
