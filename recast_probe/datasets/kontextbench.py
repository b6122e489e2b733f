"""KontextBench (FLUX.1 Kontext, arXiv 2506.15742): 1,026 pairs of picture and instruction."""

from __future__ import annotations

from pathlib import Path

from recast_probe.datasets.case import FileCase, noise_seed
from recast_probe.datasets.choosing import chosen
from recast_probe.datasets.files import existing_folder, from_hub, inside, json_lines, text_field
from recast_probe.errors import InputError
from recast_probe.masks import MaskFinder

REPOSITORY = "black-forest-labs/kontext-bench"
LAYOUT = "test/metadata.jsonl, one object a line with file_name, instruction and category, and the \
pictures that it names"


def kontextbench(
    path: str | Path | None = None,
    *,
    subjects: int | None = None,
    prompts: int | None = None,
    seed: int = 0,
    masks: MaskFinder | None = None,
) -> list[FileCase]:
    """The cases of KontextBench, as published: an image folder with `metadata.jsonl`.

    One picture has several instructions; the picture is the subject. Categories are the
    benchmark's: "Instruction Editing - Local", "Instruction Editing - Global", "Character
    Reference", "Text Editing", "Style Reference". It has neither masks nor targets.

    Args:
        path: its folder, or that of a split; None for the hub, or what the hub left in the cache.
        subjects, prompts: how many pictures, and instructions for each, at most; None for all.
        seed: from which each case's noise seed is drawn.
        masks: finds the subjects; see `recast_probe.masks`.

    Raises:
        InputError: not there and not to be downloaded, or a line or a picture that cannot be used.

    Examples:
        >>> import tempfile
        >>> from recast_probe.testing.tiny import tiny_image
        >>> row = '{"file_name": "fox.png", "instruction": "in snow", "category": "Text Editing"}'
        >>> with tempfile.TemporaryDirectory() as place:
        ...     tiny_image().save(Path(place, "fox.png"))
        ...     number = Path(place, "metadata.jsonl").write_text(row)
        ...     [(case.subject, case.prompt) for case in kontextbench(place)]
        [('fox', 'in snow')]
    """
    if path is None:
        root = from_hub(REPOSITORY, "KontextBench", LAYOUT)
    else:
        root = existing_folder(path, "KontextBench", LAYOUT)
    tables = [each / "metadata.jsonl" for each in (root, root / "test", root / "data" / "test")]
    table = next((each for each in tables if each.is_file()), None)
    if table is None:
        raise InputError(f"KontextBench: the folder {str(root)!r} does not hold {LAYOUT}.")
    cases = []
    for where, row in json_lines(table):
        name = text_field(row, ["file_name"], where)
        prompt = text_field(row, ["instruction"], where)
        subject = name.rpartition(".")[0].removeprefix("images/") or name
        cases.append(
            FileCase(
                subject=subject,
                prompt=prompt,
                category=text_field(row, ["category"], where),
                seed=noise_seed(seed, subject, prompt),
                reference_file=inside(table.parent, name, where),
                finder=masks,
            )
        )
    return chosen(cases, subjects, prompts, "KontextBench")
