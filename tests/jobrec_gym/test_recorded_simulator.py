from pathlib import Path

import numpy as np
import pytest
from little_room import room_for

from jobrec_gym import load_market, simulators
from jobrec_gym.simulators.base import make_simulator
from jobrec_gym.simulators.recorded import RecordedSimulator, Recording

THRESHOLDS = (0.5, 0.7, 0.9)


@pytest.fixture(scope="module")
def market():
    return load_market("recorded")


@pytest.fixture
def path(market, tmp_path):
    probability = np.random.default_rng(0).random((120, 40))
    probability[0, :4] = [0.2, 0.6, 0.8, 0.95]
    probability[1, 1] = np.nan
    recording = Recording.of(market, probability, THRESHOLDS, model="a model", prompt="a-v1", persona="selective")
    recording.save(tmp_path / "recording.npz")
    return tmp_path / "recording.npz"


def test_each_probability_is_cut_into_its_decision_and_reward(market, path):
    feedback = RecordedSimulator(path).bind(market).feedback(np.zeros(4, dtype=int), np.arange(4))
    assert feedback.decision.tolist() == ["ignore", "click", "save", "apply"]
    assert feedback.reward.tolist() == [-0.1, 0.0, 0.5, 1.0]
    assert feedback.cached.all() and (feedback.tokens == 0).all() and (feedback.status == "ok").all()


def test_a_pair_without_an_answer_says_so_and_earns_nothing(market, path):
    feedback = RecordedSimulator(path).bind(market).feedback(np.array([1]), np.array([1]))
    assert (feedback.status[0], feedback.decision[0], feedback.reward[0]) == ("not_recorded", "", 0.0)


def test_expected_rewards_and_decisions_are_those_of_the_feedback(market, path):
    bound = RecordedSimulator(path, rewards={"apply": 2.0}).bind(market)
    applicants, jobs = np.arange(120)[:, None], np.arange(40)[None]
    expected, decided = bound.expected_reward(applicants, jobs), bound.decisions(applicants, jobs)
    rows, columns = np.divmod(np.arange(4800), 40)
    feedback = bound.feedback(rows, columns)
    np.testing.assert_array_equal(expected.ravel(), feedback.reward)
    np.testing.assert_array_equal(decided.ravel(), feedback.decision)
    assert expected[0, 3] == 2.0


def test_the_default_market_is_answered_for_recorded_pairs_only(market, path):
    default = load_market("default")
    with pytest.warns(UserWarning, match=r"lacks 880 of 1,000 applicants and 1,960 of 2,000 jobs .*llm\.record"):
        bound = RecordedSimulator(path).bind(default)
    applicant = int(np.flatnonzero(default.applicants.keys == market.applicants.keys[0])[0])
    jobs = [int(np.flatnonzero(default.jobs.keys == key)[0]) for key in market.jobs.keys[:4]]
    assert bound.decisions(np.array([applicant]), np.array(jobs)).tolist() == ["ignore", "click", "save", "apply"]
    stranger = int(np.flatnonzero(~np.isin(default.jobs.keys, market.jobs.keys))[0])
    said = bound.feedback(np.array([applicant, applicant]), np.array([jobs[3], stranger]))
    assert (said.status.tolist(), said.reward.tolist()) == (["ok", "not_recorded"], [1.0, 0.0])
    assert said.cached.tolist() == [True, False] and np.isnan(said.probability[1])
    assert (bound.usage.decisions, bound.usage.cache_hits, bound.usage.failures) == (2, 1, {"not_recorded": 1})
    # Nobody can be scored by a reward that is unknown.
    for score in (bound.expected_reward, bound.decisions):
        with pytest.raises(ValueError, match=f"job {stranger} .* not recorded.*, or score by another simulator"):
            score(np.array([applicant]), np.array([stranger]))


def test_what_to_do_about_another_market_depends_on_whose_recording_it_is(path):
    other = load_market("default", seed=1)
    with pytest.raises(ValueError, match=r"has other texts .*record this market by .*llm\.record"):
        RecordedSimulator(path).bind(other)
    with pytest.raises(ValueError, match=r'has other texts .*use `market="recorded"`'):
        RecordedSimulator().bind(other)


def test_it_comes_back_from_its_spec(market, path):
    simulator = RecordedSimulator(path, rewards={"save": 0.25})
    again = RecordedSimulator.from_spec(simulator.to_spec())
    assert again.to_spec() == simulator.to_spec()
    assert again.bind(market).feedback(np.array([0]), np.array([2])).reward.tolist() == [0.25]


def test_what_could_not_be_read_again_is_refused_before_it_is_saved(market):
    def of(probability, thresholds=THRESHOLDS):
        return Recording.of(market, np.full((120, 40), probability), thresholds, model="", prompt="", persona="")

    for wrong in (-0.1, 1.5, np.inf):
        with pytest.raises(ValueError, match=r"`probability` must be in \[0, 1\], or NaN .*, got"):
            of(wrong)
    with pytest.raises(ValueError, match="`thresholds` must be 3 finite rising numbers, got"):
        of(0.5, (0.1, 0.2, np.inf))


@pytest.mark.parametrize("thresholds", [(0.5, 0.7), (0.7, 0.5, 0.9)])
def test_thresholds_that_do_not_rise_are_refused(market, thresholds):
    with pytest.raises(ValueError, match="rising"):
        Recording.of(market, np.zeros((120, 40)), thresholds, model="", prompt="", persona="")


def test_a_file_that_is_no_recording_is_named(tmp_path, market):
    np.savez(tmp_path / "other.npz", a=1)
    with pytest.raises(ValueError, match=r"other\.npz.*lacks"):
        RecordedSimulator(tmp_path / "other.npz").bind(market)


def test_a_recording_says_what_wrote_it_and_one_of_a_later_version_is_refused_in_one_line(path, market):
    with np.load(path) as file:
        content = dict(file)
    assert content["format"] == "jobrec-recording/1" and str(content["written_by"]).startswith("jobrec-gym")
    np.savez(path, **content | {"format": "jobrec-recording/2", "written_by": "jobrec-gym 9"})
    with pytest.raises(
        ValueError, match=r"recording\.npz.* format is 'jobrec-recording/2', by jobrec-gym 9"
    ) as refused:
        RecordedSimulator(path).bind(market)
    assert "\n" not in str(refused.value)


def test_a_full_disk_is_said_with_the_recording_and_the_old_one_stays(path):
    recording, before = Recording.load(path), path.read_bytes()
    with room_for(1_000), pytest.raises(OSError, match="File too large") as told:
        recording.save(path)
    assert told.value.filename == str(path) and path.read_bytes() == before
    assert list(path.parent.iterdir()) == [path]


def test_the_shipped_recording_is_of_before_they_said_what_wrote_them_and_is_read_to_the_bit():
    shipped = RecordedSimulator().load()
    with np.load(Path(simulators.__file__).parents[1] / "data" / "recorded_decisions.npz") as file:
        assert "format" not in file.files
        for name in shipped.__slots__:
            read, kept = np.asarray(getattr(shipped, name)), file[name]
            assert (read.dtype, read.tobytes()) == (kept.dtype, kept.tobytes()), name


def test_the_shipped_recording_covers_the_recorded_market(market):
    shipped = RecordedSimulator()
    recording = shipped.load()
    rows, columns = np.divmod(np.arange(4800), 40)
    bound = shipped.bind(market)
    feedback = bound.feedback(rows, columns)

    assert recording.probability.shape == (120, 40)
    assert (feedback.status == "ok").all()
    assert ((feedback.probability > 0) & (feedback.probability < 1)).all()
    shares = [float(np.mean(feedback.decision == word)) for word in ("ignore", "click", "save", "apply")]
    np.testing.assert_allclose(shares, [0.60, 0.25, 0.10, 0.05], atol=0.01)
    assert (recording.model, recording.prompt) == ("openai/qwen2.5-coder-1.5b-instruct-q4_k_m", "probability-v1")
    assert bound.usage.calls == bound.usage.tokens == 0
    assert bound.usage.cache_hits == 4800


def test_the_shipped_recording_is_small_and_holds_no_pickle():
    path = Path(simulators.__file__).parents[1] / "data" / "recorded_decisions.npz"

    assert path.stat().st_size < 2_000_000
    with np.load(path, allow_pickle=False) as file:
        assert {"probability", "decision", "applicant_keys", "job_keys", "model", "prompt"} <= set(file.files)


def test_the_default_simulator_goes_through_its_spec(market):
    spec = RecordedSimulator().to_spec()

    assert spec["recording"] is None
    assert make_simulator(spec).bind(market).feedback(np.array([0]), np.array([0])).status[0] == "ok"
