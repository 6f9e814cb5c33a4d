"""Every private name of Keras, TensorFlow and keras-cv that training uses, and nothing else.

Those that only diagnosis and meters need are in `layer_internals`. None has a public counterpart
that does the same. Each function says where the name stands and in which version it was read;
tests/precision/test_keras_internals.py says what breaks here when it changes, and
tests/test_walls.py that no other module uses one. What a function cannot do without its name it
refuses with `MissingInternal`; what can go on without does.
"""

from __future__ import annotations

import contextlib
import functools
import importlib
from collections.abc import Callable, Iterator, Sequence
from typing import Any

import keras
import tensorflow as tf


class MissingInternal(RuntimeError):
    """This Keras or TensorFlow lacks a private name that tfamp needs.

    Args:
        owner: What should have it.
        name: The name.
        consequence: What cannot be done without it.
    """

    def __init__(self, owner: Any, name: str, consequence: str) -> None:
        named = owner if hasattr(owner, "__name__") else type(owner)
        super().__init__(
            f"keras {keras.__version__} with tensorflow {tf.__version__} has no "
            f"{named.__name__}.{name}: {consequence} Use versions that tfamp's setup.cfg allows."
        )


def private(owner: Any, name: str, consequence: str) -> Any:
    """An attribute by its private name.

    Args:
        owner: What should have it.
        name: The name.
        consequence: What cannot be done without it.

    Raises:
        MissingInternal: It has none.
    """
    if not hasattr(owner, name):
        raise MissingInternal(owner, name, consequence)
    return getattr(owner, name)


# Layers.


def layers_within(layer: keras.layers.Layer) -> list[keras.layers.Layer]:
    """Every layer inside a layer or model, nested ones too, without itself.

    `keras.Model.layers` knows the first level only, and `Layer` has no public name for its parts.
    `Layer._flatten_layers`: keras 3.12 to 3.15, src/layers/layer.py.
    """
    flatten = private(layer, "_flatten_layers", "its inner layers cannot be listed.")
    return list(flatten(include_self=False))


def attention_parts(
    layer: keras.layers.MultiHeadAttention,
) -> tuple[keras.layers.Layer, keras.layers.Layer]:
    """The softmax and the dropout of a built attention layer.

    `MultiHeadAttention._softmax`, `_dropout_layer`: keras 3.12 to 3.15,
    src/layers/attention/multi_head_attention.py.
    """
    consequence = "its softmax cannot be made float32."
    return (
        private(layer, "_softmax", consequence),
        private(layer, "_dropout_layer", consequence),
    )


# Optimizers.


def trained_variables(optimizer: keras.optimizers.Optimizer) -> list[keras.Variable]:
    """The variables that an optimizer was built with.

    `BaseOptimizer._trainable_variables`: keras 3.12 to 3.15, src/optimizers/base_optimizer.py.
    """
    consequence = "apply() cannot know its variables."
    return list(private(optimizer, "_trainable_variables", consequence))


def index_of(optimizer: keras.optimizers.Optimizer, variable: keras.Variable) -> int:
    """A variable's place among those that the optimizer was built with, whatever wraps it.

    `BaseOptimizer._get_variable_index`: keras 3.12 to 3.15, src/optimizers/base_optimizer.py; its
    key sees through Keras's and `tf.distribute`'s wrappers.
    """
    consequence = "a gradient cannot be told from another."
    return private(optimizer, "_get_variable_index", consequence)(variable)


def take_gradients_as_they_come(optimizer: keras.optimizers.Optimizer) -> None:
    """Makes an optimizer take gradients that are summed over the replicas already.

    Keras sums inside `apply`, in a method which is put out of action on this one optimizer.
    Dividing by the number of replicas instead would let the second sum stand, but would clip a
    gradient that is too small, and rounds. `TFOptimizer._all_reduce_sum_gradients`: keras 3.12 to
    3.15, src/backend/tensorflow/optimizer.py.

    Raises:
        MissingInternal: This Keras sums somewhere else; going on would sum twice.
    """
    name = "_all_reduce_sum_gradients"
    private(
        optimizer, name, "gradients would be summed over the replicas twice. Train on one device."
    )
    setattr(optimizer, name, list)


def calls_of_apply(optimizer: keras.optimizers.Optimizer) -> keras.Variable:
    """Counts every call of `apply`, where `iterations` counts groups if Keras accumulates.

    `BaseOptimizer._iterations`: keras 3.12 to 3.15, src/optimizers/base_optimizer.py. Without it
    groups are counted.
    """
    return getattr(optimizer, "_iterations", optimizer.iterations)


def has_schedule(optimizer: keras.optimizers.Optimizer) -> bool:
    """Whether the learning rate is a schedule, where `learning_rate` is only its value now.

    `BaseOptimizer._learning_rate`: keras 3.12 to 3.15, src/optimizers/base_optimizer.py. Without
    it no.
    """
    schedule = keras.optimizers.schedules.LearningRateSchedule
    return isinstance(getattr(optimizer, "_learning_rate", None), schedule)


# Tracing and replicas.


def enclosing_graphs() -> list[tf.Graph]:
    """The function graph that is being traced and those around it, innermost first.

    `FuncGraph.outer_graph`: tensorflow 2.21, python/framework/func_graph.py. Without it only the
    innermost is known.
    """
    graphs: list[tf.Graph] = []
    graph = None if tf.executing_eagerly() else tf.compat.v1.get_default_graph()
    while graph is not None and graph.building_function:
        graphs.append(graph)
        graph = getattr(graph, "outer_graph", None)
    return graphs


def updates_in_replica_context() -> bool:
    """Whether variables are updated without a `merge_call`, which no `tf.cond` may hold.

    `tf.__internal__.distribute.strategy_supports_no_merge_call`: tensorflow 2.21. Without it no,
    which is right for every strategy, and slower for some.
    """
    internal = getattr(tf, "__internal__", None)
    distribute = getattr(internal, "distribute", None)
    supports = getattr(distribute, "strategy_supports_no_merge_call", None)
    if supports is None:
        return not tf.distribute.has_strategy()
    return supports()


# Training.


def build_for(model: keras.Model, batch: Any) -> None:
    """Builds a compiled model's metrics and loss, as `fit` does, from the specs of a batch.

    `Trainer._symbolic_build`: keras 3.12 to 3.15, src/trainers/trainer.py.
    """
    consequence = "its compiled metrics cannot be built outside of fit()."
    private(model, "_symbolic_build", consequence)(data_batch=batch)


def compiled_loss(model: keras.Model) -> Callable[..., Any] | None:
    """The losses that a model was compiled with, as one function of targets, outputs and weights.

    None where it was compiled without a loss.

    `Trainer._compile_loss`: keras 3.12 to 3.15, src/trainers/trainer.py. `compute_loss`, which is
    public, adds the model's own losses in their dtype.
    """
    consequence = "its compiled loss cannot be computed outside of fit()."
    return private(model, "_compile_loss", consequence)


def mean_loss(model: keras.Model) -> keras.metrics.Mean:
    """The metric that holds a compiled model's mean loss.

    `Trainer._loss_tracker`: keras 3.12 to 3.15, src/trainers/trainer.py.
    """
    consequence = "its mean loss cannot be kept outside of fit()."
    return private(model, "_loss_tracker", consequence)


@contextlib.contextmanager
def replaced_trainer_parts(
    build_with: Callable[..., None], reduce_with: Callable[..., Any]
) -> Iterator[None]:
    """Replaces, while it is open, how Keras's trainer builds from a batch and reduces its logs.

    `TensorFlowTrainer._maybe_symbolic_build` and `reduce_per_replica`: keras 3.12 to 3.15,
    src/backend/tensorflow/trainer.py.

    Args:
        build_with: Called with the original of the first, a model, and `iterator` or `data_batch`.
        reduce_with: Called with the original of the second, values, strategy and reduction.
    """
    module: Any = importlib.import_module("keras.src.backend.tensorflow.trainer")
    trainer = module.TensorFlowTrainer
    consequence = "Keras's fit() cannot be helped under MultiWorkerMirroredStrategy."
    build = private(trainer, "_maybe_symbolic_build", consequence)
    reduce = private(module, "reduce_per_replica", consequence)

    def build_instead(model: Any, iterator: Any = None, data_batch: Any = None) -> None:
        build_with(build, model, iterator, data_batch)

    trainer._maybe_symbolic_build = build_instead
    module.reduce_per_replica = functools.partial(reduce_with, reduce)
    try:
        yield
    finally:
        trainer._maybe_symbolic_build = build
        module.reduce_per_replica = reduce


def global_seed() -> int | None:
    """What `keras.utils.set_random_seed` was given; None where it was not called.

    `rng_utils.get_random_seed`: keras 3.12 to 3.15, src/utils/rng_utils.py. Without it None.
    """
    try:
        return importlib.import_module("keras.src.utils.rng_utils").get_random_seed()
    except (ImportError, AttributeError):
        return None


def global_seed_generator() -> keras.random.SeedGenerator:
    """What random layers without a seed of their own draw theirs from; it is made if need be.

    Not to be kept: `keras.utils.set_random_seed` makes another.
    `seed_generator.global_seed_generator`: keras 3.12 to 3.15, src/random/seed_generator.py.
    """
    module = importlib.import_module("keras.src.random.seed_generator")
    consequence = "Keras's random state cannot be captured."
    return private(module, "global_seed_generator", consequence)()


# keras-cv.


def random_generator_of(layer: Any) -> Any:
    """What a keras-cv layer draws random numbers from, None if it draws none.

    `BaseImageAugmentationLayer._random_generator`: keras-cv 0.9,
    src/layers/preprocessing/base_image_augmentation_layer.py.
    """
    return getattr(layer, "_random_generator", None)


def set_random_generator(layer: Any, generator: Any) -> None:
    """Makes a keras-cv layer draw from a generator; see `random_generator_of`."""
    layer._random_generator = generator


def augmentations_within(layer: Any) -> Sequence[Any]:
    """The augmentation layers that a keras-cv layer chooses from or draws for.

    `RandomAugmentationPipeline._random_choice`: keras-cv 0.9,
    src/layers/preprocessing/random_augmentation_pipeline.py; RandAugment is one.
    """
    chosen = getattr(layer, "_random_choice", None)
    return [*getattr(layer, "layers", ()), *([] if chosen is None else [chosen])]


def mixing_with(layer: Any, mix: Callable[..., Any]) -> Any:
    """Replaces how a keras-cv MixUp or CutMix mixes images; returns the layer.

    `MixUp._mixup`, `CutMix._cutmix`: keras-cv 0.9, src/layers/preprocessing/mix_up.py and
    cut_mix.py.

    Args:
        layer: The layer.
        mix: Takes images, and returns what the method of the layer's kind does.
    """
    name = "_cutmix" if hasattr(layer, "_cutmix") else "_mixup"
    private(layer, name, "its random numbers cannot be made to depend on a seed alone.")
    setattr(layer, name, mix)
    return layer
