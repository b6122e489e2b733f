"""`recast-probe score`: how much of a reference an image keeps, by any metric."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any

import typer

from recast_probe.commands.inputs import mask_source, read_image
from recast_probe.commands.options import Device, MaskInside
from recast_probe.commands.output import emit, names_and_values
from recast_probe.errors import InputError
from recast_probe.files.atomic import without_nan
from recast_probe.files.input_files import is_folder

SUFFIXES = (".png", ".jpg", ".jpeg", ".webp", ".bmp", ".tif", ".tiff")


def score(
    image: Annotated[
        Path, typer.Option(help="The image; or a folder of images, to compare sets by kid or rfid.")
    ],
    reference: Annotated[
        Path | None, typer.Option(help="What it is compared with: an image, or a folder of images.")
    ] = None,
    mask: Annotated[
        Path | None, typer.Option(help="Where the subject is in the image; the whole by default.")
    ] = None,
    reference_mask: Annotated[
        Path | None, typer.Option(help="Where the subject is in the reference.")
    ] = None,
    mask_inside: MaskInside = None,
    prompt: Annotated[str | None, typer.Option(help="The text for clip-t.")] = None,
    metrics: Annotated[
        str,
        typer.Option(
            help="Names, such as dinov2,clip-i,clip-t,auraface,ssim; dinov2=FOLDER takes the "
            "weights from a folder, dinov2-whole ignores the masks. `recast-probe doctor` lists "
            "all.",
            show_default="mobilenet,colour; kid for folders",
        ),
    ] = "",
    device: Device = "cpu",
) -> None:
    """Score an image against its reference or prompt, or one folder against another."""
    sets = is_folder(image)
    if sets and (mask or reference_mask or prompt):
        raise InputError("Folders are compared as whole images; leave masks and --prompt out.")
    from recast_probe._utils.devices import known_device
    from recast_probe.metrics import metrics_of

    known_device(device)
    chosen = metrics_of(metrics or ("kid" if sets else "mobilenet,colour"), device)
    if not chosen:
        raise InputError(f"--metrics {metrics!r} names no metric; say dinov2,clip-i, for example.")
    if sets:
        found = _of_sets(chosen, image, reference)
    else:
        found = _of_images(chosen, image, reference, mask, reference_mask, mask_inside, prompt)
    facts = [each.provenance() for each in chosen]
    emit(without_nan({"scores": found, "metrics": facts}), names_and_values(without_nan(found)))


def _of_images(
    metrics: list[Any],
    image: Path,
    reference: Path | None,
    mask: Path | None,
    reference_mask: Path | None,
    mask_inside: str | None,
    prompt: str | None,
) -> dict[str, float]:
    from recast_probe.images.loading import fit_mask, load_mask_of
    from recast_probe.metrics import ImageMetric, TextMetric

    def marked(source: Path | None, picture: Any) -> Any:
        if source is None:
            return None
        return fit_mask(load_mask_of(picture, mask_source(source), mask_inside), picture)

    for each in metrics:
        if not isinstance(each, ImageMetric | TextMetric):
            raise InputError(f"{each.name} compares sets; give folders as --image and --reference.")
        if isinstance(each, TextMetric) and prompt is None:
            raise InputError(f"{each.name} compares the image with a text; give --prompt.")
        if isinstance(each, ImageMetric) and reference is None:
            raise InputError(f"{each.name} compares the image with another; give --reference.")
    picture = read_image(image)
    other = None if reference is None else read_image(reference)
    if other is None and reference_mask is not None:
        raise InputError("--reference-mask needs --reference, the image that it belongs to.")
    masks = marked(mask, picture), marked(reference_mask, other)
    found = {}
    for each in metrics:
        if isinstance(each, TextMetric):
            found[each.name] = each.score_text(picture, prompt or "")
        else:
            found[each.name] = each.score(picture, masks[0], other, masks[1])
    return found


def _of_sets(metrics: list[Any], image: Path, reference: Path | None) -> dict[str, float]:
    from recast_probe.images.loading import load_image
    from recast_probe.metrics import SetMetric

    if reference is None or not is_folder(reference):
        raise InputError(f"--image {image} is a folder; give another one as --reference.")
    for each in metrics:
        if not isinstance(each, SetMetric):
            raise InputError(f"{each.name} compares two images, not folders; folders take kid.")
    sets = [
        [load_image(file) for file in sorted(folder.iterdir()) if file.suffix.lower() in SUFFIXES]
        for folder in (image, reference)
    ]
    return {each.name: each.distance(*sets) for each in metrics}
