"""What a run saves, however it ends, and that it loads again."""

from __future__ import annotations

import json
import math
import signal
from pathlib import Path

import keras
import numpy as np
import pytest

from tests.marks import slow
from tests.messages import naming, says
from tfamp.models import registry
from tfamp.run.config import Config
from tfamp.run.resolve import resolve
from tfamp.run.result import RunResult
from tfamp.training import saving as saving_lib
from tfamp.training import trainer
from tfamp.training.interrupt import RunInterrupted

MODELS = Path(__file__).parents[1] / "e2e"
TINY = f"{MODELS}/tiny_model.py:tiny"
FAILING = f"{MODELS}/odd_models.py:fails_in_training"


@pytest.fixture
def unchecked(monkeypatch):
    """Models are taken to load, which saves seconds."""
    monkeypatch.setattr(saving_lib, "why_it_does_not_load", lambda path, expected: None)


class Outcome:
    """What a run left: its folder, model and error, and what it said."""

    def __init__(self, path, model, error, said):
        self.path, self.model, self.error, self.said = path, model, error, said
        self.result = json.loads((path / "result.json").read_text())
        self.saved = self.result["saved"]
        self.files = {name.name for name in path.iterdir() if name.is_file()}

    def lines(self):
        """The lines that told what was saved."""
        return saving_lib.lines(RunResult.read(self.path / "result.json").saved, self.path)


@pytest.fixture
def train(tmp_path, monkeypatch):
    """Eight steps of the driver in two epochs; callbacks' hooks may be added to it."""

    def run(**values):
        hooks = {name: values.pop(name) for name in list(values) if name.startswith("on_")}
        built, said = [], []
        build = trainer.build

        class Hooks(trainer.ProgressBar):
            pass

        for name, hook in hooks.items():
            setattr(Hooks, name, lambda self, *arguments, hook=hook: hook(self, *arguments))
        common = {"model": TINY, "dataset": "fashion_mnist_mini", "batch_size": 50,
                  "epochs": 2, "steps_per_epoch": 4, "jit_compile": False, "logdir": str(tmp_path),
                  "run_name": "run"}  # fmt: skip
        error = None
        with monkeypatch.context() as patch:
            patch.setattr(trainer, "build", lambda config: built.append(build(config)) or built[0])
            patch.setattr(trainer, "ProgressBar", Hooks)
            try:
                trainer.train(resolve(Config(**(common | values))), say=said.append)
            except (Exception, RunInterrupted) as raised:
                error = raised
        return Outcome(tmp_path / "run", built[0].model, error, said)

    return run


def new(name, done):
    """The same network with fresh weights."""
    _, *shape = done.model.input_shape
    return registry.build(name, tuple(shape), done.model.output_shape[-1])


def assert_same_weights(model, other):
    for ours, theirs in zip(model.weights, other.weights, strict=True):
        np.testing.assert_array_equal(ours, theirs, err_msg=ours.path)


def test_what_a_run_saves_loads_again(train):
    done = train(policy="mixed_float16")
    saved = ("final.weights.h5", "model.keras")
    assert done.files == {"config.json", "metrics.jsonl", "result.json", *saved}
    assert done.saved == {
        "weights": "final.weights.h5",
        "are_averages": False,
        "why_no_weights": None,
        "model": "model.keras",
        "why_no_model": None,
        "best": None,
        "best_epoch": None,
        "best_validation_accuracy": None,
        "why_no_best": None,
    }
    assert done.lines() == [
        f"  weights              {done.path}/final.weights.h5",
        f"  model                {done.path}/model.keras",
    ]
    assert json.loads((done.path / "config.json").read_text())["saves"] == list(saved)
    loaded = keras.models.load_model(done.path / "model.keras")
    assert_same_weights(loaded, done.model)
    assert loaded.optimizer.steps_attempted == 8
    # The weights go into the same network, compiled or not. Warnings are errors here.
    plain = new(TINY, done)
    plain.load_weights(done.path / "final.weights.h5")
    assert_same_weights(plain, done.model)
    loaded.load_weights(done.path / "final.weights.h5")


def test_a_failed_run_saves_its_weights_and_says_why_there_is_no_model(train):
    done = train(model=FAILING, loop="custom")
    assert "planted fault" in str(done.error) and "planted fault" in done.result["error"]
    assert done.result["status"] == "failed"
    assert done.saved["weights"] == "final.weights.h5"
    assert done.saved["model"] is None and "model.keras" not in done.files
    why = done.saved["why_no_model"]
    assert says(why, "fresh process", "class", "fails_in_training()", "final.weights.h5")
    assert "config" not in why
    assert done.said[-2:] == done.lines()
    assert done.said[-1] == f"  no model             {why}"
    again = new(FAILING, done)
    again.load_weights(done.path / "final.weights.h5")
    assert_same_weights(again, done.model)


@pytest.mark.parametrize(
    ("moment", "loop"),
    [
        ("on_train_batch_end", "custom"),
        ("on_test_batch_end", "fit"),
        ("never", "custom"),
        slow("on_train_batch_end", "fit"),
        slow("on_test_batch_end", "custom"),
        slow("never", "fit"),
    ],
)
def test_with_moving_averages_the_averages_are_saved(train, unchecked, loop, moment):
    seen = []

    def interrupt(bar, batch, *_):
        if bar.model.optimizer.steps_attempted == 7 or moment == "on_test_batch_end":
            raise RunInterrupted(2)

    def look(bar, *_):
        inner = bar.model.optimizer.inner_optimizer
        # fit builds the optimizer in the first step.
        averages = getattr(inner, "_model_variables_moving_average", [])
        seen.append([np.array(average) for average in averages])

    hooks = {"on_train_batch_begin": look, "on_test_begin": look}
    if moment != "never":
        hooks[moment] = interrupt
    done = train(loop=loop, ema_momentum=0.9, learning_rate=0.5, **hooks)
    assert done.result["status"] == ("completed" if moment == "never" else "interrupted")
    assert done.saved["are_averages"] is True
    assert says(done.lines()[0], "final.weights.h5", "moving averages")
    again = new(TINY, done)
    again.load_weights(done.path / "final.weights.h5")
    averages = done.model.optimizer.inner_optimizer._model_variables_moving_average
    trained = [np.array(variable) for variable in again.trainable_variables]
    for weight, average in zip(trained, averages, strict=True):
        np.testing.assert_array_equal(weight, average)
    # They moved, and are not the zeros that they are before the first update.
    assert all(np.any(weight != before) for weight, before in zip(trained, seen[1], strict=True))
    if moment != "on_train_batch_end":
        # Evaluation swaps by sums, which round.
        for weight, average in zip(trained, seen[-1], strict=True):
            np.testing.assert_allclose(weight, average, atol=1e-6)


def test_averages_before_the_first_update_do_not_wipe_the_weights(train, unchecked):
    def interrupt(*_):
        raise RunInterrupted(15)

    done = train(ema_momentum=0.9, on_train_begin=interrupt)
    again = new(TINY, done)
    again.load_weights(done.path / "final.weights.h5")
    assert np.any(again.get_layer("conv1").kernel)


# What goes wrong with saving.


def no_space(*_, **__):
    raise OSError(28, "No space left on device")


@pytest.mark.parametrize("model", [TINY, FAILING])
def test_a_failure_to_save_is_told_and_hides_nothing(train, unchecked, monkeypatch, model):
    monkeypatch.setattr(keras.Model, "save_weights", no_space)
    monkeypatch.setattr(keras.Model, "save", no_space)
    done = train(model=model)
    if model == TINY:
        assert done.error is None and done.result["status"] == "completed"
    else:
        assert "planted fault" in str(done.error) and "planted fault" in done.result["error"]
    assert done.saved["weights"] is done.saved["model"] is None
    text = "OSError: [Errno 28] No space left on device"
    assert done.saved["why_no_weights"] == text
    assert says(done.saved["why_no_model"], "saved", text)
    assert done.lines()[0] == f"  no weights           {text}"
    assert done.files == {"config.json", "metrics.jsonl", "result.json"}


def test_ctrl_c_while_the_model_is_tried_leaves_a_completed_run_without_one(train, monkeypatch):
    def interrupt(path, expected):
        assert path.exists()
        signal.raise_signal(signal.SIGINT)

    monkeypatch.setattr(saving_lib, "why_it_does_not_load", interrupt)
    done = train()
    assert done.error is None
    assert done.result["status"] == "completed" and done.result["steps_attempted"] == 8
    assert done.saved["weights"] == "final.weights.h5"
    assert says(done.saved["why_no_model"], "Ctrl-C")
    assert {path.name for path in done.path.iterdir() if path.is_file()} == {
        *("config.json", "metrics.jsonl", "result.json", "final.weights.h5")
    }


@pytest.mark.parametrize(
    ("script", "reason"),
    [
        ("print('noise'); print('{\"digest\": \"the same\"}')", None),
        ("print('{\"digest\": \"another\"}')", ("other weights",)),
        ("import os; print('{\"digest\": \"%s\"}' % os.environ['CUDA_VISIBLE_DEVICES'])",
         ("other weights",)),
        ("import os, sys; sys.stderr.write('Killed'); sys.stderr.flush(); os._exit(9)",
         ("code 9", "Killed")),
        ("import os; os._exit(9)", ("code 9", "nothing")),
        ("import sys; print('{\"error\": \"' + sys.argv[1] + '\"}')",
         ("fresh process", "a.keras")),
        ("while True: pass", ("fresh process", "1 seconds")),
    ],
)  # fmt: skip
def test_what_is_wrong_with_loading(script, reason, monkeypatch):
    monkeypatch.setattr(saving_lib, "_LOAD", script)
    if "while" in script:
        monkeypatch.setattr(saving_lib, "_LOAD_TIMEOUT_SEC", 1.0)
    said = saving_lib.why_it_does_not_load(Path("a.keras"), "the same")
    assert said is None if reason is None else says(said, *reason)


def test_no_gpu_is_touched_by_the_fresh_process(monkeypatch):
    script = "import os; print('{\"digest\": \"%s\"}' % os.environ['CUDA_VISIBLE_DEVICES'])"
    monkeypatch.setattr(saving_lib, "_LOAD", script)
    assert saving_lib.why_it_does_not_load(Path("a.keras"), "-1") is None


# The best weights.


@pytest.fixture
def one_weight(tmp_path):
    """A callback, and a function that ends an epoch with a weight and an accuracy."""
    keras.config.set_dtype_policy("float32")
    model = keras.Sequential([keras.Input((1,)), keras.layers.Dense(1, use_bias=False)])
    best = saving_lib.SaveBest(tmp_path / "best.weights.h5")
    best.set_model(model)

    def end(epoch, accuracy):
        best.on_epoch_begin(epoch)
        model.layers[0].kernel.assign([[float(epoch)]])
        best.on_test_end({} if accuracy is None else {"accuracy": accuracy})

    def kept():
        model.load_weights(best._path)
        return float(model.layers[0].kernel[0, 0])

    return best, end, kept


@pytest.mark.parametrize(
    ("accuracies", "epoch"),
    [
        ([0.5, 0.7, 0.7, math.nan, 0.6, None], 1),
        ([0.0, 0.0], 0),
        ([math.nan, 0.1], 1),
    ],
)
def test_the_first_of_the_best_epochs_is_kept(one_weight, tmp_path, accuracies, epoch):
    best, end, kept = one_weight
    for number, accuracy in enumerate(accuracies):
        end(number, accuracy)
    assert (best.epoch, best.accuracy) == (epoch, accuracies[epoch])
    assert kept() == epoch
    assert [path.name for path in tmp_path.iterdir()] == ["best.weights.h5"]


def test_no_accuracy_saves_nothing(one_weight, tmp_path):
    best, end, _ = one_weight
    end(0, math.nan)
    assert best.epoch is None and not list(tmp_path.iterdir())


def test_best_weights_that_cannot_be_written_are_told_and_training_goes_on(one_weight, monkeypatch):
    best, end, kept = one_weight
    end(0, 0.5)
    with monkeypatch.context() as patch:
        patch.setattr(keras.Model, "save_weights", no_space)
        with pytest.warns(UserWarning, match=naming("best.weights.h5", "OSError")):
            end(1, 0.6)
    assert best.error == "OSError: [Errno 28] No space left on device"
    assert (best.epoch, kept()) == (0, 0.0)
    end(2, 0.55)
    assert best.error is None and (best.epoch, kept()) == (2, 2.0)
