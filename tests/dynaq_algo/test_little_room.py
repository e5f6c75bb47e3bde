"""Agents on a full disk: the file is named, the old one stays, nothing is left beside it, and there is a next time."""

from pathlib import Path

import pytest
from little_room import as_nobody, room_for
from toy import make_toy

from dynaq_algo import DynaQ, LinearBandit
from dynaq_algo.policies import CandidatePolicy


@pytest.fixture(scope="module")
def agent():
    model = DynaQ("CandidatePolicy", make_toy(), seed=0, policy_kwargs={"net_arch": [16, 16]}, device="cpu")
    return model.learn(80)


@pytest.fixture(scope="module")
def bandit():
    return LinearBandit(make_toy(), seed=0).learn(20)


WRITTEN = {
    "agent.zip": lambda agent, bandit, path: agent.save(path),
    "replay": lambda agent, bandit, path: agent.save_replay_buffer(path),
    "policy.pt": lambda agent, bandit, path: agent.policy.save(str(path)),
    "checkpoint": lambda agent, bandit, path: agent.save_checkpoint(path),
    "bandit.zip": lambda agent, bandit, path: bandit.save(path),
}
READ = {
    "agent.zip": lambda path: DynaQ.load(path, make_toy(), device="cpu"),
    "replay": lambda path: DynaQ("CandidatePolicy", make_toy(), device="cpu").load_replay_buffer(path),
    "policy.pt": lambda path: CandidatePolicy.load(str(path)),
    "checkpoint": lambda path: DynaQ.load_checkpoint(path, make_toy(), device="cpu"),
    "bandit.zip": lambda path: LinearBandit.load(path, make_toy()),
}


@pytest.mark.parametrize("n_bytes", [0, 700])
@pytest.mark.parametrize("name", WRITTEN)
def test_a_full_disk_is_said_with_the_file_and_costs_nothing(agent, bandit, tmp_path, name, n_bytes):
    path = tmp_path / name
    for is_there in (False, True):
        with room_for(n_bytes), pytest.raises(OSError, match="File too large") as told:
            WRITTEN[name](agent, bandit, path)
        assert told.value.filename == str(path)
        assert [left.name for left in tmp_path.iterdir()] == [name] * is_there
        if is_there:
            READ[name](path)
        else:
            WRITTEN[name](agent, bandit, path)
            READ[name](path)


def test_a_place_that_cannot_be_written_is_named(agent, bandit, tmp_path):
    for name in WRITTEN:
        beneath_a_file = Path("/dev/null") / name
        with pytest.raises(OSError, match=rf"'/dev/null(/\.?{name}.*)?'"):
            WRITTEN[name](agent, bandit, beneath_a_file)

        def work(name=name):
            with pytest.raises(PermissionError) as told:
                WRITTEN[name](agent, bandit, Path("/") / name)
            return told.value.filename == f"/{name}"

        assert as_nobody(work), name
