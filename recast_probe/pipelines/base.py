"""What the probe must know about an in-context diffusion transformer, and nothing else."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Mapping, Sequence
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass
from typing import Any, ClassVar

import numpy as np
import torch
from PIL import Image

from recast_probe._utils.provenance import model_name
from recast_probe.attention.readout import Readout, attend
from recast_probe.errors import InputError, UnsupportedPipelineError
from recast_probe.layout import TokenLayout
from recast_probe.pipelines.compiled import refuse_compiled
from recast_probe.pipelines.feature_cache import FeatureCache
from recast_probe.pipelines.hooked_processor import refuse_accelerated
from recast_probe.pipelines.run_identity import model_fingerprint
from recast_probe.selection.merging import Groups


@dataclass(frozen=True)
class AttentionCall:
    """Where one block computes attention.

    Attributes:
        kind: "double" (double-stream) or "single" (single-stream).
        module: dotted path of the attention module inside the transformer.
        operations: the calls to follow, from the module's ``forward`` down to attention itself,
            in nnsight's notation (``{callable}_{occurrence}``).
        projections: paths below the attention module whose outputs are query, key and value, for
            an attention that is read where it stands and cannot be replaced; there are no
            operations then.
    """

    kind: str
    module: str
    operations: tuple[str, ...] = ()
    projections: tuple[str, ...] = ()


@dataclass(frozen=True)
class Schedule:
    """The denoising steps of a run, highest noise first.

    Attributes:
        timesteps: float64, one per step, on the scheduler's scale (1000 = pure noise).
        sigmas: float64, one per step, as the scheduler reports them.
        stochastic: the scheduler itself draws noise in the steps.
    """

    timesteps: np.ndarray
    sigmas: np.ndarray
    stochastic: bool = False

    def __len__(self) -> int:
        return len(self.timesteps)


@dataclass(frozen=True)
class TextInput:
    """The pipeline's arguments for the text of one branch: prompts, or embeddings made of them.

    Attributes:
        prompts: names of the arguments that are text.
        embeddings: name of the argument (prompt, text token, width).
        pooled: name of the one (prompt, pooled width) that goes with it.
        mask: name of the one (prompt, text token) that goes with it, true for tokens that count.
    """

    prompts: tuple[str, ...]
    embeddings: str
    pooled: str | None = None
    mask: str | None = None


class Family(ABC):
    """One family of pipelines, bound to one of them: names and shapes, no behaviour of the probe.

    Everything that is predicted here before a run (layout, schedule) is compared with what the
    transformer is really given while it runs.

    Args:
        pipe: the pipeline that it serves.
        model: what results call the model; by default what it was loaded from.

    Examples:
        >>> from recast_probe.testing.tiny import build_tiny_pipeline
        >>> rp.pipelines.find_family(build_tiny_pipeline()).attention_calls()[0].module
        'transformer_blocks.0.attn'
    """

    name: str
    pipelines: tuple[str, ...]
    parts: tuple[str, ...]  # what the pipeline must have
    text_parts: tuple[str, ...]  # what it must have besides where it is given prompts
    texts: Mapping[str, TextInput]  # by branch
    leaves_flow_sigmas: bool = False  # it gives none to a scheduler with ``use_flow_sigmas``
    processors: ClassVar[Mapping[str, str]]  # diffusers' class of processor, by kind of block
    reserved: Mapping[str, str] = {}  # arguments that the probe sets, and what to use instead
    query_groups: tuple[str, ...] = ("generation", "reference", "text")
    image_arguments: tuple[str, ...] = ()  # further arguments that are images, each as a list
    takes_adapter: bool = False
    needs_reference: bool = False
    takes_attention_mask: bool = True  # else merged tokens are weighed inside attention
    packages: tuple[str, ...] = ()  # what must be installed besides, by its name on PyPI

    def __init__(self, pipe: Any, model: str | None = None) -> None:
        self.pipe = pipe
        self.model = model or model_name(pipe)

    @property
    def block_kinds(self) -> list[str]:
        """ "double" or "single", by global index, of blocks that attend to a reference."""
        return [call.kind for call in self.attention_calls()]

    @property
    def fingerprint(self) -> str:
        """SHA-256 over the weights of all parts as they are now; see ``model_fingerprint``."""
        return model_fingerprint(self.pipe)

    def check(self) -> None:
        """Raise UnsupportedPipelineError, naming every part that is not as expected."""
        self.check_parts()
        refuse_accelerated(self.transformer)
        self._refuse_lacking(self.lacking())

    def check_parts(self) -> None:
        """Raise UnsupportedPipelineError, naming every component that is missing."""
        missing = [part for part in self.parts if getattr(self.pipe, part, None) is None]
        self._refuse_lacking(missing)

    def _refuse_lacking(self, missing: list[str]) -> None:
        if missing:
            raise UnsupportedPipelineError(
                f"{type(self.pipe).__name__} lacks what {self.name} is expected to have: "
                f"{'; '.join(missing)}."
            )

    @abstractmethod
    def lacking(self) -> list[str]:
        """What the transformer should have and has not, where the pipeline has its parts."""

    def processor_of(self, call: AttentionCall) -> Any:
        """The attention processor of a block."""
        module = self.transformer.get_submodule(call.module)
        return getattr(module, "processor", None)

    def other_processors(self, remedy: str = "") -> list[str]:
        """Where a processor is of another class than diffusers' own; one that inherits counts as
        such. What it runs is asked by ``pipeline_check``."""
        found = []
        for call in self.attention_calls():
            names = [each.__name__ for each in type(self.processor_of(call)).__mro__]
            if self.processors[call.kind] not in names:
                expected = "; ".join(filter(None, (self.processors[call.kind], remedy)))
                found.append(f"transformer.{call.module}.processor ({expected})")
        return found

    def check_traceable(self) -> None:
        """Raise UnsupportedPipelineError where the blocks cannot be traced, being compiled."""
        refuse_compiled(self.pipe)

    @property
    @abstractmethod
    def transformer(self) -> torch.nn.Module:
        """The denoising transformer."""

    @abstractmethod
    def attention_calls(self) -> list[AttentionCall]:
        """Every block in the order in which it runs; the index is the global block index."""

    @property
    @abstractmethod
    def heads(self) -> int:
        """Number of attention heads in a block."""

    @abstractmethod
    def call_arguments(self, overrides: Mapping[str, Any]) -> dict[str, Any]:
        """Keyword arguments of the pipeline call that follow from the model's own config.

        Anything in ``overrides`` wins.
        """

    @abstractmethod
    def prepare_reference(self, image: Image.Image, overrides: Mapping[str, Any]) -> Image.Image:
        """The reference image as it is handed to the pipeline."""

    def crop_box(self, image: Image.Image) -> tuple[float, float, float, float]:
        """What of a reference image its tokens stand for: left, top, right and bottom as shares of
        its width and height. The rest is cut off."""
        return 0.0, 0.0, 1.0, 1.0

    def reference_arguments(
        self, images: Sequence[Image.Image], arguments: Mapping[str, Any]
    ) -> dict[str, Any]:
        """Arguments of the pipeline call that carry the prepared reference images, if any.

        Args:
            arguments: the other arguments.

        Raises:
            InputError: more images than the pipeline takes.
        """
        if len(images) > 1:
            raise InputError(f"{self.name} takes one reference image, not {len(images)}.")
        return {"image": images[0]} if images else {}

    @abstractmethod
    def predict_layout(
        self, image: Image.Image | None, arguments: Mapping[str, Any]
    ) -> TokenLayout:
        """The token layout that a call with these arguments will have."""

    def branch_layouts(
        self, layout: TokenLayout, arguments: Mapping[str, Any]
    ) -> dict[str, TokenLayout]:
        """Layouts by branch; they differ in text tokens only. `layout` is the conditional one."""
        return dict.fromkeys(self.branch_names(arguments), layout)

    @abstractmethod
    def predict_schedule(self, layout: TokenLayout, arguments: Mapping[str, Any]) -> Schedule:
        """The steps that a call with these arguments will make."""

    @abstractmethod
    def branch_names(self, arguments: Mapping[str, Any]) -> tuple[str, ...]:
        """The transformer calls of one step, in order: "conditional" and, with true
        classifier-free guidance, "unconditional"."""

    @abstractmethod
    def branch_embeddings(self, arguments: Mapping[str, Any]) -> dict[str, torch.Tensor | None]:
        """Text embeddings by branch, to tell which call is which; None where there is one only."""

    def longest_sequence(self) -> int | None:
        """Most text tokens that the pipeline takes as max_sequence_length; None where any."""
        return None

    def given_embeddings(self, arguments: Mapping[str, Any], branch: str) -> torch.Tensor | None:
        """The text of a branch where it is given as embeddings, (prompt, text token, width)."""
        return arguments.get(self.texts[branch].embeddings) if branch in self.texts else None

    def encoded_branches(self, arguments: Mapping[str, Any]) -> list[str]:
        """Branches whose text the pipeline encodes itself."""
        names = self.branch_names(arguments)
        return [name for name in names if self.given_embeddings(arguments, name) is None]

    def check_prompts_known(self, arguments: Mapping[str, Any]) -> None:
        """Raise InputError where text is given as embeddings, whose words nobody knows."""
        if len(self.encoded_branches(arguments)) < len(self.branch_names(arguments)):
            raise InputError(
                "The text is given as embeddings, and nothing says which of its tokens are words, "
                "padding or parts of a picture; give the prompt itself, or choose tokens='text' "
                "with indices."
            )

    def cut_off(self, arguments: Mapping[str, Any]) -> list[tuple[str, str, int, int]]:
        """Text that no encoder reads, being too long: argument, tokenizer, number of the prompt and
        tokens that are cut off, for each prompt that loses any."""
        return []

    def latents_shape(self, prompts: int, layout: TokenLayout) -> tuple[int, ...]:
        """Shape of the initial noise as the pipeline takes it: by default packed into tokens."""
        channels = int(self.pipe.transformer.config.in_channels) // 4 * 4
        return prompts, layout.generation.size, channels

    def padding_tokens(self, arguments: Mapping[str, Any]) -> dict[str, np.ndarray]:
        """By branch, bool (prompt, text token): text tokens that are padding.

        Raises:
            InputError: the text is given as embeddings.
            UnsupportedPipelineError: it cannot be told.
        """
        raise UnsupportedPipelineError(f"Padding of the text cannot be told in {self.name}.")

    def vision_tokens(self, arguments: Mapping[str, Any]) -> dict[str, np.ndarray]:
        """As ``padding_tokens``, those that stand for parts of a picture; empty if none can be."""
        return {}

    @abstractmethod
    def observed_layout(self, inputs: Mapping[str, Any]) -> TokenLayout:
        """The token layout read from the transformer's inputs.

        Raises:
            VerificationError: the position ids are not raster grids.
        """

    @abstractmethod
    def observed_timestep(self, inputs: Mapping[str, Any]) -> torch.Tensor:
        """The timestep the transformer was given, shape (batch,), on the scheduler's scale."""

    @abstractmethod
    def observed_embedding(self, inputs: Mapping[str, Any]) -> torch.Tensor:
        """The text embedding that the transformer was given, (batch, text token, width)."""

    @property
    def width(self) -> int:
        """Numbers in one token's hidden state, which is heads times dimensions of a head."""
        raise UnsupportedPipelineError(f"The width of {self.name} is not known.")

    def attention_call_order(self) -> list[int]:
        """For each block, which of the attention calls of one transformer call is its own."""
        return list(range(len(self.attention_calls())))

    def read_attention(
        self,
        query: torch.Tensor,
        key: torch.Tensor,
        value: torch.Tensor,
        layout: TokenLayout,
        **settings: Any,
    ) -> Readout:
        """A block's attention with its statistics; ``settings`` are those of ``attend``."""
        return attend(query, key, value, layout, **settings)

    def facts(self) -> dict[str, Any]:
        """What a result must say of this pipeline beyond its weights, ready for JSON."""
        return {}

    def call_facts(self, arguments: Mapping[str, Any]) -> dict[str, Any]:
        """What a result must say of this call beyond its layout, ready for JSON."""
        return {}

    def keep_rotary_positions(self) -> AbstractContextManager[None]:
        """Around a run: tokens that stay keep their positions where the transformer makes them."""
        return nullcontext()

    @abstractmethod
    def keep_reference_tokens(
        self, inputs: Mapping[str, Any], layout: TokenLayout, kept: Sequence[int] | np.ndarray
    ) -> dict[str, Any]:
        """The transformer's inputs with only some reference tokens; these keep their positions."""

    def count_reference_tokens(self, inputs: Mapping[str, Any], layout: TokenLayout) -> int:
        """Reference tokens in the transformer's inputs."""
        return int(inputs["hidden_states"].shape[1]) - layout.generation.size

    def reference_features(self, inputs: Mapping[str, Any], layout: TokenLayout) -> torch.Tensor:
        """The reference tokens as they enter the transformer, shape (batch, tokens, width).

        Raises:
            UnsupportedPipelineError: they do not enter it as separate tokens.
        """
        raise UnsupportedPipelineError(f"Reference tokens of {self.name} cannot be compared.")

    def merge_reference_tokens(
        self, inputs: Mapping[str, Any], layout: TokenLayout, groups: Groups, *, proportional: bool
    ) -> dict[str, Any]:
        """The transformer's inputs with groups of reference tokens replaced by their mean.

        Args:
            groups: which tokens are merged; a group has the position of its kept token.
            proportional: add the logarithm of a group's size to its attention logits.

        Raises:
            UnsupportedPipelineError: reference tokens of this family cannot be merged.
        """
        raise UnsupportedPipelineError(f"Reference tokens of {self.name} cannot be merged.")

    def block_modules(self) -> list[torch.nn.Module]:
        """Every block; its output is (text states, image states), (batch, tokens, width) each, the
        image states being those of the generation and then of the reference tokens. It is called
        with the same states by name, ``encoder_hidden_states`` and ``hidden_states``. A block of
        one stream may take and give both as one tensor, text first.

        Raises:
            UnsupportedPipelineError: reference tokens have no states of their own in the blocks.
        """
        raise UnsupportedPipelineError(
            f"Reference tokens of {self.name} have no hidden states to compare."
        )

    def block_lists(self) -> list[tuple[torch.nn.Module, str]]:
        """Every list of blocks: the module that runs them one by one, and the list's name in it.

        Raises:
            UnsupportedPipelineError: whole forwards of this family cannot be skipped.
        """
        raise UnsupportedPipelineError(f"Steps of {self.name} cannot be skipped.")

    def modulated_input(self, inputs: Mapping[str, Any], layout: TokenLayout) -> torch.Tensor:
        """Generation tokens as the first block's attention sees them, (batch, tokens, width):
        embedded, normalised, and modulated for this timestep.

        Raises:
            UnsupportedPipelineError: not known for this family.
        """
        raise UnsupportedPipelineError(f"{self.name} has no modulated input that is known.")

    def cached_blocks(self, cache: FeatureCache) -> AbstractContextManager[None]:
        """Around a run: the transformer's blocks ask this cache what to compute.

        Raises:
            UnsupportedPipelineError: this family's blocks cannot be cached token by token.
        """
        raise UnsupportedPipelineError(f"The blocks of {self.name} cannot be cached by token.")
