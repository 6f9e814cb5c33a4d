from __future__ import annotations

import dataclasses
from typing import Any

import keras
import pytest
from short_runs import SHORT, Outcome, run_once

from tfamp.run.config import Config
from tfamp.run.resolve import resolve


@pytest.fixture(autouse=True)
def clean_keras():
    """The policy only: clearing the session costs a third of a second a test, a run needs none."""
    keras.config.set_dtype_policy("float32")
    yield
    keras.config.set_dtype_policy("float32")


@pytest.fixture(scope="session")
def train_any(tmp_path_factory):
    """Runs `SHORT` with changes; equal runs are run once a session."""
    known: dict[Config, Outcome] = {}

    def train(**changes: Any) -> Outcome:
        config = Config(**(SHORT | changes))
        if config not in known:
            logdir = str(tmp_path_factory.mktemp("runs"))
            placed = {"logdir": logdir} if "logdir" not in changes else {}
            known[config] = run_once(resolve(dataclasses.replace(config, **placed)))
        return known[config]

    return train


@pytest.fixture
def train(train_any):
    """As `train_any`, for runs that complete."""

    def completed(**changes: Any) -> Outcome:
        outcome = train_any(**changes)
        if outcome.error:
            raise outcome.error
        return outcome

    return completed
