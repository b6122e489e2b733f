"""An intervention of your own: the reference's keys made longer, so that it is seen more."""

from __future__ import annotations

from dataclasses import dataclass, replace

import numpy as np
import pytest

import recast_probe as rp
from recast_probe.interventions import Needs, RunHook
from recast_probe.runs.watching import watch_attention
from recast_probe.testing import assert_same_image, tiny

QUIET = {"steps": 2, "progress": False}


@dataclass(frozen=True)
class Emphasise(rp.Intervention):
    """Multiply the logits of generation queries to the reference by a factor.

    Settings live here, and nothing that belongs to one run, so that one object serves many runs.
    """

    factor: float

    def prepare(self, run):
        if not self.factor > 0:
            raise rp.InputError(f"factor must be above 0, not {self.factor}.")

    def needs(self, run):
        return Needs(reads=range(run.steps), inside_attention=True)

    def hook(self, run):
        return Lengthened(self.factor)


class Lengthened(RunHook):
    """What it does in one run: q (f k) is f (q k)."""

    def __init__(self, factor):
        self.factor = factor

    def begin_call(self, step, branch, layout):
        self.reference = layout.span("reference")

    def changes_attention(self, block):
        return True

    def attention_inputs(self, block, inputs):
        key = inputs.key.clone()
        key[:, self.reference] *= self.factor
        return replace(inputs, key=key)


@pytest.fixture(params=["nnsight", "hooks"])
def attachment(request):
    return request.param


def made(probe, image, attachment, *interventions, **settings):
    return probe.generate(
        image, "fox", interventions=interventions, attachment=attachment, **QUIET, **settings
    )


def test_a_factor_of_one_changes_nothing(probe, plain, image, attachment):
    result = made(probe, image, attachment, Emphasise(1.0))
    assert_same_image(result.image, plain(image, "fox", steps=2))
    (found,) = result.provenance["interventions"]
    assert found.pop("its content")["is"].endswith(".Emphasise")
    assert found == {"name": "Emphasise", "factor": 1.0}


def test_it_is_the_dense_softmax_of_the_multiplied_logits(probe, image, attachment):
    layout, expected = probe.layout(image), {}

    def dense(call, attention, given):
        """The pipeline's own attention, with the factor on the logits, in float64."""
        query, key, value = (given[n].double().transpose(1, 2) for n in ("query", "key", "value"))
        logits = query @ key.transpose(-1, -2) / query.shape[-1] ** 0.5
        logits[..., layout.span("reference")] *= 1.5
        probability = logits.softmax(-1)
        rows = probability[:, :, layout.span("generation"), layout.span("reference")]
        expected[call, attention] = rows.mean(-2)[0].numpy()
        return (probability @ value).transpose(1, 2).to(given["query"].dtype)

    arguments = probe.pipeline_arguments(image, "fox", steps=2)
    with watch_attention(probe.pipe.transformer, dense):
        wanted = probe.pipe(**arguments).images[0]
    result = made(probe, image, attachment, Emphasise(1.5), profile=True)
    # float32 against float64 may tip the rounding of a pixel
    assert_same_image(result.image, wanted, levels=1)
    scores = result.profile.dataset["score"].values[0]
    for (step, block), score in expected.items():
        np.testing.assert_allclose(scores[step, block], score, rtol=1e-4)


def test_it_composes_with_others(probe, image, attachment):
    drop = rp.Keep(range(0, 16, 2))
    pruned = made(probe, image, attachment, drop)
    both = made(probe, image, attachment, drop, Emphasise(2.0))
    assert both.reference_tokens_per_step == (8, 8)
    assert np.abs(np.asarray(both.image, int) - np.asarray(pruned.image, int)).max() > 1


def test_both_attachments_make_one_image(probe, image):
    one, other = (made(probe, image, each, Emphasise(1.7)) for each in ("nnsight", "hooks"))
    assert_same_image(one.image, other.image)


def test_a_setting_that_does_not_fit_is_refused_before_anything_runs(probe, image, attachment):
    with pytest.raises(rp.InputError, match="factor must be above 0, not -1"):
        made(probe, image, attachment, Emphasise(-1))


def test_an_error_inside_leaves_the_pipeline_as_it_was(image, attachment):
    class Broken(Emphasise):
        def hook(self, run):
            hook = Lengthened(self.factor)
            hook.attention_inputs = lambda block, inputs: 1 / 0
            return hook

    pipe = tiny.build_tiny_pipeline()
    probe = rp.Probe(pipe)
    arguments = probe.pipeline_arguments(image, "fox", steps=2)
    before = np.asarray(pipe(**arguments).images[0])
    with pytest.raises(ZeroDivisionError):
        made(probe, image, attachment, Broken(2.0))
    again = pipe(**probe.pipeline_arguments(image, "fox", steps=2)).images[0]
    assert_same_image(again, before)
