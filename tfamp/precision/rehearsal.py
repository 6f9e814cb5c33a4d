"""A training step that is rehearsed: it runs as it would, and leaves everything as it was.

Whatever a step is, Keras's, tfamp's or a `train_step` of the user's, it has a `tf.GradientTape`
take the gradient of what `optimizer.scale_loss` returned, and hands it to `optimizer.apply`. For a
rehearsal the optimizer stands aside, and the tape goes the way back several times.
"""

from __future__ import annotations

import contextlib
import threading
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any, NamedTuple

import keras
import tensorflow as tf

from tfamp.precision import layer_internals
from tfamp.precision.gradients import Gradient

# Replicas are traced in a thread each, and each rehearses by itself.
_here = threading.local()
_lock = threading.Lock()
# How many rehearsals there are at a time, of each object whose methods stand aside.
_open: dict[int, int] = {}

# What a `tf.random.Generator` is read and moved on by, in a graph.
_OF_GENERATORS = ("RngReadAndSkip", "RngSkip")


class Way(NamedTuple):
    """How to go the way back.

    Attributes:
        factor: What the scaled loss is multiplied by besides.
        bound: What no gradient may exceed as it passes from layer to layer; None for no bound.
    """

    factor: float = 1.0
    bound: float | None = None


class Gone(NamedTuple):
    """What a tape found, in each of several ways.

    Attributes:
        variables: What the gradients are of.
        gradients: Of each way a list, with one for each variable, of the scaled loss.
        scale: float32 scalar, the loss scale.
    """

    variables: list[Any]
    gradients: list[list[Gradient]]
    scale: tf.Tensor


def scale_of(optimizer: keras.optimizers.Optimizer) -> tf.Tensor:
    """What an optimizer multiplies a loss by now: a float32 scalar, 1 where nothing scales it."""
    if isinstance(optimizer, keras.optimizers.LossScaleOptimizer):
        scale = getattr(optimizer, "dynamic_scale", None)
        if scale is None:
            raise ValueError(
                f"The loss scale of {optimizer.name} was asked for before it is built: it has "
                "none yet. Call optimizer.build(variables) before the first step."
            )
        return tf.cast(tf.convert_to_tensor(scale), tf.float32)
    return tf.constant(optimizer.loss_scale_factor or 1.0, tf.float32)


class Rehearsal:
    """One run of a step that updates nothing.

    No Keras variable is written: weights, moving averages, seeds and metrics are as they were. It
    goes forward once, so that what was drawn and rounded there is the same in each way back.

    Args:
        model: The built model that the step trains.
        optimizers: Every optimizer that it hands gradients to.
        ways: The ways back; the step goes on with what the first one found.

    Attributes:
        gone: What each tape found for variables that are trained, in their order.
        scale: float32 scalar, the loss scale of the last loss that was scaled; None before.
        way: The place in `ways` of the one that is being gone.
    """

    def __init__(
        self,
        model: keras.Model,
        optimizers: Sequence[keras.optimizers.Optimizer],
        ways: Sequence[Way] = (Way(),),
    ) -> None:
        self._model = model
        self._optimizers = optimizers
        self._ways = ways
        self._graph = _graph()
        self._trained = {id(each) for v in model.trainable_variables for each in (v, v.value)}
        self._has_applied = False
        self.gone: list[Gone] = []
        self.scale: tf.Tensor | None = None
        self.way = 0

    @property
    def bound(self) -> float | None:
        """That of the way that is being gone."""
        return self._ways[self.way].bound

    def of(self, step: Callable[[Any], Any], batch: Any) -> list[Gone]:
        """Runs the step, in the context in which it runs: eagerly or in a trace, on a replica.

        Args:
            step: What takes a batch, such as `model.train_step`.
            batch: The batch.

        Returns:
            `gone`.

        Raises:
            ValueError: The step hands nothing to these optimizers, or takes no gradient of a loss
                that it had scaled; does either inside a `tf.function` of its own; or writes a
                variable that is not Keras's or draws from TensorFlow's own random generators,
                which cannot be undone.
        """
        operations = 0 if self._graph is None else len(self._graph.get_operations())
        # A regularizer is handed the variable itself, or its gradient would be lost.
        regularized = [v for v in self._model.trainable_variables if v.regularizer is not None]
        values = {id(variable): variable.value for variable in regularized}
        scope = keras.StatelessScope(collect_losses=True)
        with _standing_aside(self, self._optimizers), scope:
            scope.state_mapping.update(values)
            step(batch)
        self._check_calls()
        if self._graph is not None:
            _check_operations(self._graph.get_operations()[operations:])
        return self.gone

    # What stands in for methods: of optimizers, and of tapes.

    def scaled(self, _: Any, optimizer: keras.optimizers.Optimizer, value: Any) -> tf.Tensor:
        """As `scale_loss` and `scaled` do; its gradient has the way's factor too."""
        self._check_place("scale_loss")
        scale = self.scale = scale_of(optimizer)

        @tf.custom_gradient
        def multiplied(value: tf.Tensor) -> Any:
            return value * scale, lambda back: back * (scale * self._ways[self.way].factor)

        return multiplied(tf.cast(tf.convert_to_tensor(value), tf.float32))

    def apply(self, _: Any, optimizer: keras.optimizers.Optimizer, *__: Any, **___: Any) -> None:
        """Does nothing."""
        self._check_place("apply")
        self._has_applied = True

    def new_tape(
        self, method: Callable[..., None], tape: tf.GradientTape, *_: Any, **keywords: Any
    ) -> None:
        """Makes a tape with which the way back can be gone several times."""
        method(tape, **(keywords | {"persistent": True}))

    def gradient(
        self,
        method: Callable[..., Any],
        tape: tf.GradientTape,
        target: Any,
        sources: Any,
        *args: Any,
        **keywords: Any,
    ) -> Any:
        """Goes every way back, where it leads to variables that are trained."""
        variables = tf.nest.flatten(sources)
        if _graph() is not self._graph or not any(id(v) in self._trained for v in variables):
            return method(tape, target, sources, *args, **keywords)
        found = []
        for way in range(len(self._ways)):
            self.way = way
            found.append(method(tape, target, sources, *args, **keywords))
        self.way = 0
        if self.scale is not None:
            flat = [tf.nest.flatten(each) for each in found]
            self.gone.append(Gone(variables, flat, self.scale))
        return found[0]

    def _check_place(self, name: str) -> None:
        if _graph() is not self._graph:
            raise ValueError(
                f"The train_step calls optimizer.{name} inside a tf.function of its own, where "
                "nobody else can look, so what float16 loses of its gradient cannot be seen. Leave "
                "that tf.function out: fit compiles the step."
            )

    def _check_calls(self) -> None:
        if not self._has_applied:
            names = ", ".join(f"{optimizer.name}.apply" for optimizer in self._optimizers)
            raise ValueError(
                "The train_step was rehearsed to see what float16 loses of its gradients, and "
                f"called none of {names}. Update the weights by optimizer.apply(gradients, "
                "variables), or leave underflow_every out."
            )
        if not self.gone:
            raise ValueError(
                "The train_step takes no gradient of a loss that it gave to optimizer.scale_loss, "
                "so what float16 loses of it cannot be seen. Take the gradient of what "
                "optimizer.scale_loss(loss) returns, by a tf.GradientTape; where nothing is scaled "
                "it returns the loss."
            )


def _graph() -> tf.Graph | None:
    return None if tf.executing_eagerly() else tf.compat.v1.get_default_graph()


@contextlib.contextmanager
def _standing_aside(
    rehearsal: Rehearsal, optimizers: Sequence[keras.optimizers.Optimizer]
) -> Iterator[None]:
    stand_ins = {
        "scale_loss": rehearsal.scaled,
        "scaled": rehearsal.scaled,
        "apply": rehearsal.apply,
        "__init__": rehearsal.new_tape,
        "gradient": rehearsal.gradient,
    }
    with contextlib.ExitStack() as stack:
        for optimizer in optimizers:
            stack.enter_context(_replaced(optimizer, ("scale_loss", "scaled", "apply")))
        stack.enter_context(_replaced(tf.GradientTape, ("__init__", "gradient")))
        before = getattr(_here, "stand_ins", None)
        _here.stand_ins = stand_ins
        try:
            yield
        finally:
            _here.stand_ins = before


@contextlib.contextmanager
def _replaced(owner: Any, names: Sequence[str]) -> Iterator[None]:
    """Has methods ask, while it is open, whether something stands in for them in this thread."""
    is_class = isinstance(owner, type)
    own = {name: vars(owner)[name] for name in names if name in vars(owner)}
    present = [name for name in names if hasattr(owner, name)]

    def either(name: str, method: Callable[..., Any]) -> Callable[..., Any]:
        def called(*args: Any, **keywords: Any) -> Any:
            stand_ins: Mapping[str, Callable[..., Any]] | None = getattr(_here, "stand_ins", None)
            if stand_ins is None:
                return method(*args, **keywords)
            return stand_ins[name](method, *(() if is_class else (owner,)), *args, **keywords)

        return called

    with _lock:
        count = _open[id(owner)] = _open.get(id(owner), 0) + 1
        if count == 1:
            for name in present:
                setattr(owner, name, either(name, getattr(owner, name)))
    try:
        yield
    finally:
        with _lock:
            _open[id(owner)] -= 1
            if not _open[id(owner)]:
                del _open[id(owner)]
                for name in present:
                    if name in own:
                        setattr(owner, name, own[name])
                    else:
                        delattr(owner, name)


def _check_operations(operations: Sequence[tf.Operation]) -> None:
    for operation in operations:
        if operation.type.startswith(("Assign", "ResourceScatter", "ResourceApply")):
            raise ValueError(
                f"The train_step writes {operation.inputs[0].name}, a tf.Variable, which cannot be "
                "undone where a step is rehearsed to see what float16 loses. Keep it in a "
                "keras.Variable (add_weight), or leave underflow_every out."
            )
        if layer_internals.draws_anew(operation) or operation.type in _OF_GENERATORS:
            raise ValueError(
                f"The train_step draws from TensorFlow's own random generators ({operation.name}), "
                "which go on where a step is rehearsed to see what float16 loses. Draw with "
                "keras.random or Keras's layers, or leave underflow_every out."
            )
