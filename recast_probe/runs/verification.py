"""Showing that the probe changes nothing and reads the truth."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np
import torch

from recast_probe._utils.compat import forward_hooks, quiet
from recast_probe._utils.markup import html_table
from recast_probe.attention.autocast import as_cast
from recast_probe.attention.inputs import AttentionInputs
from recast_probe.attention.key_mask import hidden_keys
from recast_probe.attention.order import arranged
from recast_probe.layout import TokenLayout
from recast_probe.pipelines.base import Family
from recast_probe.runs.call import PipelineCall
from recast_probe.runs.declaration import check_declaration
from recast_probe.runs.execute import check_before_run, run
from recast_probe.runs.recording_plan import Selection
from recast_probe.runs.watching import watch_attention

MASS_TOLERANCE = 1e-3
SCORE_TOLERANCE = 1e-4
QUERIES_AT_ONCE = 256


@dataclass(frozen=True)
class Certificate:
    """What a verification run found.

    Attributes:
        image_difference: largest difference of a pixel value (0..255) between the images without
            the probe and with it; 0 when they are identical.
        cross_check_image_difference: the same for the second attachment.
        attention_calls_expected: selected (branch, step, block) entries.
        attention_calls_recorded: those that were seen.
        largest_mass_error: largest distance of a sum of attention masses from 1.
        largest_score_difference: largest distance between the scores of the probe and those of the
            second attachment, which computes a dense softmax in float64, relative to the largest
            score of that block.
        untouched: True when the pipeline has no hook and no patch left.

    Examples:
        >>> found = Certificate(0, 0, 10, 10, 1e-7, 1e-7, untouched=True)
        >>> found.passed
        True
    """

    image_difference: int
    cross_check_image_difference: int
    attention_calls_expected: int
    attention_calls_recorded: int
    largest_mass_error: float
    largest_score_difference: float
    untouched: bool

    @property
    def checks(self) -> dict[str, bool]:
        """Every check by name, True when it holds."""
        return {
            "image identical with the probe": self.image_difference == 0,
            "image identical with the second attachment": self.cross_check_image_difference == 0,
            "every attention call seen": self.attention_calls_recorded
            == self.attention_calls_expected,
            "attention masses sum to 1": self.largest_mass_error <= MASS_TOLERANCE,
            "both attachments agree": self.largest_score_difference <= SCORE_TOLERANCE,
            "pipeline left untouched": self.untouched,
        }

    @property
    def passed(self) -> bool:
        """True when every check holds."""
        return all(self.checks.values())

    def to_dict(self) -> dict[str, Any]:
        """All fields and ``passed``, ready for JSON."""
        return {**asdict(self), "passed": self.passed}

    def __str__(self) -> str:
        return "\n".join(
            f"{'passed' if holds else 'FAILED'}  {name}" for name, holds in self.checks.items()
        )

    def _repr_html_(self) -> str:
        found = {name: "passed" if holds else "FAILED" for name, holds in self.checks.items()}
        return html_table("Certificate", found.items())


def dense_scores(
    query: torch.Tensor,
    key: torch.Tensor,
    layout: TokenLayout,
    scale: float | None,
    heads: Sequence[int],
    hidden: torch.Tensor | None = None,
) -> np.ndarray:
    """Eq. 2 by a dense softmax in float64, without any shortcut, shape (batch, head, reference).

    The sequence is that of the layout; an adapter attends from generation tokens alone to reference
    tokens alone. It shares nothing with the streaming readout, and is slow: for verification only.

    Args:
        query, key: (batch, sequence, head, dim).
        scale: factor on the scores; None for 1 / sqrt(dim).
        heads: which heads.
        hidden: bool (batch, sequence), keys that the model leaves out; None for none.
    """
    generation, reference = layout.span("generation"), layout.span("reference")
    if key.shape[1] == layout.reference_tokens:
        # a softmax over the reference alone, with generation tokens as the only queries
        generation = reference = slice(None)
    index = torch.as_tensor(list(heads), device=query.device)
    queries = query[:, generation].index_select(2, index).double().transpose(1, 2)
    keys = key.index_select(2, index).double().transpose(1, 2)
    scale = query.shape[-1] ** -0.5 if scale is None else scale
    total = torch.zeros(
        (*queries.shape[:2], layout.reference_tokens), dtype=torch.float64, device=query.device
    )
    for part in queries.split(QUERIES_AT_ONCE, dim=2):
        logits = part @ keys.transpose(-1, -2) * scale
        if hidden is not None:
            logits = logits.masked_fill(hidden[:, None, None].to(logits.device), -torch.inf)
        probability = logits.softmax(dim=-1)
        total += probability[..., reference].sum(dim=2)
    return (total / queries.shape[2]).cpu().numpy()


def canonical_rows(
    family: Family,
    inputs: Mapping[str, Any],
    given: Mapping[str, Any],
    layouts: Mapping[str, TokenLayout],
) -> Iterator[tuple[str, AttentionInputs]]:
    """One attention call as the backends get it, by branch and in the canonical order.

    Args:
        inputs: of the transformer call.
        given: the backend's arguments.
        layouts: of the branches that are rows of the call, in their order.
    """
    query, key, value = (as_cast(given[name]) for name in ("query", "key", "value"))
    mask, rows = given.get("attn_mask"), len(query) // len(layouts)
    hidden = None if mask is None else hidden_keys(mask, *key.shape[:2])
    for number, (branch, layout) in enumerate(layouts.items()):
        own = slice(number * rows, (number + 1) * rows)
        part = AttentionInputs(
            query[own],
            key[own],
            value[own],
            scale=given.get("scale"),
            hidden=None if hidden is None else hidden[own],
        )
        yield branch, arranged(part, family.sequence_order(inputs, layout), layout)


def patches(transformer: torch.nn.Module) -> dict[str, list[str]]:
    """Everything on a module that a tracer could have left behind, for comparison."""
    found = {}
    for name, module in transformer.named_modules():
        own = [key for key in vars(module) if key == "forward" or key.startswith("__nnsight")]
        before, after = forward_hooks(module)
        hooks = [*(f"pre-hook {key}" for key in before), *(f"hook {key}" for key in after)]
        found[name] = sorted(own + hooks)
    return found


def pixel_difference(first: Sequence[Any], second: Sequence[Any]) -> int:
    """Largest difference of a pixel value over two lists of images, or of lists of layers, of the
    same sizes."""

    def pixels(image: Any) -> np.ndarray:
        layers = image if isinstance(image, list | tuple) else [image]
        return np.stack([np.asarray(layer, dtype=np.int16) for layer in layers])

    return max(int(np.abs(pixels(a) - pixels(b)).max()) for a, b in zip(first, second, strict=True))


def verify_run(family: Family, request: PipelineCall, selection: Selection) -> Certificate:
    """Run plain, traced, and watched through the backends of diffusers, and compare."""
    pipeline = family.pipe
    check_before_run(family)
    check_declaration(family, request)
    transformer = family.transformer
    before = patches(transformer)
    with quiet(pipeline):
        plain = getattr(request.run(pipeline), family.output_name)
    result = run(family, request, selection=selection)
    profile = result.profiles[0]
    scores = profile.dataset["score"]
    blocks = [int(block) for block in scores["block"]]
    layouts = family.branch_layouts(request.layout, request.arguments)
    calls = family.calls_of_step(list(layouts))
    difference = 0.0

    def compare(call: int, attention: int, arguments: Mapping[str, Any]) -> None:
        nonlocal difference
        inputs = watching["inputs"]
        order = family.attention_call_order(inputs)
        if call >= len(calls) or attention not in order or order.index(attention) not in blocks:
            return
        rows = {branch: layouts[branch] for branch in calls[call]}
        for branch, part in canonical_rows(family, inputs, arguments, rows):
            dense = dense_scores(
                part.query, part.key, rows[branch], part.scale, range(family.heads), part.hidden
            )
            streamed = scores.isel(step=0).sel(branch=branch, block=order.index(attention)).values
            error = np.abs(dense[0] - streamed).max() / dense[0].max()
            difference = max(difference, float(error))

    with quiet(pipeline), watch_attention(transformer, compare) as watching:
        watched = getattr(request.run(pipeline), family.output_name)
    facts = result.provenance["verification"]
    return Certificate(
        image_difference=pixel_difference(plain, result.layers or result.images),
        cross_check_image_difference=pixel_difference(plain, watched),
        attention_calls_expected=facts["attention_calls_expected"],
        attention_calls_recorded=facts["attention_calls_recorded"],
        largest_mass_error=facts["largest_mass_error"],
        largest_score_difference=difference,
        untouched=patches(transformer) == before,
    )
