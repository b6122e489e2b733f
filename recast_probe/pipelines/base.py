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
from recast_probe.attention.order import SequenceOrder
from recast_probe.attention.readout import Readout, attend
from recast_probe.errors import InputError, UnsupportedPipelineError
from recast_probe.images.layers import composed
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
        sites: all operations that it may be reached by, where ``Family.operations`` chooses one in
            every transformer call.
        projections: paths below the attention module whose outputs are query, key and value, for
            an attention that is read where it stands and cannot be replaced; there are no
            operations then.
    """

    kind: str
    module: str
    operations: tuple[str, ...] = ()
    sites: tuple[tuple[str, ...], ...] = ()
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
    # diffusers' class of processor, by kind of block; a kind that is not there takes any
    processors: ClassVar[Mapping[str, str]]
    reserved: Mapping[str, str] = {}  # arguments that the probe sets, and what to use instead
    unserved: Mapping[str, str] = {}  # arguments that must be left out, each with the reason
    query_groups: tuple[str, ...] = ("generation", "reference", "text")
    image_arguments: tuple[str, ...] = ()  # further arguments that are images, each as a list
    layout_prompt: str = ""  # one that the pipeline takes, where a layout is asked for without
    # where an output comes as several pictures, what one of them is called: "layer" or "frame"
    layered: str = ""
    output_name: str = "images"  # where the pipeline's output has them
    takes_adapter: bool = False
    needs_reference: bool = False
    takes_attention_mask: bool = True  # else merged tokens are weighed inside attention
    # text tokens are among those of the attention that is read; else layouts have none
    text_in_sequence: bool = True
    packages: tuple[str, ...] = ()  # what must be installed besides, by its name on PyPI
    # reference tokens are computed in the first step, and later attended to from a cache
    caches_reference: bool = False
    # what is dropped in the first step is not in that cache, and in no later step
    forgets_dropped: bool = False
    # what keeps hidden states of the blocks from being read and changed; "" for nothing
    no_block_states: str = ""
    # states of text tokens do not pass from block to block whole: a part of them is replaced
    replaces_text_states: bool = False
    # the blocks return (image states, text states) and not (text states, image states)
    image_states_first: bool = False
    # dropped reference tokens stay in the transformer's inputs, and are left out of every attention
    drops_in_attention: bool = False
    # branches that are rows of one transformer call where there is guidance, in their order
    batched: tuple[str, ...] = ()
    # token groups that go through the MLP of generation tokens in a double-stream block
    image_stream: tuple[str, ...] = ("generation", "reference")

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

    @property
    def own(self) -> bool:
        """It was written by a user, for a transformer whose code may be the user's as well."""
        return not type(self).__module__.startswith("recast_probe.")

    @classmethod
    def pipeline_class(cls, name: str) -> Any:
        """The class of one of its pipelines, by the class's name; by default diffusers' own."""
        import diffusers

        return getattr(diffusers, name)

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
            if self.processors.get(call.kind, names[0]) not in names:
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

    def prepare_references(
        self, images: Sequence[Image.Image], overrides: Mapping[str, Any]
    ) -> tuple[Image.Image, ...]:
        """All reference images of a call, each as ``prepare_reference`` gives it.

        Args:
            images: as they were given, in their order.

        Raises:
            InputError: one that the pipeline does not take, or not with these arguments.
        """
        return tuple(self.prepare_reference(each, overrides) for each in images)

    def crop_box(
        self, image: Image.Image, arguments: Mapping[str, Any]
    ) -> tuple[float, float, float, float]:
        """What of a reference image its tokens stand for: left, top, right and bottom as shares of
        its width and height. The rest is cut off.

        Args:
            image: as it was given.
            arguments: of the pipeline call, as they were given.
        """
        return 0.0, 0.0, 1.0, 1.0

    def reference_arguments(
        self, images: Sequence[Image.Image], arguments: Mapping[str, Any]
    ) -> dict[str, Any]:
        """Arguments of the pipeline call that carry the prepared reference images, if any.

        Args:
            arguments: the other arguments, the prompts among them.

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

    def text_words(
        self, prompt: str, tokens: int, arguments: Mapping[str, Any]
    ) -> tuple[str, ...] | None:
        """What each text token of a prompt is, to be read, with the space before it where a word
        begins; None where it is not known.

        Args:
            tokens: how many the run had.
            arguments: the others of the call.
        """
        return None

    def vision_tokens(self, arguments: Mapping[str, Any]) -> dict[str, np.ndarray]:
        """As ``padding_tokens``, those that stand for parts of a picture; empty if none can be."""
        return {}

    @abstractmethod
    def observed_layout(self, inputs: Mapping[str, Any]) -> TokenLayout:
        """The token layout read from the transformer's inputs.

        Raises:
            VerificationError: the position ids are not raster grids.
        """

    def layout_fits(self, inputs: Mapping[str, Any], expected: TokenLayout) -> bool:
        """Whether a transformer call has the tokens that were expected."""
        return self.observed_layout(inputs) == expected

    @abstractmethod
    def observed_timestep(self, inputs: Mapping[str, Any]) -> torch.Tensor:
        """The timestep the transformer was given, shape (batch,), on the scheduler's scale."""

    @abstractmethod
    def observed_embedding(self, inputs: Mapping[str, Any]) -> torch.Tensor:
        """The text embedding that the transformer was given, (batch, text token, width)."""

    def observed_text(self, inputs: Mapping[str, Any]) -> int:
        """Text tokens in the sequence of a transformer call; nothing is read from the device."""
        return int(inputs["encoder_hidden_states"].shape[1]) if self.text_in_sequence else 0

    def generation_rows(self, states: torch.Tensor, layout: TokenLayout) -> torch.Tensor:
        """The generation tokens among the image tokens that the transformer is given, or among all
        that it gives, (batch, token, channel) each."""
        return states[:, : layout.generation.size]

    @property
    def reads_alpha(self) -> bool:
        """Whether the pipeline reads how transparent a reference is; else it is laid on white."""
        return False

    @property
    def fixed_steps(self) -> int | None:
        """Steps that the pipeline's config sets for every call without sigmas; None for none."""
        return None

    @property
    def text_width(self) -> int:
        """Numbers in one token of the text embeddings, as the pipeline takes them."""
        return int(self.pipe.transformer.config.joint_attention_dim)

    @property
    def width(self) -> int:
        """Numbers in one token's hidden state, which is heads times dimensions of a head."""
        raise UnsupportedPipelineError(f"The width of {self.name} is not known.")

    def rehearsed_output(self, inputs: Mapping[str, Any]) -> Any:
        """Zeros as the transformer would give them for these inputs, for rehearsals: by default in
        the shape of ``hidden_states``, as diffusers' transformers give them."""
        from diffusers.models.modeling_outputs import Transformer2DModelOutput

        zeros = torch.zeros_like(inputs["hidden_states"])
        whole = inputs.get("return_dict", True)
        return Transformer2DModelOutput(sample=zeros) if whole else (zeros,)

    def calls_of_step(self, branches: Sequence[str]) -> list[tuple[str, ...]]:
        """The transformer calls of one step, each with the branches that are its rows."""
        if self.batched and len(branches) > 1:
            return [self.batched]
        return [(branch,) for branch in branches]

    def rows_now(self) -> tuple[str, ...]:
        """The branches that are rows of a transformer call of the image that the pipeline makes at
        present, as far as its own state tells."""
        if self.batched and float(getattr(self.pipe, "guidance_scale", 1)) > 1:
            return self.batched
        return ("conditional",)

    def operations(self, call: AttentionCall, inputs: Mapping[str, Any]) -> tuple[str, ...]:
        """The operations of a block's attention in a transformer call, one of its ``sites``.

        They lead to the one attention whose queries hold all generation tokens, and whose keys hold
        the reference tokens.

        Args:
            inputs: of the transformer call.
        """
        return call.operations

    def sequence_order(
        self, inputs: Mapping[str, Any], layout: TokenLayout
    ) -> SequenceOrder | None:
        """Where attention has its tokens in a transformer call; None for [text; generation;
        reference] in keys and queries, of which those of the reference may be missing.

        Args:
            inputs: of the call, once reference tokens were dropped.
            layout: the tokens that attention has; dropped reference tokens leave one row.
        """
        return None

    def attention_call_order(self, inputs: Mapping[str, Any]) -> list[int]:
        """For each block, which of the attention calls of one transformer call is its own.

        Args:
            inputs: of the transformer call.
        """
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

    def whole_picture(self, parts: Sequence[Image.Image]) -> Image.Image:
        """The one picture that stands for all that an output comes as, where ``layered``."""
        return composed(parts)

    def facts(self) -> dict[str, Any]:
        """What a result must say of this pipeline beyond its weights, ready for JSON."""
        return {}

    def call_facts(self, arguments: Mapping[str, Any]) -> dict[str, Any]:
        """What a result must say of this call beyond its layout, ready for JSON."""
        return {}

    def keep_rotary_positions(self) -> AbstractContextManager[None]:
        """Around a run: tokens that stay keep their positions where the transformer makes them, and
        the pipeline gets outputs of as many tokens as it gave where it reads those of all."""
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
        raise UnsupportedPipelineError(
            f"Reference tokens of {self.name} cannot be compared and merged{self._why()}."
        )

    def _why(self) -> str:
        return f", since it {self.no_block_states}" if self.no_block_states else ""

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
        image states being those of the generation and then of the reference tokens, unless
        ``states_in_order`` says otherwise. It is called with the same states by name,
        ``encoder_hidden_states`` and ``hidden_states``. A block of one stream may take and give
        both as one tensor, text first.

        Raises:
            UnsupportedPipelineError: reference tokens have no states of their own in the blocks.
        """
        raise UnsupportedPipelineError(
            f"Reference tokens of {self.name} have no hidden states to compare."
        )

    def states_in_order(
        self, states: Sequence[torch.Tensor], layout: TokenLayout
    ) -> list[torch.Tensor]:
        """The states that a block takes or gives, cut where needed so that one after the other they
        are those of text, generation and reference tokens.

        Args:
            layout: the tokens that the transformer computes.
        """
        return list(states)

    def states_of_block(self, states: Sequence[torch.Tensor]) -> list[torch.Tensor]:
        """What ``states_in_order`` made, as the block takes or gives it."""
        return list(states)

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
