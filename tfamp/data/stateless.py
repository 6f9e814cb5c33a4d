"""Random numbers for keras-cv layers that depend on a given seed only.

keras-cv draws from `tf.random.Generator` variables and from unseeded operations: a pipeline then
depends on how many batches were drawn before and, in parallel, on the order of the threads; and a
`RandAugment(seed=...)` is not reproducible, as its brightness and contrast ignore the seed.
"""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from typing import Any

import tensorflow as tf

from tfamp.precision import keras_internals


class StatelessGenerator:
    """Has the methods of `tf.random.Generator` that keras-cv calls, and no state at run time.

    Within `seeded(seed)` the n-th draw of the traced function is a function of (seed, n). The
    count n advances while tracing only, so the graph that results is pure.
    """

    def __init__(self) -> None:
        self._seed: tf.Tensor | None = None
        self._num_draws = 0

    @contextlib.contextmanager
    def seeded(self, seed: tf.Tensor) -> Iterator[None]:
        """Makes the draws of the block depend on `seed`, an int64 tensor of shape [2]."""
        previous = self._seed, self._num_draws
        self._seed, self._num_draws = seed, 0
        try:
            yield
        finally:
            self._seed, self._num_draws = previous

    def next_seed(self) -> tf.Tensor:
        """Returns a seed (int64 [2]) that no other draw of the block has."""
        if self._seed is None:
            raise RuntimeError("StatelessGenerator draws only within `seeded(...)`.")
        self._num_draws += 1
        return tf.random.experimental.stateless_fold_in(self._seed, self._num_draws)

    def uniform(
        self,
        shape: Any,
        minval: Any = 0,
        maxval: Any = None,
        dtype: tf.DType = tf.float32,
    ) -> tf.Tensor:
        """Draws uniformly from [minval, maxval), 1 being the default end for floats."""
        if maxval is None and dtype.is_floating:
            maxval = 1
        return tf.random.stateless_uniform(shape, self.next_seed(), minval, maxval, dtype)

    def normal(
        self, shape: Any, mean: Any = 0.0, stddev: Any = 1.0, dtype: tf.DType = tf.float32
    ) -> tf.Tensor:
        """Draws from the normal distribution."""
        return tf.random.stateless_normal(shape, self.next_seed(), mean, stddev, dtype)

    def beta(self, shape: Any, alpha: float) -> tf.Tensor:
        """Draws float32 from Beta(alpha, alpha)."""
        first = tf.random.stateless_gamma(shape, self.next_seed(), alpha)
        second = tf.random.stateless_gamma(shape, self.next_seed(), alpha)
        # Both can underflow to zero where alpha is small.
        return first / tf.maximum(first + second, 1e-37)

    def permutation(self, length: int) -> tf.Tensor:
        """Draws an int32 [length] permutation of 0 .. length - 1."""
        return tf.random.experimental.stateless_shuffle(tf.range(length), self.next_seed())


def make_stateless(layer: Any, generator: StatelessGenerator) -> None:
    """Makes a keras-cv layer, and the layers in it, draw from `generator`.

    Args:
        layer: A keras-cv 0.9 augmentation layer that draws from a generator of its own and from
            factor samplers only: RandAugment and the layers in it do.
        generator: What it shall draw from.
    """
    from keras_cv import core

    keras_internals.set_random_generator(layer, generator)
    for name, value in list(vars(layer).items()):
        if isinstance(value, core.NormalFactorSampler | core.UniformFactorSampler):
            setattr(layer, name, _StatelessSampler(value, generator))
    for child in keras_internals.augmentations_within(layer):
        if keras_internals.random_generator_of(child) is not generator:
            make_stateless(child, generator)


class _StatelessSampler:
    """Draws what a keras-cv factor sampler would, from a `StatelessGenerator`."""

    def __init__(self, sampler: Any, generator: StatelessGenerator) -> None:
        self._sampler = sampler
        self._generator = generator

    def __call__(self, shape: Any = (), dtype: str = "float32") -> tf.Tensor:
        from keras_cv import core

        sampler, dtype = self._sampler, tf.as_dtype(dtype)
        if isinstance(sampler, core.UniformFactorSampler):
            return self._generator.uniform(shape, sampler.lower, sampler.upper, dtype)
        drawn = self._generator.normal(shape, sampler.mean, sampler.stddev, dtype)
        return tf.clip_by_value(drawn, sampler.min_value, sampler.max_value)
