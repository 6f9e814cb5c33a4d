"""What may stand for the optimizer that is wrapped."""

import keras
import pytest

from tfamp.precision.inner_optimizer import inner_optimizer_of


def test_an_optimizer_is_taken_as_it_is_and_a_name_or_a_config_stands_for_one():
    optimizer = keras.optimizers.SGD(0.5)
    assert inner_optimizer_of(optimizer) is optimizer
    assert type(inner_optimizer_of("adam")) is keras.optimizers.Adam
    config = keras.optimizers.serialize(optimizer)
    assert float(inner_optimizer_of(config).learning_rate) == 0.5


@pytest.mark.parametrize("given", ["adamm", 0.001, None, keras.optimizers.Adam])
def test_what_is_none_is_refused_by_what_came(given):
    with pytest.raises(ValueError) as refused:
        inner_optimizer_of(given)
    assert str(refused.value).startswith(f"inner_optimizer={given!r}: it must be a keras.optimi")


def test_what_scales_already_is_refused_by_its_kind():
    scaled = keras.optimizers.LossScaleOptimizer(keras.optimizers.SGD())
    with pytest.raises(ValueError, match="inner_optimizer is a LossScaleOptimizer already"):
        inner_optimizer_of(scaled)
