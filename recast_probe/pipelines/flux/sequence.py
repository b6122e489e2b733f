"""FLUX transformers whose reference tokens stand in the sequence, after those of the generation.

``img_ids`` says which image, row and column an image token is of.
"""

from __future__ import annotations

from collections.abc import Mapping
from contextlib import AbstractContextManager
from typing import ClassVar

from recast_probe.pipelines.cached_blocks import CachedBlock, cached_blocks
from recast_probe.pipelines.feature_cache import FeatureCache
from recast_probe.pipelines.flux.base import Flux
from recast_probe.pipelines.sequence import SequenceFamily


class FluxSequence(Flux, SequenceFamily):
    """Shared by FLUX.1 Kontext and FLUX.2; not a family itself.

    Attributes:
        cached_types: how a block runs from a cache, by kind of block; empty where none can.
    """

    cached_types: ClassVar[Mapping[str, type[CachedBlock]]] = {}

    def cached_blocks(self, cache: FeatureCache) -> AbstractContextManager[None]:
        if not self.cached_types:
            return super().cached_blocks(cache)
        kinds = (self.cached_types[kind] for kind, _, _ in self.block_places())
        blocks = list(zip(kinds, self.block_modules(), strict=True))
        return cached_blocks(blocks, cache)
