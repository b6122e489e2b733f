"""What pages say of the runs that their tables are of."""

from __future__ import annotations

import pandas as pd

from recast_probe.recipes.page import too_few

TABLE = (
    "Pruned arms see all reference tokens in step 0. Identity is the masked cosine of MobileNetV2 "
    "features to the reference (of a local edit: to its true target), colour the likeness of "
    'colour histograms, "to full" the identity to the full run\'s image. Retention is the share of '
    "the full run's identity; as a run without the reference keeps a part of it, the share of what "
    "the reference adds stands beside it where such runs were made. p-values are corrected after "
    "Holm. Seconds are the middle of the runs' and depend on what else the machine did."
)


def counted(table: pd.DataFrame) -> str:
    """Subjects, cases and runs of a table in a sentence."""
    arms, subjects = table["arm"].nunique(), table["subject"].nunique()
    cases = len(table) // arms
    return f"{subjects} subjects, {cases} cases, {arms} arms, {len(table):,} runs."


def about(table: pd.DataFrame) -> str:
    """What the columns of a table of arms are, and whether its p-values can decide anything."""
    few = too_few(table["subject"].nunique(), table["arm"].nunique() - 1)
    return f"{TABLE} {few}" if few else TABLE


def cases_in_words(table: pd.DataFrame) -> str:
    """Subjects, cases and kinds of edits of a table, such as "8 subjects, 8 cases (local edit)"."""
    cases = table[["subject", "prompt"]].drop_duplicates()
    kinds = ", ".join(dict.fromkeys(table["category"]))
    return f"{cases['subject'].nunique()} subjects, {len(cases)} cases ({kinds})"
