"""Who may import whom: the layout of the project, held by reading the source."""

import ast
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]

LAYERS = {
    "jobrec_gym": [
        {"counter_rng", "progress", "schedules"},
        {"market"},
        {"encoders", "job_index", "simulators.base", "simulators.prompts", "simulators.cache", "simulators.budget"},
        {"simulators.answers", "simulators.completion", "simulators.asking", "simulators.memory"},
        {"rewards", "candidates", "metrics", "pair_features"},
        {"loaders", "simulators.llm", "simulators.recorded", "simulators.rules", "problem"},
        {"rendering", "episodes"},
        {"picture"},
        {"screen"},
        {"env", "vector"},
        {"wrappers"},
        {"__init__", "__main__"},
    ],
    "dynaq_algo": [
        {"linear", "validity", "weight_pull"},
        {"features", "replay", "vec_env"},
        {"gradients"},
        {"world_model", "gaussian_process", "policies"},
        {"bandits", "planning", "target_values"},
        {"checkpoint"},
        {"dynaq"},
        {"__init__"},
    ],
}
HEAVY = {"torch", "sentence_transformers", "litellm", "pandas", "pyarrow", "stable_baselines3", "hydra", "PIL", "faiss"}


def modules(package: str) -> list[Path]:
    return sorted((ROOT / package).rglob("*.py"))


def imports(path: Path, *, top_level_only: bool = False) -> set[str]:
    tree = ast.parse(path.read_text())
    type_checking = {
        id(inner)
        for node in ast.walk(tree)
        if isinstance(node, ast.If) and getattr(node.test, "id", "") == "TYPE_CHECKING"
        for inner in ast.walk(node)
    }
    found = set()
    for node in tree.body if top_level_only else ast.walk(tree):
        if id(node) in type_checking:
            continue
        if isinstance(node, ast.Import):
            found |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom) and node.module:
            assert node.level == 0, f"{path}: relative import"
            found.add(node.module)
    return found


def layer(package: str, module: str) -> int:
    name = module.removeprefix(f"{package}.").removesuffix(".__init__") or "__init__"
    for number, names in enumerate(LAYERS[package]):
        if any(name == known or name.startswith(f"{known}.") for known in names):
            return number
    if name == "simulators":
        return layer(package, f"{package}.simulators.base")
    raise AssertionError(f"{module} has no place in LAYERS: give it one")


def dotted(path: Path) -> str:
    return ".".join(path.relative_to(ROOT).with_suffix("").parts)


@pytest.mark.parametrize("package", LAYERS)
def test_imports_run_one_way(package):
    for path in modules(package):
        own = layer(package, dotted(path))
        for name in imports(path):
            if name.split(".")[0] == package:
                assert name != package, f"{dotted(path)} imports its package's face; import the module"
                assert layer(package, name) <= own, f"{dotted(path)} imports {name}, which stands above it"


@pytest.mark.parametrize(
    ("package", "strangers"),
    [
        ("jobrec_gym", {"dynaq_algo", "experiments", "hydra", "omegaconf"}),
        ("dynaq_algo", {"jobrec_gym", "experiments", "hydra", "omegaconf"}),
    ],
)
def test_packages_do_not_know_each_other(package, strangers):
    for path in modules(package):
        assert not {name.split(".")[0] for name in imports(path)} & strangers, dotted(path)


def test_each_packages_tests_pass_without_the_other():
    for package, other in (("jobrec_gym", "dynaq_algo"), ("dynaq_algo", "jobrec_gym")):
        for path in sorted((ROOT / "tests" / package).rglob("*.py")):
            assert not {name.split(".")[0] for name in imports(path)} & {other, "experiments"}, path.name


def test_jobrec_gym_imports_nothing_heavy_at_the_top():
    for path in modules("jobrec_gym"):
        assert not {name.split(".")[0] for name in imports(path, top_level_only=True)} & HEAVY, dotted(path)


def test_making_the_environment_loads_nothing_but_gymnasium_and_numpy():
    code = (
        "import sys, gymnasium as gym, jobrec_gym\n"
        "env = gym.make('JobRec-v0'); env.reset(seed=0); env.step(0)\n"
        f"print(sorted({HEAVY!r} & set(sys.modules)))"
    )
    shown = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout
    assert shown.strip() == "[]"


def test_no_catch_all_modules():
    for package in (*LAYERS, "experiments"):
        assert not [path for path in modules(package) if path.stem in {"utils", "util", "common", "helpers", "misc"}]
