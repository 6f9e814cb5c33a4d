"""Scripts as someone writes them who has just found tfamp, in processes of their own."""

from __future__ import annotations

import json
import math
import os
import subprocess
import sys
from pathlib import Path

import pytest

from tfamp.run import records

ROOT = Path(__file__).parents[2]
SCRIPTS = Path(__file__).parent / "newcomers"
QUICK = ("two_outputs", "gan", "by_hand")
# What TensorFlow prints when it is imported, whatever its log level.
IMPORT = ("WARNING: All log messages before absl", "I0000 ", "E0000 ", "W0000 ",
          "To enable the following instructions")  # fmt: skip


class Run:
    """What a script left, after a look at what is true of each."""

    def __init__(self, path: Path):
        self.rows = records.read_rows(path / "metrics.jsonl")
        self.steps = [row for row in self.rows if row["kind"] == "step"]
        self.epochs = [row for row in self.rows if row["kind"] == "epoch"]
        self.config = json.loads((path / "config.json").read_text())
        self.result = json.loads((path / "result.json").read_text())
        assert self.result["status"] == "completed" and self.result["error"] is None
        assert self.result["policy"] == self.config["config"]["policy"] == "mixed_float16"
        assert self.result["versions"]["keras"] and self.config["device"].startswith(("CPU", "GPU"))
        for row in self.rows:
            for name, value in row.items():
                # A skipped step's norm is what it was skipped for.
                if "/" in name and not name.startswith(records.GRADIENT_NORM):
                    assert math.isfinite(value), (row["step"], name, value)
        seen = [row["step"] for row in self.steps]
        assert seen == sorted(set(seen)) and seen[-1] == self.epochs[-1]["step"]
        assert [row["epoch"] for row in self.epochs] == list(range(len(self.epochs)))
        for room in ("train", "validation"):
            assert any((path / room).glob("events.out.tfevents.*"))

    def column(self, name):
        return [row.get(name) for row in self.steps]


def run_in_a_process(folder, *arguments):
    """Runs Python in a folder; nothing on its stderr is a warning or an error."""
    done = subprocess.run(
        [sys.executable, "-W", "default", *arguments],
        cwd=folder,
        env=os.environ | {"PYTHONPATH": str(ROOT), "TF_CPP_MIN_LOG_LEVEL": "1"},
        capture_output=True,
        text=True,
        timeout=300,
    )
    assert done.returncode == 0, done.stderr[-3000:]
    lines = [line for line in done.stderr.splitlines() if line.strip()]
    # Python's own of other packages are not the script's.
    said = [line for line in lines if not line.startswith(IMPORT)]
    for word in ("Traceback", "Warning", "Error", "tfamp"):
        assert not any(word in line for line in said if "Deprecation" not in line), said


@pytest.fixture
def run(tmp_path):
    """Runs a script in a process of its own, and again if asked."""

    def run(name, times=1, folder=None):
        for _ in range(times):
            run_in_a_process(tmp_path, SCRIPTS / f"{name}.py")
        return Run(tmp_path / "runs" / (folder or name))

    return run


@pytest.fixture(scope="module")
def run_quickly(tmp_path_factory):
    """What the quick scripts left, run one after the other by one process: it imports once."""
    folder = tmp_path_factory.mktemp("newcomer")
    one_by_one = "import runpy, sys; [runpy.run_path(x, run_name='__main__') for x in sys.argv[1:]]"
    run_in_a_process(folder, "-c", one_by_one, *(SCRIPTS / f"{name}.py" for name in QUICK))
    return lambda name: Run(folder / "runs" / name)


@pytest.mark.slow
def test_cnn_with_batch_normalization_and_augmentation_twice(run, tmp_path):
    left = run("cnn", times=2)
    assert left.column("step") == list(range(1, 6 * len(left.epochs) + 1))
    assert None not in left.column(records.GRADIENT_NORM) + left.column(records.SCALE)
    assert left.result["validation_accuracy"] == left.epochs[-1][records.VALIDATION_ACCURACY]
    assert left.result["seed"] == 1 and left.result["examples_per_sec"] > 0
    (aside,) = (tmp_path / "runs" / "cnn").glob("replaced-*")
    assert json.loads((aside / "result.json").read_text())["status"] == "completed"


@pytest.mark.slow
def test_lstm_with_the_wrapper_that_keras_makes(run):
    left = run("lstm")
    assert left.column("step") == [4, 6, 10, 12]
    assert left.column(records.SCALE) == [2.0**15] * 4
    assert left.column(records.SKIPPED_TOTAL) == [0] * 4
    assert left.result["loss_scale"]["final"] == 2.0**15
    assert all(0 <= value <= 1 for value in left.column("train/auc"))
    assert records.VALIDATION_ACCURACY in left.epochs[0]


def test_two_outputs_with_each_metric_under_its_own_name(run_quickly):
    left = run_quickly("two_outputs")
    assert left.column("step") == list(range(1, 17))
    assert len(left.epochs) == 2
    names = {"kind_accuracy", "kind_loss", "age_loss", "age_mae", "age_root_mean_squared_error"}
    for room in ("train", "validation"):
        assert {f"{room}/{name}" for name in names} <= set(left.epochs[0])
    assert records.TRAIN_ACCURACY not in left.epochs[0]
    assert left.result["validation_accuracy"] is None
    assert left.result["metrics"]["validation/kind_accuracy"] > 0


def test_gan_with_two_optimizers(run_quickly):
    left = run_quickly("gan")
    assert left.column("step") == list(range(1, 17))
    for name, scale in (("d_optimizer", 2.0**15), ("g_optimizer", 2.0**12)):
        assert left.column(f"{records.SCALE}/{name}")[0] == scale
        assert None not in left.column(f"{records.SCALE}/{name}")
        assert None not in left.column(f"{records.GRADIENT_NORM}/{name}")
        told = left.result["optimizers"][name]
        assert told["steps_applied"] + told["loss_scale"]["skipped"] == told["steps_attempted"]
        assert told["steps_attempted"] == 16
    assert set(left.result["optimizers"]) == {"d_optimizer", "g_optimizer"}
    # What the step returns is the step's own figure, not a mean.
    marks = [row for row in left.steps if "train/d_loss" in row]
    losses = [row[f"{records.TRAIN_LOSS}/d_optimizer"] for row in marks]
    assert [row["train/d_loss"] for row in marks] == pytest.approx(losses, rel=1e-5)


@pytest.mark.slow
def test_a_train_step_of_its_own_in_two_phases(run):
    left = run("own_step")
    assert left.column("step") == list(range(1, 19))
    losses = left.column(records.TRAIN_LOSS)
    # The metric is a mean since the epoch began, and stands as that of its window.
    assert left.steps[5]["train/error"] == pytest.approx(sum(losses[4:6]) / 2, rel=1e-4)
    assert left.steps[5]["train/last"] == pytest.approx(losses[5], rel=1e-5)
    rates = left.column(records.LEARNING_RATE)
    assert rates == pytest.approx([0.01] * 12 + [0.001] * 6)
    assert left.epochs[1]["validation/error"] > 0


def test_a_loop_by_hand(run_quickly):
    left = run_quickly("by_hand")
    assert left.column("step") == list(range(1, 25))
    assert left.result["loop"] == "custom"
    assert left.result["validation_accuracy"] > 0.5
    assert None not in left.column(records.TRAIN_LOSS) + left.column(records.SCALE)


@pytest.mark.slow
def test_saved_loaded_and_trained_on(run):
    first = run("saved")
    second = run("saved", folder="trained_on")
    assert second.column("step") == list(range(1, 17))
    assert second.steps[0][records.GROWTH_COUNTER] == first.steps[-1][records.GROWTH_COUNTER] + 1
    assert second.steps[-1][records.TRAIN_LOSS] < first.steps[0][records.TRAIN_LOSS]
    assert second.result["steps_attempted"] == 16


def test_every_script_is_run_here():
    text = Path(__file__).read_text(encoding="utf-8")
    names = {path.stem for path in SCRIPTS.glob("*.py")}
    assert len(names) == 7 and all(f'("{name}"' in text for name in names)
