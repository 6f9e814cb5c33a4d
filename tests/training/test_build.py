"""What a built run brings to its loop."""

from pathlib import Path

import keras
import pytest

from tfamp.run.config import Config
from tfamp.run.resolve import resolve
from tfamp.training import trainer

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
    assert trainer.train(resolve(config), say=lambda line: None)["steps_attempted"] == 2
    assert len(traced) == 1
