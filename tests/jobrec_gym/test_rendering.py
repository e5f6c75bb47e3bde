import builtins
import dataclasses
import importlib
import itertools
import re
import sys
import types

import gymnasium as gym
import numpy as np
import pytest

import jobrec_gym
from jobrec_gym.picture import RENDER_SIZES
from jobrec_gym.rendering import Scene, render_text
from jobrec_gym.schedules import AnnealSchedule
from jobrec_gym.simulators.rules import RuleSimulator
from jobrec_gym.wrappers import FeedbackReward, HybridReward

SMALL = {"market": {"source": "default", "n_jobs": 60, "n_applicants": 40}, "num_candidates": 12}


def scores(text):
    """Numbers of the candidates' lines, in their order."""
    return [score for _, _, score in candidates(text)]


def candidates(text):
    """Mark, action and score of each candidate's line, in their order."""
    lines = [re.match(r" ([ >x]) \[ *(\d+)\] ([+-]\d+\.\d+)  ", line) for line in text.splitlines()]
    return [(line[1], int(line[2]), float(line[3])) for line in lines if line]


@pytest.fixture
def without_pillow(monkeypatch):
    def absent(real):
        def find(name, *args, **kwargs):
            if name.startswith("PIL"):
                raise ImportError(name)
            return real(name, *args, **kwargs)

        return find

    for name in [name for name in sys.modules if name.startswith("PIL")]:
        monkeypatch.delitem(sys.modules, name)
    monkeypatch.setattr(builtins, "__import__", absent(builtins.__import__))
    monkeypatch.setattr(importlib, "import_module", absent(importlib.import_module))


# ---------------------------------------------------------------------------------------------------------------- texts


def test_text_names_the_applicant_the_job_and_the_candidates(market):
    env = gym.make("JobRec-v0", render_mode="ansi", **SMALL)
    _, info = env.reset(seed=0)
    before = env.render()
    assert market.applicant(info["applicant_id"]).title in before and "Recommended" not in before
    after = env.step(5)[4]
    text = env.render()
    job = market.job(after["job_id"])
    assert f"Recommended {job.key}: {job.title}" in text
    assert f"scaled cosine {after['reward/cosine']:.3f}" in text
    assert "... and 2 more" in text
    assert len(scores(text)) == 10


def test_candidates_stand_in_the_order_of_their_cosine():
    env = gym.make("JobRec-v0", render_mode="ansi", **SMALL)
    env.reset(seed=0)

    shown = scores(env.render())

    assert len(shown) == 10 and shown == sorted(shown, reverse=True)


def test_the_recommended_job_is_shown_however_low_it_ranks():
    env = gym.make("JobRec-v0", render_mode="ansi", **SMALL)
    _, info = env.reset(seed=0)
    market = env.unwrapped.market
    worst = market.cosine(np.full(12, info["applicant_id"]), info["candidate_ids"]).argmin()
    env.step(int(worst))

    marked = [line for line in env.render().splitlines() if line.startswith(" > ")]

    assert len(marked) == 1 and market.job(info["candidate_ids"][worst]).key in marked[0]


def test_a_person_can_choose_by_the_action_that_is_shown(market):
    env = gym.make("JobRec-v0", render_mode="ansi", **SMALL)
    env.reset(seed=0)
    text = env.render()
    for line, (_, action, score) in zip(text.splitlines()[-11:-1], candidates(text), strict=True):
        info = env.step(action)[4]
        assert market.job(info["job_id"]).key in line
        assert info["reward/cosine"] == pytest.approx((1 + score) / 2, abs=1e-3)
        env.reset(seed=0)


def test_a_picture_shows_actions_and_no_number_under_two_names():
    pytest.importorskip("PIL", reason="needs the extra 'render'")
    from jobrec_gym.picture import _drawn

    scene = scene_of(12, (0, 3))
    written = [(text, x, y) for x, y, text, _, _ in _drawn(scene, "small")._texts]
    texts = [text for text, _, _ in written]

    actions = [int(text) for text, x, _ in written if text.isdigit() and x < 500]
    assert sorted(actions) == list(range(12)), "each row begins with its action"
    assert "ACTION: 12 CANDIDATES, BEST COSINE FIRST" in texts
    assert "scaled cosine" in texts and "cosine reward" not in texts and texts.count("cosine") == 1


def test_an_agents_values_rank_the_candidates():
    env = gym.make("JobRec-v0", render_mode="ansi", **SMALL)
    env.reset(seed=0)
    env.unwrapped.rank_by(lambda obs: -np.arange(12.0)[None] + obs["applicant"].sum() * 0)

    text = env.render()

    assert "Candidates by Q: each behind its [action]" in text
    assert scores(text) == [-0.0, *(-float(i) for i in range(1, 10))]
    env.unwrapped.rank_by(None)
    assert "Candidates by cosine: each" in env.render()


def test_values_that_cannot_rank_are_refused():
    env = gym.make("JobRec-v0", render_mode="ansi", **SMALL)
    env.reset(seed=0)
    env.unwrapped.rank_by(lambda obs: np.zeros(3))

    with pytest.raises(ValueError, match="`scorer` must return 12 finite numbers, one for each candidate, got 3"):
        env.render()


def test_candidates_are_those_of_the_decision_where_each_step_has_others():
    env = gym.make("JobRec-v0", render_mode="ansi", resample="step", **SMALL)
    _, info = env.reset(seed=0)
    env.step(3)

    text = env.render()

    keys = [env.unwrapped.market.job(job_id).key for job_id in info["candidate_ids"]]
    assert sum(key in text for key in keys) >= 10


def test_masked_candidates_stand_last_and_are_marked():
    env = gym.make("JobRec-v0", render_mode="ansi", repeats=False, **(SMALL | {"num_candidates": 4}))
    env.reset(seed=0)
    env.step(0)
    env.step(1)
    env.step(2)

    marks = [mark for mark, _, _ in candidates(env.render())]

    assert sorted(marks[:2]) == [" ", ">"] and marks[2:] == ["x", "x"]


def test_text_tells_the_decision_and_all_rewards():
    env = HybridReward(
        gym.make("JobRec-v0", render_mode="ansi", **SMALL), RuleSimulator(seed=0), AnnealSchedule(steps=2)
    )
    env.reset(seed=0)
    env.step(0)
    info = env.step(1)[4]

    text = env.render()

    assert f"decision {info['feedback/decision']}" in text
    paid = 0.5 * info["reward/cosine"] + 0.5 * info["reward/feedback"]
    assert f"reward {paid:.3f}   scaled cosine {info['reward/cosine']:.3f}" in text
    assert f"feedback {info['reward/feedback']:.3f}   weight of cosine 0.500" in text


def test_skills_go_on_in_the_next_line_where_a_terminal_is_narrow():
    scene = scene_of(5, (0,))

    wide, narrow = (render_text(scene, width=width).splitlines() for width in (None, 60))

    skills = [line for line in narrow if line.startswith("               ")]
    assert len(narrow) > len(wide) and skills and all(len(line) <= 60 for line in skills)
    assert "".join(wide).replace(" ", "") == "".join(narrow).replace(" ", "")


@pytest.mark.parametrize("letter", ["x", "e\u0301", "\U0001f469\u200d\U0001f52c", "\x1b"])
def test_text_is_of_bounded_length_whatever_a_market_says(letter):
    scene = scene_of(5, (0,))
    short, long = (
        render_text(dataclasses.replace(scene, market=renamed(scene.market, letter * n))) for n in (150, 20_000)
    )
    assert len(long) <= len(short) + 20 and max(map(len, long.splitlines())) < 20_000


def test_text_obeys_nothing_that_a_market_says():
    scene = scene_of(5, (0,))
    plain, hostile = (
        render_text(dataclasses.replace(scene, market=renamed(scene.market, words)))
        for words in ("Clerk", "Clerk\r\n\u2028 > [ 0] +1.000  forged\x1b[2J\u202e\u2066\x07\x9b")
    )
    assert plain.count("\n") == hostile.count("\n")
    assert "Clerk > [ 0] +1.000 forged\\x1b[2J\\u202e\\u2066\\x07\\x9b" in hostile
    assert len(candidates(hostile)) == 5 and all(letter.isprintable() for letter in hostile.replace("\n", ""))


def test_a_list_of_skills_says_how_many_more_there_are():
    scene = scene_of(5, (0,))
    applicant = scene.market.applicant(scene.applicant_id)
    many = dataclasses.replace(applicant, hard_skills=tuple(f"skill {number}" for number in range(1_234)))
    market = types.SimpleNamespace(applicant=lambda row: many, job=scene.market.job)
    (line,) = [
        line
        for line in render_text(dataclasses.replace(scene, market=market)).splitlines()
        if line.startswith("  hard skills:")
    ]
    assert line.endswith(" skill 98, skill 99, and 1,134 more")


# ---------------------------------------------------------------------------------------------------------- human mode


def test_a_terminal_that_lacks_a_letter_gets_it_spelt(monkeypatch):
    import io

    from jobrec_gym.screen import show

    out = io.TextIOWrapper(io.BytesIO(), encoding="ascii")
    monkeypatch.setattr("sys.stdout", out)
    scene = scene_of(5, (0,))
    show(dataclasses.replace(scene, market=renamed(scene.market, "Żółw")))
    out.seek(0)
    assert "\\u017b\\xf3\\u0142w" in out.read()


def test_human_mode_prints_each_step(capsys):
    env = gym.make("JobRec-v0", render_mode="human", **SMALL)
    env.reset(seed=0)
    env.step(0)
    out = capsys.readouterr().out
    assert out.count("Applicant ") == 2 and "\033" not in out


def test_human_mode_prints_a_wrapped_step_once_and_with_its_reward(capsys):
    env = FeedbackReward(gym.make("JobRec-v0", render_mode="human", **SMALL), RuleSimulator(seed=0))
    env.reset(seed=0)
    info = env.step(0)[4]
    out = capsys.readouterr().out
    assert out.count("Applicant ") == 2 and out.count(f"decision {info['feedback/decision']}") == 1


def test_human_mode_prints_on_when_a_reward_wrapper_is_taken_off(capsys):
    env = gym.make("JobRec-v0", render_mode="human", **SMALL)
    FeedbackReward(env, RuleSimulator(seed=0))
    env.reset(seed=0)
    reward = env.step(0)[1]
    out = capsys.readouterr().out
    assert out.count("Applicant ") == 2 and f"reward {reward:.3f}" in out


def test_frames_that_are_collected_beneath_a_reward_wrapper_show_what_it_pays():
    env = FeedbackReward(gym.make("JobRec-v0", render_mode="ansi_list", **SMALL), RuleSimulator(seed=0))
    env.reset(seed=2)
    for action in range(3):
        _, reward, *_, info = env.step(action)
        *_, frame = env.render()
        assert f"decision {info['feedback/decision']}   reward {reward:.3f}" in frame
        assert f"feedback {info['reward/feedback']:.3f}" in frame


def test_a_terminal_gets_colours_unless_they_are_not_wanted(monkeypatch, capsys):
    env = gym.make("JobRec-v0", render_mode="human", **SMALL)
    monkeypatch.setattr("sys.stdout.isatty", lambda: True, raising=False)
    monkeypatch.delenv("NO_COLOR", raising=False)
    env.reset(seed=0)
    assert "\033[1m" in capsys.readouterr().out
    monkeypatch.setenv("NO_COLOR", "1")
    env.reset(seed=0)
    assert "\033" not in capsys.readouterr().out


class Output:
    """A notebook's output, as IPython gives it."""

    def __init__(self, picture):
        self.pictures = [picture]

    def update(self, picture):
        self.pictures.append(picture)


@pytest.fixture
def notebook(monkeypatch):
    """A process that a kernel runs: only what the renderer asks of IPython."""
    outputs = []

    def display(picture, display_id):
        outputs.append(Output(picture))
        return outputs[-1]

    ipython = types.ModuleType("IPython")
    ipython.get_ipython = lambda: types.SimpleNamespace(kernel=object())
    ipython.display = types.ModuleType("IPython.display")
    ipython.display.display = display
    monkeypatch.setitem(sys.modules, "IPython", ipython)
    monkeypatch.setitem(sys.modules, "IPython.display", ipython.display)
    return outputs


def test_a_notebook_draws_an_episode_over_itself(notebook, capsys):
    pytest.importorskip("PIL", reason="needs the extra 'render'")
    env = FeedbackReward(gym.make("JobRec-v0", render_mode="human", **SMALL), RuleSimulator(seed=0))
    env.reset(seed=0)
    env.step(0)
    env.step(1)
    env.reset()

    assert [len(output.pictures) for output in notebook] == [3, 1]
    assert notebook[0].pictures[0].size == (960, 540)
    assert capsys.readouterr().out == ""


# ------------------------------------------------------------------------------------------------------------- pictures


@pytest.mark.parametrize(("size", "shape"), [("small", (540, 960, 3)), ("large", (1080, 1920, 3))])
def test_pictures_keep_their_size(size, shape):
    pytest.importorskip("PIL", reason="needs the extra 'render'")
    env = gym.make("JobRec-v0", render_mode="rgb_array", render_size=size, **SMALL)
    env.reset(seed=0)
    frames = [env.render()]
    env.step(1)
    frames.append(env.render())
    env.reset()
    frames.append(env.render())

    assert {(frame.shape, frame.dtype) for frame in frames} == {(shape, np.dtype(np.uint8))}
    assert (frames[0] != frames[1]).any() and frames[0].std() > 10


def test_equal_scenes_give_equal_pictures():
    pytest.importorskip("PIL", reason="needs the extra 'render'")
    frames = []
    for _ in range(2):
        env = FeedbackReward(gym.make("JobRec-v0", render_mode="rgb_array", **SMALL), RuleSimulator(seed=0))
        env.reset(seed=4)
        env.step(2)
        frames.append(env.render())

    np.testing.assert_array_equal(*frames)


def scene_of(k, step=None, **changes):
    """What there is to see after a recommendation, with some of it changed."""
    env = gym.make("JobRec-v0", render_mode="rgb_array", **(SMALL | {"num_candidates": k, "repeats": False}))
    wrapped = HybridReward(env, RuleSimulator(seed=0), AnnealSchedule(steps=2))
    wrapped.reset(seed=0)
    for action in step or ():
        wrapped.step(action)
    return dataclasses.replace(env.unwrapped._scene(), **changes)


def renamed(market, words):
    """A market in which every word is another."""
    vocabulary = market.vocabulary
    changes = {
        name: tuple(f"{words} {number}" for number in range(len(getattr(vocabulary, name))))
        for name in ("titles", "experiences", "hard_skills", "soft_skills", "occupations")
    }
    return jobrec_gym.LabourMarket(
        "renamed", market.applicants, market.jobs, dataclasses.replace(vocabulary, **changes)
    )


LONG = "Principal Deputy Assistant Undersecretary for Interdepartmental Coordination and Harmonisation"
TROUBLE = {
    "before a step": (20, None, {}),
    "one candidate": (1, (0,), {}),
    "five": (5, (0, 3), {}),
    "twenty, some masked": (20, range(7), {}),
    "more than fit": (45, (44,), {}),
    "large values": (5, (0,), {"scores": np.array([-1e4, 2e4, 0, 5, 7.0]), "scored_by": "Q"}),
    "equal values": (5, (0,), {"scores": np.zeros(5), "scored_by": "Q"}),
    "long words": (20, (3, 4), {"words": LONG}),
    "one long word": (20, (3, 4), {"words": LONG.replace(" ", "")}),
    "no answer": (5, (0, 1), {"status": "timeout", "reason": LONG * 3}),
    "thousands of letters": (20, (3, 4), {"words": "x" * 2_000}),
    "a heap of accents": (20, (3, 4), {"words": "a" + "\u0301" * 2_000}),
    "emoji": (20, (3, 4), {"words": "\U0001f469\u200d\U0001f52c" * 700}),
    "orders to a screen": (20, (3, 4), {"words": "\x1b[2J\r\u202eApplicant\n > [ 0] +1.000  forged"}),
}


@pytest.mark.parametrize("name", TROUBLE)
@pytest.mark.parametrize("size", RENDER_SIZES)
def test_nothing_is_cut_or_written_over_something_else(name, size):
    pytest.importorskip("PIL", reason="needs the extra 'render'")
    from jobrec_gym.picture import _drawn

    k, step, changes = TROUBLE[name]
    scene = scene_of(k, step, **{key: value for key, value in changes.items() if key in Scene.__slots__})
    if "words" in changes:
        scene = dataclasses.replace(scene, market=renamed(scene.market, changes["words"]))
    if "status" in changes:
        info = {**scene.info, "feedback/status": changes["status"], "feedback/decision": ""}
        scene = dataclasses.replace(scene, info=info)
    canvas = _drawn(scene, size)
    texts = [
        (x, y + size_ * 0.2, x + canvas.length(text, size_), y + size_, text) for x, y, text, size_, _ in canvas._texts
    ]

    for left, top, right, bottom, text in texts:
        assert left >= 14 and right <= 946 and top >= 14 and bottom <= 526, text
    for (x0, y0, x1, y1, first), (u0, v0, u1, v1, second) in itertools.combinations(texts, 2):
        assert x1 <= u0 + 0.5 or u1 <= x0 + 0.5 or y1 <= v0 + 0.5 or v1 <= y0 + 0.5, (first, second)


@pytest.mark.parametrize("letter", ["x", "a\u0301", "\U0001f469\u200d\U0001f52c", "word "])
def test_a_picture_of_thousands_of_letters_measures_no_more_than_one_of_many(letter, monkeypatch):
    pytest.importorskip("PIL", reason="needs the extra 'render'")
    from jobrec_gym import picture

    measured = []
    length = picture._Canvas.length
    monkeypatch.setattr(
        picture._Canvas, "length", lambda self, text, size: measured.append(len(text)) or length(self, text, size)
    )
    scene = scene_of(20, (3, 4))
    work = []
    for n in (200, 20_000):
        measured.clear()
        picture._drawn(dataclasses.replace(scene, market=renamed(scene.market, letter * n)), "small")
        work.append((len(measured), sum(min(size, 300) for size in measured)))
    assert work[1][0] <= work[0][0] * 1.1 and work[1][1] <= work[0][1] * 1.1


def test_letters_that_the_font_lacks_are_written_plainly():
    pytest.importorskip("PIL", reason="needs the extra 'render'")
    from PIL import ImageFont

    from jobrec_gym.picture import _writable

    assert _writable("Krankenschwester für Łódź — naïve 看", ImageFont) == "Krankenschwester fur Lodz - naive ?"
    assert _writable("fu\u0308r \U0001f469\u200d\U0001f52c", ImageFont) == "fur ??"


def test_a_video_is_recorded(tmp_path):
    pytest.importorskip("PIL", reason="needs the extra 'render'")
    pytest.importorskip("moviepy", reason="needs the extra 'video'")
    env = FeedbackReward(gym.make("JobRec-v0", render_mode="rgb_array", **SMALL), RuleSimulator(seed=0))
    folder = str(tmp_path / "video")
    env = gym.wrappers.RecordVideo(env, folder, episode_trigger=lambda episode: True, disable_logger=True)
    env.reset(seed=0)
    for action in range(10):
        env.step(action)
    env.close()

    (video,) = (tmp_path / "video").glob("*.mp4")
    assert video.stat().st_size > 5_000


def test_frames_are_collected_by_gymnasiums_own_wrapper():
    pytest.importorskip("PIL", reason="needs the extra 'render'")
    env = gym.make("JobRec-v0", render_mode="rgb_array", **SMALL)
    env = gym.wrappers.RenderCollection(FeedbackReward(env, RuleSimulator(seed=0)))
    env.reset(seed=0)
    for action in range(3):
        env.step(action)

    frames = env.render()

    assert len(frames) == 4
    assert {frame.shape for frame in frames} == {(540, 960, 3)}


def test_without_pillow_the_way_out_is_named(without_pillow):
    env = gym.make("JobRec-v0", render_mode="rgb_array", **SMALL)
    env.reset(seed=0)
    with pytest.raises(gym.error.DependencyNotInstalled, match=r'pip install -e ".+\[render\]"'):
        env.render()


def test_rendering_needs_a_mode_and_a_reset():
    with pytest.raises(ValueError, match="`render_mode` must be one of"):
        gym.make("JobRec-v0", disable_env_checker=True, **SMALL).unwrapped.__class__(render_mode="hologram")
    with pytest.raises(ValueError, match="`render_size` must be one of"):
        gym.make("JobRec-v0", render_mode="rgb_array", render_size="huge", **SMALL)
    with pytest.raises(RuntimeError, match="call `reset` first"):
        gym.make("JobRec-v0", render_mode="ansi", **SMALL).unwrapped.render()


def test_a_skill_that_is_spelt_in_another_case_is_shared(tmp_path):
    (tmp_path / "jobs.csv").write_text("key,hard\nj,SQL;R\n")
    (tmp_path / "people.csv").write_text("key,hard\np,sql;Go\n")
    market = jobrec_gym.load_market(
        f"csv:{tmp_path / 'jobs.csv'}", applicants=str(tmp_path / "people.csv"), encoder="hashing", cache_dir=False
    )
    env = gym.make("JobRec-v0", market=market, num_candidates=1, split="all", job_split="all", render_mode="ansi")
    env.reset(seed=0)
    env.step(0)
    assert "shared: SQL\n" in env.render()
