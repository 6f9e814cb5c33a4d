"""A training step of any Keras model, under chosen precisions, and what each layer did in it.

The one way in tfamp to ask what a precision does to a model: fidelity, the audit and the doctor
stand on it.
"""

from __future__ import annotations

import contextlib
import dataclasses
import functools
from collections.abc import Callable, Iterable, Sequence
from typing import Any

import keras
import tensorflow as tf

from tfamp.diagnosis import losses, named, passes, stillness, tracing
from tfamp.diagnosis.passes import LayerCall, LayerFailed, Pass, WeightGradient
from tfamp.diagnosis.precisions import DTYPES, SIXTEEN_BITS, Precision, computing_in, float_inputs
from tfamp.precision.policy import all_layers, by_path, own_variables

__all__ = ["LayerCall", "Pass", "Precision", "Probe", "Read", "WeightGradient"]

# Takes a `Pass`, and what was given for it; returns tensors in any structure.
Read = Callable[..., Any]


class Probe:
    """Runs a model's training step under precisions of choice; the model stays what it is.

    >>> with Probe(model) as probe:
    ...     reference = probe.run(batch, probe.everywhere("float64"))
    ...     half = probe.run(batch, probe.mixed("float16"), scale=2.0**15)

    Every pass has the same weights, dropout masks and other random draws: drawn in float32
    whatever a layer computes in, from the same seeds. The updates of a pass (moving averages,
    seeds, counters) are undone after it. No optimizer steps. When the context ends, with an error
    too, policies, variables and random state are what they were.

    Args:
        model: Any built Keras model: functional, Sequential, subclassed, nested.
        loss: What `compile` takes; a function of (targets, outputs) that returns a scalar or one
            value per example, which gets what the model returns, in its dtype; None for the
            compiled one, or the model's own `compute_loss`. `model.losses` are added.
        training: Whether dropout drops and BatchNormalization normalises by the batch.
        seed: What dropout and augmentation draw from in each pass; None for where their seeds are.
        jit_compile: Whether XLA compiles the passes. It may keep more precision inside what it
            fuses than the layers' dtypes say.

    Raises:
        ValueError: The model is not built, or there is no loss.

    Attributes:
        layers: The model's layers by path, in its order; equal paths are told apart by `#2`, `#3`.
            A layer made of layers is among them, and the model where it is a class of the user's;
            functional and Sequential models, which compute nothing themselves, and input layers
            are not.
        left_out: Sentences on what a pass could not do as asked: a layer without a float64 kernel,
            outputs inside a loop that nobody outside can see, a random operation that draws anew.
    """

    def __init__(
        self,
        model: keras.Model,
        loss: Any = None,
        *,
        training: bool = True,
        seed: int | None = None,
        jit_compile: bool = False,
    ) -> None:
        if not model.built:
            raise ValueError(
                f"{model.name!r} has no weights yet. Call it on a batch before it is probed."
            )
        self.model = model
        self.left_out: list[str] = []
        self._step = losses.step_of(model, loss)
        self._training = training
        self._seed = seed
        self._jit_compile = jit_compile
        self._every = every = by_path([*all_layers(model), model])
        self._models = [layer for layer in every.values() if isinstance(layer, keras.Model)]
        self.layers = {path: layer for path, layer in every.items() if not named.only_holds(layer)}
        self._built_in = {path: layer.compute_dtype for path, layer in every.items()}
        self._holders = {
            id(variable): path
            for path, layer in reversed(every.items())
            for variable in own_variables(layer)
        }
        self._not_in_float64: set[str] = set()
        self._runs_eagerly = False
        self._traces: dict[Any, tracing.Trace] = {}
        self._still: stillness.Stillness | None = None

    def __enter__(self) -> Probe:
        self._still = stillness.Stillness(self.model, self._seed)
        return self

    def __exit__(self, *exception: Any) -> None:
        self._traces.clear()
        if self._still is not None:
            self._still.restore()
        self._still = None

    def everywhere(self, dtype: str) -> Precision:
        """Every layer and the loss in one dtype; `float64` is the reference."""
        _check(dtype)
        loss = "float64" if dtype == "float64" else "float32"
        layers = dict.fromkeys(self._settable(), dtype)
        return Precision(dtype, layers, inputs=dtype, loss=loss)

    def mixed(
        self, dtype: str, float32: Iterable[str] = (), only_forward: bool = False
    ) -> Precision:
        """As under a mixed policy: layers in 16 bits, the loss in float32.

        Of a model that has layers in 16 bits already, those in float32 were put there and stay;
        one in float32 all over goes to 16 bits all over.

        Args:
            dtype: `float16`, `bfloat16`; `float32` for the same in float32.
            float32: Paths of further layers that compute in float32.
            only_forward: See `Precision`.

        Raises:
            ValueError: A path is not one of a layer's.
        """
        _check(dtype)
        forced = set(float32)
        unknown = sorted(forced - set(self._every))
        if unknown:
            raise ValueError(f"float32={unknown}: no such layers. See `Probe.layers`.")
        is_mixed = any(built in SIXTEEN_BITS for built in self._built_in.values())
        layers = {
            path: "float32"
            if path in forced or (is_mixed and self._built_in[path] not in SIXTEEN_BITS)
            else dtype
            for path in self._settable()
        }
        name = dtype if dtype == "float32" else f"mixed_{dtype}"
        return Precision(name, layers, inputs=self._inputs_in(dtype), only_forward=only_forward)

    def run(
        self,
        batch: Any,
        precision: Precision,
        scale: float = 1.0,
        read: Read | None = None,
        given: Sequence[Any] = (),
        eager: bool = False,
    ) -> Any:
        """Takes one pass.

        Args:
            batch: (inputs, targets) or (inputs, targets, sample_weight), as tensors or arrays.
            precision: What each layer computes in.
            scale: What the loss is multiplied by before the way back.
            read: Takes a `Pass` and all of `given`, is traced into the pass, and returns tensors in
                any structure; None for all of the `Pass`. Traces are kept by precision, `read` and
                shapes: give the same function again, not a new lambda.
            given: Structures of tensors for `read`.
            eager: Without a trace, which costs seconds, where a precision is used once; XLA takes
                no part in it. So is every pass whose precision is `only_forward`.

        Returns:
            What `read` returned, with NumPy arrays for tensors.

        Raises:
            ValueError: A layer cannot compute in what it was asked to; of one that cannot in
                float64 `left_out` tells instead, and the layer computes in what it was built with.
            RuntimeError: The probe is not open.
        """
        tensors = self.run_on_device(batch, precision, scale, read, given, eager)
        return keras.tree.map_structure(
            lambda value: value.numpy() if tf.is_tensor(value) else value, tensors
        )

    def run_on_device(
        self,
        batch: Any,
        precision: Precision,
        scale: float = 1.0,
        read: Read | None = None,
        given: Sequence[Any] = (),
        eager: bool = False,
    ) -> Any:
        """As `run`, with tensors, which can be given to another pass."""
        if self._still is None:
            raise RuntimeError("A Probe runs passes inside its `with` statement.")
        arguments = keras.tree.map_structure(
            lambda value: None if value is None else tf.convert_to_tensor(value),
            (batch, tf.constant(scale, tf.float64), tuple(given)),
        )
        while True:
            allowed = self._allowed(precision)
            try:
                self._still.begin()
                with contextlib.ExitStack() as stack:
                    stack.enter_context(computing_in(allowed, self._every, self._models))
                    stack.enter_context(stillness.same_draws())
                    stack.enter_context(stillness.operations_as_written())
                    return self._taken(arguments, allowed, read, eager)
            except LayerFailed as failed:
                if isinstance(failed.__cause__, tf.errors.OperatorNotAllowedInGraphError):
                    self._run_eagerly(failed.path)
                else:
                    self._give_up_float64(failed, allowed)
            finally:
                self._still.restore()

    def _taken(self, arguments: Any, precision: Precision, read: Read | None, eager: bool) -> Any:
        # In a trace a loop's gradient is a loop, of the dtype of its way forward.
        if eager or self._runs_eagerly or precision.only_forward:
            return self._pass(precision, read, *arguments)
        key = (precision.key, read, tracing.shapes(arguments))
        if key not in self._traces:
            traced = tracing.trace(
                functools.partial(self._pass, precision, read), arguments, self._jit_compile
            )
            self._note_what_draws_anew(traced.draws_anew)
            self._traces[key] = traced
        return self._traces[key](arguments)

    def _pass(
        self, precision: Precision, read: Read | None, batch: Any, scale: tf.Tensor, given: Any
    ) -> Any:
        take = passes.take_with_exact_way_back if precision.only_forward else passes.take
        # Not what `read` calls.
        with stillness.inner_functions_inlined():
            taken = take(
                self._step,
                batch,
                scale,
                self.layers,
                self._holders,
                self._training,
                self._note_unseen,
            )
        return taken if read is None else read(taken, *given)

    def _settable(self) -> list[str]:
        # One that computes in whole numbers, or is quantised, stays as it is.
        return [
            path
            for path, layer in self._every.items()
            if self._built_in[path] in DTYPES and layer.quantization_mode is None
        ]

    def _inputs_in(self, dtype: str) -> str | None:
        # A Sequential model built late has an input of its compute dtype; others of float32.
        dtypes = {tensor.dtype for model in self._models for tensor in float_inputs(model)}
        return dtype if dtypes & set(SIXTEEN_BITS) else None

    def _allowed(self, precision: Precision) -> Precision:
        layers = {
            path: dtype
            for path, dtype in precision.computes_in.items()
            if not (dtype == "float64" and path in self._not_in_float64)
        }
        return dataclasses.replace(precision, computes_in=layers)

    def _give_up_float64(self, failed: LayerFailed, precision: Precision) -> None:
        path = failed.path
        if precision.computes_in.get(path) != "float64":
            computes_in = precision.computes_in.get(path, self._built_in[path])
            raise ValueError(
                f"{path!r} cannot be called under {precision.name}, where it computes in "
                f"{computes_in}: {failed.reason}"
            ) from failed.__cause__
        within = {id(layer) for layer in (self._every[path], *all_layers(self._every[path]))}
        given_up = [path for path, layer in self._every.items() if id(layer) in within]
        self._not_in_float64.update(given_up)
        self._leave_out(
            f"{path} cannot compute in float64, and stays in {self._built_in[path]} in the "
            f"reference: {failed.reason}"
        )

    def _run_eagerly(self, path: str) -> None:
        self._runs_eagerly = True
        self._leave_out(
            f"{path} branches on a tensor in a tf.function of its own: passes ran eagerly, "
            "without XLA."
        )

    def _note_unseen(self, path: str) -> None:
        self._leave_out(f"{path} is called inside a loop; what it returns there cannot be seen.")

    def _note_what_draws_anew(self, operations: Sequence[str]) -> None:
        if operations:
            self._leave_out(
                f"The model draws by {', '.join(operations)}, which draws other numbers in "
                "each pass: errors hold its noise. Use keras.random with a seed generator."
            )

    def _leave_out(self, sentence: str) -> None:
        if sentence not in self.left_out:
            self.left_out.append(sentence)


def _check(dtype: str) -> None:
    if dtype not in DTYPES:
        raise ValueError(f"dtype={dtype!r} is not one of {', '.join(DTYPES)}.")
