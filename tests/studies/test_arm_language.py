"""Arms as text: what they do, their text again, and what is refused."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

import recast_probe as rp
from recast_probe.errors import InputError
from recast_probe.interventions.methods import METHODS, WITHOUT_BUDGET, method
from recast_probe.pocket.bench import pocket_bench
from recast_probe.studies.arms.kinds import JOIN, RANKS, kinds
from recast_probe.studies.arms.language import own_arms, parse_arm

WHOLE = st.integers(1, 99).map(str)
NUMBER = st.decimals(0, 9, places=3).map(str)
SHARE = st.integers(1, 99).map(lambda n: f"0.{n:02d}")
LIST = st.lists(WHOLE, min_size=1, max_size=3, unique=True).map("/".join)
GROUP = st.sampled_from(["reference", "generation", "text", "padding", "reference_1"])
VALUES = {
    "budget": WHOLE | SHARE | st.sampled_from(["25%", "7.5%", "eq4", "eq4:16:64", "eq4:16:64:2"]),
    "blocks": LIST | st.sampled_from(["paper", "all", "single.0/2"]),
    **{"refresh": LIST, "computed": LIST | SHARE, "interval": WHOLE, "share": SHARE},
    **{"heads": LIST, "factor": NUMBER, "from": GROUP, "to": GROUP, "group": GROUP},
    "removal": st.sampled_from(["renormalised", "value-zeroed"]),
    "mode": st.sampled_from(["scale", "bias"]),
    "score": st.sampled_from(["attention", "random"]),
    "pool": st.sampled_from(["stream", "generation"]),
}


@st.composite
def part(draw) -> tuple[str, str]:
    """A kind, and its text with some options, in any order, with spaces here and there."""
    name = draw(st.sampled_from(sorted(set(kinds()) - {"none", "full"})))
    kind = kinds()[name]
    free = [each for each in kind.options if each not in kind.required]
    some = draw(st.lists(st.sampled_from(free), unique=True)) if free else []
    space = draw(st.sampled_from(["", " "]))
    options = [
        f"{space}{each}{space}={draw(VALUES['heads'] if each == 'steps' else VALUES[each])}"
        for each in draw(st.permutations([*kind.required, *some]))
    ]
    said = name
    if name in RANKS and draw(st.booleans()):
        said, options = "prune", [*options, f"rank={name}"]
    return name, f"{said}{space}:{','.join(options)}" if options else said


@given(st.lists(part(), min_size=1, max_size=2, unique_by=lambda pair: pair[0]))
def test_an_arm_comes_back_from_its_text(pairs):
    arm = parse_arm(JOIN.join(text for _, text in pairs))
    assert [each.kind for each in arm.parts] == [kind for kind, _ in pairs]
    again = parse_arm(str(arm))
    assert again == arm
    assert str(again) == str(arm)
    assert again.means() == arm.means()
    assert " " not in str(arm)


@pytest.fixture(scope="module")
def probe():
    return rp.Probe.tiny("flux-kontext")


def test_methods_do_what_their_names_say(probe):
    (case,) = pocket_bench(1, 1, seed=0)
    layout = probe.layout(case.reference)
    mask = probe.reference_mask(case.reference_mask, case.reference)
    for name in METHODS:
        text = name if name in WITHOUT_BUDGET else f"{name.partition(JOIN)[0]}:budget=25%"
        text += JOIN + "step-cache" if name == "reuse+step-cache" else ""
        budget = rp.budget.Fixed(layout.reference_tokens // 4)
        wanted = method(name, budget, layout, mask=mask, seed=case.seed)
        assert repr(parse_arm(text).interventions(probe, case)) == repr(wanted), name
    # without a budget it is Eq. 4's, and all tokens where they are reused
    adaptive = rp.budget.Adaptive.paper(layout.reference_tokens)
    assert parse_arm("recast").interventions(probe, case) == [rp.Recast(adaptive)]
    assert parse_arm("reuse:refresh=2").interventions(probe, case) == [rp.ReuseReference(refresh=2)]


def test_other_kinds_are_interventions(probe):
    (case,) = pocket_bench(1, 1, seed=0)
    said = (
        "full:steps=3+knockout:to=text,heads=0/1+weigh:group=text,factor=0.5,mode=bias,steps=1"
        "+token-cache:interval=2,share=0.5"
    )
    arm = parse_arm(said)
    assert arm.steps == 3
    assert arm.interventions(probe, case) == [
        rp.Knockout("reference", "text", heads=(0, 1)),
        rp.Weigh("text", 0.5, mode="bias", steps=1),
        rp.TokenCache(interval=2, fresh_share=0.5),
    ]
    planned = arm.planned(probe)
    assert planned.describe() == {"arm": said}
    assert planned.steps == 3
    assert parse_arm("mask-oracle:budget=4").needs_mask


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("", "no kind ''"),
        ("prun:rank=cosine", r"no kind 'prun'.*Did you mean 'prune'"),
        ("prune:budget=3", "needs rank"),
        ("prune:rank=cosin", r"no rank 'cosin'.*Did you mean 'cosine'"),
        ("recast:bugdet=3", r"no option 'bugdet'.*budget, blocks.*Did you mean 'budget'"),
        ("random:blocks=all", "no option 'blocks'"),
        ("full:budget=3", "no option 'budget'"),
        ("recast:budget=3,budget=4", "'budget' is there twice"),
        ("recast:budget", "OPTION=VALUE"),
        ("recast:budget=", "OPTION=VALUE"),
        ("recast:budget=0", "at least 1, got 0"),
        ("recast:budget=150%", "not 1.5"),
        ("full:steps=0", "at least 1"),
        ("full+recast", "full does nothing"),
        ("none+recast", "none leaves no reference token"),
        ("recast+recast:budget=4", "'recast' is there twice"),
        ("reuse:refresh=1e3", "'1e3' is no whole number"),
        ("step-cache:computed=1.5", "between 0 and 1, not 1.5"),
        ("knockout:from=refrence", r"no token group 'refrence'.*Did you mean 'reference'"),
        ("knockout:removal=none", "removal must be one of"),
        ("weigh:group=reference", "weigh needs factor"),
        ("weigh:group=reference,factor=-1,mode=bias", "no logarithm"),
        ("token-cache:interval=0", "interval"),
    ],
)
def test_what_cannot_be_meant_is_refused(text, words):
    with pytest.raises(InputError, match=words) as error:
        parse_arm(text)
    assert str(error.value).startswith("The arm ")
    assert ".." not in str(error.value)


def test_one_arm_is_named_once():
    assert list(own_arms(["random:budget=64", "recast"])) == ["random:budget=64", "recast"]
    for pair in (["recast", "recast"], ["random:budget=0.25", "prune:budget=25%,rank=random"]):
        with pytest.raises(InputError, match="is there twice"):
            own_arms(pair)
