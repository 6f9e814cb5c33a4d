"""A run that loss scaling gives up: what is said, what is written, what is kept."""

import contextlib
import json
from pathlib import Path

import numpy as np
import pytest

from tests.marks import slow
from tfamp.precision.collapse import LossScaleCollapse
from tfamp.run import records
from tfamp.run.config import Config
from tfamp.run.resolve import resolve
from tfamp.training import trainer

BREAKING = Path(__file__).parent / "breaking_model.py"
HEALTHY_STEPS = 4


@pytest.fixture
def train(tmp_path, monkeypatch):
    """Runs the driver; returns the model, the error if there was one, and the run directory."""
    built = []
    build = trainer.build

    def remember(config):
        built.append(build(config))
        return built[-1]

    monkeypatch.setattr(trainer, "build", remember)

    def run(bad, loop, strategy=None, **values):
        common = {"dataset": "fashion_mnist_mini", "batch_size": 50, "epochs": 1,
                  "steps_per_epoch": 12, "log_every": 2, "policy": "mixed_float16",
                  "jit_compile": False, "lr_schedule": "constant",
                  "loss_scale_growth_steps": 1000, "save_model": False}  # fmt: skip
        place = {"model": f"{BREAKING}:with_{bad}", "loop": loop, "logdir": str(tmp_path)}
        config = resolve(Config(**(common | place | values)))
        error = None
        with strategy.scope() if strategy else contextlib.nullcontext():
            try:
                trainer.train(config, say=lambda line: None)
            except LossScaleCollapse as collapse:
                error = collapse
        return built[-1].model, error, tmp_path / config.run_name

    return run


def weights_of(model):
    return [np.array(weight.value) for weight in model.trainable_variables]


CASES = [
    # The scale falls from 4 to 2, the floor, where the second skip is the collapse.
    ("inf", {"initial_loss_scale": 4.0, "min_loss_scale": 2.0}, 6, 2.0),
    ("nan", {"initial_loss_scale": 1024.0, "max_skipped_in_a_row": 2}, 7, 256.0),
    ("nan", {"loss_scale": "64", "max_skipped_in_a_row": 2}, 7, 64.0),
]


@pytest.mark.parametrize(
    ("bad", "values", "step", "scale", "replicas", "loop"),
    [
        (*CASES[0], 1, "fit"),
        (*CASES[0], 2, "custom"),
        (*CASES[1], 1, "custom"),
        slow(*CASES[2], 1, "fit"),
        slow(*CASES[0], 1, "custom"),
        slow(*CASES[0], 2, "fit"),
        slow(*CASES[1], 1, "fit"),
        slow(*CASES[2], 1, "custom"),
    ],
)
def test_a_collapse_stops_the_run_at_the_next_mark(
    train, two_replicas, bad, values, step, scale, loop, replicas
):
    strategy = two_replicas if replicas == 2 else None
    model, error, directory = train(bad, loop, strategy, run_name="broken", **values)
    assert (error.step, error.has_nan) == (step, bad == "nan")
    assert error.variable.endswith("breaks/shift")
    for part in (f"step {step}", f"scale {scale:g}", "NaN" if bad == "nan" else "Inf"):
        assert part in str(error)
    # Marks are at every second step.
    mark = step + step % 2
    result = json.loads((directory / "result.json").read_text())
    assert result["status"] == "failed"
    assert result["error"] == f"LossScaleCollapse: {error}"
    assert (result["steps_attempted"], result["steps_applied"]) == (mark, HEALTHY_STEPS)
    assert result["loss_scale"]["first_skips"] == list(range(HEALTHY_STEPS + 1, mark + 1))
    rows = records.read_rows(directory / "metrics.jsonl")
    assert [row["step"] for row in rows if row["kind"] == "step"] == list(range(1, mark + 1))
    # The weights are those of the last applied step: of a run that ends there.
    healthy, none, _ = train(
        bad, loop, strategy, run_name="healthy", steps_per_epoch=HEALTHY_STEPS, **values
    )
    assert none is None
    for kept, expected in zip(weights_of(model), weights_of(healthy), strict=True):
        np.testing.assert_array_equal(kept, expected)
