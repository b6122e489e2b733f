"""`recast-probe diagnose`: numbers, figures and a report from stored profiles."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from recast_probe.commands.common import (
    Blocks,
    Json,
    emit,
    note,
    output_folder,
    parse_blocks,
    without_nan,
)

if TYPE_CHECKING:
    import numpy as np

    from recast_probe.profile import AttentionProfile


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
    blocks: Blocks = "all",
    as_json: Json = False,
) -> None:
    """Skew, entropy, overlap with a mask, and agreement between several profiles."""
    from recast_probe.diagnostics import mask_to_grid, stability
    from recast_probe.images import check_same_shape, load_image, load_mask
    from recast_probe.io import write_json
    from recast_probe.profile import AttentionProfile

    loaded = [AttentionProfile.load(path) for path in profiles]
    chosen = parse_blocks(blocks)
    picture = None if image is None else load_image(image)
    grid_mask = None
    if mask is not None:
        values = load_mask(mask)
        if picture is not None:
            check_same_shape(values, picture)
        grid_mask = mask_to_grid(values, loaded[0].layout.references[0])
    found: dict[str, Any] = {
        "profiles": [
            {"file": str(path), **numbers(each, grid_mask, chosen)}
            for path, each in zip(profiles, loaded, strict=True)
        ]
    }
    agreement = None
    if len(loaded) > 1:
        agreement = stability(loaded, [path.stem for path in profiles], blocks=chosen)
        found["stability"] = agreement.summary()
    found = without_nan(found)
    folder = output_folder(out)
    write_json(folder / "diagnostics.json", found)
    _report(folder, loaded[0], picture, grid_mask, chosen, found, agreement)
    emit(found if as_json else found | {"profiles": dict(enumerate(found["profiles"]))}, as_json)
    note(f"Report: {folder / 'report.html'}")


def _report(
    folder: Path,
    profile: AttentionProfile,
    image: Any,
    mask: np.ndarray | None,
    blocks: Any,
    found: dict[str, Any],
    agreement: Any,
) -> None:
    from recast_probe import figures
    from recast_probe.diagnostics import entropy, overlap, skew
    from recast_probe.report import Section, write_report

    drawn = {
        "importance": figures.importance_over_reference(profile, image, blocks=blocks),
        "lorenz": figures.lorenz(skew(profile, blocks=blocks)),
        "entropy": figures.entropy_curves(entropy(profile, blocks=blocks)),
    }
    if mask is not None:
        score = profile.reference_map(profile.mean_score(blocks=blocks))[0]
        drawn["overlap"] = figures.overlap(
            overlap(profile, mask, blocks=blocks), score, mask, image
        )
    if agreement is not None:
        drawn["stability"] = figures.stability_matrix(agreement)
    images = {name: figures.save_figure(figure, folder / name)[0] for name, figure in drawn.items()}
    titles = {
        "importance": "Where the generation looks",
        "lorenz": "How unequal",
        "entropy": "How focused",
        "overlap": "Is it the subject?",
        "stability": "Do the profiles agree?",
    }
    first = found["profiles"][0]
    cards = {
        "top_share_of_mean_score": first["skew"]["top_share_of_mean_score"],
        **({"auroc": first["overlap"]["auroc"]} if mask is not None else {}),
    }
    write_report(
        folder / "report.html",
        title="Attention to the reference image",
        subtitle=str(profile.provenance.get("prompt", "")),
        summary=cards,
        sections=[Section(titles[name], figures=[path]) for name, path in images.items()],
        provenance=profile.provenance,
    )
