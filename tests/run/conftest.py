from __future__ import annotations

import pytest


@pytest.fixture(autouse=True)
def clean_keras():
    """Nothing here builds a layer; a fifth of a second a test is saved."""
