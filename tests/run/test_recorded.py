from __future__ import annotations

import json

import pytest

from tfamp.run import recorded
from tfamp.run.config import Config

TODAY = json.loads(json.dumps(Config().to_json()))


def test_a_config_of_today_is_left_as_it_is():
    mine = TODAY | {"stop_on_non_finite": True, "max_skipped_in_a_row": None, "epochs": 3}
    assert recorded.completed(mine) == mine


def test_an_absent_field_has_its_default():
    old = {"policy": "float16", "of_another_version": 3}
    assert recorded.completed(old) == TODAY | old


@pytest.mark.parametrize("bound", [None, 7])
def test_no_bound_on_skips_is_the_default_in_an_older_config(bound):
    found = recorded.completed({"max_skipped_in_a_row": bound})
    expected = TODAY["max_skipped_in_a_row"] if bound is None else bound
    assert found["max_skipped_in_a_row"] == expected


def test_files_that_differ():
    there, here = {"a.py": "1", "b.py": "2", "c.py": "3"}, {"a.py": "1", "b.py": "9", "d.py": "4"}
    assert recorded.changed_files(there, here) == {
        "b.py": ("2", "9"),
        "c.py": ("3", None),
        "d.py": (None, "4"),
    }
    assert recorded.changed_files(there, there) == {}
