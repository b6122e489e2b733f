"""DreamBench++ (Peng et al., ICLR 2025): 150 subjects with nine prompts each."""

from __future__ import annotations

from pathlib import Path

from recast_probe.datasets.case import FileCase, noise_seed
from recast_probe.datasets.choosing import chosen
from recast_probe.datasets.files import (
    IMAGES,
    existing_folder,
    from_hub,
    staying,
    text_of,
    unpacked,
)
from recast_probe.errors import InputError
from recast_probe.files.input_files import check_path, is_file
from recast_probe.masks import MaskFinder

REPOSITORY = "yuangpeng/dreambench_plus"
LAYOUT = "images/ and captions/ with the same tree, such as images/live_subject/animal/00.jpg and \
captions/live_subject/animal/00.txt, or data.zip with both"


def dreambench(
    path: str | Path | None = None,
    *,
    subjects: int | None = None,
    prompts: int | None = None,
    seed: int = 0,
    masks: MaskFinder | None = None,
) -> list[FileCase]:
    """The cases of DreamBench++, as published: the trees `images/` and `captions/`.

    The first line of a caption file names the subject, every further one is a prompt. Categories
    are the benchmark's: "animal", "human", "object", "style". It has neither masks nor targets.

    Args:
        path: its folder, or its data.zip; None for the hub, or what the hub left in the cache.
        subjects, prompts: how many subjects, and prompts for each, at most; None for all.
        seed: from which each case's noise seed is drawn.
        masks: finds the subjects; see `recast_probe.masks`.

    Raises:
        InputError: not there and not to be downloaded, a picture without caption file or the
            reverse, or a file that cannot be used.

    Examples:
        >>> import tempfile
        >>> from recast_probe.testing.tiny import tiny_image
        >>> with tempfile.TemporaryDirectory() as place:
        ...     pictures, texts = (Path(place, name, "animal") for name in ("images", "captions"))
        ...     pictures.mkdir(parents=True)
        ...     texts.mkdir(parents=True)
        ...     tiny_image().save(pictures / "00.png")
        ...     number = (texts / "00.txt").write_text("fox\\na fox in snow")
        ...     [(case.subject, case.prompt) for case in dreambench(place)]
        [('fox (animal 00)', 'a fox in snow')]
    """
    if path is None:
        root = from_hub(REPOSITORY, "DreamBench++", LAYOUT)
    elif (archive := check_path(path, "DreamBench++")).suffix == ".zip" and is_file(archive):
        root = archive
    else:
        root = existing_folder(path, "DreamBench++", LAYOUT)
    root = _trees(root)
    pictures = _by_place(root / "images", IMAGES)
    captions = _by_place(root / "captions", (".txt",))
    for lonely, others, lacks in (
        (pictures, captions, "caption file"),
        (captions, pictures, "picture"),
    ):
        places = sorted(set(lonely) - set(others))
        if places:
            raise InputError(
                f"DreamBench++: {len(places)} files under {str(root)!r} have no {lacks}, the first "
                f"is {lonely[places[0]].relative_to(root)}. The copy is not complete."
            )
    cases = []
    for place in sorted(pictures):
        subject, *lines = [line.strip() for line in text_of(captions[place]).splitlines()] or [""]
        wanted = [line for line in lines if line]
        if not subject or not wanted:
            raise InputError(
                f"DreamBench++: {str(captions[place])!r} should hold the subject and then prompts, "
                "one a line."
            )
        category = Path(place).parent.name
        name = f"{subject} ({category} {Path(place).name})"
        cases += [
            FileCase(
                subject=name,
                prompt=prompt,
                category=category,
                seed=noise_seed(seed, name, prompt),
                reference_file=pictures[place],
                finder=masks,
            )
            for prompt in wanted
        ]
    return chosen(cases, subjects, prompts, "DreamBench++")


def _trees(root: Path) -> Path:
    """The folder that holds both trees: this one, one below, or what its archive holds."""
    if root.is_file():
        root = unpacked(root, (*IMAGES, ".txt"))
    for folder in (root, *sorted(root.glob("*/")), *sorted(root.glob("*/*/"))):
        if (folder / "images").is_dir() and (folder / "captions").is_dir():
            return folder
    if (root / "data.zip").is_file():
        return _trees(root / "data.zip")
    raise InputError(f"DreamBench++: {str(root)!r} does not hold {LAYOUT}.")


def _by_place(folder: Path, suffixes: tuple[str, ...]) -> dict[str, Path]:
    """Files by their path without suffix; hidden ones are left out.

    Raises:
        InputError: two pictures in one place.
    """
    found: dict[str, Path] = {}
    for path in sorted(folder.rglob("*")):
        if path.suffix.lower() not in suffixes or path.name.startswith("."):
            continue
        place = path.relative_to(folder).with_suffix("").as_posix()
        if place in found:
            raise InputError(f"DreamBench++: {found[place]} and {path} are in one place.")
        found[place] = staying(folder, path, "DreamBench++")
    return found
