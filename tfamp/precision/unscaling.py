"""Whether the gradients that `apply` gets were unscaled by hand, so that none is divided twice."""

from __future__ import annotations

import weakref
from collections.abc import Sequence

import tensorflow as tf

from tfamp.precision import keras_internals
from tfamp.precision.gradients import Gradient, first_non_finite
from tfamp.precision.state_variables import device_variable
from tfamp.precision.step_gradients import changed


class UnscaleCalls:
    """What a step has called so far, while it is traced or run eagerly: a note of Python's own.

    `apply` cannot see whether its gradients are unscaled. Where `unscale` was called before it, it
    wants to be told: dividing twice, or not at all, would train on, and badly. Calls are kept apart
    by the function that is being traced and by replica. So `unscale` may be called outside of
    training to look at a gradient, and `fit` goes on after it: its step scales a loss of its own.
    """

    def __init__(self) -> None:
        self._scaled: set[_Place] = set()
        self._unscaled: set[_Place] = set()

    def note_scaled(self) -> None:
        """A loss was scaled: gradients of this place are of a scaled loss."""
        self._scaled.add(_places()[0])

    def note_unscaled(self) -> bool:
        """`unscale` was called; returns whether for the first time since the last `apply`."""
        here = _places()[0]
        is_first = here not in self._unscaled
        self._unscaled.add(here)
        return is_first

    def settle(self, is_unscaled: bool | None) -> bool:
        """Decides at `apply` whether its gradients are unscaled, and begins anew.

        Args:
            is_unscaled: What `apply` was told.

        Raises:
            ValueError: It was told nothing, or what cannot be.
        """
        replica, here = _replica(), _places()
        of_replica = {place for place in self._unscaled if place[0] == replica}
        # The innermost function that called either decides. Gradients that come from another
        # function altogether may be unscaled if any was.
        caller = next((p for p in here if p in self._unscaled or p in self._scaled), None)
        may_be_unscaled = bool(of_replica) if caller is None else caller in self._unscaled
        if is_unscaled is None and may_be_unscaled:
            raise ValueError(
                "apply() was not told whether its gradients are unscaled, and unscale() was called "
                "since the last apply(). Pass is_unscaled=True with gradients that come from "
                "unscale(), clipped or not, or is_unscaled=False with those of the scaled loss."
            )
        if is_unscaled and not of_replica and tf.distribute.get_strategy().num_replicas_in_sync > 1:
            raise ValueError(
                "apply(is_unscaled=True) without unscale() before it: on several replicas the "
                "gradients must be summed before they are unscaled, which unscale() does. Pass "
                "what it returns, or the gradients of the scaled loss without is_unscaled."
            )
        for places in (self._scaled, self._unscaled):
            places.difference_update([place for place in places if place[0] == replica])
        return bool(is_unscaled)


class UnscaledOverflow:
    """Remembers on the device which gradient was not finite when it was unscaled.

    Clipping by value makes 1 of infinity, and a `where` of one's own makes 0 of NaN. The step is a
    skip all the same.
    """

    def __init__(self) -> None:
        self._position = device_variable("unscaled_culprit", -1, "int64")
        self._has_nan = device_variable("unscaled_culprit_has_nan", 0, "int64")

    def note(self, gradients: Sequence[Gradient], is_first: bool) -> None:
        """Notes what `unscale` has found.

        Args:
            gradients: As they came, summed over the replicas.
            is_first: Whether nothing was noted since the last `apply`.
        """
        position, has_nan = first_non_finite(gradients)
        if not is_first:
            is_known = self._position.value >= 0
            position = tf.where(is_known, self._position.value, position)
            has_nan = tf.where(is_known, self._has_nan.value > 0, has_nan)
        self._position.assign(position)
        self._has_nan.assign(tf.cast(has_nan, tf.int64))

    def put_back(self, gradients: Sequence[Gradient]) -> list[Gradient]:
        """Makes what was not finite so again, whatever was done to it since; forgets the note."""
        position = tf.identity(self._position.value)
        value = tf.where(self._has_nan.value > 0, float("nan"), float("inf"))
        self._position.assign(tf.constant(-1, tf.int64))
        present = [i for i, gradient in enumerate(gradients) if gradient is not None]
        # One that was left out since, or belongs to another list, is taken for the first.
        is_elsewhere = (position >= 0) & tf.reduce_all(tf.not_equal(position, present))
        kept = list(gradients)
        for i in present:
            is_it = tf.equal(position, i)
            if i == present[0]:
                is_it |= is_elsewhere
            kept[i] = _where(is_it, value, gradients[i])
        return kept


# A replica, and a function that is being traced or none.
_Place = tuple[int | None, weakref.ref[tf.Graph] | None]


def _places() -> list[_Place]:
    """Where we are, innermost first."""
    replica = _replica()
    graphs = keras_internals.enclosing_graphs()
    return [(replica, graph and weakref.ref(graph)) for graph in [*graphs, None]]


def _replica() -> int | None:
    # Where all replicas are traced at once it is no number yet, and one note is enough.
    context = tf.distribute.get_replica_context()
    replica = tf.get_static_value(context.replica_id_in_sync_group)
    return None if replica is None else int(replica)


def _where(condition: tf.Tensor, value: tf.Tensor, gradient: Gradient) -> Gradient:
    return changed(gradient, lambda g: tf.where(condition, value, tf.cast(g, tf.float32)))
