"""What a built run brings to its loop."""

from pathlib import Path

import keras
import numpy as np
import pytest

from tfamp.run.config import Config
from tfamp.run.resolve import resolve
from tfamp.training import build, trainer

LINEAR = f"{Path(__file__).parents[1]}/e2e/odd_models.py:linear"


@pytest.mark.parametrize("policy", ["float32", "mixed_float16"])
def test_fit_traces_its_step_once(policy, tmp_path, monkeypatch):
    traced = []
    step = keras.Model.train_step
    monkeypatch.setattr(
        keras.Model, "train_step", lambda self, data: traced.append(data) or step(self, data)
    )
    config = Config(
        model=LINEAR, policy=policy, epochs=1, steps_per_epoch=2, jit_compile=False,
        logdir=str(tmp_path), save_model=False,
    )  # fmt: skip
    result = trainer.train(resolve(config), say=lambda line: None).result
    assert result.figures.steps_attempted == 2
    assert len(traced) == 1


def test_what_was_decided_is_in_the_built_run_and_handed_back(tmp_path):
    config = resolve(
        Config(model=LINEAR, epochs=1, steps_per_execution=5, logdir=str(tmp_path),
               save_model=False)
    )  # fmt: skip
    done = trainer.train(config, say=lambda line: None)
    assert (config.steps_per_epoch, config.jit_compile) == (None, None)
    # 78 batches make 75 steps, in whole executions.
    assert (done.built.steps_per_epoch, done.built.whole_epoch) == (75, 78)
    assert done.built.config.jit_compile is done.built.model.jit_compile is False
    assert list(done.built.model_files) == ["odd_models.py"]
    assert done.directory.path == tmp_path / config.run_name
    assert done.result.figures.steps_attempted == done.built.optimizer.steps_attempted == 75


def test_the_data_of_a_run_that_goes_on_begins_where_it_was():
    config = resolve(Config(model=LINEAR, batch_size=8, augment="flip_crop"))
    whole, rest = (build.build(config, start_step=step).data.train for step in (0, 3))
    for ours, theirs in zip(rest.take(2), whole.skip(3).take(2), strict=True):
        np.testing.assert_array_equal(ours[0], theirs[0])
        np.testing.assert_array_equal(ours[1], theirs[1])
