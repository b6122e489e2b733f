"""FLUX.1 with an IP-Adapter: image tokens attended beside the blocks, in double-stream blocks only.

A CLIP embedding of each reference image is projected to a few tokens (4 or 16 in the adapters that
diffusers loads). In each double-stream block the generation tokens' queries, before their rotary
positions, attend to them in a **softmax of its own**; the result, times the adapter's scale, is
added to the block's output. Three things follow for a profile:

- The blocks of the profile are the double-stream blocks; no other block sees the image tokens.
- The reference takes all of the mass by construction, in every row. The mass says nothing about
  how much the image matters; the scale and the values do. Scores say how that 1 is shared out.
- An image token stands for no place in the image: each comes from the embedding of the whole. The
  tokens of an image are one row without places, and nothing can be laid over the picture.

A feature extractor may cut an image into views that are encoded one by one, and says how many in
its attribute ``views``; all their tokens are then the image's one row.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, ClassVar

import numpy as np
import torch
from PIL import Image

from recast_probe.attention.readout import Readout
from recast_probe.attention.reference_only import attend_to_reference
from recast_probe.errors import InputError, UnsupportedPipelineError, VerificationError
from recast_probe.layout import Grid, TokenLayout
from recast_probe.pipelines.base import AttentionCall
from recast_probe.pipelines.flux.flux_1 import Flux1

IMAGES, TOKENS = "ip_adapter_image_embeds", "ip_hidden_states"
HOW_TO_LOAD = (
    "pipe.load_ip_adapter('XLabs-AI/flux-ip-adapter', weight_name='ip_adapter.safetensors', "
    "image_encoder_pretrained_model_name_or_path='openai/clip-vit-large-patch14')"
)


class FluxIPAdapter(Flux1):
    """``FluxPipeline`` of diffusers with one IP-Adapter: the reference is a picture's few tokens,
    read beside the sequence.

    Examples:
        >>> from recast_probe.testing.tiny_ip_adapter import build_tiny_pipeline
        >>> FluxIPAdapter(build_tiny_pipeline()).block_kinds
        ['double', 'double']
    """

    name = "flux-ip-adapter"
    pipelines = ("FluxPipeline",)
    parts = (*Flux1.parts, "feature_extractor", "image_encoder")
    processors: ClassVar[dict[str, str]] = {"double": "FluxIPAdapterAttnProcessor"}
    projections = ("norm_q", "processor.to_k_ip.0", "processor.to_v_ip.0")
    query_groups = ("generation",)
    reserved: Mapping[str, str] = {
        "ip_adapter_image": "image",
        "ip_adapter_image_embeds": "image",
        "negative_ip_adapter_image_embeds": "negative_ip_adapter_image",
    }
    image_arguments = ("negative_ip_adapter_image",)
    takes_adapter = True

    def check_parts(self) -> None:
        transformer = getattr(self.pipe, "transformer", None)
        if transformer is not None and getattr(transformer, "encoder_hid_proj", None) is None:
            raise UnsupportedPipelineError(
                f"This {type(self.pipe).__name__} has no IP-Adapter, so it has no reference tokens "
                f"to probe. Load one first: {HOW_TO_LOAD}; or, for FLUX.1 Redux, put it together "
                "with its prior by recast_probe.FluxReduxPipeline.from_pipelines(prior, pipe)."
            )
        super().check_parts()

    def lacking(self) -> list[str]:
        missing = super().lacking()
        if missing:
            return missing
        layers = getattr(self.pipe.transformer.encoder_hid_proj, "image_projection_layers", ())
        if len(layers) > 1:
            return [
                f"one IP-Adapter alone ({len(layers)} are loaded, and each attends in a softmax of "
                "its own; call pipe.unload_ip_adapter() and load one)"
            ]
        if not layers or not hasattr(layers[0], "num_image_text_embeds"):
            return ["transformer.encoder_hid_proj.image_projection_layers.0 (ImageProjection)"]
        return self.other_processors()

    def attention_calls(self) -> list[AttentionCall]:
        return [
            AttentionCall(kind, f"{stack}.{index}.attn", projections=self.projections)
            for kind, stack, index in self.block_places()
            if kind == "double"
        ]

    def attention_call_order(self, inputs: Mapping[str, Any]) -> list[int]:
        # a double-stream block attends by itself first, then through the adapter
        return [2 * block + 1 for block in range(len(self.attention_calls()))]

    def facts(self) -> dict[str, Any]:
        return {
            "ip_adapter": {
                "tokens_per_image": self._tokens_per_image(),
                "scale": [
                    float(self.processor_of(call).scale[0]) for call in self.attention_calls()
                ],
                "softmax": "over image tokens alone",
            }
        }

    def _tokens_per_image(self) -> int:
        (layer,) = self.pipe.transformer.encoder_hid_proj.image_projection_layers
        return int(layer.num_image_text_embeds) * self._views()

    def _views(self) -> int:
        """Embeddings of each image."""
        return int(getattr(self.pipe.feature_extractor, "views", 1))

    def call_arguments(self, overrides: Mapping[str, Any]) -> dict[str, Any]:
        self.check()  # the adapter may have been unloaded meanwhile
        side = self.default_side()
        # the pipeline takes a list of images for each adapter
        images = {name: [overrides[name]] for name in self.image_arguments if name in overrides}
        return {
            "height": side,
            "width": side,
            **self.text_arguments(overrides),
            **overrides,
            **images,
        }

    def prepare_reference(self, image: Image.Image, overrides: Mapping[str, Any]) -> Image.Image:
        """The image as it is: CLIP's own preprocessing resizes it and cuts out the middle."""
        return image

    def reference_arguments(
        self, images: Sequence[Image.Image], arguments: Mapping[str, Any]
    ) -> dict[str, Any]:
        options = dict(arguments.get("joint_attention_kwargs") or {})
        given = sorted({IMAGES, TOKENS} & set(options))
        if given:
            raise InputError(f"joint_attention_kwargs holds {given[0]}; give the image instead.")
        if not images:
            # without any tokens the adapter's processors need an empty list of them
            return {"joint_attention_kwargs": {**options, TOKENS: []}}
        found: dict[str, Any] = {"ip_adapter_image": [list(images)]}
        negative = arguments.get("negative_ip_adapter_image")
        if negative is None and len(images) > 1 and len(self.branch_names(arguments)) > 1:
            raise InputError(
                f"The pipeline gives the negative prompt one black image, and the prompt has "
                f"{len(images)}, so their tokens do not correspond; give as many with "
                "negative_ip_adapter_image."
            )
        if negative is not None and len(negative[0]) != len(images):
            raise InputError(
                f"negative_ip_adapter_image has {len(negative[0])} images and image has "
                f"{len(images)}; give as many, so that their tokens correspond."
            )
        return found

    def predict_layout(
        self, image: Image.Image | None, arguments: Mapping[str, Any]
    ) -> TokenLayout:
        (images,) = arguments.get("ip_adapter_image", [[]])
        return TokenLayout(
            text=self.text_tokens(arguments, "conditional"),
            generation=self.output_grid(arguments),
            references=self._rows(len(images)),
        )

    def _rows(self, images: int) -> tuple[Grid, ...]:
        return (Grid(1, self._tokens_per_image(), placed=False),) * images

    def observed_layout(self, inputs: Mapping[str, Any]) -> TokenLayout:
        grids = self.image_grids(inputs)
        if len(grids) > 1:
            raise VerificationError(
                f"The transformer was given {len(grids)} images in its sequence; with an "
                "IP-Adapter the reference does not stand there."
            )
        embeddings = (inputs.get("joint_attention_kwargs") or {}).get(IMAGES)
        count = 0 if embeddings is None else int(embeddings[0].shape[1])
        if count % self._views():
            raise VerificationError(
                f"The transformer was given {count} embeddings of images, and the feature "
                f"extractor makes {self._views()} of each."
            )
        return TokenLayout(
            text=self.observed_text(inputs),
            generation=grids[0],
            references=self._rows(count // self._views()),
        )

    def read_attention(
        self,
        query: torch.Tensor,
        key: torch.Tensor,
        value: torch.Tensor,
        layout: TokenLayout,
        **settings: Any,
    ) -> Readout:
        settings.pop("mass_table", None)  # generation tokens are the only queries
        return attend_to_reference(query, key, value, layout, **settings)

    def count_reference_tokens(self, inputs: Mapping[str, Any], layout: TokenLayout) -> int:
        options = inputs.get("joint_attention_kwargs") or {}
        if TOKENS in options:
            return sum(int(tokens.shape[1]) for tokens in options[TOKENS])
        return layout.reference_tokens

    def keep_reference_tokens(
        self, inputs: Mapping[str, Any], layout: TokenLayout, kept: Sequence[int] | np.ndarray
    ) -> dict[str, Any]:
        """The image embeddings projected here, in place of in the transformer, and cut.

        Dropped tokens are neither keys nor values of the adapter; without any, it adds zero.
        """
        if len(kept) == layout.reference_tokens:
            return dict(inputs)
        options = dict(inputs["joint_attention_kwargs"])
        embeddings = options.pop(IMAGES)
        options[TOKENS] = [self._project(embeddings, kept)] if len(kept) else []
        return {**inputs, "joint_attention_kwargs": options}

    def _project(
        self, embeddings: list[torch.Tensor], kept: Sequence[int] | np.ndarray
    ) -> torch.Tensor:
        """Image tokens (batch, kept, width) from embeddings (batch, image, width)."""
        projection = self.pipe.transformer.encoder_hid_proj
        device = next(projection.parameters()).device
        if device.type == "meta":  # offloaded; its hooks bring the weights to the input
            device = embeddings[0].device
        with torch.no_grad():
            (tokens,) = projection([embeddings[0].to(device)])
        index = torch.as_tensor(np.asarray(kept, np.int64), device=device)
        return tokens.flatten(1, 2).index_select(1, index).to(embeddings[0].device)
