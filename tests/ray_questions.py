"""Four processes on the nodes of a Ray cluster ask a language model the same questions, with one cache between them.

``python ray_questions.py RAY_ADDRESS CACHE LOG N_QUESTIONS MAX_CALLS`` prints, as JSON, who worked where and what was
said. The model answers here, and writes each question that it is asked to LOG.
"""

import hashlib
import json
import os
import sys

import numpy as np
import ray

from jobrec_gym import LLMSimulator, load_market
from jobrec_gym.simulators.budget import BudgetReached
from jobrec_gym.simulators.completion import ChatModel, Completion

N_PROCESSES = 4
N_JOBS = 200
BATCH = 50


def answering(log: str):
    """The method of a model that is this process, and writes a line for each question."""
    lines = os.open(log, os.O_WRONLY | os.O_APPEND | os.O_CREAT)

    def complete(self, messages, timeout):
        question = hashlib.sha256(messages[-1]["content"].encode()).hexdigest()
        os.write(lines, f"{question}\n".encode())
        answer = json.dumps({"reason": "fits", "decision": ("apply", "save")[int(question, 16) % 2]})
        message = {"role": "assistant", "content": answer}
        return Completion({"index": 0, "finish_reason": "stop", "message": message}, 10, 0.0)

    return complete


@ray.remote(num_cpus=1, max_retries=0, scheduling_strategy="SPREAD")
def ask(number: int, cache: str, log: str, n_questions: int, max_calls: int) -> dict:
    """Asks all questions in an order of its own, until they are answered or the cap is reached."""
    ChatModel.complete = answering(log)
    simulator = LLMSimulator(
        "openai/fake",
        api_base="http://127.0.0.1:9/v1",
        cache=cache,
        budget={"max_calls": max_calls, "on_reached": "stop"},
        calls={"concurrency": 4, "timeout": 600.0, "batch_timeout": 3_600.0},
    )
    bound = simulator.bind(load_market("default", n_jobs=N_JOBS, n_applicants=-(-n_questions // N_JOBS)))
    order = np.random.default_rng(number).permutation(n_questions)
    said = {"pid": os.getpid(), "node": ray.get_runtime_context().get_node_id(), "answers": 0, "capped": False}
    try:
        for start in range(0, n_questions, BATCH):
            feedback = bound.feedback(*np.divmod(order[start : start + BATCH], N_JOBS))
            said["answers"] += int((feedback.status == "ok").sum())
    except BudgetReached:
        said["capped"] = True
    return said


def main(address: str, cache: str, log: str, n_questions: str, max_calls: str) -> None:
    ray.init(address=address, log_to_driver=False, runtime_env={"env_vars": {"PYTHONPATH": os.environ["PYTHONPATH"]}})
    tasks = [ask.remote(number, cache, log, int(n_questions), int(max_calls)) for number in range(N_PROCESSES)]
    print(json.dumps(ray.get(tasks)))


if __name__ == "__main__":
    main(*sys.argv[1:])
