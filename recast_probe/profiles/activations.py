"""Activations of a token group, recorded in one run: what patching puts into another run."""

from __future__ import annotations

import hashlib
import json
import warnings
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import torch
from safetensors import safe_open
from safetensors.torch import save_file
from torch import Tensor

from recast_probe._utils.checks import check_indices
from recast_probe._utils.markup import html_table
from recast_probe._utils.text_format import memory, spans
from recast_probe.errors import DamagedFileError, InputError
from recast_probe.files.atomic import atomic_path, without_nan
from recast_probe.files.envelope import parse_json, sealed, unsealed
from recast_probe.layout import TokenLayout

# inside the attention call, and between the blocks
IN_ATTENTION = ("keys", "values", "attention output")
IN_STREAM = ("residual", "embeddings")
WHAT = IN_ATTENTION + IN_STREAM
KIND = "Activations"
FORMAT_VERSION = 2


class HookPoint(NamedTuple):
    """Where one tensor was recorded. "embeddings" have block 0: they enter it."""

    what: str
    branch: str
    step: int
    block: int


def token_positions(
    layout: TokenLayout, tokens: str, indices: Sequence[int] | np.ndarray | None = None
) -> np.ndarray:
    """Positions in the attention sequence of a token group, ascending, int64.

    Args:
        tokens: "text", "generation", "reference", "reference_<i>", or "all".
        indices: some of the group's tokens, counted from 0 within the group; None for all.

    Raises:
        InputError: no such group, an empty one, or an index outside it.
    """
    span = slice(0, layout.total) if tokens == "all" else layout.span(tokens)
    return some_of(np.arange(span.start, span.stop, dtype=np.int64), tokens, indices)


def some_of(
    positions: np.ndarray, tokens: str, indices: Sequence[int] | np.ndarray | None
) -> np.ndarray:
    """The positions of some tokens of a group; see `token_positions`."""
    if not positions.size:
        raise InputError(f"This run has no {tokens} tokens.")
    return positions[check_indices("indices", indices, positions.size, of=f"{tokens} tokens")]


def recorded_bytes(
    what: Sequence[str],
    *,
    tokens: int,
    blocks: int,
    steps: int,
    width: int,
    item_bytes: int,
    prompts: int = 1,
    branches: int = 1,
) -> int:
    """Exact size of what would be recorded, in bytes.

    Args:
        width: numbers that one token has in one place: heads times dimensions of a head.
        item_bytes: bytes of one number.
    """
    places = sum(1 if name == "embeddings" else blocks for name in what)
    return places * steps * branches * prompts * tokens * width * item_bytes


@dataclass(frozen=True, eq=False)
class Activations:
    """What a run's tokens held, at chosen places; on the CPU, in the run's own precision.

    Attributes:
        values: by place. "keys" (after normalisation and rotary embedding), "values" and
            "attention output" (before its projection) are (prompt, token, head, dim); "residual"
            (the residual stream as it leaves a block) and "embeddings" (as it enters the first)
            are (prompt, token, width).
        positions: int64 (token,), ascending positions in the attention sequence of the run.
        tokens: the group that was asked for.
        layout, timesteps, block_kinds: of the run.
        provenance: how it was made, ready for JSON.

    Examples:
        >>> place = HookPoint("keys", "conditional", step=0, block=0)
        >>> from recast_probe.layout import Grid
        >>> layout = TokenLayout(2, Grid(1, 2), (Grid(1, 2),))
        >>> found = Activations(
        ...     {place: torch.zeros(1, 2, 4, 8)}, np.array([4, 5]), "reference", layout,
        ...     np.array([1000.0]), ("double",),
        ... )
        >>> found
        Activations(keys of 2 reference tokens, blocks 0, steps 0, 256 bytes)
    """

    values: Mapping[HookPoint, Tensor]
    positions: np.ndarray
    tokens: str
    layout: TokenLayout
    timesteps: np.ndarray
    block_kinds: tuple[str, ...]
    provenance: dict[str, Any] = field(default_factory=dict)

    @property
    def what(self) -> tuple[str, ...]:
        """Kinds of activations."""
        return tuple(name for name in WHAT if any(place.what == name for place in self.values))

    @property
    def branches(self) -> tuple[str, ...]:
        """Branches of guidance."""
        return tuple(dict.fromkeys(place.branch for place in self.values))

    @property
    def steps(self) -> list[int]:
        """Recorded steps."""
        return sorted({place.step for place in self.values})

    @property
    def blocks(self) -> list[int]:
        """Recorded blocks; embeddings belong to none."""
        return sorted({place.block for place in self.values if place.what != "embeddings"})

    @property
    def prompts(self) -> int:
        """Prompts that ran in one batch."""
        return len(next(iter(self.values.values())))

    @property
    def dtype(self) -> torch.dtype:
        """Precision of the values."""
        return next(iter(self.values.values())).dtype

    @property
    def bytes(self) -> int:
        """Memory of the values."""
        return sum(each.numel() * each.element_size() for each in self.values.values())

    @cached_property
    def sha256(self) -> str:
        """SHA-256 over places, shapes and values (hexadecimal)."""
        digest = hashlib.sha256()
        for place in sorted(self.values):
            value = self.values[place].contiguous()
            digest.update(f"{tuple(place)} {tuple(value.shape)} {value.dtype}\n".encode())
            digest.update(value.reshape(-1).view(torch.uint8).numpy().data)
        return digest.hexdigest()

    def describe(self) -> dict[str, Any]:
        """Which activations of which run these are, ready for JSON."""
        named = ("prompts", "seed", "steps", "image", "images", "interventions")
        return {
            "sha256": self.sha256,
            "blocks": spans(self.blocks),
            "steps": spans(self.steps),
            **{name: self.provenance[name] for name in named if name in self.provenance},
        }

    def select(self, place: HookPoint, positions: np.ndarray) -> Tensor:
        """Values of some of the recorded tokens at one place, (prompt, token, ...).

        Raises:
            InputError: nothing was recorded there, or not of these tokens.
        """
        if place not in self.values:
            raise InputError(
                f"No {place.what} of block {place.block}, step {place.step} ({place.branch}) were "
                f"recorded; there are {', '.join(self.what)} of blocks {spans(self.blocks)}, steps "
                f"{spans(self.steps)} ({', '.join(self.branches)})."
            )
        found = np.searchsorted(self.positions, positions)
        inside = np.minimum(found, len(self.positions) - 1)
        if (self.positions[inside] != positions).any():
            raise InputError(f"{self!r} lacks some of the tokens that are asked for.")
        value = self.values[place]
        if len(found) == value.shape[1]:
            return value
        return value.index_select(1, torch.as_tensor(found))

    def save(self, path: str | Path) -> Path:
        """Write to a safetensors file, whole or not at all, with provenance and a checksum over all
        of it.

        Raises:
            InputError: the path does not end in .safetensors, or its folder does not exist.
        """
        path = Path(path)
        if path.suffix != ".safetensors":
            raise InputError(f"Activations are saved as .safetensors, not as {path.name!r}.")
        if not path.parent.is_dir():
            raise InputError(f"The folder {str(path.parent)!r} does not exist; make it first.")
        described = {
            "tokens": self.tokens,
            "positions": self.positions.tolist(),
            "layout": self.layout.to_dict(),
            "timesteps": self.timesteps.tolist(),
            "block_kinds": list(self.block_kinds),
            "provenance": without_nan(self.provenance),
            "values": self.sha256,
        }
        header = {"recast_probe": json.dumps(sealed(described, KIND, FORMAT_VERSION))}
        tensors = {
            "/".join(map(str, place)): each.contiguous() for place, each in self.values.items()
        }
        with atomic_path(path) as temporary:
            save_file(tensors, temporary, header)
        return path

    @classmethod
    def load(cls, path: str | Path) -> Activations:
        """Read what `save` wrote.

        Raises:
            DamagedFileError: missing, damaged, foreign, or of a newer version.
        """
        path = Path(path)
        try:
            if not path.is_file():
                raise DamagedFileError(f"There is no file of activations at {path}.")
            with safe_open(path, framework="pt", device="cpu") as opened:
                described = _described(path, (opened.metadata() or {})["recast_probe"])
                values = {_place(name): opened.get_tensor(name) for name in list(opened.keys())}
            found = cls(
                values,
                np.asarray(described["positions"], np.int64),
                described["tokens"],
                TokenLayout.from_dict(described["layout"]),
                np.asarray(described["timesteps"], np.float64),
                tuple(described["block_kinds"]),
                described["provenance"],
            )
            whole = found.sha256 == described["values"]
            found._check_shapes()
        except DamagedFileError:
            raise
        except Exception as error:  # the reader of tensors and a forged description raise anything
            raise DamagedFileError(
                f"{path} holds no activations of recast_probe, or is damaged ({error})."
            ) from None
        if not whole:
            raise DamagedFileError(
                f"{path} is damaged: its contents do not match the checksum that was saved with "
                "them. Copy the file again, or repeat the run."
            )
        return found

    def _check_shapes(self) -> None:
        """Check that description and values can belong to one run; ValueError where not."""
        if not self.values:
            raise ValueError("it holds no values")
        ascending = self.positions.ndim == 1 and (np.diff(self.positions) > 0).all()
        if not self.positions.size or not ascending:
            raise ValueError("positions do not ascend")
        if self.positions[0] < 0 or self.positions[-1] >= self.layout.total:
            raise ValueError(f"positions leave the {self.layout.total} tokens of the layout")
        if any(
            each.ndim < 3 or each.shape[1] != len(self.positions) for each in self.values.values()
        ):
            raise ValueError("values do not have one row a position")
        steps, blocks = len(self.timesteps), len(self.block_kinds)
        if not all(0 <= at.step < steps and 0 <= at.block < blocks for at in self.values):
            raise ValueError(f"a place is outside {steps} steps and {blocks} blocks")

    def __repr__(self) -> str:
        return (
            f"Activations({', '.join(self.what)} of {len(self.positions)} {self.tokens} tokens, "
            f"blocks {spans(self.blocks)}, steps {spans(self.steps)}, {memory(self.bytes)})"
        )

    def _repr_html_(self) -> str:
        return html_table(repr(self))


def _described(path: Path, text: str) -> dict[str, Any]:
    """The description of a file, checked by its own digest."""
    found = parse_json(text, f"The description in {path}")
    if found["version"] != 1:
        return unsealed(found, str(path), KIND, FORMAT_VERSION)
    if found["format"] != f"recast_probe.{KIND}":
        raise ValueError(f"its format is {found['format']!r}")
    warnings.warn(
        f"{path} was written by an earlier recast_probe: its checksum covers the values, not their "
        "positions, timesteps and provenance. Load and save it again to have all of it covered.",
        stacklevel=3,
    )
    return {**found, "values": found["sha256"]}


def _place(name: str) -> HookPoint:
    what, branch, step, block = name.split("/")
    if what not in WHAT:
        raise ValueError(f"unknown activations {what!r}")
    return HookPoint(what, branch, int(step), int(block))
