"""ToCa's FLUX variant the slow, obvious way, for comparison: every token, the whole matrix.

It follows the published code in what is computed for which token: text and reference tokens are
cached and renewed like all others, the cached attention is projected again in every step, and
attention is a dense softmax in float64. It shares no code with the package.
"""

from __future__ import annotations

from contextlib import contextmanager
from dataclasses import dataclass

import torch
from diffusers.models.embeddings import apply_rotary_emb

from recast_probe.interventions import Intervention


@dataclass(frozen=True)
class DenseTokenCache(Intervention):
    """Replaces the forward of a tiny transformer of 2 double-stream and 3 single-stream blocks."""

    interval: int = 3
    share: float = 0.4
    score: str = "attention"
    bonus: float = 0.0
    branches: int = 1

    @contextmanager
    def attached(self, family, run):
        transformer = family.pipe.transformer
        dense = _Dense(self, transformer, run)
        transformer.forward = dense.forward
        try:
            yield self
        finally:
            del transformer.forward


class _Dense:
    def __init__(self, settings, transformer, run):
        self.settings, self.transformer, self.run = settings, transformer, run
        self.calls, self.since_full = 0, {}
        self.caches = {}

    def forward(
        self,
        hidden_states,
        encoder_hidden_states,
        pooled_projections,
        timestep,
        img_ids,
        txt_ids,
        guidance=None,
        joint_attention_kwargs=None,
        return_dict=True,
    ):
        model = self.transformer
        step, branch = divmod(self.calls, self.settings.branches)
        self.calls += 1
        counter = self.since_full.get(branch, 0)
        full = step <= 2 or counter == self.settings.interval - 1
        self.since_full[branch] = 0 if full else counter + 1
        image = model.x_embedder(hidden_states)
        text = model.context_embedder(encoder_hidden_states)
        emb = model.time_text_embed(timestep * 1000, guidance * 1000, pooled_projections)
        self.rotary = model.pos_embed(torch.cat([txt_ids, img_ids]))
        for layer, block in enumerate(model.transformer_blocks):
            text, image = self.double(block, text, image, emb, full, (branch, "double", layer))
        tokens = torch.cat([text, image], dim=1)
        for layer, block in enumerate(model.single_transformer_blocks):
            place = (branch, "single", layer)
            tokens = self.single(block, tokens, emb, full, place, text.shape[1])
        image = tokens[:, text.shape[1] :]
        return (model.proj_out(model.norm_out(image, emb)),)

    def attention(self, query, key, value):
        """Output (batch, token, width) and the mean over heads and queries of each key's weight."""
        query, key = (apply_rotary_emb(x, self.rotary, sequence_dim=1) for x in (query, key))
        query, key, value = (x.transpose(1, 2).double() for x in (query, key, value))
        weights = (query @ key.transpose(-1, -2) / query.shape[-1] ** 0.5).softmax(-1)
        return (weights @ value).transpose(1, 2).flatten(2).float(), weights.mean(1).mean(1)

    def importance(self, weights, key, value):
        if self.settings.score == "attention":
            return weights
        vectors = key if self.settings.score == "key_norm" else value
        return vectors.norm(dim=-1).mean(-1)

    def double(self, block, text, image, emb, full, place):
        attn, length = block.attn, text.shape[1]
        image_norm, *image_mod = block.norm1(image, emb=emb)
        text_norm, *text_mod = block.norm1_context(text, emb=emb)
        if full:
            parts = []
            for tokens, names in (
                (text_norm, ("add_q_proj", "add_k_proj", "add_v_proj")),
                (image_norm, ("to_q", "to_k", "to_v")),
            ):
                parts.append(
                    [getattr(attn, name)(tokens).unflatten(-1, (-1, 16)) for name in names]
                )
            (tq, tk, tv), (iq, ik, iv) = parts
            output, weights = self.attention(
                torch.cat([attn.norm_added_q(tq), attn.norm_q(iq)], dim=1),
                torch.cat([attn.norm_added_k(tk), attn.norm_k(ik)], dim=1),
                torch.cat([tv, iv], dim=1),
            )
            self.caches[place, "attention"] = output
            self.caches[place, "image score"] = self.importance(weights[:, length:], ik, iv)
            self.caches[place, "text score"] = self.importance(weights[:, :length], tk, tv)
        kept = self.caches[place, "attention"]
        image = self.stream(
            place, "image", image, image_mod, attn.to_out[0](kept[:, length:]), block.norm2,
            block.ff, full,
        )  # fmt: skip
        text = self.stream(
            place, "text", text, text_mod, attn.to_add_out(kept[:, :length]), block.norm2_context,
            block.ff_context, full,
        )  # fmt: skip
        return text, image

    def stream(self, place, name, tokens, modulation, attended, norm, mlp, full):
        attention_gate, shift, scale, gate = (part[:, None] for part in modulation)
        tokens = tokens + attention_gate * attended
        computed = mlp(norm(tokens) * (1 + scale) + shift)
        self.renew((place, name), computed, full, start=0 if name == "image" else None)
        return tokens + gate * self.caches[place, name]

    def single(self, block, tokens, emb, full, place, length):
        attn = block.attn
        norm, gate = block.norm(tokens, emb=emb)
        if full:
            query, key, value = (
                projection(norm).unflatten(-1, (-1, 16))
                for projection in (attn.to_q, attn.to_k, attn.to_v)
            )
            output, weights = self.attention(attn.norm_q(query), attn.norm_k(key), value)
            self.caches[place, "attention"] = output
            self.caches[place, "all score"] = self.importance(weights, key, value)
        mlp = block.act_mlp(block.proj_mlp(norm))
        computed = block.proj_out(torch.cat([self.caches[place, "attention"], mlp], dim=2))
        self.renew((place, "all"), computed, full, start=length)
        return tokens + gate[:, None] * self.caches[place, "all"]

    def renew(self, where, computed, full, start):
        (place, name), settings = where, self.settings
        if full:
            self.caches[where] = computed.clone()
            self.caches[where, "age"] = torch.zeros(computed.shape[:2], dtype=torch.int64)
            return
        age = self.caches[where, "age"]
        score = self.caches[place, f"{name} score"]
        score = score / score.norm(dim=-1, keepdim=True) + 0.25 * age / settings.interval
        if settings.bonus and start is not None:
            grid = score[:, start : start + 16].view(-1, 4, 4)
            for row in (0, 2):
                for column in (0, 2):
                    for item in range(len(grid)):
                        window = grid[item, row : row + 2, column : column + 2]
                        best = int(window.argmax())
                        window[best // 2, best % 2] *= 1 + settings.bonus
        # the stacks of the tiny model are stretched to the 19 and 38 blocks of FLUX
        _, kind, layer = place
        depth = layer * (19 / 2 if kind == "double" else 38 / 3)
        share = settings.share * (1.5 - depth / 27) * (0.4 if kind == "double" else 1.6)
        count = int(min(share, 1.0) * score.shape[1])
        chosen = score.sort(dim=-1, descending=True).indices[:, :count]
        age += 1
        for item, indices in enumerate(chosen):
            self.caches[where][item, indices] = computed[item, indices]
            age[item, indices] = 0
