"""A family that says something untrue of its pipeline is caught by the first run, in words."""

from __future__ import annotations

from typing import Any

import pytest
import torch

from recast_probe import Probe, pipelines
from recast_probe.attention.order import group_order
from recast_probe.errors import UnsupportedPipelineError, VerificationError
from recast_probe.pipelines import Flux2, Flux2KleinKV, FluxKontext, QwenImageEditPlus
from recast_probe.pipelines.rehearsed import Rehearsed
from recast_probe.runs.call import make_call
from recast_probe.runs.declaration import check_declaration
from recast_probe.runs.execute import run
from recast_probe.runs.recording_plan import Selection
from recast_probe.testing import tiny, tiny_flux2, tiny_qwen
from recast_probe.testing.conformance import Case, supported_cases

CASES = {case.name: case for case in supported_cases()}


def first_run(family: Any, image: Any = None, **more: Any) -> Any:
    image = tiny.tiny_image() if image is None else image
    call = make_call(family, image, "a cat", 2, 0, more)
    return run(family, call, selection=Selection("all"), stop_early=True)


@pytest.mark.parametrize("guided", [False, True], ids=["plain", "guided"])
@pytest.mark.parametrize("name", CASES)
def test_families_of_the_package_say_the_truth(name: str, guided: bool) -> None:
    case: Case = CASES[name]
    if guided and "true guidance" in case.refuses:
        pytest.skip(f"{name} has no guidance")
    settings = {**case.settings, **(case.guidance if guided else {})}
    family = case.probe.family
    check_declaration(family, make_call(family, case.image, case.prompt, 2, 0, settings))
    if "several references" not in case.refuses and "hooks equal nnsight" not in case.refuses:
        images = list(case.images[:2])
        check_declaration(family, make_call(family, images, case.prompt, 2, 0, settings))


class TurnedKontext(Rehearsed, FluxKontext):
    def sequence_order(self, inputs, layout):
        return group_order(layout, ("text", "reference", "generation"))


class PlainKleinKV(Flux2KleinKV):
    """Of a user, since it is not of the package; as for the class that it inherits from, had that
    the references at the end."""

    def sequence_order(self, inputs, layout):
        if not layout.reference_tokens:
            return None
        return group_order(
            layout, ("text", "generation", "reference"), queries=("text", "generation")
        )


class TextLast(QwenImageEditPlus):
    def sequence_order(self, inputs, layout):
        return group_order(layout, ("generation", "reference", "text"))


@pytest.mark.parametrize(
    ("family", "place", "found", "declared"),
    [
        # 12 or 40 text tokens, 16 of the generation, 16 of the reference
        (lambda: TurnedKontext(tiny.build_tiny_pipeline()), "12 to 27", "generation", "reference"),
        (lambda: PlainKleinKV(tiny_flux2.build_klein_kv()), "40 to 55", "reference", "generation"),
        (lambda: TextLast(_qwen()), "0 to 5", "text", "generation"),
    ],
)
def test_order_of_tokens(family: Any, place: str, found: str, declared: str) -> None:
    settings = tiny_qwen.SIZE if isinstance(bound := family(), QwenImageEditPlus) else {}
    with pytest.raises(VerificationError) as caught:
        first_run(bound, **settings)
    assert f"{place} are {found} tokens" in str(caught.value)
    assert f"{bound.name} declares {declared} tokens there" in str(caught.value)
    # nothing is left of the attempt
    assert all(not module._forward_hooks for module in bound.transformer.modules())


def _qwen() -> Any:
    return tiny_qwen.build_tiny_pipeline(plus=True, zero_cond_t=True)


def test_number_of_tokens_in_the_order() -> None:
    class Short(Rehearsed, FluxKontext):
        def sequence_order(self, inputs, layout):
            order = group_order(layout, ("text", "generation", "reference"))
            return type(order)(order.keys, order.queries[:-16], ("text", "generation"))

    with pytest.raises(VerificationError, match="44 queries, and flux-kontext declares 28"):
        first_run(Short(tiny.build_tiny_pipeline()))


@pytest.mark.parametrize("attachment", ["nnsight", "hooks"])
def test_call_site(attachment: str) -> None:
    class Elsewhere(Rehearsed, FluxKontext):
        site = ("self_processor_0", "dispatch_attention_fn_1")
        # hooks find the one place where there is one; the names count where there are several
        sites = (site, ("self_processor_0", "dispatch_attention_fn_0"))

    family = Elsewhere(tiny.build_tiny_pipeline())
    call = make_call(family, tiny.tiny_image(), "a cat", 2, 0, {})
    with pytest.raises(UnsupportedPipelineError, match="dispatch_attention_fn"):
        run(family, call, selection=Selection("all"), attachment=attachment)


def test_number_of_the_call_in_the_transformer() -> None:
    class TooFar(Rehearsed, FluxKontext):
        def attention_call_order(self, inputs):
            return [99 + block for block in range(5)]

    with pytest.raises(UnsupportedPipelineError, match="Attention call 99"):
        first_run(TooFar(tiny.build_tiny_pipeline()))


def test_scale_of_timesteps() -> None:
    class Thousandth(FluxKontext):
        timestep_scale = 1.0

    class RehearsedThousandth(Rehearsed, Thousandth):
        pass

    with pytest.raises(
        VerificationError, match=r"1 from .* scheduler is at 1000; .*timestep_scale"
    ):
        first_run(RehearsedThousandth(tiny.build_tiny_pipeline()))
    with pytest.raises(VerificationError, match=r"timestep 1000.* given \[1\.0\].*timestep_scale"):
        first_run(Thousandth(tiny.build_tiny_pipeline()))


def test_number_of_references() -> None:
    class FirstOnly(Rehearsed, Flux2):
        def reference_arguments(self, images, arguments):
            return super().reference_arguments(images[:1], arguments)

    family = FirstOnly(tiny_flux2.build_flux2())
    with pytest.raises(VerificationError, match=r"2 reference images were given, .* of 1"):
        first_run(family, [tiny.tiny_image(), tiny.tiny_image(seed=4)])


def test_true_declaration_is_tried_once_for_a_transformer(monkeypatch: pytest.MonkeyPatch) -> None:
    from recast_probe.runs import declaration

    tried: list[Any] = []
    monkeypatch.setattr(declaration, "check_declaration", lambda *given: tried.append(given))

    class Mine(Rehearsed, FluxKontext):
        name = "mine"
        pipelines = ("MinePipeline",)

    monkeypatch.setattr(pipelines, "FAMILIES", list(pipelines.FAMILIES))
    pipelines.register_family(Mine)
    pipe = tiny.build_tiny_pipeline()
    family = Mine(pipe)
    first_run(family)
    first_run(family)
    assert len(tried) == 1
    pipe.transformer = tiny.build_tiny_pipeline().transformer
    first_run(family)
    assert len(tried) == 2
    first_run(Probe(pipe).family)
    assert len(tried) == 2


def test_checking_leaves_the_random_state() -> None:
    before = torch.get_rng_state()
    case = CASES["FluxKontextPipeline"]
    family = case.probe.family
    check_declaration(family, make_call(family, case.image, "a cat", 2, 0, {}))
    assert torch.equal(before, torch.get_rng_state())
