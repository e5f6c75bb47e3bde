import json
import os
import signal
import subprocess
import sys
import urllib.request
from pathlib import Path

import pytest

pytest.importorskip("xllamacpp", reason="the extra local-llm is not installed")

from experiments.llm.serve import serve
from experiments.llm.weights import SMOLLM2, fetch_smollm2

pytestmark = pytest.mark.waits

ROOT = Path(__file__).parents[2]


@pytest.fixture(scope="module")
def weights():
    try:
        return fetch_smollm2(ROOT / SMOLLM2)
    except RuntimeError as error:
        pytest.skip(f"SmolLM2's weights cannot be had: {error}")


def ask(address, model):
    schema = {
        "type": "object",
        "properties": {"apply": {"type": "string", "enum": ["Yes", "No"]}},
        "required": ["apply"],
    }
    body = {
        "model": model,
        "messages": [
            {"role": "user", "content": 'Does a nurse apply as a nurse? Answer {"apply":"Yes"} or {"apply":"No"}.'}
        ],
        "max_tokens": 16,
        "temperature": 0,
        "logprobs": True,
        "top_logprobs": 5,
        "response_format": {"type": "json_schema", "json_schema": {"name": "answer", "schema": schema}},
    }
    request = urllib.request.Request(
        f"{address}/chat/completions", json.dumps(body).encode(), {"Content-Type": "application/json"}
    )
    with urllib.request.urlopen(request, timeout=3_600) as answer:
        return json.load(answer)["choices"][0]


def test_a_served_model_answers_in_the_schema_with_token_probabilities(weights):
    with serve(weights, name="tiny") as address:
        choice = ask(address, "tiny")
    assert json.loads(choice["message"]["content"])["apply"] in ("Yes", "No")
    assert len(choice["logprobs"]["content"][0]["top_logprobs"]) == 5


def test_a_missing_file_is_named(tmp_path):
    with pytest.raises(FileNotFoundError, match=r"none\.gguf"), serve(tmp_path / "none.gguf"):
        pass


def test_the_command_prints_its_address_and_ends_when_it_is_terminated(weights):
    command = [sys.executable, "-m", "experiments.llm.serve", f"model={weights}", "port=0", "name=tiny"]
    process = subprocess.Popen(
        command, cwd=ROOT, stdout=subprocess.PIPE, text=True, env={**os.environ, "NO_COLOR": "1"}
    )
    try:
        line = process.stdout.readline()
        assert line.startswith("serving tiny at http://127.0.0.1:")
        assert ask(line.split()[3], "tiny")["finish_reason"] == "stop"
    finally:
        process.send_signal(signal.SIGTERM)
        assert process.wait(timeout=3_600) == 0
        process.stdout.close()


def test_weights_with_another_sum_are_refused(tmp_path):
    path = tmp_path / "weights.gguf"
    path.write_bytes(b"not these")
    with pytest.raises(RuntimeError, match="SHA-256"):
        fetch_smollm2(path)
