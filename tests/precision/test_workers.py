"""Two worker processes under MultiWorkerMirroredStrategy: one decision here as well."""

import contextlib
import json
import math
import os
import queue
import socket
import subprocess
import sys
import threading
from pathlib import Path

import numpy as np
import pytest

ROOT = Path(__file__).parents[2]
WORKER = Path(__file__).parent / "replica_cases" / "worker.py"
CASES = (
    "skips",
    "bad_losses",
    "clips",
    "accumulates",
    "collapses",
    "stock_fit",
    "fit",
    "custom",
    "fit_bad_0",
    "fit_bad_1",
    "custom_bad_0",
    "custom_bad_1",
)
NAN, INF = math.nan, math.inf
# Two processes that each load TensorFlow and train, most of a minute.
pytestmark = pytest.mark.slow


@contextlib.contextmanager
def two_workers(*cases):
    """Starts both workers; they are gone at the end, whatever happened."""
    with contextlib.ExitStack() as stack:
        ports = []
        for _ in range(2):
            place = stack.enter_context(socket.socket())
            place.bind(("127.0.0.1", 0))
            ports.append(place.getsockname()[1])
    cluster = {"worker": [f"127.0.0.1:{port}" for port in ports]}
    processes = []
    try:
        for index in range(2):
            task = {"cluster": cluster, "task": {"type": "worker", "index": index}}
            environment = os.environ | {
                "TF_CONFIG": json.dumps(task),
                "CUDA_VISIBLE_DEVICES": "",
                "PYTHONPATH": str(ROOT),
            }
            command = [sys.executable, str(WORKER), *cases]
            pipes = dict.fromkeys(("stdin", "stdout", "stderr"), subprocess.PIPE)
            processes.append(subprocess.Popen(command, env=environment, text=True, **pipes))
        yield processes
    finally:
        for process in processes:
            process.kill()
            process.wait()
            for pipe in (process.stdin, process.stdout, process.stderr):
                pipe.close()


@pytest.fixture(scope="module")
def outcomes():
    """What both workers say of every case; one pair of processes runs them all."""
    with two_workers(*CASES) as processes:
        said = [{}, {}]

        def listen(index):
            out, errors = processes[index].communicate()
            lines = [line for line in out.splitlines() if line.startswith("{")]
            said[index] = {entry.pop("case"): entry for entry in map(json.loads, lines)}
            said[index]["errors"] = errors[-3000:]

        listeners = [threading.Thread(target=listen, args=(i,)) for i in range(2)]
        for listener in listeners:
            listener.start()
        for listener in listeners:
            listener.join(timeout=240)
    return said


def agreed(outcomes, case):
    """A case's outcome, which must be the same on both workers."""
    for said in outcomes:
        assert case in said, said.get("errors", "No end within the time limit.")
    np.testing.assert_equal(*(said[case] for said in outcomes))
    return outcomes[0][case]


def test_an_overflow_on_one_worker_makes_both_skip(outcomes):
    case = agreed(outcomes, "skips")
    assert case["weights"] == [0.25, 0.25, 0.25, -0.125]  # 1 - 0.75, skip, skip, - 0.375.
    assert case["scale"] == [8, 8, 4, 2]
    np.testing.assert_equal(case["loss"], [0.75, 1.5, 1.25, 0.375])
    assert case["skipped_non_finite_loss"] == [0, 0, 0, 0]
    np.testing.assert_equal(case["grad_norm"], [0.75, INF, NAN, 0.375])
    assert case["applied"] == 2


def test_a_bad_loss_on_one_worker_is_no_fault_of_the_scale(outcomes):
    case = agreed(outcomes, "bad_losses")
    assert case["weights"] == [1, 1, 0.25]
    assert case["scale"] == [8, 8, 8]
    np.testing.assert_equal(case["loss"], [NAN, INF, 0.75])
    assert case["skipped_non_finite_loss"] == [1, 2, 2]


def test_clipping_acts_on_the_sum(outcomes):
    case = agreed(outcomes, "clips")
    assert (case["weights"], case["grad_norm"]) == ([0.0], [7.0])


def test_an_overflow_discards_its_accumulation_group_alone(outcomes):
    case = agreed(outcomes, "accumulates")
    assert case["weights"] == [1, 0, 0, 0, 0, -1]
    assert case["scale"] == [8, 8, 8, 8, 4, 4]


def test_a_collapse_is_seen_on_both(outcomes):
    case = agreed(outcomes, "collapses")
    assert case == {"weights": [0.25] * 4 + [-1.75], "step": 4, "has_nan": True}


def test_fit_fails_in_keras_without_help(outcomes):
    # When this fails, Keras has learnt it and `multi_worker_keras` can go.
    assert agreed(outcomes, "stock_fit")["error"] is not None


def test_both_loops_take_the_same_steps(outcomes):
    fit, custom = agreed(outcomes, "fit"), agreed(outcomes, "custom")
    for name in ("weights", "loss"):
        np.testing.assert_allclose(fit[name], custom[name], rtol=2e-3)
    assert set(fit["history"]) == {"loss", "accuracy", "val_loss", "val_accuracy"}
    for name, values in fit["history"].items():
        np.testing.assert_allclose(values, custom["history"][name], rtol=2e-3)
    # Mean over the epoch of the recorded losses, each of the whole batch.
    np.testing.assert_allclose(fit["history"]["loss"], np.mean(fit["loss"]), rtol=1e-5)


@pytest.mark.parametrize("loop", ["fit", "custom"])
@pytest.mark.parametrize("worker", [0, 1])
def test_one_bad_example_on_one_worker_in_a_loop(outcomes, loop, worker):
    name = f"{loop}_bad_{worker}"
    seen = [said[name].pop("saw_only_good", None) for said in outcomes if name in said]
    case = agreed(outcomes, name)
    assert seen[worker] == [True, False, True, True]
    assert seen[1 - worker] == [True] * 4
    assert case["skipped_total"] == [0, 1, 1, 1]
    assert case["scale"] == [8, 8, 4, 4]
    assert np.isfinite(case["weights"]).all()


def test_stock_keras_waits_for_ever():
    with two_workers("stock_overflow") as processes:
        heard = queue.Queue()

        def listen(index):
            for line in processes[index].stdout:
                if line.startswith("{"):
                    heard.put((index, json.loads(line)))

        for index in range(2):
            threading.Thread(target=listen, args=(index,), daemon=True).start()
        # Worker 1, which has the infinity, skips and is done ...
        index, said = heard.get(timeout=120)
        assert (index, said["weights"]) == (1, [1.0])
        # ... and worker 0 does not come back; ours needs milliseconds for a step.
        with pytest.raises(queue.Empty):
            heard.get(timeout=20)
        assert processes[0].poll() is None
