"""The probe: profile, prune and verify an unmodified in-context diffusion pipeline."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal, overload

import numpy as np
import torch

from recast_probe._utils.markup import html_table
from recast_probe.diagnostics import mask_to_grid
from recast_probe.diagnostics.overlap import WITHOUT_PLACES
from recast_probe.errors import InputError
from recast_probe.images.loading import (
    ImageSource,
    ImageSources,
    MaskSource,
    load_image,
    load_mask_of,
)
from recast_probe.images.mask_values import Inside
from recast_probe.interventions.base import Intervention, as_interventions
from recast_probe.interventions.recast import RankingFunction, Recast
from recast_probe.interventions.record import LIMIT, Record
from recast_probe.layout import TokenLayout
from recast_probe.pipelines import find_family
from recast_probe.pipelines.loading import load_pipeline
from recast_probe.pipelines.run_identity import pipeline_identity
from recast_probe.profiles.maps import AttentionMaps
from recast_probe.profiles.profile import AttentionProfile
from recast_probe.runs.attention_maps import MEMORY_LIMIT, attention_maps
from recast_probe.runs.call import PipelineCall, make_call
from recast_probe.runs.execute import run, run_context
from recast_probe.runs.recording_plan import Selection
from recast_probe.runs.result import RunResult
from recast_probe.runs.verification import Certificate, verify_run

if TYPE_CHECKING:
    from recast_probe.profiles.activations import Activations

MassTable = Literal["all", "queried", "scores"]
Attachment = Literal["nnsight", "hooks"]
TINY_PREFIX = "tiny:"
"""What the names of tiny models begin with, in results and on the command line."""


class Probe:
    """Reads and changes how a pipeline uses its reference tokens.

    The pipeline is traced with nnsight and is left untouched after every call; it is checked again
    before each. Runs of several threads wait for one another, but neither for calls of the pipeline
    itself nor for accelerated ones.

    Args:
        pipe: a built diffusers pipeline: with LoRA, quantised, offloaded, on any device.
        name: what results call the model; by default what it was loaded from.

    Attributes:
        pipe, name: as given.
        family: the family that the pipeline belongs to.
        reopen: opens the same probe again in another process, as workers of a study do; None
            where the pipeline was built here, see ``from_function``.

    Raises:
        UnsupportedPipelineError: the pipeline's class is not known, or its parts are unusual.

    Examples:
        >>> from recast_probe.testing import tiny
        >>> probe = rp.Probe(tiny.build_tiny_pipeline())
        >>> probe
        Probe(unnamed: FluxKontextPipeline, 2 double-stream and 3 single-stream blocks, ...)
    """

    def __init__(self, pipe: Any, name: str | None = None) -> None:
        self.family = find_family(pipe, model=name)
        self.pipe, self.name = pipe, self.family.model
        self.reopen: Callable[[], Probe] | None = None

    @classmethod
    def pocket(cls, *, ip_adapter: bool = False) -> Probe:
        """The bundled Pocket Kontext on the CPU; needs no download.

        Args:
            ip_adapter: its text-to-image pipeline with the bundled IP-Adapter in its place: the
                image is no part of the sequence, but 128 tokens beside the double-stream blocks.

        Examples:
            >>> rp.Probe.pocket().heads
            4
            >>> rp.Probe.pocket(ip_adapter=True).block_kinds
            ['double', 'double']
        """
        from recast_probe.pocket import load

        if ip_adapter:
            from recast_probe.pocket.adapter import load as load_with_adapter

            probe = cls(load_with_adapter(), name="pocket-kontext")
        else:
            probe = cls(load(), name="pocket-kontext")
        probe.reopen = partial(cls.pocket, ip_adapter=ip_adapter)
        return probe

    @classmethod
    def tiny(cls, name: str) -> Probe:
        """A family's pipeline at a tiny size with random weights on the CPU; needs no download.

        Its images mean nothing. Everything else is as with published weights: the class of every
        part, the order of the tokens, the arguments of a call. So examples can be tried on it,
        and results call it "tiny:NAME". The same name gives the same weights every time.

        Args:
            name: of the family: "flux-kontext", "flux2", "flux2-klein", "qwen-image-edit", ...;
                ``testing.tiny_pipelines.TINY`` has them all. Pipelines that repaint a part of an
                image ("flux-kontext-inpaint", ...) need ``mask_image=`` in every call as well.

        Raises:
            InputError: there is none of this name; the message has all names.

        Examples:
            >>> from recast_probe.testing import tiny
            >>> probe = rp.Probe.tiny("flux2-klein")
            >>> probe.profile(tiny.tiny_image(), "a red fox", steps=2, progress=False).score.sizes
            Frozen({'step': 2, 'block': 5, 'head': 2, 'token': 16})
            >>> probe = rp.Probe.tiny("flux-kontext-inpaint")
            >>> probe.layout(tiny.tiny_image(), mask_image=tiny.tiny_mask()).reference_tokens
            16
        """
        from recast_probe.testing.tiny_pipelines import tiny_pipeline

        probe = cls(tiny_pipeline(name), name=f"{TINY_PREFIX}{name}")
        probe.reopen = partial(cls.tiny, name)
        return probe

    @classmethod
    def from_function(cls, build: Callable[[], Any], name: str | None = None) -> Probe:
        """A probe of a pipeline that a function builds, so that workers of a study can build the
        same; see ``studies.run_study``. On one machine alone ``Probe(build())`` is as good.

        Args:
            build: gives the pipeline, the same each time: with its LoRA, on its device.
            name: what results call the model.

        Raises:
            UnsupportedPipelineError: as ``Probe``.

        Examples:
            >>> from recast_probe.testing import tiny
            >>> rp.Probe.from_function(tiny.build_tiny_pipeline).reopen().heads
            2
        """
        probe = cls(build(), name)
        probe.reopen = partial(cls.from_function, build, name)
        return probe

    @classmethod
    def from_pretrained(
        cls,
        name: str | Path,
        dtype: str | torch.dtype = "auto",
        device: str | torch.device = "cpu",
        *,
        cpu_offload: bool = False,
        **adapter: str | Path | None,
    ) -> Probe:
        """Load a pipeline, and its IP-Adapter if there is one; see ``load_pipeline``.

        Args:
            name: folder of a saved pipeline, or its name on the Hugging Face Hub.
            dtype: of the weights, such as "bfloat16"; "auto" takes the one they are saved in.
            device: where the pipeline runs.
            cpu_offload: keep parts on the CPU until they are needed; takes less GPU memory.
            adapter: ``ip_adapter`` and ``image_encoder`` of an IP-Adapter.

        Raises:
            InputError: it cannot be loaded.
            UnsupportedPipelineError: a pipeline of another class.

        Examples:
            >>> from pathlib import Path
            >>> from tempfile import TemporaryDirectory
            >>> from recast_probe.testing.tiny import save_tiny_pipeline
            >>> with TemporaryDirectory() as folder:
            ...     rp.Probe.from_pretrained(save_tiny_pipeline(Path(folder))).heads
            2
        """
        pipe = load_pipeline(name, dtype, device, cpu_offload=cpu_offload, **adapter)
        probe = cls(pipe, name=Path(name).name if Path(name).is_dir() else str(name))
        probe.reopen = partial(
            cls.from_pretrained, name, dtype, device, cpu_offload=cpu_offload, **adapter
        )
        return probe

    @property
    def block_kinds(self) -> list[str]:
        """ "double" or "single", by global index, of blocks that attend to a reference.

        Examples:
            >>> from recast_probe.testing import tiny
            >>> probe = rp.Probe(tiny.build_tiny_pipeline())
            >>> probe.block_kinds
            ['double', 'double', 'single', 'single', 'single']
        """
        return self.family.block_kinds

    @property
    def heads(self) -> int:
        """Attention heads in a block.

        Examples:
            >>> from recast_probe.testing import tiny
            >>> rp.Probe(tiny.build_tiny_pipeline()).heads
            2
        """
        return self.family.heads

    @property
    def fingerprint(self) -> str:
        """SHA-256 over the weights of all parts as they are now; see ``model_fingerprint``.

        Examples:
            >>> from recast_probe.testing import tiny
            >>> len(rp.Probe(tiny.build_tiny_pipeline()).fingerprint)
            64
        """
        return self.family.fingerprint

    def identity(self, *, strict: bool = True) -> dict[str, Any]:
        """All of the pipeline that decides its images, as it is now: weights, adapters and their
        scales, scheduler, attention, and every part's settings; see ``pipeline_identity``. It waits
        for the run of another thread.

        Raises:
            InputError: a part that cannot be told from another one by its content, unless
                ``strict`` is false.

        Examples:
            >>> from recast_probe.testing import tiny
            >>> probe = rp.Probe(tiny.build_tiny_pipeline())
            >>> list(probe.identity())[:4]
            ['pipeline', 'fingerprint', 'adapters', 'scheduler']
        """
        return pipeline_identity(self.pipe, strict=strict)

    def content_facts(self) -> dict[str, Any]:
        """By what a function that uses this probe is told from another: not what a run left."""
        return self.identity()

    def layout(
        self, image: ImageSources, prompt: str | None = None, **pipeline_arguments: Any
    ) -> TokenLayout:
        """The token layout of a run with this reference; the transformer computes nothing. Where
        the number of text tokens follows the prompt, it is that of this one (or of the embeddings
        that are given in its place), by default of the empty one, or of the shortest that the
        pipeline takes.

        Raises:
            InputError: an argument that cannot be used.

        Examples:
            >>> from recast_probe.testing import tiny
            >>> probe = rp.Probe(tiny.build_tiny_pipeline())
            >>> probe.layout(tiny.tiny_image()).reference_tokens
            16
        """
        if prompt is None and pipeline_arguments.get("prompt_embeds") is None:
            prompt = self.family.layout_prompt
        # some schedulers make no run of a single step
        sigmas = pipeline_arguments.get("sigmas")
        steps = (self.family.fixed_steps or 2) if sigmas is None else len(sigmas)
        return self._request(image, prompt, None, 0, pipeline_arguments, steps).layout

    def reference_mask(
        self,
        mask: MaskSource,
        image: ImageSource,
        inside: Inside = None,
        **pipeline_arguments: Any,
    ) -> np.ndarray:
        """A mask drawn on the reference image, on the grid of its reference tokens.

        Args:
            mask: image, path or array (height, width); bright or true is inside.
            image: the reference that the mask was drawn on.
            inside: the pixel value or the colour ("#ff0000") that marks the inside of a mask which
                does not say it itself, such as one of labels; see `mask_values`.

        Returns:
            bool, shape (rows, columns): tokens that lie inside by more than half.

        Raises:
            InputError: unreadable, of another aspect ratio than the image, or with no token inside.

        Examples:
            >>> from recast_probe.testing import tiny
            >>> probe = rp.Probe(tiny.build_tiny_pipeline())
            >>> mask = np.zeros((64, 64))
            >>> mask[:32] = 1
            >>> probe.reference_mask(mask, tiny.tiny_image()).sum(axis=1)
            array([4, 4, 0, 0])
        """
        layout = self.layout(image, **pipeline_arguments)
        if not layout.placed:
            raise InputError(WITHOUT_PLACES)
        drawn = load_mask_of(image, mask, inside)
        left, top, right, bottom = self.family.crop_box(load_image(image), pipeline_arguments)
        rows, columns = drawn.shape
        seen = drawn[
            round(top * rows) : round(bottom * rows), round(left * columns) : round(right * columns)
        ]
        found = mask_to_grid(seen, layout.references[0])
        if not found.any():
            raise InputError(
                f"The mask has no token inside, of {found.size}: a token counts when more than "
                f"half of it is covered, and the mask marks {(drawn > 0.5).mean():.2%} of the "
                "image. The subject is too small for this grid, or outside of what is seen of it."
            )
        return found

    @overload
    def profile(
        self, image: ImageSources, prompt: str, *arguments: Any, **settings: Any
    ) -> AttentionProfile: ...

    @overload
    def profile(
        self, image: ImageSources, prompt: Sequence[str], *arguments: Any, **settings: Any
    ) -> list[AttentionProfile]: ...

    @overload
    def profile(
        self, image: ImageSources, prompt: None, *arguments: Any, **settings: Any
    ) -> AttentionProfile | list[AttentionProfile]: ...

    def profile(
        self,
        image: ImageSources,
        prompt: str | Sequence[str] | None,
        steps: int | None = None,
        seed: int = 0,
        blocks: Any = "all",
        profile_steps: int | Sequence[int] | None = None,
        heads: int | Sequence[int] | None = None,
        guidance_scale: float | None = None,
        true_cfg_scale: float | None = None,
        negative_prompt: str | None = None,
        queries: str = "generation",
        progress: bool = True,
        mass_table: MassTable = "all",
        **pipeline_arguments: Any,
    ) -> AttentionProfile | list[AttentionProfile]:
        """Record how much attention each reference token gets (Eq. 2), per step, block and head.

        The run stops after the last selected step; no image is decoded. With true classifier-free
        guidance both branches are recorded.

        Args:
            image: the reference, PIL image or path; several in a list for FLUX.2, Qwen-Image-Edit
                Plus and IP-Adapters. For a Kontext made for less than one megapixel it is scaled
                to the model's own area (results say from what), unless ``_auto_resize`` is given.
            prompt: one prompt, or a list that runs as one batch, every prompt from the same noise.
                None where ``pipeline_arguments`` hold its embeddings, as ``pipe.encode_prompt``
                makes them: ``prompt_embeds``, with ``pooled_prompt_embeds`` for FLUX.1, and the
                negative ones for guidance.
            steps: denoising steps of the whole run, 28 by default; diffusers' own name,
                ``num_inference_steps``, is taken as well.
            seed: of the whole run: the initial noise, and noise that the scheduler draws in its
                steps. Torch's global random states stay as they were.
            blocks: see ``select_blocks``; blocks that are not selected run untouched.
            profile_steps: step indices to record, 0 = highest noise; None for all.
            heads: heads to record; None for all.
            queries: whose attention to the reference is recorded: "generation" (Eq. 2),
                "reference" (the self-attention that Attn-Prune ranks by) or "text".
            guidance_scale, true_cfg_scale, negative_prompt: as in the pipeline.
            mass_table: "all" for the attention mass between all token groups; "queried" (faster)
                for that of the recorded queries only; "scores" (faster still) for nothing but the
                scores: no entropies, and of the masses those that the scores sum to.
            pipeline_arguments: anything else that the pipeline takes, such as height and width, or
                ``latents``, the initial noise in the pipeline's own shape.

        Returns:
            A profile, or one per prompt for a list of prompts (or for embeddings of several). Its
            scores need 4 bytes per branch,
            step, block, head and reference token.

        Raises:
            InputError: an argument that cannot be used; nothing has run.
            VerificationError: a check of exactness failed during the run.

        Examples:
            >>> from recast_probe.testing import tiny
            >>> probe = rp.Probe(tiny.build_tiny_pipeline())
            >>> probe.profile(tiny.tiny_image(), "a cat", steps=2, progress=False)
            AttentionProfile(unnamed: 2 steps, 5 blocks, 2 heads, 16 reference tokens)
        """
        request = self._request(
            image,
            prompt,
            steps,
            seed,
            {
                "guidance_scale": guidance_scale,
                "true_cfg_scale": true_cfg_scale,
                "negative_prompt": negative_prompt,
                **pipeline_arguments,
            },
        )
        result = run(
            self.family,
            request,
            selection=Selection(blocks, profile_steps, heads, queries),
            mass_table=mass_table,
            progress=progress,
            stop_early=True,
        )
        single = isinstance(prompt, str) or (prompt is None and len(result.profiles) == 1)
        return result.profiles[0] if single else list(result.profiles)

    def generate(
        self,
        image: ImageSources | None,
        prompt: str | Sequence[str] | None,
        steps: int | None = None,
        seed: int = 0,
        interventions: Intervention | Sequence[Intervention] = (),
        profile: bool = False,
        blocks: Any = "all",
        profile_steps: int | Sequence[int] | None = None,
        heads: int | Sequence[int] | None = None,
        queries: str = "generation",
        progress: bool = True,
        mass_table: MassTable = "all",
        attachment: Attachment = "nnsight",
        **pipeline_arguments: Any,
    ) -> RunResult:
        """Make an image, with interventions and, if wanted, a profile of the same run.

        Args:
            image: the reference; None runs without one.
            interventions: one or several, applied together: a token stays in a step if none of
                them drops it.
            profile: record attention of ``blocks``, ``profile_steps``, ``heads`` and ``queries``;
                tokens that are absent in a step have the score NaN there.
            attachment: "nnsight" traces the pipeline; "hooks" reaches the same places by PyTorch's
                hooks and attention processors, with less overhead. The image is the same.

        The other arguments are those of ``profile``.

        Returns:
            The images, the profiles, and what each intervention found.

        Raises:
            InputError: an argument that cannot be used; nothing has run.
            VerificationError: a check of exactness failed during the run.

        Examples:
            >>> from recast_probe.testing import tiny
            >>> probe = rp.Probe(tiny.build_tiny_pipeline())
            >>> cut = rp.Knockout("reference", "generation", blocks="double")
            >>> image = tiny.tiny_image()
            >>> result = probe.generate(image, "a cat", 2, interventions=[cut], progress=False)
            >>> result.image.size
            (64, 64)
        """
        request = self._request(image, prompt, steps, seed, pipeline_arguments)
        return run(
            self.family,
            request,
            interventions=as_interventions(interventions),
            selection=Selection(blocks, profile_steps, heads, queries) if profile else None,
            mass_table=mass_table,
            progress=progress,
            attachment=attachment,
        )

    def recast(
        self,
        image: ImageSources,
        prompt: str | None,
        steps: int | None = None,
        seed: int = 0,
        budget: Any = None,
        blocks: Any = "paper",
        profile_step: int = 0,
        ranking: str | RankingFunction = "cross-image",
        every: int | None = None,
        progress: bool = True,
        **pipeline_arguments: Any,
    ) -> RunResult:
        """ReCAST in one run: profile a full step, rank its reference tokens, prune afterwards.

        Args:
            budget: 64 (tokens), 0.25 or "25%" (of the reference), "eq4:16:64", or another budget
                of ``recast_probe.budget``; None, as "eq4", for the paper's schedule (Eq. 4), scaled
                to the number of reference tokens.
            blocks: blocks whose scores are averaged into the ranking (Eq. 3).
            profile_step: the full step that is profiled.
            ranking: "cross-image", the paper's, or another of ``Recast``'s.
            every: profile again, in a full step, every so many steps; None for once.

        The other arguments are those of ``profile``.

        Returns:
            A result whose ``profile`` holds the profiled step and whose ``ranking`` was used. Only
            what the ranking needs is read: the profile holds scores and the masses that they sum
            to, other masses are NaN, and it has no entropies. A function that ranks gets these as
            well. ``profile`` reads everything.

        Raises:
            InputError: an argument that cannot be used; nothing has run.
            VerificationError: a check of exactness failed during the run.

        Examples:
            >>> from recast_probe.testing import tiny
            >>> probe = rp.Probe(tiny.build_tiny_pipeline())
            >>> result = probe.recast(tiny.tiny_image(), "a cat", steps=2, budget=4, progress=False)
            >>> result.reference_tokens_per_step
            (16, 4)
        """
        request = self._request(image, prompt, steps, seed, pipeline_arguments)
        recast = Recast(
            budget="eq4" if budget is None else budget,
            blocks=blocks,
            profile_step=profile_step,
            ranking=ranking,
            every=every,
        )
        return run(
            self.family, request, interventions=(recast,), mass_table="queried", progress=progress
        )

    def attention_maps(
        self,
        image: ImageSources,
        prompt: str | None,
        queries: Any = None,
        steps: int | None = None,
        seed: int = 0,
        *,
        group: str = "generation",
        blocks: Any = "all",
        profile_steps: int | Sequence[int] | None = None,
        heads: int | Sequence[int] | None = None,
        mean_over: Sequence[str] = (),
        interventions: Intervention | Sequence[Intervention] = (),
        max_bytes: int = MEMORY_LIMIT,
        text: bool = False,
        progress: bool = True,
        **pipeline_arguments: Any,
    ) -> AttentionMaps:
        """Where each of the chosen tokens looks in the reference; only their rows are made.

        Args:
            queries: tokens of ``group``: indices; places of the grid, ``[(row, column), ...]``; or
                a mask of the image (an array, bool or 0..1, shape (rows, columns) of the token
                grid or finer); None for all.
            group: of the queries: "generation", "text" or "reference".
            blocks, profile_steps, heads: as in ``profile``.
            mean_over: what is averaged while the maps are made, of "step", "block" and "head".
            interventions: what is done to the same run.
            max_bytes: most bytes that the maps may take.
            text: record as well what every query gives each text token.

        Returns:
            Probabilities in the conditional branch, 4 bytes for every step, block, head, query and
            reference token that is not averaged over. The run stops after the last recorded step.

        Raises:
            InputError: an argument that cannot be used, or more memory than ``max_bytes``; nothing
                has run.
            UnsupportedPipelineError: an IP-Adapter, whose attention is read beside the pipeline's.
            VerificationError: a check of exactness failed during the run.

        Examples:
            >>> from recast_probe.testing import tiny
            >>> probe = rp.Probe(tiny.build_tiny_pipeline())
            >>> image = tiny.tiny_image()
            >>> maps = probe.attention_maps(image, "a cat", [0, 5], steps=2, progress=False)
            >>> dict(maps.data.sizes)
            {'step': 2, 'block': 5, 'head': 2, 'query': 2, 'token': 16}
            >>> one = probe.attention_maps(image, "a cat", [(1, 2)], steps=2, progress=False)
            >>> one.data["query"].values, one.shares.dims[-1]
            (array([6]), 'key_group')
        """
        request = self._request(image, prompt, steps, seed, pipeline_arguments)
        return attention_maps(
            self.family,
            request,
            queries,
            group=group,
            blocks=blocks,
            profile_steps=profile_steps,
            heads=heads,
            mean_over=mean_over,
            interventions=as_interventions(interventions),
            max_bytes=max_bytes,
            text=text,
            progress=progress,
        )[0]

    def record(
        self,
        image: ImageSources | None,
        prompt: str | Sequence[str] | None,
        what: str | tuple[str, ...] = "residual",
        tokens: str = "reference",
        indices: Sequence[int] | None = None,
        blocks: Any = "all",
        record_steps: int | Sequence[int] | None = None,
        steps: int | None = None,
        seed: int = 0,
        limit: int = LIMIT,
        interventions: Intervention | Sequence[Intervention] = (),
        progress: bool = True,
        **pipeline_arguments: Any,
    ) -> Activations:
        """Record activations of a token group, for ``Patch`` to put into another run.

        Args:
            what, tokens, indices, blocks, limit: see ``Record``.
            record_steps: step indices to record; None for all.
            interventions: what else is done to the run.

        The other arguments are those of ``generate``. To keep the image of the same run as well,
        give ``generate`` the intervention ``Record``.

        Returns:
            The activations, on the CPU.

        Raises:
            InputError: an argument that cannot be used, or more bytes than ``limit`` (they are
                named); nothing has run.

        Examples:
            >>> from recast_probe.testing import tiny
            >>> probe = rp.Probe(tiny.build_tiny_pipeline())
            >>> found = probe.record(tiny.tiny_image(), "a cat", blocks=0, steps=2, progress=False)
            >>> found.blocks, found.steps, found.bytes
            ([0], [0, 1], 4096)
        """
        record = Record(
            what, tokens, None if indices is None else tuple(indices), blocks, record_steps, limit
        )
        result = self.generate(
            image,
            prompt,
            steps,
            seed,
            (*as_interventions(interventions), record),
            progress=progress,
            **pipeline_arguments,
        )
        assert result.activations is not None
        return result.activations

    def recording_bytes(
        self,
        record: Record,
        image: ImageSources | None,
        prompt: str | Sequence[str] | None,
        steps: int | None = None,
        **pipeline_arguments: Any,
    ) -> int:
        """Exact number of bytes that ``record`` would take in such a run; nothing is computed.

        Raises:
            InputError: an argument, block, step or token that the run does not have.

        Examples:
            >>> from recast_probe.testing import tiny
            >>> probe = rp.Probe(tiny.build_tiny_pipeline())
            >>> probe.recording_bytes(rp.Record(blocks=0), tiny.tiny_image(), "a cat", steps=2)
            4096
        """
        request = self._request(image, prompt, steps, 0, pipeline_arguments)
        return record.bytes_in(self.family, run_context(self.family, request))

    def verify(
        self,
        image: ImageSources,
        prompt: str | None,
        steps: int | None = None,
        seed: int = 0,
        blocks: Any = "all",
        **pipeline_arguments: Any,
    ) -> Certificate:
        """Show that the probe changes nothing and reads the truth, on this very pipeline.

        Three runs: the plain pipeline, the probe, and a second attachment that computes the scores
        of the first step by a dense softmax in float64 (slow for large models). The arguments are
        those of ``profile``, but there are 2 steps by default.

        Returns:
            What each check found; ``passed`` when all of them hold.

        Raises:
            InputError: an argument that cannot be used; nothing has run.
            VerificationError: a check of exactness failed during a run.

        Examples:
            >>> from recast_probe.testing import tiny
            >>> probe = rp.Probe(tiny.build_tiny_pipeline())
            >>> probe.verify(tiny.tiny_image(), "a cat").passed
            True
        """
        request = self._request(image, prompt, steps, seed, pipeline_arguments, default=2)
        return verify_run(self.family, request, Selection(blocks))

    def pipeline_arguments(
        self,
        image: ImageSources | None,
        prompt: str | Sequence[str] | None,
        steps: int | None = None,
        seed: int = 0,
        **pipeline_arguments: Any,
    ) -> dict[str, Any]:
        """What the probe passes to the pipeline: ``pipe(**arguments)`` makes the same image.

        Where the scheduler draws noise in its steps (``FlowMatchLCMScheduler`` and others), the
        pipeline takes it from torch's global random state: call ``torch.manual_seed(seed)`` right
        before. Generators are used up by one call; ask for the arguments anew for the next.

        Raises:
            InputError: an argument that cannot be used.

        Examples:
            >>> from recast_probe.testing import tiny
            >>> probe = rp.Probe(tiny.build_tiny_pipeline())
            >>> arguments = probe.pipeline_arguments(tiny.tiny_image(), "a cat", steps=2)
            >>> probe.pipe(**arguments).images[0].size
            (64, 64)
        """
        return self._request(image, prompt, steps, seed, pipeline_arguments).pipeline_arguments()

    def _request(
        self,
        image: Any,
        prompt: Any,
        steps: int | None,
        seed: int,
        arguments: dict[str, Any],
        default: int = 28,
    ) -> PipelineCall:
        count = arguments.pop("num_inference_steps", None)
        if steps is not None and count is not None:
            raise InputError(
                f"steps={steps!r} and num_inference_steps={count!r} are two names of one thing; "
                "give one of them."
            )
        steps = count if steps is None else steps
        steps = default if steps is None else steps
        return make_call(self.family, image, prompt, steps, seed, arguments)

    def __repr__(self) -> str:
        kinds = {kind: self.block_kinds.count(kind) for kind in ("double", "single")}
        blocks = " and ".join(f"{count} {kind}-stream" for kind, count in kinds.items() if count)
        return (
            f"Probe({self.name}: {type(self.pipe).__name__}, {blocks} blocks, {self.heads} heads, "
            f"on {self.pipe.device})"
        )

    def _repr_html_(self) -> str:
        rows = [
            ("pipeline", type(self.pipe).__name__),
            *(
                (f"{kind}-stream blocks", self.block_kinds.count(kind))
                for kind in dict.fromkeys(self.block_kinds)
            ),
            ("heads", self.heads),
            ("device", self.pipe.device),
            ("next", "generate(image, prompt, profile=True), then rp.skew(result.profile)"),
        ]
        return html_table(repr(self), rows)
