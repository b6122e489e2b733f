"""What a run gives back."""

from __future__ import annotations

import hashlib
import html
import io
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from PIL import Image

from recast_probe._utils.notebook_picture import html_picture, together
from recast_probe.errors import InputError
from recast_probe.files.atomic import without_nan, write_bytes, write_json
from recast_probe.files.envelope import sealed
from recast_probe.interventions.similarity import Cosines
from recast_probe.layout import Grid
from recast_probe.profiles.activations import Activations
from recast_probe.selection.rankings import Ranking

if TYPE_CHECKING:
    from recast_probe.profiles.profile import AttentionProfile


def png_bytes(image: Image.Image) -> bytes:
    """An image as PNG."""
    buffer = io.BytesIO()
    image.save(buffer, format="PNG")
    return buffer.getvalue()


def _save(image: Image.Image, target: Path, facts: dict[str, Any]) -> Path:
    png = png_bytes(image)
    facts = facts | {"image_sha256": hashlib.sha256(png).hexdigest()}
    write_json(target.with_suffix(".json"), sealed(without_nan(facts), "Image"))
    return write_bytes(target, png)


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
        layers: one tuple of PIL images per prompt, the lowest or the earliest first, where the
            pipeline makes an image in layers, which the image is composed of, or the frames of a
            video, of which the image is the middle one.
        layer_name: what one of them is called: "layer" or "frame".
        references: the reference images as the pipeline was given them.

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
    layers: tuple[tuple[Image.Image, ...], ...] = ()
    layer_name: str = "layer"
    references: tuple[Image.Image, ...] = field(default=(), repr=False)

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

    def by_layer(self, number: int = 0) -> tuple[Image.Image, ...]:
        """One picture for each layer of the generation's token grid.

        A model that makes layers has the whole image as its first one. A layer of a video's tokens
        stands for several frames, and here for the last of them.

        Args:
            number: of the prompt.

        Raises:
            InputError: the run made no such image.

        Examples:
            >>> from recast_probe.testing.tiny_ltx import SETTINGS
            >>> from recast_probe.testing.tiny import tiny_image
            >>> probe = rp.Probe.tiny("ltx-condition")
            >>> video = probe.generate(tiny_image(), "fox", steps=2, progress=False, **SETTINGS)
            >>> len(video.layers[0]), len(video.by_layer())
            (9, 3)
        """
        if not 0 <= number < len(self.images):
            raise InputError(f"There is no image {number}; the run made {len(self.images)}.")
        if not self.layers:
            return (self.images[number],)
        parts = self.layers[number]
        if self.layer_name == "layer":
            return (self.images[number], *parts)
        grid = Grid(*self.provenance["layout"]["generation"])
        last = np.linspace(0, len(parts) - 1, grid.layers).round().astype(int)
        return tuple(parts[place] for place in last)

    def save(self, path: str | Path) -> list[Path]:
        """Write the images as PNG, each with its provenance in a JSON file next to it, which holds
        the digest of the image and of itself.

        Args:
            path: ``name.png``; with several images ``name_0.png``, ``name_1.png`` and so on. The
                layers of an image are written beside it, as ``name_layer_0.png`` and so on, and
                the frames of a video as ``name_frame_0.png``.

        Returns:
            The PNG files of the images.

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
            for at, layer in enumerate(self.layers[number] if self.layers else ()):
                name, own = f"{stem}_{self.layer_name}_{at}.png", {self.layer_name: at}
                _save(layer, target.with_name(name), facts | own)
            written.append(_save(image, target, facts))
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
        many = len(self.references) > 1
        given = [
            html_picture(image, f"reference {place}" if many else "reference")
            for place, image in enumerate(self.references)
        ]
        made = [
            html_picture(image, prompt) for image, prompt in zip(self.images, prompts, strict=True)
        ]
        return together(*given, *made, f"<small>{html.escape(repr(self))}</small>")
