"""A language model that is told an applicant's present level."""

import importlib.util

import numpy as np
import pytest

if importlib.util.find_spec("litellm") is None:
    pytest.skip('needs the extra "llm"', allow_module_level=True)
from fake_llm import decides, serving

from jobrec_gym import JobRecCareerEnv
from jobrec_gym.simulators.llm import LLMSimulator

pytestmark = pytest.mark.waits


def simulator(fake, **options):
    """A simulator that asks a fake server."""
    return LLMSimulator("openai/fake", api_base=fake.api_base, calls={"timeout": 3_600.0}, **options)


def test_an_answer_at_one_level_is_not_served_at_another_and_the_document_shows_the_present_one(market, tmp_path):
    file, pair = tmp_path / "answers.sqlite", (np.array([0]), np.array([0]))
    with serving(lambda body, number: decides(("apply", "save", "ignore")[number - 1])) as fake:
        bound = simulator(fake, cache=file).bind(market)
        for _ in range(2):
            assert bound.feedback(*pair, levels=np.array([1])).decision.tolist() == ["apply"]
            assert bound.feedback(*pair, levels=np.array([5])).decision.tolist() == ["save"]
        assert fake.calls == 2, "the memory knows both"
        other = simulator(fake, cache=file).bind(market)
        assert other.feedback(*pair, levels=np.array([5])).decision.tolist() == ["save"]
        assert fake.calls == 2, "and so does the file"
        told = [text.partition("</applicant>")[0] for text in fake.asked()]
    assert '"entry"' in told[0] and '"lead"' in told[1]
    assert told[0].replace('"entry"', "LEVEL") == told[1].replace('"lead"', "LEVEL"), "nothing else differs"


def test_the_environment_tells_it_the_level_at_which_the_applicant_stands(market):
    with serving(lambda body, number: decides("click")) as fake:
        env = JobRecCareerEnv(
            market, num_candidates=3, simulator=simulator(fake), dynamics={"type": "career", "experience": 1}
        )
        env.reset(seed=0)
        levels = [int(env.step(int(env.dynamics.job_levels[env.candidate_ids].argmax()))[4]["progress/level"])]
        while levels[-1] == 1:  # until a job exactly one level up was clicked
            shown = env.dynamics.job_levels[env.candidate_ids]
            levels.append(env.step(int((shown == 2).argmax()))[4]["progress/level"])
        env.step(0)
        told = [text.partition("</applicant>")[0] for text in fake.asked()]
    assert '"entry"' in told[-2] and '"junior"' in told[-1]
