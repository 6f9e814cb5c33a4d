"""A run built again: its weights, to the bit, under whatever policy; and what does not fit."""

from __future__ import annotations

import shutil
import unittest.mock
from pathlib import Path

import keras
import numpy as np
import pytest

from tests.e2e.short_runs import SHORT, TINY, weights_of
from tests.marks import slow
from tests.messages import says
from tests.reporting.made_runs import rewrite
from tfamp.run import past_run, step_config
from tfamp.run.config import Config
from tfamp.run.errors import InputError, as_flag
from tfamp.run.resolve import resolve
from tfamp.training import rebuild, saving, trainer
from tfamp.training.build import process_settings


def train(logdir, **changes):
    """A run that leaves its weights, and them."""
    values = SHORT | {"save_model": True, "logdir": str(logdir), "optimizer": "adamw"} | changes
    # Whether the model loads is not asked here.
    with unittest.mock.patch.object(saving, "why_it_does_not_load", return_value=None):
        done = trainer.train(resolve(Config(**values)), say=lambda line: None)
    return done.directory.path, weights_of(done.built)


@pytest.fixture(scope="module")
def trained(tmp_path_factory):
    """One run of a model in a folder of its own, for tests that break it in copies."""
    folder = tmp_path_factory.mktemp("trained")
    shutil.copy(TINY.rpartition(":")[0], folder / "net.py")
    path, _ = train(folder, model=f"{folder}/net.py:tiny", policy="mixed_float16")
    return path


@pytest.fixture
def copied(trained, tmp_path):
    return Path(shutil.copytree(trained, tmp_path / "run"))


def again(path):
    past = past_run.read(path)
    config = step_config.make({}, past).config
    with process_settings(config):
        return rebuild.rebuild(past, config)


def refused(path):
    with pytest.raises(InputError) as raised:
        again(path)
    return raised.value.told(as_flag)


@pytest.mark.parametrize("policy", ["float16", slow("float32"), slow("bfloat16")])
def test_the_weights_are_those_of_the_run(policy, tmp_path):
    path, trained = train(tmp_path, policy=policy)
    built = weights_of(again(path))
    assert list(built) == list(trained)
    for name, weight in built.items():
        assert weight.dtype == np.float32
        np.testing.assert_array_equal(weight, trained[name].astype(np.float32))


def test_a_model_file_that_was_edited(trained, copied):
    file = trained.parents[0] / "net.py"
    text = file.read_text()
    file.write_text(text + "\n# Another.\n")
    try:
        assert says(refused(copied), f"--run={copied}", "net.py", "sha256", "sha256")
    finally:
        file.write_text(text)


def test_another_number_of_parameters(copied):
    rewrite(copied / "config.json", trainable_parameters=7)
    assert says(refused(copied), f"--run={copied}", 7, "1,426")


def test_weights_of_another_model(copied):
    other = keras.Sequential([keras.Input((28, 28, 1)), keras.layers.Flatten()])
    for layers in ([keras.layers.Dense(3)], [keras.layers.Conv2D(8, 5), keras.layers.Flatten()]):
        model = keras.Sequential([keras.Input((28, 28, 1)), *layers])
        model.save_weights(copied / "final.weights.h5")
        assert says(refused(copied), f"{copied}/final.weights.h5", "net.py:tiny", "train it again")
    # A file from which nothing can be loaded, and of which Keras only warns.
    other.save_weights(copied / "final.weights.h5")
    assert says(refused(copied), f"{copied}/final.weights.h5")
    (copied / "final.weights.h5").write_text("no HDF5")
    assert says(refused(copied), f"{copied}/final.weights.h5", "open file")


def test_weights_that_are_not_finite(copied, trained):
    run = again(copied)
    run.model.get_layer("norm1").moving_mean.assign(np.full(8, np.nan))
    run.model.save_weights(copied / "final.weights.h5")
    rewrite(copied / "result.json", status="failed")
    assert says(refused(copied), "norm1/moving_mean", "NaN", "failed")
