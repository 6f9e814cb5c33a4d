"""What every test shares: TensorFlow loaded quietly, and a clean Keras around each test."""

from __future__ import annotations

from tfamp.run import quiet

quiet.import_tensorflow(float16=True)

from collections.abc import Iterator  # noqa: E402

import keras  # noqa: E402
import pytest  # noqa: E402

POLICIES = ("float32", "mixed_float16", "mixed_bfloat16", "float16", "bfloat16")
MIXED_POLICIES = ("mixed_float16", "mixed_bfloat16")


@pytest.fixture(autouse=True)
def clean_keras() -> Iterator[None]:
    """Float32 policy before and after, fixed seeds, no layers left from the test before."""
    keras.backend.clear_session()
    keras.config.set_dtype_policy("float32")
    keras.utils.set_random_seed(0)
    yield
    keras.config.set_dtype_policy("float32")
