"""Ctrl-C between prompts: profiles that were finished stay."""

from __future__ import annotations

import recast_probe as rp
from recast_probe.probe import Probe
from tests.cli.conftest import contents


def test_interrupting_profile_keeps_finished_profiles(
    command, files, tiny_folder, tmp_path, monkeypatch
):
    finish, done = Probe.profile, []

    def profile(self, *arguments, **settings):
        if done:
            raise KeyboardInterrupt
        done.append(arguments)
        return finish(self, *arguments, **settings)

    monkeypatch.setattr(Probe, "profile", profile)
    out = tmp_path / "out"
    outcome = command(
        *("profile", "--model", tiny_folder, "--image", files / "image.png", "--steps", 1),
        *("--prompt", "a", "--prompt", "b", "--prompt", "c", "--out", out, "--json"),
    )
    assert (outcome.code, outcome.out) == (130, "")
    assert "1 of 3 profiles are done" in outcome.err
    assert str(out) in outcome.err
    assert set(contents(out)) == {"profile-00.nc"}
    assert rp.AttentionProfile.load(out / "profile-00.nc").provenance["prompt"] == "a"
