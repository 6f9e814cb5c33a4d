"""Every flag has an effect, and a test here that shows it by numbers."""

from __future__ import annotations

import importlib.metadata
import math
import os
import subprocess
import sys
import textwrap
import unittest.mock

import keras
import numpy as np
import pytest
import tensorflow as tf
from short_runs import ODD, SHORT, TINY

from tests.marks import slow
from tests.messages import naming, says
from tfamp.precision import policy as policy_lib
from tfamp.precision.collapse import LossScaleCollapse
from tfamp.run import records
from tfamp.run.config import POLICIES, Config, declarations
from tfamp.run.errors import InputError
from tfamp.run.resolve import resolve
from tfamp.training import description, saving, trainer

LOOPS = ("fit", "custom")
# What a loop does by itself is shown of ours; what the optimizer does in either is of fit too.
MOSTLY_CUSTOM = (slow("fit"), "custom")
MOSTLY_FIT = ("fit", slow("custom"))
SHOWN: dict[str, list] = {}


def shows(*names):
    """Says of which flags a test shows the effect."""

    def register(test):
        for name in names:
            SHOWN.setdefault(name, []).append(test)
        return test

    return register


def all_flags():
    return sorted(declarations())


@pytest.mark.parametrize("name", all_flags())
def test_a_test_here_shows_its_effect(name):
    tests = SHOWN.get(name, [])
    assert tests, f"Nothing here shows the effect of --{name}."
    assert all(globals()[test.__name__] is test for test in tests)


def test_nothing_is_shown_that_is_no_flag():
    assert set(SHOWN) <= set(all_flags())


# Precision.


@shows("policy")
@pytest.mark.parametrize("policy", POLICIES)
def test_policy(policy, train):
    done = train(policy=policy)
    model = done.built.model
    compute, variables = {
        "float32": ("float32", "float32"),
        "mixed_float16": ("float16", "float32"),
        "mixed_bfloat16": ("bfloat16", "float32"),
        "float16": ("float16", "float16"),
        "bfloat16": ("bfloat16", "bfloat16"),
    }[policy]
    conv = model.get_layer("conv1")
    assert (conv.compute_dtype, conv.variable_dtype) == (compute, variables)
    assert conv.kernel.dtype == variables
    assert done.result["policy"] == done.config["config"]["policy"] == policy
    assert (done.result["loss_scale"] is not None) == (compute == "float16")
    assert all(math.isfinite(loss) for loss in done.losses)
    # Only where 16 bits were computed do the bits differ, and from the same weights by little.
    difference = abs(done.losses[0] - train().losses[0])
    assert (difference > 0) == (policy != "float32")
    if variables == "float32":
        assert difference < 0.01
    assert keras.config.dtype_policy().name == "float32"


@shows("tf32")
@pytest.mark.parametrize("wanted", [True, False])
def test_tf32(wanted, train, tmp_path):
    switch = tf.config.experimental
    before = switch.tensor_float_32_execution_enabled()
    seen = []

    def loop(*arguments):
        seen.append(switch.tensor_float_32_execution_enabled())
        return real(*arguments)

    real = trainer._train
    switch.enable_tensor_float_32_execution(not wanted)
    try:
        with unittest.mock.patch.object(trainer, "_train", loop):
            done = train(tf32=wanted, steps_per_epoch=1, logdir=str(tmp_path), run_name="run")
        assert switch.tensor_float_32_execution_enabled() is not wanted
    finally:
        switch.enable_tensor_float_32_execution(before)
    assert seen == [wanted]
    # Nothing but an Ampere GPU or a later one computes in it.
    if not wanted or not tf.config.list_physical_devices("GPU"):
        assert done.result["tf32"] is False
    assert done.config["config"]["tf32"] is wanted


@shows("float32_layers")
def test_float32_layers(train):
    plain = train(policy="mixed_float16")
    done = train(policy="mixed_float16", float32_layers=("^conv", "norm1$"))
    assert plain.config["forced_float32_layers"] == []
    assert done.config["forced_float32_layers"] == ["conv1", "conv2", "norm1"]
    kinds = {layer.name: layer.compute_dtype for layer in done.built.model.layers}
    assert (kinds["conv1"], kinds["conv2"], kinds["norm1"]) == ("float32",) * 3
    assert (kinds["relu1"], kinds["pool"]) == ("float16", "float16")
    assert done.losses[0] != plain.losses[0]


@shows("float32_layers")
def test_float32_layers_all(train):
    done = train(policy="mixed_float16", float32_layers=(".",))
    # Nothing computes in float16 any more: the bits are those of float32, and nothing is scaled.
    assert done.losses == train().losses
    assert done.result["loss_scale"] is None


@shows("float32_layers")
def test_float32_layers_that_compute_in_float32_anyway(train):
    """Not a bit changes, and it is said."""
    done = train(policy="mixed_float16", float32_layers=("norm", "head"))
    assert done.losses == train(policy="mixed_float16").losses
    assert done.config["float32_layers_effect"] == {
        "norm": {"changed": [], "float32_anyway": ["norm1"]},
        "head": {"changed": [], "float32_anyway": ["head"]},
    }


@shows("float32_layers")
def test_float32_layers_that_match_nothing(train):
    with pytest.raises(InputError, match=naming("float32_layers", "'conv3'", "'tiny'", "conv1")):
        train(policy="mixed_float16", float32_layers=("conv1", "conv3"))


# Model and data.


@shows("model")
def test_model(train):
    assert train().config["trainable_parameters"] == 8 * 9 + 2 * 8 + (8 * 9 + 1) * 16 + 17 * 10
    linear = train(model=f"{ODD}:linear")
    assert linear.config["trainable_parameters"] == 785 * 10
    assert linear.result["model"] == f"{ODD}:linear"


@shows("model")
@pytest.mark.parametrize(("name", "layer"), [("resnet20", "BatchNorm"), ("vit_tiny", "LayerNorm")])
def test_model_by_name(name, layer):
    run = trainer.build(resolve(Config(model=name)))
    kinds = [type(x).__name__ for x in run.model._flatten_layers()]
    assert any(kind.startswith(layer) for kind in kinds)
    inner = type(run.optimizer.inner_optimizer).__name__
    assert inner == ("AdamW" if name.startswith("vit") else "SGD")


@shows("dataset", "num_classes", "num_examples")
def test_dataset(train):
    embedded = train()
    assert embedded.built.data.image_shape == (28, 28, 1)
    assert (embedded.built.data.num_train, embedded.built.data.num_validation) == (5000, 1000)
    # Without --steps_per_epoch an epoch is the whole set: 3 batches of 50.
    synthetic = train(
        dataset="synthetic", num_classes=3, num_examples=170, image_size=16, steps_per_epoch=None
    )
    assert synthetic.built.data.image_shape == (16, 16, 3)
    assert synthetic.built.data.num_train == 170
    assert synthetic.after["head/kernel"].shape == (16, 3)
    assert synthetic.result["dataset"] == "synthetic"
    assert synthetic.result["steps_attempted"] == 3
    assert synthetic.config["config"]["steps_per_epoch"] == 3
    # An untrained guess among 3 and among 10.
    assert synthetic.losses[0] < embedded.losses[0]


@shows("data_dir")
def test_data_dir(tmp_path, train):
    import tensorflow_datasets as tfds

    class TfampFlagsSet(tfds.core.GeneratorBasedBuilder):
        """Two grey levels."""

        VERSION = tfds.core.Version("1.0.0")

        def _info(self):
            return tfds.core.DatasetInfo(
                builder=self,
                features=tfds.features.FeaturesDict(
                    {
                        "image": tfds.features.Image(shape=(8, 8, 1), encoding_format="png"),
                        "label": tfds.features.ClassLabel(num_classes=2),
                    }
                ),
                supervised_keys=("image", "label"),
            )

        def _split_generators(self, dl_manager):
            del dl_manager
            return {"train": self._generate_examples(20), "test": self._generate_examples(10)}

        def _generate_examples(self, count):
            for i in range(count):
                yield i, {"image": np.full((8, 8, 1), i, np.uint8), "label": i % 2}

    here = tmp_path / "prepared"
    TfampFlagsSet(data_dir=str(here)).download_and_prepare()
    values = {"dataset": "tfamp_flags_set", "batch_size": 10, "steps_per_epoch": None}
    done = train(data_dir=str(here), model=f"{ODD}:linear", **values)
    assert (done.built.data.num_train, done.built.data.num_validation) == (20, 10)
    assert done.result["steps_attempted"] == 2


@shows("image_size")
def test_image_size(train):
    done = train(image_size=16)
    assert done.built.data.image_shape == (16, 16, 1)
    assert done.built.model.input_shape == (None, 16, 16, 1)
    assert done.losses[0] != train().losses[0]


@shows("augment")
@pytest.mark.parametrize("augment", ["flip_crop", slow("randaugment"), "mixup_cutmix"])
def test_augment(augment):
    def batches(name):
        data = trainer.build(resolve(Config(model=TINY, augment=name, batch_size=50))).data
        assert data.name == "fashion_mnist_mini"
        return next(iter(data.train)), next(iter(data.validation))

    (plain, plain_labels), (plain_validation, _) = batches("none")
    (images, labels), (validation, _) = batches(augment)
    assert images.shape == plain.shape
    assert np.abs(images - plain).max() > 0.5
    assert bool(np.all(labels == plain_labels)) == (augment != "mixup_cutmix")
    np.testing.assert_array_equal(validation, plain_validation)


@shows("augment")
def test_augment_in_a_run(train):
    assert train(augment="flip_crop").losses[0] != train().losses[0]


# The loop.


@shows("loop")
@pytest.mark.parametrize("loop", LOOPS)
def test_loop(loop, train, tmp_path):
    real, used = trainer.CustomLoop, []

    def custom(*arguments):
        used.append("custom")
        return real(*arguments)

    with unittest.mock.patch.object(trainer, "CustomLoop", custom):
        done = train(loop=loop, logdir=str(tmp_path), run_name="run")
    assert used == (["custom"] if loop == "custom" else [])
    assert done.result["loop"] == done.config["config"]["loop"] == loop
    # Step for step the same numbers, whichever loop made them.
    assert done.losses == pytest.approx(train().losses, rel=1e-5)
    assert done.result["validation_loss"] == pytest.approx(
        train().result["validation_loss"], rel=1e-5
    )


@shows("epochs")
@pytest.mark.parametrize("loop", MOSTLY_CUSTOM)
def test_epochs(loop, train):
    done = train(epochs=3, steps_per_epoch=2, loop=loop)
    assert [(row["epoch"], row["step"]) for row in done.epochs] == [(0, 2), (1, 4), (2, 6)]
    assert done.column("step") == [1, 2, 3, 4, 5, 6]
    assert done.column("epoch") == [0, 0, 1, 1, 2, 2]
    assert done.result["epochs"] == len(done.result["epoch_time_sec"]) == 3


@shows("steps_per_epoch")
def test_steps_per_epoch(train):
    done = train(steps_per_epoch=3)
    assert done.column("step") == [1, 2, 3]
    assert done.result["steps_attempted"] == 3
    assert done.losses == train().losses[:3]


@shows("batch_size")
def test_batch_size(train):
    done = train(batch_size=25)
    assert done.built.data.train.element_spec[0].shape[0] == 25
    timed = [row for row in done.steps if records.STEP_TIME in row]
    assert timed
    for row in timed:
        assert row[records.THROUGHPUT] * row[records.STEP_TIME] == pytest.approx(25e3)
    assert done.losses[0] != train().losses[0]


@shows("seed")
def test_seed(train, tmp_path):
    first, other = train(), train(seed=1)
    again = train(logdir=str(tmp_path), run_name="again")
    assert again.losses == first.losses
    assert other.losses[0] != first.losses[0]
    assert np.abs(other.before["conv1/kernel"] - first.before["conv1/kernel"]).max() > 0.01
    assert (first.result["seed"], other.result["seed"]) == (0, 1)


@shows("deterministic")
@pytest.mark.slow
def test_deterministic(tmp_path):
    # In a process of its own: op determinism cannot be switched off again.
    code = f"""
        from tfamp.training import startup
        startup.import_tensorflow()
        from tensorflow.python.framework import config as tf_config
        from tfamp.run import records
        from tfamp.run.config import Config
        from tfamp.run.resolve import resolve
        from tfamp.training import trainer

        def losses(name, deterministic=True, augment="randaugment"):
            config = Config(model={TINY!r}, steps_per_epoch=3, epochs=1, batch_size=50,
                            augment=augment, deterministic=deterministic,
                            logdir={str(tmp_path)!r}, run_name=name)
            trainer.train(resolve(config), say=lambda line: None)
            return [row["train/loss"] for row in records.read_rows(
                f"{tmp_path}/{{name}}/metrics.jsonl")]

        # Not augmented: keras-cv's layers make a generator that they ask for under determinism.
        losses("off", deterministic=False, augment="none")
        assert not tf_config.is_op_determinism_enabled()
        first = losses("first")
        assert tf_config.is_op_determinism_enabled()
        assert first == losses("second"), first
        assert len(first) == 4
    """
    done = subprocess.run(
        [sys.executable, "-c", textwrap.dedent(code)], capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stderr


# The optimizer, on a model of one matrix.

LINEAR = {"model": f"{ODD}:linear"}


@shows("optimizer")
def test_optimizer(train):
    sgd = train(**LINEAR, steps_per_epoch=1, learning_rate=0.01)
    adamw = train(**LINEAR, steps_per_epoch=1, learning_rate=0.01, optimizer="adamw")
    assert type(sgd.built.optimizer.inner_optimizer).__name__ == "SGD"
    assert type(adamw.built.optimizer.inner_optimizer).__name__ == "AdamW"
    # Adam's first step is the learning rate in the direction of each gradient's sign.
    step = adamw.moved("head/bias")
    np.testing.assert_allclose(np.abs(step), 0.01, rtol=1e-2)
    np.testing.assert_array_equal(np.sign(step), np.sign(sgd.moved("head/bias")))


@shows("learning_rate")
def test_learning_rate(train):
    done = train(**LINEAR, learning_rate=0.025, steps_per_epoch=1)
    assert done.column(records.LEARNING_RATE) == pytest.approx([0.025])
    twice = train(**LINEAR, learning_rate=0.05, steps_per_epoch=1)
    np.testing.assert_allclose(twice.moved("head/bias"), 2 * done.moved("head/bias"), rtol=1e-4)


@shows("lr_schedule")
def test_lr_schedule(train):
    assert train(**LINEAR, learning_rate=0.2).column(records.LEARNING_RATE) == pytest.approx(
        [0.2] * 4
    )
    done = train(**LINEAR, lr_schedule="cosine", learning_rate=0.2, epochs=2)
    expected = [0.1 * (1 + math.cos(math.pi * k / 8)) for k in range(8)]
    assert done.column(records.LEARNING_RATE) == pytest.approx(expected, rel=1e-5)


@shows("warmup_steps")
def test_warmup_steps(train):
    done = train(
        **LINEAR, lr_schedule="cosine", learning_rate=0.2, warmup_steps=3, steps_per_epoch=8
    )
    warm = [0.2 * k / 3 for k in range(3)]
    cool = [0.1 * (1 + math.cos(math.pi * k / 5)) for k in range(5)]
    assert done.column(records.LEARNING_RATE) == pytest.approx(warm + cool, rel=1e-5, abs=1e-8)


@shows("warmup_steps")
def test_warmup_steps_before_a_constant(train):
    done = train(**LINEAR, learning_rate=0.2, warmup_steps=2)
    expected = [0.0, 0.1, 0.2, 0.2]
    assert done.column(records.LEARNING_RATE) == pytest.approx(expected, abs=1e-8)


@shows("weight_decay")
@pytest.mark.parametrize("optimizer", ["sgd", "adamw"])
def test_weight_decay(optimizer, train):
    values = {
        "model": f"{ODD}:biased",
        "optimizer": optimizer,
        "learning_rate": 0.1,
        "steps_per_epoch": 1,
    }
    without, decayed = train(**values), train(weight_decay=0.5, **values)
    kinds = set()
    for path, start in without.before.items():
        if "moving_" in path:
            continue
        kinds.add(path.rpartition("/")[2])
        # Decoupled: lr x decay x weight, besides what the gradient does.
        expected = -0.1 * 0.5 * start if path.endswith("kernel") else np.zeros_like(start)
        np.testing.assert_allclose(
            decayed.after[path] - without.after[path], expected, atol=2e-6, err_msg=path
        )
    assert kinds == {"kernel", "bias", "gamma", "beta"}


@shows("momentum")
def test_momentum(train):
    first = train(**LINEAR, momentum=0.0, steps_per_epoch=1)
    second = train(**LINEAR, momentum=0.0, steps_per_epoch=2)
    heavy = train(**LINEAR, momentum=0.5, steps_per_epoch=2)
    # v2 = m v1 - lr g2, and v1 is the first step.
    difference = heavy.after["head/kernel"] - second.after["head/kernel"]
    np.testing.assert_allclose(difference, 0.5 * first.moved("head/kernel"), atol=1e-6)
    assert np.abs(difference).max() > 1e-4


@shows("label_smoothing")
@pytest.mark.parametrize("loop", MOSTLY_CUSTOM)
def test_label_smoothing(loop, train):
    done = train(steps_per_epoch=1, label_smoothing=0.5, loop=loop)
    # The same weights and the same batch once more, and the formula in NumPy.
    run = trainer.build(resolve(Config(**{"model": TINY, "batch_size": 50})))
    images, labels = next(iter(run.data.train))
    logits = np.float64(run.model(images, training=True))
    log_p = logits - np.log(np.exp(logits).sum(-1, keepdims=True))
    smooth = 0.5 * np.float64(labels) + 0.5 / 10
    expected = -(smooth * log_p).sum(-1).mean()
    plain = -(labels * log_p).numpy().sum(-1).mean()
    assert done.losses[0] == pytest.approx(expected, rel=1e-6)
    assert train(loop=loop).losses[0] == pytest.approx(plain, rel=1e-6)
    assert abs(expected - plain) > 1e-4


@shows("clip_global_norm")
@pytest.mark.parametrize(("policy", "loop"), [("float32", "fit"), ("mixed_float16", "custom")])
def test_clip_global_norm(policy, loop, train):
    values = {"momentum": 0.0, "learning_rate": 0.5, "steps_per_epoch": 1, "policy": policy}

    def step_norm(outcome):
        variables = [weight.path for weight in outcome.built.model.trainable_weights]
        return math.sqrt(sum(np.square(outcome.moved(path)).sum() for path in variables))

    plain, clipped = train(loop=loop, **values), train(loop=loop, clip_global_norm=0.125, **values)
    (norm,) = clipped.column(records.GRADIENT_NORM)
    # The row holds the gradient's own norm, unscaled and before clipping.
    assert norm > 0.25
    assert norm == pytest.approx(plain.column(records.GRADIENT_NORM)[0], rel=1e-3)
    assert step_norm(plain) == pytest.approx(0.5 * norm, rel=1e-3)
    assert step_norm(clipped) == pytest.approx(0.5 * 0.125, rel=1e-3)


@shows("ema_momentum")
@pytest.mark.parametrize("loop", MOSTLY_CUSTOM)
def test_ema_momentum(loop, train):
    first = train(**LINEAR, steps_per_epoch=1, loop=loop)
    second = train(**LINEAR, steps_per_epoch=2, loop=loop)
    averaged = train(**LINEAR, steps_per_epoch=2, ema_momentum=0.75, loop=loop)
    assert averaged.losses == pytest.approx(second.losses, rel=1e-6)
    # Evaluated, and left in the model, is the average of what the two steps left.
    for weight in second.built.model.trainable_weights:
        expected = 0.75 * first.after[weight.path] + 0.25 * second.after[weight.path]
        np.testing.assert_allclose(averaged.after[weight.path], expected, atol=1e-6)
    measured = averaged.built.model.evaluate(
        averaged.built.data.validation, verbose=0, return_dict=True
    )
    assert averaged.result["validation_loss"] == pytest.approx(measured["loss"], rel=1e-3)
    assert averaged.result["validation_loss"] != pytest.approx(
        second.result["validation_loss"], rel=1e-3
    )


@shows("ema_momentum")
@pytest.mark.parametrize("loop", MOSTLY_FIT)
def test_ema_leaves_training_alone(loop, train):
    """Evaluation swaps the average in; the next epoch goes on from the weights themselves."""
    plain = train(**LINEAR, epochs=2, steps_per_epoch=2, loop=loop)
    averaged = train(**LINEAR, epochs=2, steps_per_epoch=2, loop=loop, ema_momentum=0.75)
    assert averaged.losses == pytest.approx(plain.losses, rel=1e-4)


@shows("accumulation_steps")
@pytest.mark.parametrize("loop", MOSTLY_CUSTOM)
def test_accumulation_steps(loop, train):
    plain = train(**LINEAR, loop=loop)
    done = train(**LINEAR, accumulation_steps=2, lr_schedule="cosine", loop=loop)
    assert plain.result["steps_attempted"] == plain.result["steps_applied"] == 4
    assert done.result["steps_attempted"] == done.result["steps_applied"] == 2
    norms = done.column(records.GRADIENT_NORM)
    assert [norm is None for norm in norms] == [True, False, True, False]
    # The schedule counts updates: the same rate within a group, half way at the second of two.
    rates = done.column(records.LEARNING_RATE)
    assert rates == pytest.approx([0.1, 0.1, 0.05, 0.05], rel=1e-5)
    assert done.losses[0] == pytest.approx(plain.losses[0], rel=1e-6)
    assert done.losses[1] != pytest.approx(plain.losses[1], rel=1e-6)


# The loss scale.

FLOAT16 = {"policy": "mixed_float16", "model": f"{ODD}:float16_in_the_middle"}


@shows("loss_scale")
@pytest.mark.parametrize("loop", MOSTLY_FIT)
def test_loss_scale_none(loop, train):
    with pytest.warns(UserWarning, match=naming("float16", "nothing scales the loss")):
        done = train(loss_scale="none", loop=loop, **FLOAT16)
    assert done.result["loss_scale"] is None
    assert not any(name.startswith("scale/") for row in done.rows for name in row)


@shows("loss_scale")
@pytest.mark.parametrize("loop", MOSTLY_CUSTOM)
def test_loss_scale_static(loop, train):
    done = train(loss_scale="1024", loop=loop, **FLOAT16)
    assert done.column(records.SCALE) == [1024.0] * 4
    assert done.result["loss_scale"] == {
        "mode": "static", "initial": 1024.0, "final": 1024.0, "min": 1024.0, "max": 1024.0,
        "skipped": 0, "skipped_non_finite_loss": 0, "collapsed_at": None, "first_skips": [],
    }  # fmt: skip


@shows("loss_scale")
def test_loss_scale_static_does_not_move_when_it_overflows(train_any):
    done = train_any(loss_scale=str(2.0**30), **FLOAT16)
    assert done.column(records.SCALE) == [2.0**30] * 4
    assert done.column(records.SKIPPED_IN_A_ROW) == [1, 2, 3, 4]
    assert done.result["steps_applied"] == 0
    # A run without one applied step is no success.
    assert "No step was applied" in str(done.error)
    np.testing.assert_array_equal(done.moved("conv/kernel"), 0)


@shows("loss_scale", "initial_loss_scale")
def test_loss_scale_dynamic(train):
    assert train(**FLOAT16).column(records.SCALE) == [2.0**15] * 4
    done = train(initial_loss_scale=2.0**10, **FLOAT16)
    assert done.column(records.SCALE) == [2.0**10] * 4
    assert done.result["loss_scale"]["mode"] == "dynamic"
    assert done.result["loss_scale"]["initial"] == 2.0**10


@shows("loss_scale")
def test_loss_scale_auto(train):
    """What it begins with is in the first batch's window, and trains as when it is given."""
    done = train(loss_scale="auto", **FLOAT16)
    scale = done.result["loss_scale"]
    window = scale["auto"]["window"]
    assert scale["initial"] == scale["auto"]["initial"] == done.column(records.SCALE)[0]
    assert 2.0 ** window["log2_min"] <= scale["initial"] <= 2.0 ** window["log2_max"]
    assert scale["stayed_in_window"] is True and scale["skipped"] == 0
    assert done.config["config"]["initial_loss_scale"] == scale["initial"]
    given = train(initial_loss_scale=scale["initial"], **FLOAT16)
    assert done.losses == given.losses
    assert list(done.before) == list(given.before)
    for path, weight in done.before.items():
        np.testing.assert_array_equal(weight, given.before[path])
        np.testing.assert_array_equal(done.after[path], given.after[path])


@shows("loss_scale_growth_steps")
@pytest.mark.parametrize("loop", MOSTLY_FIT)
def test_loss_scale_growth_steps(loop, train):
    done = train(loss_scale_growth_steps=2, initial_loss_scale=256.0, loop=loop, **FLOAT16)
    assert done.column(records.SCALE) == [256.0, 256.0, 512.0, 512.0]
    assert done.column(records.GROWTH_COUNTER) == [1, 0, 1, 0]
    assert done.result["loss_scale"]["final"] == done.result["loss_scale"]["max"] == 1024.0


@shows("loss_scale_growth_factor")
def test_loss_scale_growth_factor(train):
    done = train(
        loss_scale_growth_steps=2, initial_loss_scale=256.0, loss_scale_growth_factor=4.0, **FLOAT16
    )
    assert done.column(records.SCALE) == [256.0, 256.0, 1024.0, 1024.0]


@shows("loss_scale_backoff_factor")
@pytest.mark.parametrize(("factor", "loop"), [(0.5, "fit"), (0.25, "custom")])
def test_loss_scale_backoff_factor(factor, loop, train):
    values = {"initial_loss_scale": 2.0**24, "loss_scale_backoff_factor": factor, "loop": loop}
    # Enough steps to come down to a scale that works: a run without one is no success.
    done = train(steps_per_epoch=12, **values, **FLOAT16)
    scales, in_a_row = done.column(records.SCALE), done.column(records.SKIPPED_IN_A_ROW)
    assert scales[:2] == [2.0**24, factor * 2.0**24]
    for before, after, skipped in zip(scales, scales[1:], in_a_row, strict=False):
        assert after == (factor * before if skipped else before)
    skips = [row["step"] for row in done.steps if row[records.SKIPPED_IN_A_ROW]]
    assert 1 in skips
    assert done.result["loss_scale"]["first_skips"] == skips
    assert done.result["loss_scale"]["skipped"] == len(skips)
    assert done.result["steps_applied"] == 12 - len(skips)


@shows("max_loss_scale")
def test_max_loss_scale(train):
    done = train(
        loss_scale_growth_steps=1, initial_loss_scale=256.0, max_loss_scale=600.0, **FLOAT16
    )
    assert done.column(records.SCALE) == [256.0, 512.0, 600.0, 600.0]


@shows("min_loss_scale")
@pytest.mark.parametrize("loop", MOSTLY_CUSTOM)
def test_min_loss_scale(loop, train_any):
    done = train_any(
        policy="mixed_float16",
        model=f"{ODD}:overflows",
        initial_loss_scale=2.0**12,
        min_loss_scale=2.0**11 - 48.0,
        loss_scale_backoff_factor=0.5 - 1 / 64,
        loop=loop,
        log_every=1,
    )
    # The floor, not the product; and at the floor a further skip is the end.
    assert done.column(records.SCALE) == [2.0**12, 2.0**11 - 48.0]
    assert isinstance(done.error, LossScaleCollapse)
    assert done.result["status"] == "failed"
    assert done.result["loss_scale"]["final"] == done.result["loss_scale"]["min"] == 2.0**11 - 48.0


@shows("loss_scale_recovery_steps")
@pytest.mark.parametrize(("steps", "then"), [(2, [4, 4, 5, 5, 6]), (None, [4, 4, 4, 4, 4])])
def test_loss_scale_recovery_steps(steps, then, train_any):
    done = train_any(
        policy="mixed_float16",
        model=f"{ODD}:overflows_eight_times",
        initial_loss_scale=2.0**12,
        loss_scale_recovery_steps=steps,
        steps_per_epoch=13,
    )
    assert done.error is None
    assert np.log2(done.column(records.SCALE)).tolist() == [*range(12, 4, -1), *then]
    assert done.result["loss_scale"]["skipped"] == 8


@shows("max_skipped_in_a_row")
@pytest.mark.parametrize(
    ("loss_scale", "loop"),
    [("dynamic", "fit"), ("1024", "custom"), slow("dynamic", "custom"), slow("1024", "fit")],
)
def test_max_skipped_in_a_row(loss_scale, loop, train_any):
    values = FLOAT16 | {"model": f"{ODD}:overflows", "loop": loop, "log_every": 1}
    endless = train_any(loss_scale=loss_scale, **values)
    assert "No step was applied" in str(endless.error)
    assert endless.result["loss_scale"]["skipped"] == 4
    done = train_any(loss_scale=loss_scale, max_skipped_in_a_row=2, **values)
    assert isinstance(done.error, LossScaleCollapse)
    assert done.column(records.SKIPPED_IN_A_ROW) == [1, 2, 3]
    assert done.result["status"] == "failed"
    assert says(done.result["error"], "LossScaleCollapse: ", "step 3")
    np.testing.assert_array_equal(done.moved("conv/kernel"), 0)


@shows("stop_on_non_finite")
@pytest.mark.parametrize("loop", MOSTLY_CUSTOM)
def test_stop_on_non_finite(loop, train_any):
    values = {"model": f"{ODD}:nan_at_step_3", "steps_per_epoch": 8, "loop": loop}
    assert train_any(**values).column("step") == [1, 2, 3, 4]
    on = train_any(stop_on_non_finite=False, **values)
    assert on.column("step") == [1, 2, 3, 4, 5, 6, 7, 8]
    assert on.result["non_finite"]["weight"] == "head/kernel"


@shows(
    "initial_loss_scale",
    "loss_scale_growth_steps",
    "loss_scale_growth_factor",
    "loss_scale_backoff_factor",
    "min_loss_scale",
    "max_loss_scale",
    "loss_scale_recovery_steps",
    "max_skipped_in_a_row",
    "loss_scale",
)
@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("loss_scale", "1024"),
        ("initial_loss_scale", 1024.0),
        ("loss_scale_growth_steps", 2),
        ("loss_scale_growth_factor", 4.0),
        ("loss_scale_backoff_factor", 0.25),
        ("min_loss_scale", 1.0),
        ("max_loss_scale", 2.0**20),
        ("loss_scale_recovery_steps", 2),
        ("max_skipped_in_a_row", 2),
    ],
)
def test_a_scale_for_a_users_model_without_float16_is_refused(name, value):
    """What the door cannot know is said once the model is there, not passed over."""
    with pytest.raises(InputError, match=naming(f"{name}=", TINY, "computes in float16")):
        trainer.build(resolve(Config(model=TINY, **{name: value})))
    # And one float16 layer is enough for it to work.
    model = f"{ODD}:float16_in_the_middle"
    run = trainer.build(resolve(Config(model=model, **{name: value})))
    assert run.optimizer.is_scaling


# How it is executed.


@shows("jit_compile")
@pytest.mark.parametrize("loop", MOSTLY_CUSTOM)
def test_jit_compile(loop, train):
    done = train(jit_compile=True, loop=loop)
    assert done.built.model.jit_compile is True
    assert done.result["jit_compile"] is True
    assert train(loop=loop).result["jit_compile"] is False
    assert train(loop=loop).built.model.jit_compile is False
    assert done.losses == pytest.approx(train(loop=loop).losses, rel=1e-4)


@shows("jit_compile")
@pytest.mark.parametrize("asked", [True, False])
def test_jit_compile_reaches_the_custom_loop(asked):
    run = trainer.build(resolve(Config(model=f"{ODD}:linear", jit_compile=asked)))
    loop = trainer.CustomLoop(run.model)
    assert loop._one_step._jit_compile is asked


@shows("jit_compile")
@pytest.mark.parametrize("policy", POLICIES)
def test_jit_compile_default(policy):
    with policy_lib.global_policy(policy):
        run = trainer.build(resolve(Config(model=TINY, policy=policy)))
    on_gpu = bool(tf.config.list_physical_devices("GPU"))
    expected = on_gpu or policy in ("float16", "mixed_float16")
    assert run.model.jit_compile is expected
    assert run.config.jit_compile is expected


@shows("steps_per_execution")
@pytest.mark.parametrize(
    ("log_every", "loop"), [(1, "custom"), (4, "fit"), slow(1, "fit"), slow(4, "custom")]
)
def test_steps_per_execution(loop, log_every, train):
    one = train(loop=loop, steps_per_epoch=6, epochs=2)
    many = train(loop=loop, steps_per_epoch=6, epochs=2, steps_per_execution=3, log_every=log_every)
    assert many.built.model.steps_per_execution == 3
    assert many.column("step") == one.column("step") == list(range(1, 13))
    assert many.losses == pytest.approx(one.losses, rel=1e-5)
    assert many.column("epoch") == one.column("epoch")
    for mine, other in zip(many.epochs, one.epochs, strict=True):
        assert mine["step"] == other["step"]
        assert mine[records.TRAIN_LOSS] == pytest.approx(other[records.TRAIN_LOSS], rel=1e-5)


@shows("steps_per_execution")
def test_steps_per_execution_above_an_epoch(train):
    with pytest.raises(InputError, match=naming("steps_per_execution=5", "4 steps")):
        train(steps_per_execution=5)


@shows("profile_steps")
@pytest.mark.parametrize("loop", MOSTLY_FIT)
def test_profile_steps(loop, train):
    plain = train(loop=loop)
    assert not (plain.path / "train" / "plugins").exists()
    done = train(loop=loop, profile_steps=(2, 3))
    (trace,) = (done.path / "train" / "plugins" / "profile").glob("*/*.xplane.pb")
    assert trace.stat().st_size > 1000
    assert done.losses == pytest.approx(plain.losses, rel=1e-5)


@shows("profile_steps")
@pytest.mark.parametrize(
    ("wanted", "steps_per_execution", "traced", "loop"),
    [
        ((2, 3), 1, [2, 3], "custom"),
        ((4, 5), 2, [3, 4, 5, 6], "fit"),
        ((7, 99), 1, [7, 8], "custom"),
        slow((2, 3), 1, [2, 3], "fit"),
        slow((4, 5), 2, [3, 4, 5, 6], "custom"),
        slow((7, 99), 1, [7, 8], "fit"),
    ],
)
def test_profile_steps_traces_these_steps(
    wanted, steps_per_execution, traced, loop, train, tmp_path, monkeypatch
):
    """Over two epochs of four steps; the profiler is replaced by one that notes the steps."""
    noted = []

    class Noting(trainer.ProfileSteps):
        def on_train_batch_begin(self, batch, logs=None):
            super().on_train_batch_begin(batch, logs)
            if self._is_tracing:
                first = self._telemetry.step + 1
                noted.extend(range(first, first + steps_per_execution))

    monkeypatch.setattr(tf.profiler.experimental, "start", lambda logdir: None)
    monkeypatch.setattr(tf.profiler.experimental, "stop", lambda: None)
    monkeypatch.setattr(trainer, "ProfileSteps", Noting)
    train(
        profile_steps=wanted,
        steps_per_execution=steps_per_execution,
        loop=loop,
        epochs=2,
        model=f"{ODD}:linear",
        logdir=str(tmp_path),
        run_name="run",
    )
    assert noted == traced


@shows("profile_steps")
def test_profile_steps_after_the_end(train):
    with pytest.raises(InputError, match=naming("profile_steps=(9, 10)", "4 steps")):
        train(profile_steps=(9, 10))


@shows("profile_steps")
@pytest.mark.parametrize(
    ("scripts", "is_installed", "command"),
    [
        ("", True, "python -m tensorboard.main --logdir runs"),
        (
            "",
            False,
            "python -m pip install tensorboard-plugin-profile && "
            "python -m tensorboard.main --logdir runs",
        ),
        ("scripts", True, "scripts/tensorboard.sh runs"),
        ("scripts", False, "TFAMP_EXTRAS=profile scripts/tensorboard.sh runs"),
    ],
)
def test_a_profiled_run_says_how_to_see_the_trace(scripts, is_installed, command, monkeypatch):
    def distribution(name):
        assert name == "tensorboard-plugin-profile"
        if not is_installed:
            raise importlib.metadata.PackageNotFoundError(name)

    monkeypatch.setattr(importlib.metadata, "distribution", distribution)
    monkeypatch.delenv("TFAMP_VENV", raising=False)
    monkeypatch.setenv("TFAMP_SCRIPTS", scripts)
    said = []
    run = trainer.build(resolve(Config(**SHORT, profile_steps=(2, 3))))
    description.say_what(run, said.append)
    (line,) = [line for line in said if "Profile" in line]
    assert says(line, "Steps 2 to 3") and line.endswith(f": {command}")


# Where it is written.


@shows("logdir", "run_name")
def test_logdir_and_run_name(train, tmp_path):
    logdir = tmp_path / "new" / "logs"
    train(logdir=str(logdir), run_name="mine", steps_per_epoch=1)
    train(logdir=str(logdir), steps_per_epoch=1, model=f"{ODD}:linear", seed=2)
    named, unnamed = sorted(os.listdir(logdir), key=len)
    assert named == "mine"
    assert unnamed.endswith("odd_models.py_linear-fashion_mnist_mini-float32-fit-seed2")
    for run in (named, unnamed):
        assert {"config.json", "metrics.jsonl", "result.json", "train", "validation"} <= set(
            os.listdir(logdir / run)
        )


@shows("log_every")
@pytest.mark.parametrize(
    ("log_every", "timed", "loop"),
    # The first step compiles and is not timed; the end of the epoch is a mark too.
    [
        (1, [2, 3, 4], "fit"),
        (3, [3, 4], "custom"),
        slow(2, [2, 4], "fit"),
        slow(1, [2, 3, 4], "custom"),
        slow(2, [2, 4], "custom"),
        slow(3, [3, 4], "fit"),
    ],
)
def test_log_every(log_every, timed, loop, train):
    done = train(log_every=log_every, loop=loop)
    assert done.column("step") == [1, 2, 3, 4]
    assert None not in done.losses
    assert done.losses == pytest.approx(train(loop=loop).losses, rel=1e-6)
    assert [row["step"] for row in done.steps if records.STEP_TIME in row] == timed
    assert done.result["step_time_ms"]["n"] == 3


@shows("underflow_every", "underflow_of")
@pytest.mark.parametrize("of", ["weights", "activations"])
def test_underflow_meter_sees_the_same_in_both_loops(of, train):
    scaled = {"policy": "mixed_float16", "loss_scale": "0.0009765625"}
    values = scaled | {"underflow_every": 2, "underflow_of": of}
    seen = {}
    for loop in LOOPS:
        done = train(loop=loop, **values)
        seen[loop] = [row for row in done.rows if row["kind"] == "underflow"]
        assert [row["step"] for row in seen[loop]] == [2, 4]
        assert {row["of"] for row in seen[loop]} == {done.result["underflow"]["of"]} == {of}
        layers = {"conv1", "norm1", "conv2", "head"}
        layers |= set() if of == "weights" else {"relu1", "pool"}
        assert set(seen[loop][0]["layers"]) == layers
        # It changes nothing.
        without = train(loop=loop, **scaled)
        assert done.losses == without.losses
        for name, weight in done.after.items():
            np.testing.assert_array_equal(weight, without.after[name])
    fit, custom = seen["fit"][0], seen["custom"][0]
    assert fit == custom
    assert fit[records.UNDERFLOW] > 0


@shows("save_model")
@pytest.mark.parametrize("wanted", [True, False])
def test_save_model(wanted, train, tmp_path, monkeypatch):
    # Whether it loads is tried in tests/training/test_trainer_saving.py.
    monkeypatch.setattr(saving, "why_it_does_not_load", lambda path, expected: None)
    done = train(save_model=wanted, steps_per_epoch=1, logdir=str(tmp_path), run_name="run")
    files = {"final.weights.h5", "model.keras"}
    assert files & {path.name for path in done.path.iterdir()} == (files if wanted else set())
    assert done.result["saved"]["weights"] == ("final.weights.h5" if wanted else None)
    why_not = None if wanted else "--nosave_model was set."
    assert done.result["saved"]["why_no_model"] == why_not
    assert done.result["saved"]["why_no_weights"] == why_not


@shows("save_best")
@pytest.mark.parametrize("loop", MOSTLY_CUSTOM)
def test_save_best(loop, train):
    # The learning rate wrecks what was learned before.
    done = train(save_best=True, epochs=3, learning_rate=3.0, loop=loop)
    accuracies = [epoch[records.VALIDATION_ACCURACY] for epoch in done.epochs]
    saved = done.result["saved"]
    assert (saved["best"], saved["weights"]) == ("best.weights.h5", None)
    assert saved["best_epoch"] == int(np.argmax(accuracies))
    assert saved["best_validation_accuracy"] == max(accuracies)
    run = done.built
    run.model.load_weights(done.path / "best.weights.h5")
    logs = run.model.evaluate(run.data.validation, verbose=0, return_dict=True)
    assert logs["accuracy"] == pytest.approx(max(accuracies))
    assert train().result["saved"]["best"] is None


@shows("overwrite")
def test_overwrite(train, tmp_path):
    place = {"logdir": str(tmp_path), "run_name": "mine"}
    first = train(steps_per_epoch=1, **place)
    kept = (first.path / "metrics.jsonl").read_bytes()
    with pytest.raises(InputError, match=naming(first.path, "finished", "overwrite=True")):
        train(steps_per_epoch=2, **place)
    assert (first.path / "metrics.jsonl").read_bytes() == kept
    second = train(steps_per_epoch=2, overwrite=True, **place)
    assert second.column("step") == [1, 2]
