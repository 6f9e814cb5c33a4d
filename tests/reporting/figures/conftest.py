from __future__ import annotations

import pytest
from drawn_groups import write_three_seeds


@pytest.fixture
def three_seeds(tmp_path):
    return write_three_seeds(tmp_path)
