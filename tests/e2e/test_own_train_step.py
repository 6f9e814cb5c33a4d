"""A user's model is trained as the object it is, with the methods of its class."""

from __future__ import annotations

import keras
import numpy as np
import pytest
from short_runs import ODD

from tests.marks import slow
from tests.messages import naming, says
from tfamp import train as command
from tfamp.run import records
from tfamp.run.config import Config
from tfamp.run.errors import InputError
from tfamp.run.resolve import resolve
from tfamp.run.result import RunResult
from tfamp.training import own_step, trainer

LOOPS = ("fit", "custom")
UNSCALED = pytest.mark.filterwarnings("ignore:These layers compute in float16:UserWarning")


@UNSCALED
@pytest.mark.parametrize(
    ("function", "policy"),
    [
        ("adds_a_thousand", "float32"),
        ("adds_a_thousand", "mixed_float16"),
        ("adds_a_thousand_scaled", "mixed_float16"),
        slow("adds_a_thousand", "mixed_bfloat16"),
        slow("adds_a_thousand_scaled", "float32"),
        slow("adds_a_thousand_scaled", "mixed_bfloat16"),
    ],
)
def test_a_train_step_of_the_models_own_is_kept_under_every_policy(function, policy, train):
    done = train(model=f"{ODD}:{function}", policy=policy, learning_rate=0.01)
    plain = train(model=f"{ODD}:sixteen_bit_logits", policy=policy, learning_rate=0.01)
    is_scaled = function.endswith("scaled") and policy == "mixed_float16"
    assert type(done.built.model).__name__.startswith("AddsAThousand")
    assert done.built.optimizer.is_scaling is is_scaled
    # It learns as the plain model does, and its loss is a thousand more.
    assert done.result["train_loss"] == pytest.approx(1000 + plain.result["train_loss"], abs=0.02)
    assert done.result["validation_loss"] == pytest.approx(
        plain.result["validation_loss"], abs=0.02
    )
    assert plain.losses[-1] < plain.losses[0]
    # Every loss in the rows is one that was measured: at each step where `scale_loss` notes it,
    # elsewhere the mean since the last mark.
    assert [loss is None for loss in done.losses] == (
        [False] * 4 if function.endswith("scaled") else [True, False, True, False]
    )
    known = [loss for loss in done.losses if loss is not None]
    assert all(1001 < loss < 1005 for loss in known)


def test_an_unscaled_train_step_is_told_of(tmp_path):
    said = []
    values = {"epochs": 1, "steps_per_epoch": 1, "jit_compile": False, "logdir": str(tmp_path)}
    config = Config(
        model=f"{ODD}:adds_a_thousand", policy="mixed_float16", save_model=False, **values
    )
    with pytest.warns(UserWarning, match="nothing scales the loss"):
        result = trainer.train(resolve(config), say=said.append).result
    assert result.figures.loss_scale is None
    assert any("self.optimizer.scale_loss(loss)" in line for line in said)
    # What was asked for is what is recorded: the next sweep finds this cell finished.
    assert config.loss_scale == "dynamic"


def test_a_loss_scale_that_the_train_step_never_takes_is_refused():
    keras.config.set_dtype_policy("mixed_float16")
    config = Config(model=f"{ODD}:adds_a_thousand", policy="mixed_float16", loss_scale="1024")
    with pytest.raises(InputError, match=naming("loss_scale='1024'", "train_step", "scale_loss")):
        trainer.build(resolve(config))


def test_a_train_step_that_does_not_update_is_refused():
    config = Config(model=f"{ODD}:has_its_own_optimizer")
    with pytest.raises(InputError, match=naming("train_step", "never", "self.optimizer.apply")):
        trainer.build(resolve(config))


@pytest.mark.parametrize("policy", [slow("float32"), "mixed_float16", slow("mixed_bfloat16")])
def test_a_compute_loss_of_the_models_own_is_kept(policy, train):
    done = train(model=f"{ODD}:adds_in_compute_loss", policy=policy)
    plain = train(model=f"{ODD}:sixteen_bit_logits", policy=policy)
    np.testing.assert_allclose(np.array(done.losses) - 1000, plain.losses, atol=0.02)
    assert done.result["validation_loss"] > 1000


@pytest.mark.parametrize(
    ("function", "method"),
    [("adds_a_thousand", "train_step"), ("adds_in_compute_loss", "compute_loss")],
)
def test_the_custom_loop_refuses_what_it_would_pass_over(function, method):
    config = Config(model=f"{ODD}:{function}", loop="custom")
    with pytest.raises(InputError, match=naming(f"its own {method}", "loop='fit'")):
        trainer.build(resolve(config))


def test_a_method_set_on_the_object_counts_too():
    model = keras.Sequential([keras.Input((2,)), keras.layers.Dense(1)])
    assert own_step.own_methods(model) == []
    model.train_step = lambda data: {}
    assert own_step.own_methods(model) == ["train_step"]


@pytest.mark.parametrize("loop", LOOPS)
def test_a_test_step_of_the_models_own_evaluates_in_both_loops(loop, train):
    done = train(model=f"{ODD}:reports_no_accuracy", loop=loop)
    assert done.result["validation_loss"] > 1000
    assert done.result["validation_accuracy"] is None
    assert records.VALIDATION_ACCURACY not in done.epochs[0]
    summary = command.summary(RunResult.from_json(done.result), "x")
    assert says(summary, "validation accuracy", "not reported")


@pytest.mark.parametrize(
    ("policy", "loop"),
    [
        ("mixed_float16", "custom"),
        ("bfloat16", "fit"),
        slow("mixed_float16", "fit"),
        slow("bfloat16", "custom"),
    ],
)
def test_losses_and_metrics_of_16_bit_logits_are_float32(loop, policy, train):
    done = train(model=f"{ODD}:sixteen_bit_logits", policy=policy, loop=loop, steps_per_epoch=1)
    model = done.built.model
    for weight in model.weights:
        weight.assign(done.before[weight.path])
    images, labels = next(iter(done.built.data.train))
    logits = model(images)
    assert logits.dtype == model.get_layer("logits").compute_dtype != "float32"
    logits = np.array(logits).astype("float64")
    log_sum = np.log(np.exp(logits).sum(axis=-1))
    expected = (log_sum - (logits * np.array(labels)).sum(axis=-1)).mean()
    assert done.losses == [pytest.approx(expected, rel=1e-6)]
