"""Showing that the probe changes nothing and reads the truth."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np
import torch

from recast_probe._utils.compat import attention_backends, forward_hooks, quiet
from recast_probe._utils.markup import html_table
from recast_probe.attention.autocast import as_cast
from recast_probe.layout import TokenLayout
from recast_probe.pipelines.base import Family
from recast_probe.runs.call import PipelineCall
from recast_probe.runs.execute import check_before_run, run
from recast_probe.runs.recording_plan import Selection

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
) -> np.ndarray:
    """Eq. 2 by a dense softmax in float64, without any shortcut, shape (batch, head, reference).

    The sequence is that of the layout; an adapter attends from generation tokens alone to reference
    tokens alone. It shares nothing with the streaming readout, and is slow: for verification only.

    Args:
        query, key: (batch, sequence, head, dim).
        scale: factor on the scores; None for 1 / sqrt(dim).
        heads: which heads.
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
        probability = (part @ keys.transpose(-1, -2) * scale).softmax(dim=-1)
        total += probability[..., reference].sum(dim=2)
    return (total / queries.shape[2]).cpu().numpy()


@contextmanager
def watch_attention(
    transformer: torch.nn.Module,
    on_attention: Callable[[int, int, Mapping[str, Any]], torch.Tensor | None],
) -> Iterator[None]:
    """The second attachment: wrap the attention backends of diffusers while inside.

    Args:
        transformer: only attention inside this module's forward is watched.
        on_attention: called with the transformer call (from 0), the number of the attention call in
            it (from 0) and the backend's keyword arguments. What it returns, if anything, is the
            block's attention output in place of the backend's.
    """
    state = {"call": -1, "attention": 0, "inside": False}

    def enter(*_: Any) -> None:
        state.update(call=state["call"] + 1, attention=0, inside=True)

    def leave(*_: Any) -> None:
        state["inside"] = False

    def wrapped(backend: Callable[..., Any]) -> Callable[..., Any]:
        def watched(**arguments: Any) -> Any:
            if state["inside"]:
                given = on_attention(state["call"], state["attention"], arguments)
                state["attention"] += 1
                if given is not None:
                    return given
            return backend(**arguments)

        return watched

    backends = attention_backends()
    before = dict(backends)
    hooks = [
        transformer.register_forward_pre_hook(enter),
        transformer.register_forward_hook(leave),
    ]
    try:
        backends.update({name: wrapped(backend) for name, backend in before.items()})
        yield
    finally:
        backends.update(before)
        for hook in hooks:
            hook.remove()


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
    """Largest difference of a pixel value over two lists of images of the same sizes."""
    return max(
        int(np.abs(np.asarray(a, dtype=np.int16) - np.asarray(b, dtype=np.int16)).max())
        for a, b in zip(first, second, strict=True)
    )


def verify_run(family: Family, request: PipelineCall, selection: Selection) -> Certificate:
    """Run plain, traced, and watched through the backends of diffusers, and compare."""
    pipeline = family.pipe
    check_before_run(family)
    transformer = family.transformer
    before = patches(transformer)
    with quiet(pipeline):
        plain = request.run(pipeline).images
    result = run(family, request, selection=selection)
    profile = result.profiles[0]
    scores = profile.dataset["score"]
    blocks = [int(block) for block in scores["block"]]
    layouts = list(family.branch_layouts(request.layout, request.arguments).values())
    own = {attention: block for block, attention in enumerate(family.attention_call_order())}
    difference = 0.0

    def compare(call: int, attention: int, arguments: Mapping[str, Any]) -> None:
        nonlocal difference
        block = own.get(attention)
        if call < len(layouts) and block in blocks:
            dense = dense_scores(
                as_cast(arguments["query"]),
                as_cast(arguments["key"]),
                layouts[call],
                arguments.get("scale"),
                range(family.heads),
            )
            streamed = scores.isel(branch=call, step=0).sel(block=block).values
            error = np.abs(dense[0] - streamed).max() / dense[0].max()
            difference = max(difference, float(error))

    with quiet(pipeline), watch_attention(transformer, compare):
        watched = request.run(pipeline).images
    facts = result.provenance["verification"]
    return Certificate(
        image_difference=pixel_difference(plain, result.images),
        cross_check_image_difference=pixel_difference(plain, watched),
        attention_calls_expected=facts["attention_calls_expected"],
        attention_calls_recorded=facts["attention_calls_recorded"],
        largest_mass_error=facts["largest_mass_error"],
        largest_score_difference=difference,
        untouched=patches(transformer) == before,
    )
