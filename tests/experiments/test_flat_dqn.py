import numpy as np
import pytest

pytest.importorskip("hydra", reason="needs the extra 'experiments'")

from experiments.learners.flat_dqn import _flat
from experiments.runs.build import build


def test_it_sees_the_whole_observation_and_is_evaluated_on_the_environments_own(run, small, tmp_path):
    summary = run("algo=dqn", "algo.learning_starts=8", "algo.buffer_size=100")
    setup = build(small("algo=dqn", "algo.buffer_size=100"))
    again = setup.algorithm.load(tmp_path / "run" / "model.zip", setup.env)
    obs, _ = setup.env.reset(seed=0)

    assert again.observation_space.shape == (768 * 6,)
    assert again.q_values(obs).shape == (1, 5)
    assert again.predict(obs, deterministic=True)[0][0] == again.q_values(obs).argmax()
    one = {key: values[0] for key, values in obs.items()}
    np.testing.assert_array_equal(_flat(one), _flat(obs)[0])
    assert summary["interactions"] == 30
    assert setup.evaluation(again)["score"] == summary["held_out"]["score"]
