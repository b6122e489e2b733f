"""What a run gives back."""

from __future__ import annotations

import base64
import hashlib
import html
import io
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from PIL import Image

from recast_probe.errors import InputError
from recast_probe.files.atomic import without_nan, write_bytes, write_json
from recast_probe.files.envelope import sealed
from recast_probe.interventions.similarity import Cosines
from recast_probe.profiles.activations import Activations
from recast_probe.selection.rankings import Ranking

if TYPE_CHECKING:
    from recast_probe.profiles.profile import AttentionProfile


def png_bytes(image: Image.Image) -> bytes:
    """An image as PNG."""
    buffer = io.BytesIO()
    image.save(buffer, format="PNG")
    return buffer.getvalue()


@dataclass(frozen=True)
class RunResult:
    """Images of one pipeline run and how they were made.

    Attributes:
        images: one PIL image per prompt; none for a run that stopped early.
        profiles: one profile per prompt, or empty when nothing was recorded.
        reference_tokens_per_step: reference tokens that were present in each step.
        outcomes: what each intervention found in the run, in their order; None for nothing.
        seconds: wall time of the pipeline call, text encoding to decoded image.
        provenance: settings, versions, fingerprints, ready for JSON.

    Examples:
        >>> from recast_probe.testing import tiny
        >>> probe = rp.Probe(tiny.build_tiny_pipeline())
        >>> result = probe.generate(tiny.tiny_image(), "a cat", steps=2, progress=False)
        >>> result.reference_tokens_per_step, result.mean_budget, result.profile
        ((16, 16), 16.0, None)
    """

    images: tuple[Image.Image, ...]
    reference_tokens_per_step: tuple[int, ...]
    seconds: float
    provenance: dict[str, Any]
    profiles: tuple[AttentionProfile, ...] = ()
    outcomes: tuple[Any, ...] = ()

    @property
    def image(self) -> Image.Image:
        """The first image."""
        return self.images[0]

    @property
    def profile(self) -> AttentionProfile | None:
        """The first profile, or None when nothing was recorded."""
        return self.profiles[0] if self.profiles else None

    @property
    def ranking(self) -> Ranking | None:
        """The ranking that the run made of its own profile, or None."""
        return next((each for each in self.outcomes if isinstance(each, Ranking)), None)

    @property
    def activations(self) -> Activations | None:
        """What ``Record`` recorded, or None."""
        return next((each for each in self.outcomes if isinstance(each, Activations)), None)

    @property
    def similarity(self) -> dict[int, np.ndarray]:
        """By step, float64 (prompt, block, reference token): what ``Similarity`` recorded."""
        found = [each.by_step for each in self.outcomes if isinstance(each, Cosines)]
        return {step: values for each in found for step, values in each.items()}

    @property
    def mean_budget(self) -> float:
        """Reference tokens present in a step, on average over the steps."""
        return float(np.mean(self.reference_tokens_per_step))

    def save(self, path: str | Path) -> list[Path]:
        """Write the images as PNG, each with its provenance in a JSON file next to it, which holds
        the digest of the image and of itself.

        Args:
            path: ``name.png``; with several images ``name_0.png``, ``name_1.png`` and so on.

        Returns:
            The PNG files.

        Raises:
            InputError: the path does not end in .png, or its folder does not exist.

        Examples:
            >>> from tempfile import TemporaryDirectory
            >>> images = (Image.new("RGB", (8, 8)),)
            >>> result = RunResult(images, (16, 4), 0.5, {"prompts": ["a cat"]})
            >>> with TemporaryDirectory() as folder:
            ...     [path.name for path in result.save(f"{folder}/cat.png")]
            ['cat.png']
        """
        path = Path(path)
        if path.suffix.lower() != ".png":
            raise InputError(f"Results are saved as PNG: {str(path)!r} must end in .png.")
        if not path.parent.is_dir():
            raise InputError(f"The folder {str(path.parent)!r} does not exist; make it first.")
        written = []
        for number, image in enumerate(self.images):
            stem = path.stem if len(self.images) == 1 else f"{path.stem}_{number}"
            target = path.with_name(f"{stem}.png")
            facts = {
                **self.provenance,
                "prompt": self.provenance["prompts"][number],
                "reference_tokens_per_step": list(self.reference_tokens_per_step),
                "seconds": self.seconds,
            }
            png = png_bytes(image)
            facts["image_sha256"] = hashlib.sha256(png).hexdigest()
            write_json(target.with_suffix(".json"), sealed(without_nan(facts), "Image"))
            written.append(write_bytes(target, png))
        return written

    def __repr__(self) -> str:
        return (
            f"RunResult({len(self.images)} image(s), {len(self.reference_tokens_per_step)} steps, "
            f"mean budget {self.mean_budget:.1f} reference tokens, {self.seconds:.2f} s)"
        )

    def _repr_html_(self) -> str:
        prompts = [
            "text given as embeddings" if prompt is None else prompt
            for prompt in self.provenance["prompts"]
        ]
        pictures = "".join(
            f'<img style="max-width: 256px" alt="{html.escape(prompt, quote=True)}" '
            f'src="data:image/png;base64,{base64.b64encode(png_bytes(image)).decode()}">'
            for image, prompt in zip(self.images, prompts, strict=True)
        )
        said = html.escape("; ".join(prompts))
        return f"<div>{pictures}<p>{said}<br><small>{html.escape(repr(self))}</small></p></div>"
