import builtins
import sys

import gymnasium as gym
import numpy as np
import pytest

import jobrec_gym  # noqa: F401

SMALL = {"market": {"source": "default", "n_jobs": 60, "n_applicants": 40}, "num_candidates": 12}


def test_text_names_the_applicant_the_job_and_the_candidates(market):
    env = gym.make("JobRec-v0", render_mode="ansi", **SMALL)
    _, info = env.reset(seed=0)
    before = env.render()
    assert market.applicant(info["applicant_id"]).title in before and "Recommended" not in before
    after = env.step(5)[4]
    text = env.render()
    job = market.job(after["job_id"])
    assert f"Recommended {job.key}: {job.title}" in text
    assert f"reward/cosine {after['reward/cosine']:.3f}" in text
    assert "... and 2 more" in text
    cosines = [float(line[3:9]) for line in text.splitlines() if line[3:4] in "+-" and line[:1] == " "]
    assert len(cosines) == 10 and cosines == sorted(cosines, reverse=True)


def test_human_mode_prints_each_step(capsys):
    env = gym.make("JobRec-v0", render_mode="human", **SMALL)
    env.reset(seed=0)
    env.step(0)
    assert capsys.readouterr().out.count("Applicant ") == 2


def test_pictures_keep_their_size():
    pytest.importorskip("PIL", reason="needs the extra 'render'")
    env = gym.make("JobRec-v0", render_mode="rgb_array", **SMALL)
    env.reset(seed=0)
    frames = [env.render()]
    for _ in range(2):
        env.step(1)
        frames.append(env.render())
    assert {(frame.shape, frame.dtype) for frame in frames} == {((456, 960, 3), np.dtype(np.uint8))}
    assert (frames[0] != frames[1]).any() and frames[0].std() > 10


def test_without_pillow_the_way_out_is_named(monkeypatch):
    env = gym.make("JobRec-v0", render_mode="rgb_array", **SMALL)
    env.reset(seed=0)
    real = builtins.__import__

    def absent(name, *args, **kwargs):
        if name.startswith("PIL"):
            raise ImportError(name)
        return real(name, *args, **kwargs)

    for name in [name for name in sys.modules if name.startswith("PIL")]:
        monkeypatch.delitem(sys.modules, name)
    monkeypatch.setattr(builtins, "__import__", absent)
    with pytest.raises(gym.error.DependencyNotInstalled, match=r'pip install "jobrec-gym\[render\]"'):
        env.render()


def test_rendering_needs_a_mode_and_a_reset():
    with pytest.raises(ValueError, match="`render_mode` must be one of"):
        gym.make("JobRec-v0", disable_env_checker=True, **SMALL).unwrapped.__class__(render_mode="hologram")
    with pytest.raises(RuntimeError, match="call `reset` first"):
        gym.make("JobRec-v0", render_mode="ansi", **SMALL).unwrapped.render()
