"""Asks an installation without extras whether all is there; run by `make dist-check` from an empty folder.

No pytest and nothing of the checkout: only what the wheel brought.
"""

import importlib.util
import subprocess
import sys
from importlib import metadata
from pathlib import Path

import gymnasium as gym
import numpy as np

import jobrec_gym
from jobrec_gym import FeedbackReward, RecordedSimulator, RuleSimulator
from jobrec_gym.extras import what_works
from jobrec_gym.simulators.prompts import PERSONAS

installed = {distribution.name.lower().replace("_", "-") for distribution in metadata.distributions()}
needed = {"gymnasium", "numpy", "cloudpickle", "farama-notifications", "typing-extensions"}
assert installed - {"pip", "setuptools", "wheel"} == {"jobrec-gym", *needed}, f"too much or too little: {installed}"

package = Path(jobrec_gym.__file__).parent
assert package.is_relative_to(sys.prefix), f"{package} is not what was installed"
assert (package / "py.typed").is_file()
assert {path.name for path in (package / "simulators" / "prompts").glob("*.txt")} >= {"decision-v1.txt"} and PERSONAS
for stranger in ("experiments", "conf", "tests", "docs"):
    assert importlib.util.find_spec(stranger) is None, f"the wheel holds {stranger}"
assert importlib.util.find_spec("dynaq_algo"), "the wheel lacks dynaq_algo"
licences = [file.name for file in metadata.files("jobrec-gym") or [] if "licenses" in file.parts]
assert {"LICENSE", "DATA_LICENSES.md"} <= set(licences)

env = FeedbackReward(gym.make("JobRec-v0"), RuleSimulator(seed=0))
env.reset(seed=0)
assert np.isfinite(env.step(0)[1])
env = FeedbackReward(gym.make("JobRec-v0", market="recorded", num_candidates=10), RecordedSimulator())
env.reset(seed=0)
assert env.step(0)[4]["feedback/status"] == "ok"
envs = gym.make_vec("JobRec-v0", num_envs=3)
envs.reset(seed=0)
envs.step(envs.action_space.sample())


def asked(*words: str) -> str:
    """What a command prints."""
    return subprocess.run(words, capture_output=True, text=True, check=True).stdout


script = str(Path(sys.executable).with_name("jobrec"))
shown = asked(script, "info")
assert 'lacks stable-baselines3, torch: pip install "jobrec-gym[algo] @ file:///' in shown
assert what_works("wheel") in shown
assert asked(sys.executable, "-m", "jobrec_gym") == shown
print(shown)

Path("jobs.csv").write_text("key,title,hard\nj1,Baker,baking;hygiene\nj2,Welder,welding;hygiene\n")
Path("people.csv").write_text("key,hard\np1,baking\np2,welding\n")
assert "load_market(" in asked(script, "look", "jobs.csv", "people.csv")
own = asked(script, "recommend", "p2", "--market", "jobs.csv", "--applicants", "people.csv", "--encoder", "hashing")
assert "j2  Welder" in own.splitlines()[3], own
assert "  1  cosine 0." in asked(script, "recommend", "-n", "3")
