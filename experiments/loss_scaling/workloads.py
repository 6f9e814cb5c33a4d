"""What is trained: a model, its loss, its batches, and how well it does what it is for."""

from __future__ import annotations

import abc
import dataclasses
from collections.abc import Iterator
from typing import Any, ClassVar

import keras
import numpy as np
import tensorflow as tf

from experiments.loss_scaling import detector, scenes
from tfamp.data import registry as data_registry
from tfamp.models import registry as model_registry

Batch = tuple[tf.Tensor, tf.Tensor]


@dataclasses.dataclass(frozen=True)
class Workload(abc.ABC):
    """A training, all but its precision, its loss scale and its seed.

    Attributes:
        num_steps: Steps of a run.
        batch_size: Examples of a step.
        learning_rate: Constant.
        jit_compile: Whether XLA compiles the step; float16 is slow on a CPU without it.
        loss_weight: What the loss is multiplied by, as one of several of a model.
        look_every: Steps between two looks at the run's gradient, and the steps over which its
            first and its last loss are averaged.
        score_name: What `score` measures, for axes and tables.
    """

    num_steps: int
    batch_size: int
    learning_rate: float
    jit_compile: bool = True
    loss_weight: float = 1.0
    look_every: int = 50
    score_name: ClassVar[str]

    @property
    @abc.abstractmethod
    def name(self) -> str:
        """What it is called in results."""

    @abc.abstractmethod
    def build(self) -> keras.Model:
        """The model, not compiled, under the global policy and random state."""

    @abc.abstractmethod
    def loss(self) -> keras.losses.Loss:
        """The loss."""

    @abc.abstractmethod
    def optimizer(self) -> keras.optimizers.Optimizer:
        """What updates the weights."""

    @abc.abstractmethod
    def batches(self, seed: int) -> Iterator[Batch]:
        """The batches of a seed, for ever."""

    @abc.abstractmethod
    def score(self, model: keras.Model) -> float:
        """How well a compiled model does on what it was not trained on, in [0, 1]."""

    def compile(self, model: keras.Model, optimizer: keras.optimizers.Optimizer) -> None:
        """Compiles a model that `build` made."""
        model.compile(
            optimizer,
            loss=self.loss(),
            loss_weights=[self.loss_weight],
            jit_compile=self.jit_compile,
        )

    def settings(self) -> dict[str, Any]:
        """What a run must share with another to be the same, for a results file."""
        return {"workload": self.name, **dataclasses.asdict(self)}


@dataclasses.dataclass(frozen=True)
class Detector(Workload):
    """The detector of `detector.py` on the scenes of `scenes.py`.

    Attributes:
        num_validation: Scenes that it is scored on.
        filters: Of each convolution.
        is_frozen: Whether the head alone trains, on what random convolutions make of a scene.
    """

    num_steps: int = 300
    batch_size: int = 32
    learning_rate: float = 2e-3
    num_validation: int = 256
    filters: int = detector.FILTERS
    is_frozen: bool = False
    QUICK: ClassVar[dict[str, Any]] = {
        "num_steps": 3, "batch_size": 2, "num_validation": 2, "filters": 2, "jit_compile": False,
    }  # fmt: skip
    # No step's of any training.
    validation_seed: ClassVar[tuple[int, int]] = (0, 2**32)
    score_name = "garments found"

    @property
    def name(self) -> str:
        """See `Workload`."""
        return "detector, head alone" if self.is_frozen else "detector"

    def build(self) -> keras.Model:
        """See `Workload`."""
        model = detector.build(self.filters)
        if self.is_frozen:
            for layer in model.layers[:-1]:
                layer.trainable = False
        return model

    def loss(self) -> keras.losses.Loss:
        """See `Workload`."""
        return detector.loss()

    def optimizer(self) -> keras.optimizers.Optimizer:
        """See `Workload`."""
        return keras.optimizers.Adam(self.learning_rate)

    def batches(self, seed: int) -> Iterator[Batch]:
        """See `Workload`."""
        training, _ = scenes.garments()
        step = 0
        while True:
            drawn = scenes.draw(training, self.batch_size, (seed, step))
            yield tf.constant(drawn.images), tf.constant(scenes.targets(drawn))
            step += 1

    def score(self, model: keras.Model) -> float:
        """See `Workload`."""
        _, validation = scenes.garments()
        drawn = scenes.draw(validation, self.num_validation, self.validation_seed)
        logits = model.predict(drawn.images, batch_size=64, verbose=0)
        return scenes.share_found(logits, drawn)


@dataclasses.dataclass(frozen=True)
class Classifier(Workload):
    """ResNet-20 on the embedded Fashion-MNIST, as `tfamp.train` trains it, at half its pixels."""

    num_steps: int = 300
    batch_size: int = 32
    learning_rate: float = 0.05
    image_size: int = 14
    score_name = "validation accuracy"

    @property
    def name(self) -> str:
        """See `Workload`."""
        return "resnet20"

    def _data(self, seed: int) -> data_registry.ImageData:
        return data_registry.load(
            "fashion_mnist_mini",
            batch_size=self.batch_size,
            seed=seed,
            image_size=self.image_size,
        )

    def build(self) -> keras.Model:
        """See `Workload`."""
        shape = (self.image_size, self.image_size, 1)
        return model_registry.build(self.name, shape, num_classes=10)

    def loss(self) -> keras.losses.Loss:
        """See `Workload`."""
        return keras.losses.CategoricalCrossentropy(from_logits=True)

    def optimizer(self) -> keras.optimizers.Optimizer:
        """See `Workload`."""
        return keras.optimizers.SGD(self.learning_rate, momentum=0.9)

    def batches(self, seed: int) -> Iterator[Batch]:
        """See `Workload`."""
        return iter(self._data(seed).train)

    def score(self, model: keras.Model) -> float:
        """See `Workload`."""
        right = [
            np.argmax(model.predict_on_batch(images), -1) == np.argmax(labels, -1)
            for images, labels in self._data(0).validation
        ]
        return float(np.concatenate(right).mean())
