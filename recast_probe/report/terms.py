"""Words of reports that not every reader knows."""

from __future__ import annotations

TERMS = {
    "Reference token": "One cell of the grid in which the model sees the reference image.",
    "Step": "One pass of the model from noise towards the image; step 0 sees the most noise. The "
    "timestep is what the model itself counts, from 1000 for noise down to 0.",
    "Block": "One layer of the model, counted from its input. Double blocks hold the text apart; "
    "single blocks treat all tokens alike.",
    "Arm": "One way of running the same cases: which reference tokens the model may see.",
    "Identity": "Cosine of MobileNetV2 features of the subject in the output and in the reference, "
    "both cut out with their masks. 1 is the same picture.",
    "Interval, n": "A range that holds the mean over all subjects in 95 of 100 such studies; n "
    'counts the subjects. It says "cannot tell" where there are too few.',
    "p": "Chance of a difference at least this large if there were none. Up to 0.05 it counts.",
    "AUROC": "Chance that a token on the subject gets more attention than one beside it. 0.5 is no "
    "order, 1 a perfect one.",
    "Average precision": "Mean share of subject tokens among the most attended tokens, taken at "
    "each subject token. 1 is perfect; no order gives the mask's share of the image.",
    "k": "How many of the most attended tokens are compared with the mask: by default a quarter of "
    "all tokens. The figure says the number.",
    "Precision at k": "Share of the k most attended tokens that lie on the subject.",
    "IoU at k": "Intersection over union: tokens that are both among the k most attended and on "
    "the subject, over tokens that are either.",
    "Entropy": "How widely attention spreads, in bits. Marginal: of all positions of the output "
    "together. Conditional: of one position at a time.",
    "Effective tokens": "2 to the power of the entropy: as many equally attended tokens would have "
    "the same entropy.",
    "Gini": "0 where all tokens get the same attention, near 1 where one gets all.",
    "Spearman correlation": "Agreement of two rankings, from -1 (reversed) to 1 (the same).",
}


def terms(*names: str) -> dict[str, str]:
    """Explanations of these words, in this order.

    Examples:
        >>> list(terms("Gini", "p"))
        ['Gini', 'p']
    """
    return {name: TERMS[name] for name in names}
