"""Who may import whom: the layout of the project, held by reading the source."""

import ast
import subprocess
import sys
from pathlib import Path

import gymnasium
import pytest
from sources import parsed

ROOT = Path(__file__).parents[1]

LAYERS = {
    "jobrec_gym": [
        {"credentials", "near_miss", "paths", "sharing", "terminal"},
        {
            "array_files",
            "cache_folder",
            "counter_rng",
            "extras",
            "kept_pairs",
            "pieces",
            "progress",
            "shown_text",
            "version",
            "whole_files",
        },
        {"market.tables", "market.verified"},
        {"market.context"},
        {"market.checks", "market.dates", "market.keys", "market.remembered", "market.summary", "market.vectors"},
        {"market.folder"},
        {"market.sources"},
        {"market.labour_market"},
        {"market"},
        {"encoders", "job_index", "simulators.base"},
        {"rewards", "metrics", "pair_features", "prediction_powered"},
        {"prior_sources"},
        {"interactions"},
        {"candidates", "dynamics"},
        {"loaders", "off_policy", "recommendations", "simulators", "schedules"},
        {"rendering"},
        {"picture"},
        {"screen"},
        {"problem"},
        {"beginnings", "episodes"},
        {"env", "vector"},
        {"career"},
        {"oracle", "recording", "wrappers"},
        {"__init__", "__main__"},
    ],
    "dynaq_algo": [
        {"arguments", "plain_data", "shown_ids", "validity", "weight_pull"},
        {"agent_file", "prior_trust"},
        {"prior_beliefs", "updated_matrix"},
        {"array_file", "tensor_file"},
        {"layout", "action_table", "features", "replay", "vec_env"},
        {"outcome_inputs", "context_values", "transition_model"},
        {"forecasts"},
        {"networks", "world_model", "gaussian_process", "policies"},
        {"batches", "bootstrap", "target_values", "planning", "bandits", "offline", "checkpoint", "telling"},
        {"agent_attributes", "algorithm", "plus"},
        {"dynaq"},
        {"__init__", "__main__"},
    ],
}
HEAVY = {"torch", "sentence_transformers", "litellm", "pandas", "pyarrow", "stable_baselines3", "hydra", "PIL", "faiss"}


def modules(package: str) -> list[Path]:
    return sorted((ROOT / package).rglob("*.py"))


def imports(path: Path, *, top_level_only: bool = False) -> set[str]:
    tree = parsed(path)
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
    places = {known: number for number, names in enumerate(LAYERS[package]) for known in names}
    found = [known for known in places if name == known or name.startswith(f"{known}.")]
    assert found, f"{module} has no place in LAYERS: give it one"
    return places[max(found, key=len)]


def dotted(path: Path) -> str:
    return ".".join(path.relative_to(ROOT).with_suffix("").parts)


@pytest.mark.parametrize("package", LAYERS)
def test_imports_run_one_way(package):
    for path in modules(package):
        own = layer(package, dotted(path))
        for name in imports(path):
            if name.split(".")[0] == package:
                assert not dotted(path).startswith(f"{name}."), f"{dotted(path)} imports a face that it is behind"
                assert layer(package, name) <= own, f"{dotted(path)} imports {name}, which stands above it"


def all_imports(package: str) -> dict[str, set[str]]:
    """Of each module those of its package that it names, for annotations only, too."""
    known = {dotted(path).removesuffix(".__init__") for path in modules(package)}
    found: dict[str, set[str]] = {}
    for path in modules(package):
        names = set()
        for node in ast.walk(parsed(path)):
            if isinstance(node, ast.Import):
                names |= {alias.name for alias in node.names}
            elif isinstance(node, ast.ImportFrom):
                names |= {str(node.module), *(f"{node.module}.{alias.name}" for alias in node.names)}
        found[dotted(path).removesuffix(".__init__")] = names & known
    return found


def circle(graph: dict[str, set[str]]) -> list[str]:
    """Modules in a circle, and those on the way from one to another."""
    left = dict(graph)
    while ends := left.keys() - {name for name, named in left.items() if named & left.keys()} or (
        left.keys() - {name for named in left.values() for name in named}
    ):
        left = {name: named for name, named in left.items() if name not in ends}
    return sorted(left)


@pytest.mark.parametrize("package", LAYERS)
def test_no_circle(package):
    assert circle(all_imports(package)) == []


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


def private_names_of_gymnasium() -> set[str]:
    """Private attributes and methods of what is inherited from it: environments, wrappers, vectors and spaces."""
    folder = Path(gymnasium.__file__).parent
    found = set()
    for path in (folder / "core.py", folder / "vector" / "vector_env.py", *(folder / "spaces").glob("*.py")):
        for node in ast.walk(parsed(path)):
            if isinstance(node, ast.Attribute):
                found.add(node.attr)
            elif isinstance(node, ast.FunctionDef):
                found.add(node.name)
    return {name for name in found if is_private(name)}


def is_private(name: str) -> bool:
    return name.startswith("_") and not name.startswith("__")


def test_no_private_names_of_gymnasium():
    inherited = private_names_of_gymnasium()
    assert "_np_random" in inherited
    for path in modules("jobrec_gym"):
        tree = parsed(path)
        brought = set()
        for node in ast.walk(tree):
            if isinstance(node, (ast.Import, ast.ImportFrom)):
                module = getattr(node, "module", None)
                for alias in node.names:
                    whole = f"{module}.{alias.name}" if module else alias.name
                    if whole.split(".")[0] == "gymnasium":
                        assert not any(is_private(part) for part in whole.split(".")), f"{dotted(path)}: {whole}"
                        brought.add((alias.asname or alias.name).split(".")[0])
        for node in ast.walk(tree):
            if isinstance(node, ast.Attribute) and is_private(node.attr):
                owner = node.value
                while isinstance(owner, ast.Attribute):
                    owner = owner.value
                assert getattr(owner, "id", None) not in brought, f"{dotted(path)}: gymnasium's {node.attr}"
                assert node.attr not in inherited, f"{dotted(path)}: {node.attr} is gymnasium's"


SB3_EXTENSION_POINTS = {
    # Methods of DQN that an algorithm overrides, extends or calls, as its own algorithms do.
    *("_setup_model", "_setup_lr_schedule", "_create_aliases", "_convert_train_freq", "_wrap_env"),
    *("_get_policy_from_name", "_on_step", "_sample_action", "_store_transition", "_update_info_buffer"),
    *("_update_current_progress_remaining", "_update_learning_rate", "_excluded_save_params", "_get_torch_save_params"),
    # What it leaves to an algorithm to count and to keep.
    *("_n_updates", "_episode_num", "_total_timesteps", "_current_progress_remaining", "_last_obs", "_logger"),
    "_vec_normalize_env",
    # Of a policy, and of a vector environment with seeds and options for its next reset.
    *("_predict", "_get_constructor_parameters", "_dummy_schedule"),
    *("_seeds", "_options", "_reset_seeds", "_reset_options", "_get_indices"),
}
"""Private names by which Stable-Baselines3 is extended; it has no public ones for them."""


def test_no_private_names_of_torch_gymnasium_and_sb3():
    """A private name is the package's own, an extension point of SB3, or a public name of a named tuple."""
    trees = {path: parsed(path) for path in modules("dynaq_algo")}
    own, used = {"_asdict", "_fields", "_replace"}, {}
    for path, tree in trees.items():
        for node in ast.walk(tree):
            if isinstance(node, ast.FunctionDef | ast.ClassDef):
                own.add(node.name)
            elif isinstance(node, ast.Name) and isinstance(node.ctx, ast.Store):
                own.add(node.id)
            elif isinstance(node, ast.Attribute) and isinstance(node.ctx, ast.Store):
                own |= {node.attr} if getattr(node.value, "id", None) == "self" else set()
            if isinstance(node, ast.Attribute) and is_private(node.attr):
                used.setdefault(node.attr, set()).add(dotted(path))
            if isinstance(node, ast.Attribute):
                assert not ast.unparse(node).startswith(("th.ops.", "torch.ops.")), f"{dotted(path)}: torch's operators"
            if isinstance(node, ast.Import | ast.ImportFrom):
                parts = [*(getattr(node, "module", None) or "").split("."), *(alias.name for alias in node.names)]
                assert not any(map(is_private, parts)), f"{dotted(path)}: {ast.unparse(node)}"
    assert {name: where for name, where in used.items() if name not in own | SB3_EXTENSION_POINTS} == {}
    torch = pytest.importorskip("torch", reason="needs the extra 'algo'")
    inherited = private_names_of(torch.nn.Module, torch.optim.Optimizer, gymnasium.Env)
    assert "_apply" in inherited
    assert own & (inherited - SB3_EXTENSION_POINTS) == set(), "a private method of theirs is overridden"
    assert {name for name in SB3_EXTENSION_POINTS if name not in used and name not in own} == set(), "no longer used"


def private_names_of(*classes: type) -> set[str]:
    return {name for one in classes for name in dir(one) if is_private(name)}


def test_no_branch_on_the_maker_of_a_processor():
    for path in modules("dynaq_algo"):
        text = path.read_text()
        found = [word for word in ("cpuinfo", "platform", "AuthenticAMD", "GenuineIntel", "mkldnn") if word in text]
        assert not found, f"{dotted(path)}: {found}"


def test_no_catch_all_modules():
    for package in (*LAYERS, "experiments"):
        assert not [path for path in modules(package) if path.stem in {"utils", "util", "common", "helpers", "misc"}]


ROOMS = [{"runs", "adapters"}, {"learners"}, {"pages"}, {"studies", "llm", "benchmarks", "web"}, {"commands"}]
"""Of `experiments`, in the order in which they may import each other; commands lie above them."""


def room(module: str) -> int:
    """Where a module of `experiments` stands in :data:`ROOMS`."""
    parts = module.split(".")[1:]
    name = parts[0] if parts and (ROOT / "experiments" / parts[0]).is_dir() else "commands"
    found = [number for number, names in enumerate(ROOMS) if name in names]
    assert found, f"{module} has no place in ROOMS: give it one"
    return found[0]


def test_a_room_of_experiments_imports_only_those_beneath_it():
    graph = all_imports("experiments")
    assert circle(graph) == []
    for module, named in graph.items():
        for name in named - {"experiments"}:
            inside = name.split(".")[1] == module.split(".")[1]
            assert inside or room(name) < room(module), f"{module} imports {name}, which is not beneath it"


def is_command(path: Path) -> bool:
    """Whether a file has a `main`, which it runs where it is the program."""
    body = parsed(path).body
    mains = [node for node in body if isinstance(node, ast.FunctionDef) and node.name == "main"]
    runs = [node for node in body if isinstance(node, ast.If) and ast.unparse(node.test) == "__name__ == '__main__'"]
    return bool(mains) and any("main(" in ast.unparse(node) for node in runs)


def test_only_commands_lie_at_the_top_of_experiments():
    files = [path for path in (ROOT / "experiments").glob("*.py") if path.stem != "__init__"]
    assert [path.name for path in files if not is_command(path)] == []


def test_a_command_and_its_config_have_one_name():
    configs = set()
    for path in modules("experiments"):
        for node in ast.walk(parsed(path)):
            for decorator in node.decorator_list if getattr(node, "name", "") == "main" else ():
                given = {one.arg: ast.unparse(one.value).strip("'") for one in getattr(decorator, "keywords", ())}
                if "config_name" in given:
                    assert given["config_name"] == path.stem, dotted(path)
                    configs.add((path.parent / given["config_path"] / f"{path.stem}.yaml").resolve())
    assert all(path.is_file() for path in configs)
    assert set((ROOT / "conf").glob("*.yaml")) == {path for path in configs if path.parent.name == "conf"}


def test_a_config_is_read_by_commands_and_by_nothing_behind_build():
    readers = {}
    for path in modules("experiments"):
        for node in ast.walk(parsed(path)):
            if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef | ast.Lambda):
                taken = [*node.args.posonlyargs, *node.args.args, *node.args.kwonlyargs]
                if any(
                    one.arg == "cfg" or (one.annotation and "DictConfig" in ast.unparse(one.annotation))
                    for one in taken
                ):
                    readers.setdefault(dotted(path), set()).add(getattr(node, "name", "lambda"))
    assert "main" in readers["experiments.train"] and "build" in readers.pop("experiments.runs.build")
    readers.pop("experiments.runs.command")  # hands it to the commands that it makes
    assert readers.pop("experiments.runs.numbers") == {"require_common"}  # which the command calls before all else
    assert {name: functions for name, functions in readers.items() if functions != {"main"}} == {}


def test_what_commands_write_is_written_whole():
    others = {
        "experiments.benchmarks.files": "tables to be read, made anew where they are not whole",
        "experiments.pages.screenshots": "a frame in a temporary folder",
    }
    half = []
    for path in modules("experiments"):
        for node in ast.walk(parsed(path)):
            if not (isinstance(node, ast.Call) and isinstance(node.func, ast.Attribute)):
                continue
            first = node.args[0] if node.args else None
            writes = node.func.attr in ("write_text", "write_bytes") or (
                node.func.attr == "open" and isinstance(first, ast.Constant) and str(first.value).startswith("w")
            )
            place = first if node.func.attr == "savefig" else node.func.value
            if (writes or node.func.attr == "savefig") and ast.unparse(place) not in ("scratch", "folder / LOCK"):
                half.append((dotted(path), ast.unparse(node)))
    assert {module for module, _ in half} == set(others), half


@pytest.mark.skipif(not (ROOT / ".git").exists(), reason="not a checkout")
def test_no_source_is_ignored_by_git():
    kinds = {".py", ".yaml", ".toml", ".j2", ".txt", ".npz", ".json", ".typed"}
    sources = [
        str(path.relative_to(ROOT))
        for folder in ("experiments", "jobrec_gym", "dynaq_algo", "tests", "conf")
        for path in (ROOT / folder).rglob("*")
        if path.suffix in kinds and "__pycache__" not in path.parts
    ]
    assert len(sources) > 200
    asked = subprocess.run(
        ["git", "check-ignore", "--stdin"], cwd=ROOT, input="\n".join(sources), capture_output=True, text=True
    )
    assert asked.returncode == 1, f"ignored: {asked.stdout}{asked.stderr}"
