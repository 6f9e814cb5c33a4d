from __future__ import annotations

from collections.abc import Callable, Iterator

import keras
import pytest


@pytest.fixture
def set_policy() -> Iterator[Callable[[str], None]]:
    """Sets the global policy and the seeds; the policy goes back when the test ends."""
    before = keras.config.dtype_policy()
    keras.utils.set_random_seed(0)
    yield keras.config.set_dtype_policy
    keras.config.set_dtype_policy(before)
