"""What a command line can say: classes of one's own, and errors of one line."""

import errno
import logging.config
import os
import shlex
import subprocess
import sys
from contextlib import nullcontext
from pathlib import Path

import numpy as np
import pytest

pytest.importorskip("hydra", reason="needs the extra 'experiments'")

from commands import run_command
from hydra.core.override_parser.overrides_parser import OverridesParser
from hydra.errors import HydraException
from omegaconf import MissingMandatoryValue
from omegaconf.errors import InterpolationResolutionError
from stable_baselines3.common.utils import FloatSchedule

import experiments
from experiments import make_vectors
from experiments.llm import demo, weights
from experiments.runs.arguments import add_own_arguments, as_typed, flags_first, from_home, refuse_words, written
from experiments.runs.build import build
from experiments.runs.command import _filled, _told, in_one_line
from experiments.runs.folders import RunError
from experiments.runs.help import GROUPS, help_of

ROOT = Path(experiments.__file__).parents[1]

LAB = """
import numpy as np

from jobrec_gym import Feedback, load_market


class Simulator:
    def __init__(self, alpha=0.1):
        self.alpha = alpha

    def bind(self, market):
        return self

    def feedback(self, applicant_ids, job_ids, interaction_keys=None):
        return Feedback.of(["save"] * len(job_ids), np.full(len(job_ids), self.alpha))


class Oracle(Simulator):
    def expected_reward(self, applicant_ids, job_ids):
        applicant_ids, job_ids = np.broadcast_arrays(applicant_ids, job_ids)
        return job_ids % 7 * self.alpha

    def decisions(self, applicant_ids, job_ids):
        return np.full(np.broadcast_shapes(np.shape(applicant_ids), np.shape(job_ids)), "save")


class FirstJobs:
    def __init__(self, step=1):
        self.step = step

    def bind(self, market, job_ids, num_candidates):
        self.job_ids, self.num_candidates = job_ids, num_candidates
        return self

    def sample(self, applicant_ids, keys):
        return np.tile(self.job_ids[np.arange(self.num_candidates) * self.step], (len(keys), 1))


class Learner:
    def __init__(self, env, gamma, seed, alpha=0.0):
        self.env, self.alpha = env, alpha


def market(n=60):
    return load_market("default", n_jobs=n, n_applicants=40)
"""
OWN = [
    "market=custom",
    "market._target_=cli_lab.market",
    "market.n=80",
    "simulator=custom",
    "simulator._target_=cli_lab.Oracle",
    "simulator.alpha=0.3",
    "env.candidate_sampler._target_=cli_lab.FirstJobs",
    "env.candidate_sampler.step=2",
    "algo=custom",
    "algo._target_=cli_lab.Learner",
    "algo.alpha=0.7",
]
SMALL = ["env.num_candidates=5", "evaluation.n_pairs=16", "evaluation.n_episodes=4", "total_timesteps=10"]


@pytest.fixture
def lab(tmp_path, monkeypatch):
    """A package of one's own that can be imported."""
    (tmp_path / "cli_lab.py").write_text(LAB)
    monkeypatch.syspath_prepend(tmp_path)
    yield tmp_path
    sys.modules.pop("cli_lab", None)


def said_by(*arguments, folder, command="train"):
    environment = {"PYTHONPATH": os.pathsep.join([str(folder), str(ROOT)])}
    return run_command(command, f"hydra.run.dir={folder / 'run'}", *arguments, environment=environment)


def test_market_simulator_sampler_and_algorithm_may_be_ones_own(lab, config):
    setup = build(config("train", *SMALL, *add_own_arguments(OWN)))

    assert len(setup.market.jobs) == 80
    assert setup.make_simulator().alpha == 0.3
    env = setup.make_env()
    _, infos = env.reset(seed=0)
    shown = setup.market.jobs.rows("train")[:10:2]
    assert (infos["candidate_ids"] == shown).all()
    _, reward, *_ = env.step(np.zeros(1, int))
    assert reward == pytest.approx([0.3])
    assert setup.algorithm.make(env).alpha == 0.7
    assert setup.evaluation.pairs.expected.max() > 0
    single = setup.single_env()
    assert (single.reset(seed=0)[1]["candidate_ids"] == shown).all()


@pytest.mark.parametrize("group", ["market", "simulator", "env", "algo"])
def test_a_class_of_ones_own_has_to_be_named(config, group):
    with pytest.raises((MissingMandatoryValue, RunError)) as caught:
        build(config("train", f"{group}=custom"))
    place = "env.candidate_sampler" if group == "env" else group
    assert in_one_line(caught.value) == f"`{place}._target_` must be given, {place}._target_=..."


def test_a_simulator_that_knows_no_truth_is_told_what_it_lacks(lab, config):
    setup = build(
        config("train", *SMALL, *add_own_arguments(["simulator=custom", "simulator._target_=cli_lab.Simulator"]))
    )
    with pytest.raises(RunError, match=r"cli_lab.Simulator.*has no `expected_reward.*and no `decisions.*=rules"):
        _ = setup.truth


def test_arguments_are_added_for_classes_that_the_command_line_names_alone():
    given = ["simulator._target_=a.B", "simulator.x=1", "simulators.x=1", "+simulator.y=2", "seed=1", "-m"]

    assert add_own_arguments(given) == [
        "++simulator._target_=a.B",
        "++simulator.x=1",
        "simulators.x=1",
        "+simulator.y=2",
        "seed=1",
        "-m",
    ]
    assert add_own_arguments(["simulator.x=1", "+a._target_=b.C", "a.x=1"]) == [
        "simulator.x=1",
        "+a._target_=b.C",
        "a.x=1",
    ]


@pytest.mark.parametrize(
    ("override", "said"),
    [
        (
            "simulator.noize=1",
            "Could not override 'simulator.noize': there is no such entry. Did you mean simulator.noise? There are "
            "_target_, seed, noise, corruption, reach, weights, rewards; +simulator.noize=... adds one.",
        ),
        ("n_jobs=3", "Could not override 'n_jobs': there is no such entry. Did you mean market.n_jobs? There are seed"),
        ("algoo=dynaq", "Could not override 'algoo': there is no such entry. Did you mean algo? There are seed, "),
        ("seed.x=3", "Could not override 'seed.x': there is no such entry."),
        (
            "evaluation.also.mine=3",
            "Could not override 'evaluation.also.mine': there is no such entry. Where names are yours to choose, "
            "+evaluation.also.mine=... adds one.",
        ),
        ("algo=dynak", "there is no algo=dynak. Did you mean algo=dynaq? There are cosine, custom, dqn, "),
        ("algo=DQN", "there is no algo=DQN. Did you mean algo=dqn?"),
        (
            "seed=0,1",
            "`seed` has several values: a list is written 'seed=[0,1]', in quotation marks; -m makes a sweep.",
        ),
        ("env.pair_features=[a=b]", "'env.pair_features=[a=b]' cannot be read: "),
        (
            "env.pair_features=[ä]",
            "'env.pair_features=[ä]' cannot be read: LexerNoViableAltException: env.pair_features=[ä]. A value "
            "that holds =, commas, brackets or letters such as ä needs quotation marks of its own",
        ),
        ("+seed=3", "Could not append to config. An item is already at 'seed'. Either remove + prefix: 'seed=3'"),
    ],
)
def test_an_override_that_does_not_fit_is_told_in_one_line_with_what_may_be_meant(config, override, said):
    with pytest.raises(HydraException) as caught:
        config("train", override)
    line = in_one_line(caught.value)
    assert line.startswith(said) and "\n" not in line


@pytest.mark.parametrize(
    ("overrides", "said"),
    [
        (["simulator.corruption=2"], "`simulator`: `corruption` must be a chance, 0 to 1, got 2."),
        (["+simulator.corupt=1"], "`simulator`: RuleSimulator.__init__() got an unexpected keyword argument 'corupt'. "
         "Did you mean corruption? There are seed, noise, weights, rewards, corruption, reach."),
        (["simulator._target_=no_lab.Mine"], "`simulator`: there is no no_lab.Mine to be imported: "),
    ],
)  # fmt: skip
def test_what_cannot_be_made_is_told_in_one_line(config, overrides, said):
    with pytest.raises(HydraException) as caught:
        build(config("train", *overrides)).make_simulator()
    line = in_one_line(caught.value)
    assert line.startswith(said) and "\n" not in line


@pytest.mark.parametrize(
    ("command", "argument", "said"),
    [
        ("train", "env.candidate_samplr=mixed", "Did you mean env.candidate_sampler?"),  # before the command
        ("train", "market.context=[town]", "error: `market`: `context` must list names of ('place', 'pay')"),  # in it
        ("coldstart", "learnrs=[cosine]", "Did you mean learners?"),
        ("train", "env.split=tset", "`split` must be one of ('train', 'test', 'all'), got 'tset'. Did you mean test?"),
        ("report", "run=runs", "Did you mean runs?"),
        ("make_dataset", "n_pairs=abc", "`n_pairs` must be 0 or more, got 'abc'."),
        ("make_dataset", "env.split=test", "`env.split` chooses nothing with format=npz, where `split` does."),
        ("train", "seed=null", "`seed` must be 0 or more, got null."),
        ("report", "runs=", "`runs` must not be empty text: give a value, or leave runs= out."),
        ("evaluate", "run=", "`run` must not be empty text"),
        ("evaluate", "run=['']", "`run` must not be empty text"),
        ("look", "path=", "`path` must not be empty text"),
        ("look", "jobs.csv", "'jobs.csv': an argument has a name and a value, path=jobs.csv; --help lists the names."),
        ("report", "my runs", "a name and a value, 'runs=\"my runs\"'; --help"),
        ("train", "dqn", "'dqn': an argument has a name and a value, entry=value; --help"),
        ("rank", "split=tset", "`split` must be one of ('train', 'test', 'all'), got 'tset'. Did you mean test?"),
        ("rank", "agent=cosin", "one of ('cosine',) or null (the run's own agent), got 'cosin'. Did you mean cosine?"),
        ("off_policy", "ids=keys", "`ids` must be one of ('key', 'row'), got 'keys'. Did you mean key?"),
        ("off_policy", "methods=[ipss]", "got 'ipss'. Did you mean ips?"),  # as the next four: before the missing log
        ("off_policy", "epsilon=2", "`epsilon` must be in [0, 1], got 2."),
        ("off_policy", "level=95", "`level` must be in (0, 1), such as 0.95, got 95."),
        ("off_policy", "clip=x", "`clip` must be above 0 or None, got 'x'."),
        ("off_policy", "on_bad=skipp", "Did you mean skip?"),
        ("benchmark", "groups=[learnin]", "learning"),
        ("app", "sessions=abc", "`sessions` must be 0 or more, got 'abc'."),
        ("app", "host=256.256.256.256", "`host` must be a name or an address of this machine, such as 127.0.0.1"),
    ],
)
def test_a_command_ends_in_one_line(tmp_path, command, argument, said):
    done = said_by(argument, *(SMALL if command == "train" else ()), folder=tmp_path, command=command)

    assert done.returncode == 1 and not done.stdout
    (line,) = done.stderr.splitlines()
    assert line.startswith("error: ") and said in line


@pytest.mark.parametrize(
    ("error", "said"),
    [
        (ValueError("`n` must be 1 or more."), "`n` must be 1 or more."),
        (ValueError("shapes differ"), "shapes differ (debug=true shows where)"),
        (TypeError("'<' not supported"), "TypeError: '<' not supported (debug=true shows where)"),
        (KeyError("there is no job `j9`"), "there is no job `j9`"),
        (MemoryError(), "MemoryError: the error has no message (debug=true shows where)"),
        (MemoryError("Unable to allocate 3.64 TiB"),
         "there is not enough memory: Unable to allocate 3.64 TiB. Lower the number that asks for so much."),
        (RuntimeError("DefaultCPUAllocator: can't allocate memory: you tried"),
         "there is not enough memory: DefaultCPUAllocator: can't allocate memory: you tried. Lower the number that "
         "asks for so much."),
        (RunError("wait for it."), "wait for it."),
        (ValueError("`a` must be one of ('train', 'test'), got 'tset'."),
         "`a` must be one of ('train', 'test'), got 'tset'. Did you mean test?"),
        (ValueError("`a` must be one of ('train', 'test'), got 'zzz'."),
         "`a` must be one of ('train', 'test'), got 'zzz'."),
        (ValueError("`a` must be of ['train', 'test'], got ['tset']."),
         "`a` must be of ['train', 'test'], got ['tset']. Did you mean test?"),
        (ValueError("`a` must be 'x' or names of `b`, ['train', 'test'], got 'tset'."),
         "`a` must be 'x' or names of `b`, ['train', 'test'], got 'tset'. Did you mean test?"),
        (InterpolationResolutionError("unsupported operand\n    full_key: a.b"),
         "an entry cannot be computed from other entries: unsupported operand."),
        (OSError(errno.ENOSPC, "No space left on device", "runs/x"),
         "runs/x: No space left on device. Make room; the same command then goes on."),
        (OSError(errno.EROFS, "Read-only file system", b"/a"),
         "/a: Read-only file system. Choose a place that can be written to."),
    ],
)  # fmt: skip
def test_what_a_user_can_cause_is_one_sentence(error, said):
    assert in_one_line(error) == said


def test_what_is_kept_names_entries_of_the_config_and_is_nothing_where_one_is_null(config):
    cfg = config("record")
    assert _filled("answers, in {simulator.cache}", cfg) == "answers, in runs/answers.sqlite"
    cfg.simulator.cache = None
    assert _filled("answers, in {simulator.cache}", cfg) == _filled("", cfg) == ""


@pytest.mark.parametrize("module", [demo, weights, make_vectors])
def test_a_command_without_a_config_tells_errors_in_one_line_too_and_in_full_when_asked(module, monkeypatch, tmp_path):
    failed = subprocess.CompletedProcess([], 1, stderr="no\n  connection\n")
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(weights.subprocess, "run", lambda *args, **kwargs: failed)
    monkeypatch.setattr(make_vectors, "make_encoder", lambda *args, **kwargs: 1 / 0)
    monkeypatch.setenv("HYDRA_FULL_ERROR", "0")
    monkeypatch.setattr(sys, "argv", ["x"])
    error = ZeroDivisionError if module is make_vectors else weights.WeightsError
    if module is not make_vectors:  # whose error here is one of the code, and no user's
        with pytest.raises(SystemExit, match=r"^error: pip could not download \S+: no connection\. Put the file at"):
            module.main()
    monkeypatch.setattr(sys, "argv", ["x", "debug=true"])
    with pytest.raises(error):
        module.main()
    assert os.environ["HYDRA_FULL_ERROR"] == "1"  # for what it starts
    monkeypatch.setattr(sys, "argv", ["x", "api_key=sk-0123456789abcdef0123456789"])
    with pytest.raises(SystemExit, match="looks like a key"):
        module.main()


def test_the_demo_of_a_language_model_hands_its_overrides_on(monkeypatch):
    started = []

    def run(command):
        started.append(command)
        return subprocess.CompletedProcess(command, 3)

    monkeypatch.setattr(demo, "fetch_smollm2", lambda: "weights.gguf")
    monkeypatch.setattr(demo, "serve", lambda model, port: nullcontext("http://here/v1"))
    monkeypatch.setattr(demo.subprocess, "run", run)
    monkeypatch.setattr(sys, "argv", ["demo", "seed=1", "+algo.x=2", "~name"])
    with pytest.raises(SystemExit) as ended:
        demo.main()
    assert ended.value.code == 3
    own = ["experiment=llm_demo", "simulator.api_base=http://here/v1", "resume=false"]
    assert started == [[sys.executable, "-m", "experiments.train", *own, "seed=1", "+algo.x=2", "~name"]]
    monkeypatch.setattr(sys, "argv", ["demo", "--seed=1"])
    with pytest.raises(SystemExit, match="^error: there is no option '--seed'"):
        demo.main()


def test_what_stable_baselines3_asserts_of_an_argument_is_told_in_one_line():
    def command():
        FloatSchedule("fast")

    with pytest.raises(SystemExit, match="^error: AssertionError: The learning rate schedule must be a float .* fast"):
        _told(command, [], in_debug=False, task=command)

    def own():
        raise AssertionError("a bug")

    with pytest.raises(AssertionError, match="a bug"):
        _told(own, [], in_debug=False, task=own)


def test_what_a_command_has_put_into_words_gets_a_suggestion_and_is_one_line():
    def command():
        raise SystemExit("error: `a` must be one of\n('train', 'test'), got 'tset'.") from ValueError()

    with pytest.raises(SystemExit, match=r"^error: `a` must be one of \('train', 'test'\), .* Did you mean test\?$"):
        _told(command, [], in_debug=False, task=command)


def test_an_error_of_the_system_that_a_command_has_caught_gets_its_way_out(tmp_path):
    def command(said=None):
        try:
            raise PermissionError(errno.EACCES, "Permission denied", "ro/x.csv")
        except OSError as error:
            raise SystemExit(f"error: {said or error}") from error

    with pytest.raises(SystemExit, match=r"^error: ro/x\.csv: Permission denied\. Choose another place, or change"):
        _told(command, [], in_debug=False, task=command)
    with pytest.raises(SystemExit, match=r"^error: the port is taken$"):
        _told(lambda: command("the port is taken"), [], in_debug=False, task=command)
    (tmp_path / "file").touch()
    small = ("market=default", "market.n_jobs=20", "market.n_applicants=5")
    done = run_command("rank", f"out={tmp_path / 'file' / 'ranked.csv'}", *small)
    assert done.returncode == 1
    assert done.stderr.splitlines()[-1] == f"error: {tmp_path / 'file'}: File exists."


def test_an_error_of_the_system_within_one_of_a_library_is_what_is_told(tmp_path):
    log = {"class": "logging.FileHandler", "filename": str(tmp_path / "none" / "train.log")}
    with pytest.raises(ValueError, match="Unable to configure handler 'file'") as failed:
        logging.config.dictConfig({"version": 1, "handlers": {"file": log}, "root": {"handlers": ["file"]}})
    assert in_one_line(failed.value) == f"{tmp_path / 'none' / 'train.log'}: No such file or directory."
    with pytest.raises(RunError, match="no cache") as ours:
        try:
            raise PermissionError(errno.EACCES, "Permission denied", "x")
        except OSError as error:
            raise RunError("`x` is no cache") from error
    assert in_one_line(ours.value) == "`x` is no cache"


def test_a_word_behind_a_flag_is_no_argument_without_a_name():
    refuse_words(["--cfg", "job", "-m", "a=b", "~c"], ROOT / "conf" / "train.yaml")
    with pytest.raises(SystemExit, match="'job'"):
        refuse_words(["-m", "job"], ROOT / "conf" / "train.yaml")


def test_debug_shows_an_error_of_which_the_command_has_made_a_line():
    def command():
        raise SystemExit("error: no such run") from RunError("no such run")

    with pytest.raises(SystemExit, match="^error: no such run$"):
        _told(command, [], in_debug=False, task=command)
    with pytest.raises(RunError, match="no such run"):
        _told(command, [], in_debug=True, task=command)


def test_debug_shows_all_of_an_error(tmp_path):
    done = said_by("debug=true", "env.split=tset", *SMALL, folder=tmp_path)

    assert done.returncode == 1 and "Traceback (most recent call last):" in done.stderr
    assert done.stderr.splitlines()[-1].endswith("got 'tset'.")
    assert not (tmp_path / "run").exists()


def test_an_error_of_ones_own_code_is_told_from_the_command_on(lab):
    (lab / "cli_lab.py").write_text(LAB.replace("self.alpha = alpha", "self.alpha = alpha.upper()"))
    broken = ["simulator=custom", "simulator._target_=cli_lab.Oracle", "algo=random", *SMALL]
    done = said_by(*broken, folder=lab)
    assert done.stderr.splitlines()[-1] == (
        "error: `reward.simulator`: AttributeError: 'float' object has no attribute 'upper' (debug=true shows where)"
    )
    (lab / "cli_lab.py").write_text(LAB.replace("job_ids % 7", "job_ids.no_such_thing"))
    done = said_by(*broken, folder=lab)
    assert "no_such_thing" in done.stderr.splitlines()[-1]
    assert "hydra/_internal" not in done.stderr


@pytest.mark.parametrize(
    "text",
    [
        "runs/demo",
        "my runs/a",
        "a=1,b=[2]",
        "it's",
        'say "x"',
        "\N{LATIN SMALL LETTER U WITH DIAERESIS}",
        "end\\",
        "a\\b",
        "{}",
        "",
    ],
)
def test_a_printed_argument_can_be_typed_whatever_is_in_it(text):
    parser = OverridesParser.create()
    (argument,) = shlex.split(as_typed("run", text))
    assert parser.parse_override(argument).value() == text
    assert parser.parse_override(f"run={written(text)}").value() == text


def test_a_sweep_may_be_asked_for_anywhere_and_an_unknown_flag_is_told_in_one_line():
    assert flags_first(["a=1", "--cfg", "job", "-m", "b=-1"]) == ["--cfg", "job", "-m", "a=1", "b=-1"]
    assert flags_first(["-m", "a=1", "-cd", "mine", "-m", "--cfg=job"]) == ["-m", "-cd", "mine", "--cfg=job", "a=1"]
    assert flags_first(["a=1", "--info", "b=2"]) == ["--info", "all", "a=1", "b=2"]
    assert flags_first(["a=1", "-i", "searchpath"]) == ["-i", "searchpath", "a=1"]
    for wrong in (["a=1", "--cfg"], ["--cfg", "seed=1"], ["-c=x"], ["a=1", "-cd"]):
        with pytest.raises(SystemExit, match=r"error: -(-cfg|c|cd) needs a value, such as -"):
            flags_first(wrong)
    with pytest.raises(SystemExit, match=r"^error: there is no flag --total-timesteps\. .*, total_timesteps=5; --help"):
        flags_first(["--total-timesteps=5"])


def test_a_tilde_before_a_path_is_the_home_of_the_user(monkeypatch):
    monkeypatch.setenv("HOME", "/home/an na")
    monkeypatch.setenv("USERPROFILE", "/home/an na")
    assert from_home(["folder=~/runs", "+a.b=~", "~simulator", "~algo=dqn", "name=~anna", "x=a~/b", "out=[~/a]"]) == [
        'folder="/home/an na/runs"',
        '+a.b="/home/an na"',
        *("~simulator", "~algo=dqn", "name=~anna", "x=a~/b", "out=[~/a]"),
    ]


def test_a_path_that_is_plain_is_printed_as_it_is():
    assert as_typed("run", Path("runs/train/2026-11-29_00-00-00_1")) == "run=runs/train/2026-11-29_00-00-00_1"


def test_help_tells_groups_with_their_options_examples_and_entries_with_their_comments():
    said = help_of(ROOT / "conf" / "train.yaml")

    assert said.startswith("python -m experiments.train: one run")
    assert "python -m experiments.train setting=profile algo=dynaq_plus" in said
    for words in ("  algo       who learns\n", "cosine, custom, dqn, dynaq,", "recorded, rules", "== Config =="):
        assert words in said
    assert "\nseed: 0 # of environments, exploration and networks" in said
    assert "hydra" not in said.replace("hydra.launcher", "")
    assert "Groups" not in help_of(ROOT / "conf" / "report.yaml")


def test_help_knows_every_group_of_every_command():
    for path in sorted(ROOT.glob("conf/*.yaml")) + sorted(ROOT.glob("conf/*/benchmark.yaml")):
        assert help_of(path).count("\n") < 90, path
    folders = {path.name for path in (ROOT / "conf").iterdir() if path.is_dir()}
    assert set(GROUPS) == folders - {"benchmark", "learner"}  # which are no groups of a command's config


def test_every_command_with_a_config_is_made_so():
    for path in sorted((ROOT / "experiments").rglob("*.py")):
        assert "@hydra.main(" not in path.read_text(), f"{path}: use experiments.runs.command.command"
