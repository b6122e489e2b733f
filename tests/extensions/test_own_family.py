"""A pipeline class that the package does not know, made known by a family of its own."""

from __future__ import annotations

import inspect

import pytest
from diffusers import FluxKontextPipeline

from recast_probe import pipelines
from recast_probe.errors import InputError, UnsupportedPipelineError, VerificationError
from recast_probe.interventions import Keep, StepCache
from recast_probe.pipelines import Family, FluxKontext, register_family
from recast_probe.probe import Probe
from recast_probe.testing import conformance, tiny


class StudioPipeline(FluxKontextPipeline):
    """A third party's pipeline: it calls its reference "picture", and edits half as strongly."""

    def __call__(self, prompt=None, picture=None, guidance_scale=1.75, **settings):
        return super().__call__(
            image=picture, prompt=prompt, guidance_scale=guidance_scale, **settings
        )


# the probe asks the signature which arguments a pipeline takes
KONTEXT = inspect.signature(FluxKontextPipeline.__call__)
StudioPipeline.__call__.__signature__ = KONTEXT.replace(
    parameters=[
        each.replace(name="picture") if name == "image" else each
        for name, each in KONTEXT.parameters.items()
    ]
)


class Studio(FluxKontext):
    """Its family: what differs from the nearest one that is known."""

    name = "studio"
    pipelines = ("StudioPipeline",)

    def reference_arguments(self, images, arguments):
        found = super().reference_arguments(images, arguments)
        return {"picture": found["image"]} if found else {}


def build():
    pipe = StudioPipeline(**tiny.build_tiny_pipeline().components)
    pipe.set_progress_bar_config(disable=True)
    return pipe


CASE = conformance.Case(
    "studio",
    build,
    [tiny.tiny_image()],
    refuses={"several references": "studio takes one reference image"},
)


@pytest.fixture(autouse=True)
def registry(monkeypatch):
    """What a test registers is forgotten after it."""
    monkeypatch.setattr(pipelines, "FAMILIES", list(pipelines.FAMILIES))


@pytest.mark.parametrize("name", conformance.PROPERTIES)
def test_a_registered_family_has_every_property(name):
    register_family(Studio)
    conformance.outcome(CASE, name)


def test_it_is_found_before_the_family_of_its_ancestor():
    pipe = build()
    assert Probe(pipe).family.name == "flux-kontext"
    register_family(Studio)
    assert Probe(pipe).family.name == "studio"
    assert Probe(tiny.build_tiny_pipeline()).family.name == "flux-kontext"
    assert "StudioPipeline" in pipelines.supported_pipelines()


def test_a_pipeline_is_refused_where_it_does_not_fit_its_family():
    register_family(Studio)
    pipe = build()
    pipe.vae = None
    with pytest.raises(UnsupportedPipelineError, match="lacks what studio is expected to have"):
        Probe(pipe)


def test_registered_as_a_decorator():
    assert register_family(Studio) is Studio


def double():
    register_family(Studio)
    return Studio


def same_pipeline():
    return type("Again", (FluxKontext,), {"name": "again"})


def unfinished():
    return type("Unfinished", (Family,), {"name": "unfinished"})


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (double, "'studio' already"),
        (same_pipeline, "FluxKontextPipeline has a family already, 'flux-kontext'"),
        (unfinished, r"Unfinished lacks attention_calls, .*transformer, pipelines, parts"),
        (lambda: "studio", "not 'studio'"),
        (lambda: StudioPipeline, "inherits from Family"),
    ],
)
def test_what_cannot_be_registered(make, message):
    family = make()
    with pytest.raises(InputError, match=message):
        register_family(family)


class TwoRows(StudioPipeline):
    """One that makes two images of a prompt, as pipelines with guidance in one batch have rows."""

    def __call__(self, **settings):
        return super().__call__(**settings, num_images_per_prompt=2)


TwoRows.__call__.__signature__ = StudioPipeline.__call__.__signature__


class TwoRowsFamily(Studio):
    name = "two-rows"
    pipelines = ("TwoRows",)


@pytest.mark.parametrize("attachment", ["nnsight", "hooks"])
@pytest.mark.parametrize("interventions", [(), (Keep((0, 1)),), (StepCache(2),)])
def test_more_rows_than_prompts_are_noticed_in_every_run(interventions, attachment):
    register_family(TwoRowsFamily)
    pipe = TwoRows(**tiny.build_tiny_pipeline().components)
    pipe.set_progress_bar_config(disable=True)
    with pytest.raises(VerificationError, match="2 rows for 1 prompts, and 1 are expected"):
        Probe(pipe).generate(
            tiny.tiny_image(),
            "a red fox",
            steps=3,
            progress=False,
            attachment=attachment,
            interventions=interventions,
        )


class Batched(Studio):
    """A wrong declaration: guidance of this pipeline is a call of its own."""

    name = "batched"
    batched = ("unconditional", "conditional")


def test_guidance_declared_as_rows_of_one_call_is_noticed():
    register_family(Batched)
    with pytest.raises(VerificationError, match="1 rows for 1 prompts, and 2 are expected"):
        Probe(build()).generate(
            tiny.tiny_image(),
            "a red fox",
            steps=2,
            progress=False,
            negative_prompt="blurry",
            true_cfg_scale=3.0,
        )
