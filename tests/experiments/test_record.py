from importlib.util import find_spec

import numpy as np
import pytest

pytest.importorskip("hydra", reason="needs the extra 'experiments'")
if find_spec("litellm") is None:
    pytest.skip('needs the extra "llm"', allow_module_level=True)

from fake_llm import leans, says, serving

from experiments.llm.record import record_market
from jobrec_gym import LLMSimulator, RecordedSimulator, load_market
from jobrec_gym.simulators.base import DECISIONS
from jobrec_gym.simulators.recorded import Recording

pytestmark = pytest.mark.waits

QUANTILES = [0.6, 0.85, 0.95]


@pytest.fixture(scope="module")
def market():
    return load_market("default", n_jobs=8, n_applicants=6)


def lean_by_text(body, number):
    return leans((1 + sum(body["messages"][1]["content"].encode()) % 97) / 99)


def test_a_market_is_asked_once_and_answers_as_the_model_did(market, tmp_path):
    with serving(lean_by_text) as fake:
        options = {"api_base": fake.api_base, "mode": "probability", "cache": tmp_path / "answers.sqlite"}
        recording = record_market(LLMSimulator("openai/fake", persona="selective", **options), market, QUANTILES)
        assert fake.calls == 48
        again = record_market(LLMSimulator("openai/fake", persona="selective", **options), market, QUANTILES)
        assert fake.calls == 48
        np.testing.assert_array_equal(recording.probability, again.probability)
        rows, columns = np.divmod(np.arange(48), 8)
        live = LLMSimulator(
            "openai/fake", persona="selective", elicitation={"calibration": recording.thresholds.tolist()}, **options
        ).bind(market)
        said = live.feedback(rows, columns)
    recording.save(tmp_path / "recording.npz")
    replayed = RecordedSimulator(tmp_path / "recording.npz").bind(market).feedback(rows, columns)
    np.testing.assert_allclose(replayed.probability, said.probability, rtol=1e-6)
    assert replayed.decision.tolist() == said.decision.tolist()
    assert replayed.reward.tolist() == said.reward.tolist()
    shares = [np.mean(replayed.decision == word) for word in DECISIONS]
    np.testing.assert_allclose(shares, [0.60, 0.25, 0.10, 0.05], atol=0.03)
    assert (recording.model, recording.prompt) == ("openai/fake", "probability-v1")


def test_the_file_can_be_read_without_this_package(market, tmp_path):
    with serving(lean_by_text) as fake:
        simulator = LLMSimulator("openai/fake", api_base=fake.api_base, mode="probability")
        record_market(simulator, market, QUANTILES).save(tmp_path / "recording.npz")
    with np.load(tmp_path / "recording.npz", allow_pickle=False) as file:
        assert file["decision"].shape == file["probability"].shape == (6, 8)
        assert set(np.unique(file["decision"])) == {0, 1, 2, 3}
        assert str(file["model"]) == "openai/fake"
    assert Recording.load(tmp_path / "recording.npz").probability.shape == (6, 8)


def test_a_pair_without_an_answer_stays_open(market, tmp_path):
    with serving(lambda body, number: says("hm") if number == 1 else lean_by_text(body, number)) as fake:
        simulator = LLMSimulator("openai/fake", api_base=fake.api_base, mode="probability", calls={"concurrency": 1})
        recording = record_market(simulator, market, QUANTILES)
    assert np.isnan(recording.probability).sum() == 1
    recording.save(tmp_path / "recording.npz")
    feedback = RecordedSimulator(tmp_path / "recording.npz").bind(market).feedback(*np.divmod(np.arange(48), 8))
    assert (feedback.status == "not_recorded").sum() == 1


@pytest.mark.parametrize("quantiles", [[60, 85, 95], [0.95, 0.85, 0.6], [0.6, 0.85], 0.6, None, ["x", 0.8, 0.9]])
def test_nobody_is_asked_for_thresholds_that_cannot_be(market, quantiles):
    with serving(lean_by_text) as fake:
        simulator = LLMSimulator("openai/fake", api_base=fake.api_base, mode="probability")
        with pytest.raises(ValueError, match=r"`quantiles` must be three rising shares in \[0, 1\]"):
            record_market(simulator, market, quantiles)
        assert fake.calls == 0


def test_decisions_cannot_be_recorded_as_probabilities(market):
    with pytest.raises(ValueError, match="probability"):
        record_market(LLMSimulator("openai/fake"), market, QUANTILES)
