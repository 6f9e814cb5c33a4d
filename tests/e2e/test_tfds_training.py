"""The trainer on a real TFDS set, prepared from Debian's files with no network."""

from __future__ import annotations

import pytest


@pytest.mark.slow
@pytest.mark.parametrize("loop", ["fit", "custom"])
def test_it_trains_on_the_real_fashion_mnist(train, fashion_mnist_dir, loop):
    outcome = train(
        dataset="fashion_mnist",
        data_dir=str(fashion_mnist_dir),
        policy="mixed_bfloat16",
        loop=loop,
        steps_per_epoch=60,
        optimizer="adamw",
        learning_rate=0.01,
    )
    assert outcome.result["status"] == "completed"
    assert outcome.result["validation_accuracy"] > 0.2  # Chance is 0.1, and 60 steps are few.
    assert outcome.config["config"]["dataset"] == "fashion_mnist"
    assert [row["step"] for row in outcome.steps] == list(range(1, 61))
