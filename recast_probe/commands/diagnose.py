"""`recast-probe diagnose`: numbers, figures and a report from stored profiles."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from recast_probe.commands.common import (
    Blocks,
    Json,
    MaskInside,
    emit,
    note,
    output_folder,
    parse_blocks,
)
from recast_probe.errors import InputError
from recast_probe.files.atomic import without_nan, write_json
from recast_probe.files.envelope import sealed

if TYPE_CHECKING:
    import numpy as np

    from recast_probe.profiles.profile import AttentionProfile


def numbers(
    profile: AttentionProfile, mask: np.ndarray | None, blocks: Any = "all"
) -> dict[str, Any]:
    """Headline numbers of one profile; overlap where there is a mask."""
    from recast_probe.diagnostics import entropy, overlap, skew

    found = {
        "selection": profile.selection_text(blocks=blocks),
        "skew": skew(profile, blocks=blocks).summary(),
        "entropy": entropy(profile, blocks=blocks).summary(),
    }
    if mask is not None:
        found["overlap"] = overlap(profile, mask, blocks=blocks).summary()
    return found


def diagnose(
    profiles: Annotated[list[Path], typer.Argument(help="Profile files (.nc).")],
    out: Annotated[Path, typer.Option(help="Folder for figures and report.")],
    image: Annotated[
        Path | None, typer.Option(help="The reference image, to draw maps on.")
    ] = None,
    mask: Annotated[Path | None, typer.Option(help="Foreground mask of the reference.")] = None,
    mask_inside: MaskInside = None,
    blocks: Blocks = "all",
    as_json: Json = False,
) -> None:
    """Skew, entropy, overlap with a mask, and agreement between several profiles."""
    from recast_probe.diagnostics import mask_to_grid, stability
    from recast_probe.images.loading import check_same_shape, load_image, read_mask
    from recast_probe.images.mask_values import check_divides
    from recast_probe.profiles.profile import AttentionProfile

    loaded = [AttentionProfile.load(path) for path in profiles]
    chosen = parse_blocks(blocks)
    picture = None if image is None else load_image(image)
    if picture is not None:
        _check_aspect(f"The image {image}", picture.size, loaded[0])
    grid_mask = None
    if mask is not None:
        values = read_mask(mask, mask_inside)
        _check_aspect(f"The mask {mask}", values.shape[::-1], loaded[0])
        if picture is not None:
            check_same_shape(values, picture)
        check_divides(values, f"The mask {mask}")
        grid_mask = mask_to_grid(values, loaded[0].layout.references[0])
    found: dict[str, Any] = {
        "profiles": [
            {"file": str(path), **numbers(each, grid_mask, chosen)}
            for path, each in zip(profiles, loaded, strict=True)
        ]
    }
    agreement = None
    if len(loaded) > 1:
        agreement = stability(loaded, _labels(profiles), blocks=chosen)
        found["stability"] = agreement.summary()
    found = without_nan(found)
    # everything that can go wrong with the input has gone wrong before the first file is written
    drawn = _draw(loaded[0], picture, grid_mask, chosen, agreement)
    folder = output_folder(out)
    stored = sealed(found, "Diagnostics")
    write_json(folder / "diagnostics.json", stored)
    _report(folder, loaded[0], drawn, found)
    emit(stored if as_json else found | {"profiles": dict(enumerate(found["profiles"]))}, as_json)
    note(f"Report: {folder / 'report.html'}")


def _check_aspect(what: str, size: tuple[int, ...], profile: AttentionProfile) -> None:
    """Refuse what was not drawn on the profile's reference: another shape, by over a token."""
    facts = profile.provenance.get("image")
    if not isinstance(facts, dict):
        return
    grid = profile.layout.references[0]
    difference = size[0] / size[1] * facts["height"] / facts["width"] - 1
    if abs(difference) > max(0.01, 1 / min(grid.rows, grid.columns)):
        raise InputError(
            f"{what} is {size[0]} x {size[1]} pixels, but the profile's reference is "
            f"{facts['width']} x {facts['height']}: their aspect ratios differ."
        )


def _labels(paths: list[Path]) -> list[str]:
    """Names that tell the files apart."""
    stems = [path.stem for path in paths]
    return stems if len(set(stems)) == len(stems) else [str(path) for path in paths]


def _draw(
    profile: AttentionProfile, image: Any, mask: np.ndarray | None, blocks: Any, agreement: Any
) -> dict[str, Any]:
    """Figures by the title of their section."""
    from recast_probe import figures
    from recast_probe.diagnostics import entropy, overlap, skew

    if profile.layout.placed:
        importance = figures.importance_over_reference(profile, image, blocks=blocks)
    elif image is None:
        importance = figures.importance_by_token(profile, blocks=blocks)
    else:
        raise InputError(
            "The reference tokens of this profile have no places in the image, so nothing can be "
            "drawn on it; leave --image out."
        )
    drawn = {
        "Where the generation looks": importance,
        "How unequal": figures.lorenz(skew(profile, blocks=blocks)),
        "How focused": figures.entropy_curves(entropy(profile, blocks=blocks)),
    }
    if mask is not None:
        score = profile.reference_map(profile.mean_score(blocks=blocks))[0]
        drawn["Is it the subject?"] = figures.overlap(
            overlap(profile, mask, blocks=blocks), score, mask, image
        )
    if agreement is not None:
        drawn["Do the profiles agree?"] = figures.stability_matrix(agreement)
    return drawn


def _report(
    folder: Path, profile: AttentionProfile, drawn: dict[str, Any], found: dict[str, Any]
) -> None:
    from recast_probe import figures
    from recast_probe.report import Section, write_report

    files = {
        "Where the generation looks": "importance",
        "How unequal": "lorenz",
        "How focused": "entropy",
        "Is it the subject?": "overlap",
        "Do the profiles agree?": "stability",
    }
    sections = [
        Section(title, figures=[figures.save_figure(figure, folder / files[title])[0]])
        for title, figure in drawn.items()
    ]
    first = found["profiles"][0]
    numbers_of_all = {**first["skew"], **first["entropy"], **first.get("overlap", {})}
    numbers_of_all |= found.get("stability", {})
    wanted = ("top_share_of_mean_score", "first", "last", "auroc", "enrichment", "spearman")
    write_report(
        folder / "report.html",
        title="Attention to the reference image",
        subtitle=str(profile.provenance.get("prompt", "")),
        summary={name: numbers_of_all[name] for name in wanted if name in numbers_of_all},
        sections=sections,
        provenance=profile.provenance,
    )
