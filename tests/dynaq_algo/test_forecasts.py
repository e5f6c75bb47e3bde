"""Errors of a model of what follows, each on transitions that it had not learned."""

import numpy as np
import pytest
from ladder import Ladder
from stable_baselines3.common.logger import Logger

from dynaq_algo import DynaQ
from dynaq_algo.forecasts import TransitionForecasts
from dynaq_algo.transition_model import Foreseen


def said(reward, chances, outcome, ended, end):
    return Foreseen(np.array(reward), np.array(chances), np.array(outcome), np.array(ended), np.array(end))


def test_errors_of_three_transitions_are_those_on_paper():
    forecasts = TransitionForecasts(10)
    assert forecasts.errors() == {}
    # Before the first transition a model knows no outcome: what comes is given the least chance there is.
    forecasts.add(np.array([1.0]), said([0.0], np.zeros((1, 0)), [0], [False], [0.0]))
    forecasts.add(
        np.array([3.0, 2.0]), said([2.0, 2.0], [[0.5, 0.5], [0.25, 0.75]], [1, 0], [True, False], [0.5, 0.75])
    )
    errors = forecasts.errors()
    assert errors["reward_mse"] == pytest.approx(2 / 3)
    assert errors["reward_mse_of_mean"] == pytest.approx(2 / 3)
    assert errors["outcome_log_loss"] == pytest.approx(-np.log([1e-3, 0.5, 0.25]).mean())
    assert errors["outcome_log_loss_of_shares"] == pytest.approx(-(2 / 3 * np.log(2 / 3) + 1 / 3 * np.log(1 / 3)))
    assert errors["leaving_brier"] == pytest.approx((0 + 0.25 + 0.5625) / 3)
    assert errors["leaving_brier_of_share"] == pytest.approx(2 / 9)


def test_only_the_latest_count():
    forecasts, few = TransitionForecasts(3), TransitionForecasts(3)
    for number in range(8):
        row = np.array([float(number)]), said([0.0], [[1.0]], [0], [False], [0.0])
        forecasts.add(*row)
        if number >= 5:
            few.add(*row)
    assert forecasts.errors() == few.errors()
    many = said(np.zeros(8), np.ones((8, 1)), np.zeros(8, int), np.zeros(8, bool), np.zeros(8))
    whole = TransitionForecasts(3)
    whole.add(np.arange(8.0), many)
    assert whole.errors() == few.errors()
    with pytest.raises(ValueError, match="`size` must be 1 or more, got 0"):
        TransitionForecasts(0)


def test_an_agent_logs_them_and_each_part_is_better_than_a_constant():
    logged = {}

    class Kept(Logger):
        def record(self, key, value, exclude=None):
            logged[key] = value

    model = DynaQ.plus(Ladder(leaves=True), seed=0, exploration_initial_eps=0.5, exploration_final_eps=0.5)
    model.set_logger(Kept(None, []))
    model.learn(150, log_interval=10**9)
    assert model.transition_forecasts.n_added == 150
    found = {key.removeprefix("world_model/"): value for key, value in logged.items() if key.startswith("world_model/")}
    assert found == model.transition_forecasts.errors()
    for name, constant in (("reward_mse", "mean"), ("outcome_log_loss", "shares"), ("leaving_brier", "share")):
        assert found[name] < found[f"{name}_of_{constant}"], name


def test_they_go_on_where_a_checkpoint_was_written(tmp_path):
    model = DynaQ.plus(Ladder(), seed=0)
    model.learn(20, log_interval=10**9)
    model.save_checkpoint(tmp_path / "here")
    again = DynaQ.load_checkpoint(tmp_path / "here", Ladder())
    assert again.transition_forecasts.errors() == model.transition_forecasts.errors()


@pytest.mark.parametrize(
    "changes",
    [
        {"rows": np.zeros((4, 5))},
        {"rows": np.zeros((4, 6), np.float32)},
        {"rows": np.full((4, 6), np.nan)},
        {"rows": np.full((4, 6), -1.0)},
        {"rows": [[0.0] * 6]},
        {"n_added": -1},
        {"n_added": "2"},
    ],
    ids=lambda changes: "-".join(changes),
)
def test_what_a_file_sets_is_checked(changes):
    forecasts = TransitionForecasts(4)
    forecasts.add(np.array([1.0, 0.0]), said([0.5, 0.5], [[1.0], [1.0]], [0, 0], [False, True], [0.0, 0.5]))
    forecasts.check()
    vars(forecasts).update(changes)
    with pytest.raises((ValueError, TypeError, AttributeError)):
        forecasts.check()
