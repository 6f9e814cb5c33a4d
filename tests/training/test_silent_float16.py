"""float16 that Keras's `compile` does not notice is scaled by the driver, or else named."""

import json
import warnings
from pathlib import Path

import keras
import numpy as np
import pytest
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator
from tensorboard.plugins.hparams import metadata

import tfamp
from tests.marks import slow
from tfamp.precision import policy as policy_lib
from tfamp.run import records
from tfamp.run.config import Config
from tfamp.run.resolve import resolve
from tfamp.training import trainer

MODELS = Path(__file__).with_name("float16_models.py")
# The first two are found in two ways; the others are as one of them.
CASES = [
    ("float32", "policy_map"),
    ("float32", "nested"),
    slow("float32", "one_layer"),
    slow("mixed_bfloat16", "one_layer"),
    slow("float16", "plain"),
]


def train(tmp_path, policy, model, **values):
    """Four steps of the driver; returns the result and its warnings."""
    config = resolve(
        Config(**{"model": f"{MODELS}:{model}", "policy": policy, "dataset": "fashion_mnist_mini",
                  "steps_per_epoch": 4, "batch_size": 50, "epochs": 1, "jit_compile": False,
                  "logdir": str(tmp_path), "save_model": False} | values)
    )  # fmt: skip
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always", UserWarning)
        result = trainer.train(config, say=lambda line: None).result
    return result, [str(warning.message) for warning in caught if "float16" in str(warning.message)]


@pytest.mark.parametrize(
    ("policy", "model", "loop"),
    [
        ("float32", "policy_map", "fit"),
        ("float32", "one_layer", "custom"),
        ("float16", "plain", "fit"),
        slow("mixed_bfloat16", "one_layer", "fit"),
        slow("float32", "nested", "fit"),
        slow("float32", "nested", "custom"),
        slow("float32", "one_layer", "fit"),
        slow("float32", "policy_map", "custom"),
        slow("mixed_bfloat16", "one_layer", "custom"),
        slow("float16", "plain", "custom"),
    ],
)
def test_the_driver_scales_it(tmp_path, policy, model, loop):
    # The first steps overflow float16 at this scale: it shows that the scale reaches the gradients.
    values = {"loop": loop, "initial_loss_scale": 2.0**24, "steps_per_epoch": 24}
    result, said = train(tmp_path, policy, model, **values)
    scale = result.figures.loss_scale
    assert scale.mode == "dynamic" and scale.skipped > 0 and scale.final < 2.0**24
    assert said == []


@pytest.mark.parametrize(("policy", "model"), CASES)
def test_the_driver_names_the_layers_that_nothing_scales(tmp_path, policy, model):
    result, said = train(tmp_path, policy, model, loss_scale="none")
    assert result.figures.loss_scale is None
    assert len(said) == 1 and "half_conv" in said[0]


@pytest.mark.parametrize("policy", [slow("float32"), "mixed_bfloat16"])
def test_the_driver_scales_nothing_where_nothing_is_float16(tmp_path, policy):
    result, said = train(tmp_path, policy, "plain")
    assert result.figures.loss_scale is None and said == []


SCALES = [
    ("float32", "plain", "dynamic", "not used"),
    ("mixed_bfloat16", "plain", "none", "not used"),
    ("float32", "one_layer", "dynamic", "dynamic"),
    ("mixed_float16", "plain", "1024.0", "1024"),
    ("float16", "plain", "none", "none"),
]


@pytest.mark.parametrize(
    ("policy", "model", "loss_scale", "chosen", "loop"),
    # Each in one of the loops, by turns; the other is slow.
    [(*case, ("fit", "custom")[i % 2]) for i, case in enumerate(SCALES)]
    + [slow(*case, ("custom", "fit")[i % 2]) for i, case in enumerate(SCALES)],
)
def test_the_driver_counts_zero_gradients_where_float16_computes(
    tmp_path, policy, model, loss_scale, chosen, loop
):
    train(tmp_path, policy, model, loop=loop, loss_scale=loss_scale, accumulation_steps=2)
    (run,) = tmp_path.iterdir()
    rows = [row for row in records.read_rows(run / "metrics.jsonl") if row["kind"] == "step"]
    figures = (records.GRADIENT_ZEROS, records.GRADIENT_NON_FINITE)
    for name in figures:
        shares = [row.get(name) for row in rows]
        # Two microbatches an update: only the second has figures.
        assert [share is not None for share in shares] == [False, chosen != "not used"] * 2
        assert all(0.0 <= share <= 1.0 for share in shares if share is not None)
    events = EventAccumulator(str(run / "train"))
    events.Reload()
    content = events.SummaryMetadata(metadata.SESSION_START_INFO_TAG).plugin_data.content
    session = metadata.parse_session_start_info_plugin_data(content)
    assert session.hparams["loss_scale"].string_value == chosen
    assert session.hparams["dataset"].string_value == "fashion_mnist_mini"


@pytest.mark.parametrize("is_scaled", [False, slow(True)])
@pytest.mark.parametrize(("policy", "name"), CASES)
def test_the_callback_names_the_layers_that_nothing_scales(tmp_path, policy, name, is_scaled):
    import float16_models

    images = np.zeros((8, 8, 8, 3), "float32")
    with policy_lib.global_policy(policy):
        model = getattr(float16_models, name)((8, 8, 3), 2)
        optimizer = keras.optimizers.SGD(0.1)
        if is_scaled:
            optimizer = tfamp.LossScaleOptimizer(optimizer)
        model.compile(optimizer, loss=keras.losses.CategoricalCrossentropy(from_logits=True))
        with warnings.catch_warnings(record=True) as caught:
            warnings.simplefilter("always", UserWarning)
            model.fit(images, np.eye(2, dtype="float32")[[0, 1] * 4], verbose=0,
                      callbacks=[tfamp.PrecisionTelemetry(tmp_path / "run")])  # fmt: skip
    said = [str(w.message) for w in caught if "compute in float16" in str(w.message)]
    assert json.loads((tmp_path / "run" / "result.json").read_text())["status"] == "completed"
    if is_scaled:
        assert said == []
    else:
        assert len(said) == 1 and "half_conv" in said[0] and "LossScaleOptimizer" in said[0]
