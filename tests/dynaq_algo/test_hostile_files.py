"""Files of agents from others: nothing in them is executed, and one line says what is wrong."""

import base64
import copy
import io
import json
import os
import pickle
import re
import zipfile
from collections import OrderedDict, deque

import cloudpickle
import numpy as np
import pytest
import torch as th
from gymnasium import spaces
from stable_baselines3 import DQN
from stable_baselines3.common.callbacks import CheckpointCallback
from stable_baselines3.common.save_util import save_to_zip_file
from stable_baselines3.common.utils import LinearSchedule
from torch import nn
from toy import make_toy

from dynaq_algo import (
    BlockwiseFeatures,
    CandidatePolicy,
    CrossedPairs,
    DynaQ,
    DynaQCheckpoint,
    GaussianProcessBandit,
    LinearBandit,
    tensor_file,
)
from dynaq_algo import agent_file as agent_files
from dynaq_algo.__main__ import main
from dynaq_algo.agent_file import AgentFileError, convert_agent
from dynaq_algo.plain_data import CLASSES, OBJECTS, NotPlain, from_json, to_json
from dynaq_algo.tensor_file import DTYPES, TensorReader, fitting_state


class Canary:
    """Runs a command when it is unpickled."""

    def __init__(self, path):
        self.path = path

    def __reduce__(self):
        return os.mkdir, (str(self.path),)


class Own(nn.ReLU):
    """A class of one's own."""


class OwnPolicy(CandidatePolicy):
    """Another."""


def agent(**kwargs):
    return DynaQ(
        "CandidatePolicy",
        make_toy(),
        **{"seed": 0, "policy_kwargs": {"net_arch": [8]}, "device": "cpu", "learning_starts": 5, **kwargs},
    )


@pytest.fixture(scope="module")
def saved(tmp_path_factory):
    path = tmp_path_factory.mktemp("agents") / "agent.zip"
    agent().learn(20).save(path)
    return path


def entries(path):
    with zipfile.ZipFile(path) as archive:
        return {name: archive.read(name) for name in archive.namelist()}


def write(path, content, compression=zipfile.ZIP_STORED):
    with zipfile.ZipFile(path, "w", compression) as archive:
        for name, entry in content.items():
            archive.writestr(name, entry)


def with_data(**changes):
    """The agent's entries with some attributes changed."""

    def change(content, canary):
        return {**content, "data": json.dumps({**json.loads(content["data"]), **changes}).encode()}

    return change


def pickled(canary):
    return {":type:": "x", ":serialized:": base64.b64encode(cloudpickle.dumps(Canary(canary))).decode()}


def torch_file(value):
    buffer = io.BytesIO()
    th.save(value, buffer)
    return buffer.getvalue()


def with_entry(name, make):
    return lambda content, canary: {**content, name: make(content, canary)}


def replaced(name, value):
    return lambda content, canary: {**content, name: value}


def with_tensors(name, change):
    """The agent's entries with tensors of one part changed in place."""

    def make(content, _):
        state = th.load(io.BytesIO(content[f"{name}.pth"]), weights_only=True)
        change(state)
        return torch_file(state)

    return with_entry(f"{name}.pth", make)


def with_moments(of="policy", **moments):
    return with_tensors(f"{of}.optimizer", lambda state: state["state"][0].update(moments))


def set_first_weight(value):
    def change(state):
        next(entry for entry in state.values() if isinstance(entry, th.Tensor)).reshape(-1)[0] = value

    return change


ARRAY = {":type:": "array", "dtype": "<f4", "shape": [2], "content": base64.b64encode(bytes(8)).decode()}
HOSTILE = {
    "an attribute of pickled Python": lambda content, canary: with_data(gamma=pickled(canary))(content, canary),
    "a new attribute of pickled Python": lambda content, canary: with_data(note=pickled(canary))(content, canary),
    "pickled Python beneath": lambda content, canary: with_data(policy_kwargs={"a": pickled(canary)})(content, canary),
    "a pickle where the policy's tensors are": with_entry("policy.pth", lambda _, canary: torch_file(Canary(canary))),
    "a bare pickle there": with_entry("policy.pth", lambda _, canary: pickle.dumps(Canary(canary))),
    "a pickle among the variables": with_entry("pytorch_variables.pth", lambda _, canary: torch_file(Canary(canary))),
    "a pickle in another file of tensors": with_entry("more.pth", lambda _, canary: torch_file(Canary(canary))),
    "a pickle where the data is": with_entry("data", lambda _, canary: pickle.dumps(Canary(canary))),
    "an environment to make": with_data(env="os:system"),
    "a class that is not known": with_data(policy_class={":type:": "class", "name": "os:system"}),
    "a function of torch": with_data(policy_class={":type:": "class", "name": "torch.nn:Module.load_state_dict"}),
    "a module of torch": with_data(policy_kwargs={"activation_fn": {":type:": "class", "name": "torch.nn:init"}}),
    "an object that is not known": with_data(
        planning_source={":type:": "object", "name": "subprocess:Popen", "attributes": {}}
    ),
    "an object whose method is replaced": with_data(
        planning_source={":type:": "object", "name": "dynaq_algo.planning:CrossedPairs", "attributes": {"sample": 1}}
    ),
    "a method replaced": with_data(train="x"),
    "a policy that is a text": with_data(policy_class="CandidatePolicy"),
    "a policy that is a layer": with_data(policy_class={":type:": "class", "name": "torch.nn:ReLU"}),
    "a value of an unknown kind": with_data(gamma={":type:": "code", "source": "import os"}),
    "an array of objects": with_data(_last_obs={**ARRAY, "dtype": "|O"}),
    "an array larger than its bytes": with_data(_last_obs={**ARRAY, "shape": [10**6]}),
    "an array larger than memory": with_data(_last_obs={**ARRAY, "shape": [10**12]}),
    "a number repeated beyond memory": with_data(
        _last_obs={":type:": "array", "dtype": "<f8", "shape": [10**13], "fill": 1}
    ),
    "an array of negative size": with_data(_last_obs={**ARRAY, "shape": [-2, -1]}),
    "a space that is none": with_data(observation_space={":type:": "space", "space": "Text"}),
    "no space": with_data(observation_space=3),
    "a text for a number": with_data(gamma="0.9"),
    "a text for the number of answers told": with_data(_told={"a": "10"}),
    "a number for the names left out": with_data(save_without=[3]),
    "data that is a list": replaced("data", b"[]"),
    "data that is no JSON": replaced("data", b"\xff{"),
    "JSON without an end of brackets": replaced("data", b"[" * 200_000),
    "another format": replaced("dynaq_algo_format.json", b'{"format": "dynaq-agent/99", "written_by": "x 9"}'),
    "a format that is a list": replaced("dynaq_algo_format.json", b"[]"),
    "no format": lambda content, canary: {k: v for k, v in content.items() if k != "dynaq_algo_format.json"},
    "no tensors": lambda content, canary: {k: v for k, v in content.items() if not k.endswith(".pth")},
    "tensors of another size": with_entry("policy.pth", lambda *_: torch_file({"q_net.weight": th.zeros(3)})),
    "tensors that are a list": with_entry("policy.pth", lambda *_: torch_file([1, 2])),
    "truncated tensors": with_entry("policy.pth", lambda content, _: content["policy.pth"][:-100]),
    "tensors of nothing that there is": with_entry("os.system.pth", lambda *_: torch_file({})),
    "tensors of a part of a network": with_entry("policy.q_net.pth", lambda *_: torch_file({})),
    "weights that are no numbers": with_tensors("policy", set_first_weight(np.nan)),
    "weights that are infinite": with_tensors("world_model", set_first_weight(np.inf)),
    "a moment of another shape": with_moments(exp_avg=th.zeros(3)),
    "a moment of another shape, of the world model": with_moments("world_model", exp_avg=th.zeros(3)),
    "a moment that is a text": with_moments(exp_avg="x"),
    "a moment that is no number": with_moments(exp_avg=th.full((8, 6), np.nan)),
    "a moment of whole numbers": with_moments(exp_avg=th.zeros((8, 6), dtype=th.int64)),
    "a count of steps that is a list": with_moments(step=th.zeros(5)),
    "no moment": with_tensors("policy.optimizer", lambda state: state["state"][0].pop("exp_avg_sq")),
    "moments of no weight": with_tensors("policy.optimizer", lambda state: state["state"].update({99: {}})),
    "moments of other weights": with_tensors(
        "policy.optimizer", lambda state: state["param_groups"][0].update(params=[1])
    ),
    "moments that are a list": with_entry("policy.optimizer.pth", lambda *_: torch_file([])),
}


@pytest.mark.parametrize("how", HOSTILE)
def test_a_hostile_agent_runs_nothing_and_is_refused_in_one_line(tmp_path, saved, how):
    canary, path = tmp_path / "canary", tmp_path / "agent.zip"
    write(path, HOSTILE[how](entries(saved), canary))
    if how == "a pickle among the variables":  # which no agent has, so that nobody reads them
        DynaQ.load(path, make_toy(), device="cpu")
    else:
        with pytest.raises(AgentFileError, match=re.escape(str(path))) as refused:
            DynaQ.load(path, device="cpu")
        assert "\n" not in str(refused.value)
    assert not canary.exists()


def test_the_canary_would_sing(tmp_path):
    pickle.loads(pickle.dumps(Canary(tmp_path / "canary")))
    assert (tmp_path / "canary").exists()


def test_what_unpacks_to_more_than_the_bound_is_refused_before_it_is_unpacked(tmp_path, saved):
    path = tmp_path / "agent.zip"
    write(path, {**entries(saved), "bomb": bytes(50_000_000)}, zipfile.ZIP_DEFLATED)
    assert path.stat().st_size < 200_000
    with pytest.raises(AgentFileError, match="unpacks to more than `max_bytes` = 10,000,000 bytes"):
        DynaQ.load(path, device="cpu", max_bytes=10_000_000)
    DynaQ.load(path, device="cpu")


@pytest.mark.parametrize("share", [0.0, 0.01, 0.5, 0.99])
def test_a_truncated_agent_is_named(tmp_path, saved, share):
    content = saved.read_bytes()
    (tmp_path / "agent.zip").write_bytes(content[: int(share * len(content))])
    with pytest.raises(AgentFileError, match=r"agent\.zip .* whole .* Save it again"):
        DynaQ.load(tmp_path / "agent.zip")
    with pytest.raises(FileNotFoundError, match="There is no agent at"):
        DynaQ.load(tmp_path / "nowhere.zip")


def test_changed_bytes_are_found(tmp_path, saved):
    content = saved.read_bytes()
    for place in range(200, len(content), len(content) // 40):
        changed = content[:place] + bytes([content[place] ^ 1]) + content[place + 1 :]
        (tmp_path / "agent.zip").write_bytes(changed)
        # A zip's own fields may change without any change of what is in it: dates, for instance.
        try:
            DynaQ.load(tmp_path / "agent.zip", device="cpu")
        except AgentFileError as error:
            assert "agent.zip" in str(error)
        else:
            assert entries(tmp_path / "agent.zip") == entries(saved)


# ---------------------------------------------------------------------- what can be written


def test_an_agent_is_json_and_tensors(saved):
    content = entries(saved)
    assert b":serialized:" not in content["data"]
    assert json.loads(content["dynaq_algo_format.json"])["format"] == "dynaq-agent/2"
    assert json.loads(content["dynaq_algo_format.json"])["written_by"].startswith("dynaq_algo")
    for name in content:
        if name.endswith(".pth"):
            th.load(io.BytesIO(content[name]), weights_only=True)


def test_code_is_refused_by_the_argument_that_holds_it_and_given_back_when_loading(tmp_path):
    code = {
        "learning_rate": lambda progress: 1e-3 * progress,
        "policy_kwargs": {"net_arch": [8], "activation_fn": Own},
        "planning_source": type("Mine", (CrossedPairs,), {})(),
    }
    for name, value in code.items():
        model = agent(**{name: value})
        with pytest.raises(ValueError, match=rf"`{name}` holds .*exclude=\[\"{name}\"\].*custom_objects"):
            model.save(tmp_path / "agent.zip")
        assert not (tmp_path / "agent.zip").exists()
        model.save(tmp_path / "agent.zip", exclude=[name])
        with pytest.raises(AgentFileError, match=rf"was saved without `{name}`, which is code: give it back"):
            DynaQ.load(tmp_path / "agent.zip", device="cpu")
        loaded = DynaQ.load(tmp_path / "agent.zip", device="cpu", custom_objects={name: value})
        assert getattr(loaded, name) is value
        (tmp_path / "agent.zip").unlink()


def test_a_checkpoint_leaves_out_code_too(tmp_path):
    def rate(progress):
        return 1e-3

    model = agent(learning_rate=rate)
    with pytest.raises(ValueError, match="`learning_rate` holds the function"):
        model.save_checkpoint(tmp_path / "checkpoint")
    model.learn(20, callback=DynaQCheckpoint(tmp_path / "checkpoint", 20, exclude=["learning_rate"]))
    resumed = DynaQ.load_checkpoint(
        tmp_path / "checkpoint", make_toy(), device="cpu", custom_objects={"learning_rate": rate}
    )
    assert resumed.num_timesteps == 20
    resumed.save_checkpoint(tmp_path / "checkpoint", exclude=["learning_rate"])


def test_a_callback_of_sb3_saves_an_agent_without_its_code(tmp_path):
    policy_kwargs = {"net_arch": [8], "activation_fn": Own}
    model = agent(policy_kwargs=policy_kwargs)
    with pytest.raises(ValueError, match=r'`model.save_without = \["policy_kwargs"\]` before a callback'):
        model.learn(10, callback=CheckpointCallback(10, str(tmp_path), "agent"))
    model.save_without = ["policy_kwargs"]
    model.learn(10, callback=[CheckpointCallback(10, str(tmp_path), "agent"), DynaQCheckpoint(tmp_path / "all", 10)])
    given = {"custom_objects": {"policy_kwargs": policy_kwargs}, "device": "cpu"}
    DynaQ.load_checkpoint(tmp_path / "all", make_toy(), **given)
    loaded = DynaQ.load(tmp_path / "agent_10_steps", make_toy(), **given)
    assert loaded.num_timesteps == 10
    loaded.learn(5).save(tmp_path / "again")  # it still knows what it leaves out
    loaded.save_without = []
    loaded.save(tmp_path / "again", exclude=["policy_kwargs"])


def test_names_that_are_a_single_text_are_refused(tmp_path):
    model, place = agent(), tmp_path / "agent.zip"
    for name in ("exclude", "include"):
        with pytest.raises(ValueError, match=rf"`{name}` must be a list of names, such as \['gamma'\], got 'gamma'"):
            model.save(place, **{name: "gamma"})
    model.save_without = "gamma"
    with pytest.raises(ValueError, match="`save_without` must be a list of names"):
        model.save(place)
    for refused in (lambda: DynaQCheckpoint(tmp_path, 5, "gamma"), lambda: convert_agent(place, place, "gamma")):
        with pytest.raises(ValueError, match="`exclude` must be a list of names"):
            refused()
    assert not place.exists()


def test_named_classes_and_schedules_come_back(tmp_path):
    model = agent(
        learning_rate=LinearSchedule(1e-3, 1e-4, 0.5),
        planning_source=CrossedPairs(0.25),
        train_freq=(2, "step"),
        policy_kwargs={
            "net_arch": [8],
            "activation_fn": nn.Tanh,
            "features": BlockwiseFeatures,
            "features_kwargs": {"n_blocks": 1},
            "optimizer_class": th.optim.SGD,
        },
    )
    model.learn(20, callback=CheckpointCallback(10, str(tmp_path), "agent"))
    loaded = DynaQ.load(tmp_path / "agent_20_steps", make_toy(), device="cpu")
    assert loaded.policy_kwargs == model.policy_kwargs
    assert (loaded.planning_source.coming, loaded.train_freq) == (0.25, model.train_freq)
    assert vars(loaded.learning_rate) == vars(model.learning_rate)
    assert loaded.ep_info_buffer == model.ep_info_buffer and loaded.ep_info_buffer.maxlen == 100
    loaded.learn(20)


def test_an_agent_is_written_whole_or_not_at_all(tmp_path, monkeypatch):
    model = agent()
    model.save(tmp_path / "agent.zip")
    before = (tmp_path / "agent.zip").read_bytes()
    monkeypatch.setattr(agent_files.Path, "replace", lambda *_: 1 / 0)
    with pytest.raises(ZeroDivisionError):
        model.save(tmp_path / "agent.zip")
    assert (tmp_path / "agent.zip").read_bytes() == before
    assert [path.name for path in tmp_path.iterdir()] == ["agent.zip"]


def test_a_file_of_an_agent_does_not_say_where_the_loaded_agent_writes(tmp_path, saved):
    agent(tensorboard_log=str(tmp_path / "own")).save(tmp_path / "agent.zip")
    assert b"tensorboard" not in entries(tmp_path / "agent.zip")["data"]
    write(tmp_path / "old.zip", with_data(tensorboard_log=str(tmp_path / "elsewhere"))(entries(saved), None))
    DynaQ.load(tmp_path / "old.zip", make_toy(), device="cpu").learn(5).logger.close()
    assert not (tmp_path / "elsewhere").exists()
    for given in ({"tensorboard_log": "own"}, {"custom_objects": {"tensorboard_log": "own"}}):
        assert DynaQ.load(tmp_path / "old.zip", make_toy(), device="cpu", **given).tensorboard_log == "own"


def test_an_agent_is_saved_to_an_open_file_and_its_parameters_are_taken_from_one(tmp_path, saved):
    buffer = io.BytesIO()
    model = DynaQ.load(saved, device="cpu")
    model.save(buffer)
    buffer.seek(0)
    loaded = DynaQ.load(buffer, device="cpu")
    obs, _ = make_toy().reset(seed=3)
    np.testing.assert_array_equal(loaded.q_values(obs), model.q_values(obs))
    other = agent(seed=5)
    other.set_parameters(str(saved), device="cpu")
    np.testing.assert_array_equal(other.q_values(obs), model.q_values(obs))
    old_agent(tmp_path / "old.zip")  # of SB3's own format, of which only the tensors are read
    other.set_parameters(tmp_path / "old")
    loaded = DynaQ.load(saved, device="cpu")
    loaded.set_parameters(other.get_parameters())
    np.testing.assert_array_equal(loaded.q_values(obs), other.q_values(obs))


# ---------------------------------------------------------------------- tensors


def test_what_torch_saves_is_read():
    shared = th.arange(6.0)
    value = {
        **{str(dtype): th.tensor([0, 1, 5]).to(dtype) for dtype in DTYPES.values()},
        "nested": OrderedDict(a=[1, 2.5, "ä", None, True, -3, 2**40, (), ((1,), "x")], b={3: th.tensor(7.0)}),
        "transposed": th.arange(6.0).reshape(2, 3).T,
        "rows": [shared[1:3], shared[::2], shared],
        "parameter": nn.Parameter(th.ones(2)),
        "nothing": th.zeros(0, 4),
        "again": shared,
    }
    found = TensorReader("x", "agent", 10_000).read(io.BytesIO(torch_file(value)))
    assert list(found) == list(value) and found["nested"]["a"] == value["nested"]["a"]
    pairs = [(found["nested"]["b"][3], value["nested"]["b"][3]), *zip(found["rows"], value["rows"], strict=True)]
    pairs += [(found[name], tensor) for name, tensor in value.items() if isinstance(tensor, th.Tensor)]
    for one, wanted in pairs:
        assert th.equal(one, wanted) and one.dtype == wanted.dtype
        assert one.is_contiguous() and not one.requires_grad


def lying(value, change):
    """A file of torch's whose records were changed."""
    content = entries(io.BytesIO(torch_file(value)))
    buffer = io.BytesIO()
    write(buffer, {name: change(name, entry) for name, entry in content.items()})
    return buffer.getvalue()


def with_description(description):
    return lying({}, lambda name, entry: description if name.endswith("data.pkl") else entry)


TWO = th.zeros(2)
LIES = {
    "bytes, which a function makes": (torch_file({"a": b"b"}), "asks for '_codecs encode'"),
    "a tensor that repeats a number": (torch_file({"a": th.zeros(1).expand(10**12)}), "more than `max_bytes`"),
    "a tensor that is there often": (torch_file([th.zeros(100)] * 200), "more than `max_bytes`"),
    "numbers that are often in a tensor": (
        torch_file([numbers.as_strided((100,), (1,)) for numbers in [th.zeros(100)] for _ in range(200)]),
        "more than `max_bytes`",
    ),
    "fewer numbers than the file says": (
        lying({"a": TWO}, lambda name, entry: entry[:4] if name.endswith("data/0") else entry),
        "not as large as the file says",
    ),
    "a view beyond its numbers": (
        lying({"a": TWO}, lambda name, entry: entry.replace(b"K\x00K\x02\x85", b"K\x01K\x02\x85")),
        "out of bounds",
    ),
    "a shape of negative numbers": (
        lying({"a": TWO}, lambda name, entry: entry.replace(b"K\x02\x85", b"J\xfe\xff\xff\xff\x85")),
        "has a shape that is none",
    ),
    "numbers of another computer": (
        lying({"a": TWO}, lambda name, entry: b"middle" if name.endswith("byteorder") else entry),
        "another kind of computer",
    ),
    "a list within itself": (with_description(b"\x80\x02]q\x00h\x00a."), "repeats a container"),
    "lists that double": (with_description(b"\x80\x02]q\x00]q\x01(h\x00h\x00e."), "repeats a container"),
    "an entry of a list": (with_description(b"\x80\x02]X\x01\0\0\0aNs."), "no entry of a dictionary"),
    "a key that is a tuple": (with_description(b"\x80\x02})Ns."), "no entry of a dictionary"),
    "an item of a dictionary": (with_description(b"\x80\x02}Na."), "no list"),
    "a call of a text": (with_description(b"\x80\x02X\x01\0\0\0a)R."), "no function"),
    "a description without end": (with_description(b"\x80\x02" + b"0" * 10), "asks for 'POP'"),
    "a description that says little at length": (with_description(b"\x80\x02" + b"]" * 10), "EOFError|exhausted"),
    "too many steps": (with_description(b"\x80\x02" + b"]" * 200 + b"."), "more than 100 steps"),
}


@pytest.mark.parametrize("how", LIES)
def test_tensors_are_no_more_than_the_file_holds_and_no_code(monkeypatch, how):
    monkeypatch.setattr(tensor_file, "MOST_STEPS", 100 if how == "too many steps" else 10_000)
    content, why = LIES[how]
    with pytest.raises(AgentFileError, match=f"^x .*({why})") as refused:
        TensorReader("x", "agent", 50_000).read(io.BytesIO(content))
    assert "\n" not in str(refused.value)


def test_tensors_of_all_parts_together_are_within_the_bound(tmp_path, saved):
    path = tmp_path / "agent.zip"
    padding = {f"{i}": th.zeros(1).expand(400_000) for i in range(4)}
    for part in ("policy", "world_model", "anchors"):
        write(path, {**entries(saved), f"{part}.pth": torch_file(padding)})
        DynaQ.load(saved, device="cpu", max_bytes=7_000_000)
        with pytest.raises(AgentFileError, match="do not fit the agent"):
            DynaQ.load(path, device="cpu", max_bytes=7_000_000)
    write(path, {**entries(saved), **{f"{part}.pth": torch_file(padding) for part in ("policy", "world_model")}})
    with pytest.raises(AgentFileError, match="unpacks to more than `max_bytes` = 7,000,000 bytes"):
        DynaQ.load(path, device="cpu", max_bytes=7_000_000)


def test_settings_of_an_optimiser_are_those_of_the_agent_and_not_of_its_file(tmp_path, saved):
    def change(state):
        state["param_groups"][0].update(maximize=True, betas=(5.0, 7.0), eps=-1.0, lr=9.0, weight_decay=9.0)

    write(tmp_path / "agent.zip", with_tensors("policy.optimizer", change)(entries(saved), None))
    one, other = (DynaQ.load(path, make_toy(), device="cpu").learn(20) for path in (saved, tmp_path / "agent.zip"))
    for name, values in one.policy.state_dict().items():
        assert name == "_extra_state" or th.equal(values, other.policy.state_dict()[name])
    assert one.policy.optimizer.param_groups[0]["betas"] == (0.9, 0.999)


def test_parameters_from_a_hostile_file_or_a_dictionary_are_checked_too(tmp_path, saved):
    write(tmp_path / "agent.zip", HOSTILE["a moment of another shape"](entries(saved), None))
    model = agent().learn(20)
    with pytest.raises(AgentFileError, match=r"agent\.zip holds tensors that do not fit"):
        model.set_parameters(tmp_path / "agent.zip")
    parameters = model.get_parameters()
    parameters["world_model.optimizer"]["state"][0]["exp_avg"] = th.zeros(3)
    with pytest.raises(RuntimeError, match=r"`exp_avg` of an optimiser must be numbers of the shape"):
        agent().set_parameters(parameters)


@pytest.mark.parametrize("name", ["Adadelta", "Adafactor", "Adagrad", "AdamW", "ASGD", "RMSprop", "Rprop", "SGD"])
def test_any_optimiser_goes_on_where_it_stopped(name):
    def make():
        parameter = nn.Parameter(th.ones(2, 3))
        options = {"momentum": 0.9} if name == "SGD" else {}
        return parameter, getattr(th.optim, name)([parameter], lr=0.1, **options)

    def step(parameter, optimizer):
        parameter.grad = parameter.detach().square()
        optimizer.step()
        return parameter.detach()

    (parameter, optimizer), (other, loaded) = make(), make()
    step(parameter, optimizer)
    other.data.copy_(parameter.data)
    before = optimizer.state_dict()
    loaded.load_state_dict(fitting_state(loaded, copy.deepcopy(before)))
    th.testing.assert_close(step(other, loaded), step(parameter, optimizer), rtol=0, atol=0)


# ---------------------------------------------------------------------- older agents and policies


def old_agent(path):
    """As SB3 itself writes an agent."""
    model = agent(learning_rate=1e-3).learn(20)
    names = [name.split(".")[0] for name in model.get_parameters()]
    data = {k: v for k, v in vars(model).items() if k not in {*model._excluded_save_params(), *names}}
    save_to_zip_file(path, data=data, params=model.get_parameters(), pytorch_variables={})
    return model


def test_an_older_agent_is_refused_with_the_command_that_converts_it(tmp_path, capsys):
    model = old_agent(tmp_path / "old.zip")
    with pytest.raises(AgentFileError, match=r"python -m dynaq_algo convert OLD\.zip NEW\.zip"):
        DynaQ.load(tmp_path / "old.zip")
    main(["convert", str(tmp_path / "old.zip"), str(tmp_path / "new.zip")])
    assert "new.zip" in capsys.readouterr().out
    loaded = DynaQ.load(tmp_path / "new.zip", make_toy(), device="cpu")
    obs, _ = make_toy().reset(seed=3)
    np.testing.assert_array_equal(loaded.q_values(obs), model.q_values(obs))
    assert loaded.num_timesteps == 20
    with pytest.raises(SystemExit, match="COMMAND must be given, usage"):
        main([])
    (tmp_path / "no.zip").write_bytes(b"no")
    with pytest.raises(SystemExit, match="error"):
        main(["convert", str(tmp_path / "no.zip"), str(tmp_path / "new.zip")])


def test_what_an_older_agent_has_of_code_is_left_out_when_it_is_converted(tmp_path):
    save_to_zip_file(tmp_path / "old.zip", data={"learning_rate": lambda progress: 1e-3, "gamma": 0.5}, params={})
    with pytest.raises(ValueError, match="`learning_rate` holds"):
        convert_agent(tmp_path / "old.zip", tmp_path / "new.zip")
    main(["convert", str(tmp_path / "old.zip"), str(tmp_path / "new.zip"), "--exclude", "learning_rate"])
    assert json.loads(entries(tmp_path / "new.zip")["data"])["gamma"] == 0.5


def test_another_librarys_agent_is_no_agent_of_this_one(tmp_path):
    DQN("MlpPolicy", "CartPole-v1", buffer_size=10, device="cpu").save(tmp_path / "agent.zip")
    with pytest.raises(AgentFileError, match=r"of another library\. It holds pickled Python"):
        DynaQ.load(tmp_path / "agent.zip")


def test_a_policys_own_file_is_data_too(tmp_path):
    canary, policy = tmp_path / "canary", agent().policy
    policy.save(tmp_path / "policy.pt")
    th.load(tmp_path / "policy.pt", weights_only=True)
    for hostile in (Canary(canary), {"format": "dynaq-policy/2", "data": Canary(canary)}):
        th.save(hostile, tmp_path / "policy.pt")
        with pytest.raises(AgentFileError, match=r"policy\.pt holds more than tensors"):
            CandidatePolicy.load(tmp_path / "policy.pt")
    assert not canary.exists()
    for wrong in ({"format": "dynaq-policy/1"}, {"format": "dynaq-policy/2", "data": "["}, {}, [1]):
        th.save(wrong, tmp_path / "policy.pt")
        with pytest.raises(AgentFileError, match=r"policy\.pt"):
            CandidatePolicy.load(tmp_path / "policy.pt")
    with pytest.raises(ValueError, match="holds the class"):
        agent(policy_kwargs={"net_arch": [8], "activation_fn": Own}).policy.save(tmp_path / "policy.pt")
    policy.save(tmp_path / "policy.pt")
    with pytest.raises(AgentFileError, match=r"policy\.pt unpacks to more than `max_bytes` = 1,000 bytes"):
        CandidatePolicy.load(tmp_path / "policy.pt", max_bytes=1_000)
    set_first_weight(np.nan)(policy.state_dict())
    policy.save(tmp_path / "policy.pt")
    with pytest.raises(AgentFileError, match=r"policy\.pt: .*weight' of `policy` holds numbers that are not finite"):
        CandidatePolicy.load(tmp_path / "policy.pt")


# ---------------------------------------------------------------------- values as JSON

SPACE = spaces.Dict(
    OrderedDict(
        z=spaces.Box(-1, 1, (3,), np.float32),
        a=spaces.Box(np.array([0, 3], np.uint8), np.array([9, 255], np.uint8), dtype=np.uint8),
        unbounded=spaces.Box(-np.inf, np.inf, (2, 2), np.float64),
        ids=spaces.Box(0, 10**12, (2,), np.int64),
        one=spaces.Discrete(4, start=-1),
        several=spaces.MultiDiscrete([3, 4], start=[1, 2]),
        bits=spaces.MultiBinary(4),
        grid=spaces.MultiBinary([2, 3]),
    )
)


def test_values_come_back_as_they_were():
    back = from_json(json.loads(json.dumps(to_json(SPACE))))
    assert back == SPACE and list(back.spaces) == list(SPACE.spaces)
    value = {
        "plain": [1, 2.5, None, True, "ä", (1, (2,))],
        "keys": {1: "a", (2, 3): "b", ":type:": "c"},
        "window": deque([{"r": np.float64(0.1)}], maxlen=3),
        "scalar": np.float32(0.1),
        "infinite": [float("inf"), -0.0],
    }
    found = from_json(json.loads(json.dumps(to_json(value))))
    assert found == value
    assert found["window"].maxlen == 3 and type(found["scalar"]) is np.float32
    for array in (
        np.array([1.0, np.nan]),
        np.array([0.0, -0.0]),
        np.full((2, 3), np.nan, np.float32),
        np.zeros((0, 3)),
        np.array(["a", "bc"]),
        np.arange(6).reshape(2, 3).T,
        np.ones(4, bool),
    ):
        again = from_json(json.loads(json.dumps(to_json(array))))
        assert (again.dtype, again.shape, again.tobytes()) == (array.dtype, array.shape, array.tobytes())
        assert again.flags.writeable


@pytest.mark.parametrize("value", [lambda: 0, print, object(), np.array([object()]), Own, nn.ReLU(), {1, 2}, 1j])
def test_what_is_code_is_not_written(value):
    with pytest.raises(NotPlain):
        to_json({"a": [value]})


def test_a_space_of_ones_own_is_not_written():
    with pytest.raises(NotPlain, match="Mine"):
        to_json(type("Mine", (spaces.Discrete,), {})(3))


def test_every_name_that_may_stand_in_a_file_is_that_of_a_class():
    import importlib

    for module, names in {**CLASSES, **OBJECTS}.items():
        for name in names:
            assert isinstance(getattr(importlib.import_module(module), name), type)


# ---------------------------------------------------------------------- replay


def replay_arrays(path):
    with np.load(path, allow_pickle=False) as arrays:
        return dict(arrays)


def changed(name, change):
    """The replay's arrays with one changed in place."""

    def make(arrays):
        arrays[name] = arrays[name].copy()
        change(arrays[name])
        return arrays

    return make


def set_first(value):
    def change(array):
        array.reshape(-1)[0] = value

    return change


def without(name):
    return lambda arrays: {key: value for key, value in arrays.items() if key != name}


BROKEN_REPLAYS = {
    "a reward that is no number": changed("reward", set_first(np.nan)),
    "a state that is not finite": changed("states:rows", set_first(np.inf)),
    "a candidate that is no number": changed("candidates:rows", set_first(np.nan)),
    "a state that is not there": changed("state_id", set_first(10**6)),
    "a negative id": changed("next_state_id", set_first(-1)),
    "a set that is not there": changed("set_id", set_first(10**6)),
    "a candidate that is not there": changed("sets:rows", set_first(10**6)),
    "an action that is no candidate": changed("action", set_first(9)),
    "a count that is wrong": changed("states:counts", set_first(7)),
    "a negative count": changed("states:counts", set_first(-1)),
    "a free place that is held": lambda arrays: {**arrays, "states:free": np.array([0], np.int32)},
    "rewards of another kind": lambda arrays: {**arrays, "reward": arrays["reward"].astype("U9")},
    "fewer rewards": lambda arrays: {**arrays, "reward": arrays["reward"][:-1]},
    "fewer actions": lambda arrays: {**arrays, "action": arrays["action"][:-1]},
    "a component of another length": lambda arrays: {**arrays, "component:cosine": np.zeros(3, np.float32)},
    "more added than held": lambda arrays: {**arrays, "n_added": np.array(10**9)},
    "less added than held": lambda arrays: {**arrays, "n_added": np.array(-1)},
    "a number that is a text": lambda arrays: {**arrays, "n_added": np.array("x")},
    "rows of one axis": lambda arrays: {**arrays, "states:rows": arrays["states:rows"].reshape(-1)},
    "another format": lambda arrays: {**arrays, "format": np.array("dynaq-replay/9")},
    "an end of a replay that was not reached": changed("ends:n", set_first(24)),
    "an end that is negative": changed("ends:n", set_first(-1)),
    "ends of another kind": lambda arrays: {**arrays, "ends:n": arrays["ends:n"].astype("U9")},
    "ids of replays that are numbers": lambda arrays: {**arrays, "ends:id": arrays["ends:n"]},
    "an id of a replay without its end": without("ends:n"),
    "no rewards": without("reward"),
    "no counts": without("states:counts"),
}


@pytest.fixture(scope="module")
def replay(tmp_path_factory):
    path = tmp_path_factory.mktemp("replays") / "replay.npz"
    agent(buffer_size=30).learn(25).save_replay_buffer(path)
    return path


def content_of(model):
    buffer = io.BytesIO()
    model.replay_buffer.save(buffer)
    buffer.seek(0)
    return {name: value.tobytes() for name, value in replay_arrays(buffer).items()}


@pytest.mark.parametrize("how", BROKEN_REPLAYS)
def test_a_broken_replay_is_refused_whole_and_changes_nothing(tmp_path, replay, how):
    np.savez(tmp_path / "replay.npz", **BROKEN_REPLAYS[how](replay_arrays(replay)))
    model = agent(buffer_size=30).learn(10)
    before = content_of(model)
    with pytest.raises(AgentFileError, match=re.escape(str(tmp_path / "replay.npz"))) as refused:
        model.load_replay_buffer(tmp_path / "replay.npz")
    assert "\n" not in str(refused.value)
    assert content_of(model) == before
    assert (len(model.replay_buffer), model.replay_buffer.n_loaded) == (10, 0)
    model.learn(5, reset_num_timesteps=False)


def npy(header, data=b""):
    text = (header + " " * (118 - len(header)) + "\n").encode()
    return b"\x93NUMPY\x01\x00" + len(text).to_bytes(2, "little") + text + data


@pytest.mark.parametrize(
    "entry",
    [
        npy("{'descr': '<f8', 'fortran_order': False, 'shape': (1000000000000,), }"),
        npy("{'descr': '|O', 'fortran_order': False, 'shape': (1,), }", pickle.dumps([1])),
        npy("{'descr': '<f8', 'fortran_order': False, 'shape': (2,), }", bytes(8)),
        npy("{'descr': __import__('os').getcwd(), 'fortran_order': False, 'shape': (2,), }", bytes(16)),
        b"\x93NUMPY\x09\x00",
        b"",
    ],
)
def test_an_array_takes_no_memory_before_it_is_known_to_be_there(tmp_path, replay, entry):
    content = {**entries(replay), "reward.npy": entry}
    write(tmp_path / "replay.npz", content)
    with pytest.raises(AgentFileError, match=r"replay\.npz"):
        agent(buffer_size=30).load_replay_buffer(tmp_path / "replay.npz")


def test_a_replay_that_unpacks_to_more_than_the_bound_or_holds_a_pickle_is_refused(tmp_path, replay):
    write(tmp_path / "replay.npz", {**entries(replay), "bomb.npy": bytes(50_000_000)}, zipfile.ZIP_DEFLATED)
    with pytest.raises(AgentFileError, match="unpacks to more than `max_bytes` = 1,000,000"):
        agent(buffer_size=30).load_replay_buffer(tmp_path / "replay.npz", max_bytes=1_000_000)
    np.savez(tmp_path / "objects.npz", reward=np.array([Canary(tmp_path / "canary")]))
    (tmp_path / "plain.npz").write_bytes(pickle.dumps(Canary(tmp_path / "canary")))
    for name in ("objects.npz", "plain.npz"):
        with pytest.raises(AgentFileError, match=re.escape(name)):
            agent(buffer_size=30).load_replay_buffer(tmp_path / name)
    assert not (tmp_path / "canary").exists()


def test_ids_of_a_replay_must_name_actions(tmp_path):
    def of_ids():
        return DynaQ("CandidatePolicy", make_toy(ids=True), seed=0, policy_kwargs={"net_arch": [8]}, device="cpu")

    of_ids().learn(10).save_replay_buffer(tmp_path / "replay.npz")
    of_ids().load_replay_buffer(tmp_path / "replay.npz")
    np.savez(tmp_path / "other.npz", **changed("sets:rows", set_first(12))(replay_arrays(tmp_path / "replay.npz")))
    with pytest.raises(AgentFileError, match=r"`sets:rows` must name actions in \[0, 12\)"):
        of_ids().load_replay_buffer(tmp_path / "other.npz")


@pytest.mark.parametrize("name", ["model.zip", "replay.npz", "state.json", "state.npz"])
@pytest.mark.parametrize("share", [0.0, 0.3, 0.9])
def test_a_truncated_checkpoint_is_named_by_its_file(tmp_path, name, share):
    agent().learn(10).save_checkpoint(tmp_path / "checkpoint")
    file = tmp_path / "checkpoint" / name
    file.write_bytes(file.read_bytes()[: int(share * file.stat().st_size)])
    with pytest.raises(AgentFileError, match=re.escape(str(file))) as refused:
        DynaQ.load_checkpoint(tmp_path / "checkpoint", make_toy(), device="cpu")
    assert "\n" not in str(refused.value)


def test_a_checkpoint_that_was_changed_or_is_of_another_version_is_refused(tmp_path):
    agent().learn(10).save_checkpoint(tmp_path / "checkpoint")
    file = tmp_path / "checkpoint" / "state.json"
    text = file.read_text()
    assert json.loads(text)["written_by"].startswith("dynaq_algo")
    file.write_text(text.replace('"n_envs": 1', '"n_envs": 2'))
    with pytest.raises(AgentFileError, match=r"state\.json was changed after it was written.*resume=false"):
        DynaQ.load_checkpoint(tmp_path / "checkpoint", make_toy())
    for other in (text.replace("dynaq-checkpoint/2", "dynaq-checkpoint/3"), "{}"):
        file.write_text(other)
        with pytest.raises(AgentFileError, match=r"is a checkpoint of the format .*this version .* reads"):
            DynaQ.load_checkpoint(tmp_path / "checkpoint", make_toy())


# ---------------------------------------------------------------------- bandits


def learned(change):
    def make(content):
        with np.load(io.BytesIO(content["learned.npz"])) as arrays:
            changed_arrays = change(dict(arrays))
        buffer = io.BytesIO()
        np.savez(buffer, **changed_arrays)
        return {**content, "learned.npz": buffer.getvalue()}

    return make


def said(**changes):
    return lambda content: {
        **content,
        "arguments.json": json.dumps({**json.loads(content["arguments.json"]), **changes}).encode(),
    }


BROKEN_BANDITS = {
    "a pickle for what it learned": lambda content: {**content, "learned.npz": pickle.dumps([1])},
    "a mean that is no number": learned(lambda arrays: {**arrays, "mean": np.full_like(arrays["mean"], np.nan)}),
    "a mean of another size": learned(lambda arrays: {**arrays, "mean": arrays["mean"][1:]}),
    "no mean": learned(lambda arrays: {key: value for key, value in arrays.items() if key != "mean"}),
    "arguments that it does not take": said(arguments={"os": 1}),
    "arguments that are a text": said(arguments="x"),
    "draws of no generator": said(rng={"bit_generator": "Mine"}),
    "another format": said(format="dynaq-bandit/9"),
    "a count that is a text": said(num_timesteps="x"),
    "no arguments": lambda content: {"learned.npz": content["learned.npz"]},
    "nothing that it learned": lambda content: {"arguments.json": content["arguments.json"]},
}


@pytest.mark.parametrize("how", BROKEN_BANDITS)
def test_a_broken_bandit_is_refused_in_one_line(tmp_path, how):
    LinearBandit(make_toy(), seed=0).learn(10).save(tmp_path / "bandit.zip")
    write(tmp_path / "bandit.zip", BROKEN_BANDITS[how](entries(tmp_path / "bandit.zip")))
    with pytest.raises(AgentFileError, match=r"bandit\.zip") as refused:
        LinearBandit.load(tmp_path / "bandit.zip", make_toy())
    assert "\n" not in str(refused.value)


@pytest.mark.parametrize("share", [0.0, 0.5, 0.9])
def test_a_truncated_bandit_or_one_that_is_too_large_is_named(tmp_path, share):
    path = tmp_path / "bandit.zip"
    GaussianProcessBandit(make_toy(), n_blocks=1, prior=[0.1], seed=0).learn(10).save(path)
    with pytest.raises(AgentFileError, match="more than `max_bytes` = 100"):
        GaussianProcessBandit.load(path, make_toy(), max_bytes=100)
    path.write_bytes(path.read_bytes()[: int(share * path.stat().st_size)])
    with pytest.raises(AgentFileError, match=r"bandit\.zip"):
        GaussianProcessBandit.load(path, make_toy())


# ---------------------------------------------------------------------- observations


@pytest.mark.parametrize("key", ["user", "candidates"])
def test_an_observation_that_is_no_number_is_refused_by_its_entry_and_nothing_is_stored(key, monkeypatch):
    model = agent().learn(10)
    bandit = LinearBandit(make_toy(), seed=0)
    obs, _ = make_toy().reset(seed=0)
    obs[key].reshape(-1)[0] = np.nan
    for deterministic in (True, False):
        for one in (model, bandit):
            with pytest.raises(ValueError, match=f"`{key}` of the observation must hold finite numbers"):
                one.predict(obs, deterministic=deterministic)
    before = content_of(model)
    step = type(make_toy().unwrapped).step

    def broken(self, action):
        shown, *others = step(self, action)
        shown[key].reshape(-1)[0] = np.nan
        return shown, *others

    monkeypatch.setattr(type(make_toy().unwrapped), "step", broken)
    with pytest.raises(ValueError, match=f"`{key}` of the observation must hold finite numbers"):
        model.learn(5, reset_num_timesteps=False)
    assert content_of(model) == before
