"""Short real runs, in this process, and what they left behind."""

from __future__ import annotations

import dataclasses
import json
import pathlib
import unittest.mock
from typing import Any

import numpy as np

from tfamp import train as command
from tfamp.run import records
from tfamp.run.config import Config
from tfamp.training import trainer

HERE = pathlib.Path(__file__).parent
TINY = f"{HERE / 'tiny_model.py'}:tiny"
ODD = str(HERE / "odd_models.py")

# Four steps of 50 Fashion-MNIST images: a second or two.
SHORT = {
    "model": TINY,
    "dataset": "fashion_mnist_mini",
    "epochs": 1,
    "steps_per_epoch": 4,
    "batch_size": 50,
    "log_every": 2,
    "lr_schedule": "constant",
    "weight_decay": 0.0,
    "jit_compile": False,
    # Whether it loads takes seconds to see: tests/training/test_trainer_saving.py pays for it.
    "save_model": False,
}


@dataclasses.dataclass
class Outcome:
    """What a run left: on disk, and of its model the weights before and after."""

    path: pathlib.Path
    built: trainer.BuiltRun | None
    before: dict[str, np.ndarray]
    after: dict[str, np.ndarray]
    error: BaseException | None

    @property
    def result(self) -> dict[str, Any]:
        return json.loads((self.path / "result.json").read_text())

    @property
    def config(self) -> dict[str, Any]:
        return json.loads((self.path / "config.json").read_text())

    @property
    def rows(self) -> list[dict[str, Any]]:
        return records.read_rows(self.path / "metrics.jsonl")

    @property
    def steps(self) -> list[dict[str, Any]]:
        return [row for row in self.rows if row["kind"] == "step"]

    @property
    def epochs(self) -> list[dict[str, Any]]:
        return [row for row in self.rows if row["kind"] == "epoch"]

    def column(self, name: str) -> list[Any]:
        """One figure over all step rows; None where a row has it not."""
        return [row.get(name) for row in self.steps]

    @property
    def losses(self) -> list[float]:
        return self.column(records.TRAIN_LOSS)

    def moved(self, path: str) -> np.ndarray:
        """How far a weight went."""
        return self.after[path] - self.before[path]


def weights_of(run: trainer.BuiltRun) -> dict[str, np.ndarray]:
    """Copies of all weights, under their paths."""
    return {weight.path: np.array(weight) for weight in run.model.weights}


def run_once(config: Config) -> Outcome:
    """Trains, and keeps the model's weights; an error of the run's is kept, not raised."""
    real, built, before, error = trainer.build, [], {}, None

    def build(values: Config) -> trainer.BuiltRun:
        built.append(real(values))
        before.update(weights_of(built[0]))
        return built[0]

    with unittest.mock.patch.object(trainer, "build", build):
        try:
            asked = {"epochs": config.epochs}
            trainer.train(config, ["train"], lambda line: None, asked, advise=command.advised_scale)
        except Exception as raised:
            error = raised
    run = built[0] if built else None
    return Outcome(
        path=pathlib.Path(config.logdir) / str(config.run_name),
        built=run,
        before=before,
        after=weights_of(run) if run else {},
        error=error,
    )
