"""Which positions of an attention sequence are text, generation and reference tokens."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Any

import numpy as np

from recast_probe.errors import InputError

GROUPS = ("text", "generation", "reference")


@dataclass(frozen=True)
class Grid:
    """Rows and columns of the tokens of one image.

    Attributes:
        rows, columns: at least 1.
        placed: each token stands for a place of the image. False for tokens that all come from the
            whole image, as an IP-Adapter's do; their one row is a numbering and not a picture.
        layers: so many pictures of this size, the layers of an image or the frames of a video;
            their tokens follow one another, layer by layer.

    Raises:
        InputError: fewer than 1 x 1 tokens.

    Examples:
        >>> grid = Grid(2, 3)
        >>> grid.size, str(grid)
        (6, '2 x 3')
        >>> Grid(2, 3, layers=4).size
        24
    """

    rows: int
    columns: int
    placed: bool = True
    layers: int = 1

    def __post_init__(self) -> None:
        if min(self.rows, self.columns, self.layers) < 1:
            raise InputError(f"A token grid needs at least 1 x 1 tokens, got {self}.")

    @property
    def size(self) -> int:
        """Number of tokens."""
        return self.rows * self.columns * self.layers

    def coordinates(self) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        """Layer, row and column of every token, each int64 (token,).

        Examples:
            >>> layer, row, column = Grid(1, 2, layers=2).coordinates()
            >>> layer, column
            (array([0, 0, 1, 1]), array([0, 1, 0, 1]))
        """
        layer, place = np.divmod(np.arange(self.size), self.rows * self.columns)
        return layer, *np.divmod(place, self.columns)

    def __str__(self) -> str:
        if not self.placed:
            return f"{self.size} tokens without places"
        layers = "" if self.layers == 1 else f"{self.layers} layers of "
        return f"{layers}{self.rows} x {self.columns}"

    def to_list(self) -> list[int]:
        """The arguments that make it, without defaults at the end.

        Examples:
            >>> Grid(2, 3).to_list(), Grid(2, 3, layers=4).to_list()
            ([2, 3], [2, 3, True, 4])
        """
        if self.layers > 1:
            return [self.rows, self.columns, self.placed, self.layers]
        return [self.rows, self.columns] if self.placed else [self.rows, self.columns, False]


@dataclass(frozen=True)
class TokenLayout:
    """The sequence inside attention: text, generation, then one or several reference images.

    This is the order of diffusers; the paper's Eq. 1 writes the reference first. Without a
    reference image, `references` is empty and the reference group spans no position.

    Attributes:
        text: number of text tokens; 0 for a model that attends to its text elsewhere.
        generation: grid of the generated image, or of the layers of one or the frames of a video.
        references: one grid for each reference image; the frames of a video are so many of them.

    Raises:
        InputError: a negative number of text tokens, or a reference of several layers.

    Examples:
        >>> layout = TokenLayout(12, Grid(4, 4), (Grid(4, 4),))
        >>> layout.total, layout.reference_tokens
        (44, 16)
    """

    text: int
    generation: Grid
    references: tuple[Grid, ...] = ()

    def __post_init__(self) -> None:
        if self.text < 0:
            raise InputError(f"A layout cannot have {self.text} text tokens.")
        object.__setattr__(self, "references", tuple(self.references))
        layered = [grid for grid in self.references if grid.layers > 1]
        if layered:
            raise InputError(
                f"A reference is one picture, and {layered[0]} are several; give one grid for each."
            )

    @property
    def groups(self) -> tuple[str, ...]:
        """The token groups, in order of position."""
        return GROUPS

    @property
    def reference_tokens(self) -> int:
        """Number of reference tokens of all reference images."""
        return sum(grid.size for grid in self.references)

    @property
    def placed(self) -> bool:
        """Every reference token stands for a place of its image."""
        return all(grid.placed for grid in self.references)

    @property
    def total(self) -> int:
        """Length of the sequence."""
        return self.text + self.generation.size + self.reference_tokens

    def span(self, group: str) -> slice:
        """Positions of a group: "text", "generation", "reference" or "reference_<i>".

        Raises:
            InputError: no such group.

        Examples:
            >>> TokenLayout(12, Grid(4, 4), (Grid(2, 2),)).span("reference")
            slice(28, 32, None)
        """
        starts = {
            "text": (0, self.text),
            "generation": (self.text, self.generation.size),
            "reference": (self.text + self.generation.size, self.reference_tokens),
        }
        start = starts["reference"][0]
        for index, grid in enumerate(self.references):
            starts[f"reference_{index}"] = (start, grid.size)
            start += grid.size
        if group not in starts:
            raise InputError(f"There is no token group {group!r}; there are {', '.join(starts)}.")
        first, size = starts[group]
        return slice(first, first + size)

    def reference_coordinates(self) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        """Image index, row and column of every reference token, each int64 (reference tokens,).

        Examples:
            >>> layout = TokenLayout(0, Grid(2, 2), (Grid(1, 3),))
            >>> image, row, column = layout.reference_coordinates()
            >>> column
            array([0, 1, 2])
        """
        parts = [
            np.stack([np.full(grid.size, index), *np.divmod(np.arange(grid.size), grid.columns)])
            for index, grid in enumerate(self.references)
        ]
        image, row, column = np.concatenate([np.zeros((3, 0), np.int64), *parts], axis=1)
        return image, row, column

    def in_one_row(self, tokens: int) -> TokenLayout:
        """The same text and generation, with so many reference tokens in one row: what is left of
        references is no grid any more.

        Examples:
            >>> layout = TokenLayout(12, Grid(4, 4), (Grid(2, 2), Grid(2, 3)))
            >>> layout.in_one_row(3).references, layout.in_one_row(0).references
            ((Grid(rows=1, columns=3, placed=True, layers=1),), ())
        """
        return replace(self, references=(Grid(1, tokens),) if tokens else ())

    def to_dict(self) -> dict[str, Any]:
        """Plain numbers, for JSON; the inverse of `from_dict`.

        Examples:
            >>> TokenLayout(12, Grid(4, 4), (Grid(2, 2),)).to_dict()
            {'text': 12, 'generation': [4, 4], 'references': [[2, 2]]}
        """
        return {
            "text": self.text,
            "generation": self.generation.to_list(),
            "references": [grid.to_list() for grid in self.references],
        }

    @classmethod
    def from_dict(cls, values: Mapping[str, Any]) -> TokenLayout:
        """The layout that `to_dict` wrote.

        Examples:
            >>> layout = TokenLayout(12, Grid(4, 4), (Grid(2, 2),))
            >>> TokenLayout.from_dict(layout.to_dict()) == layout
            True
        """
        return cls(
            text=int(values["text"]),
            generation=Grid(*values["generation"]),
            references=tuple(Grid(*grid) for grid in values["references"]),
        )
