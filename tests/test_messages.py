"""The helper that other tests trust: a part that is not named is noticed."""

import pytest

from tests.messages import says

MESSAGE = "--epochs=10: it must be from 1 to 2.5 in runs/a.json.\nSet --policy=float16."


@pytest.mark.parametrize(
    "parts", [("--epochs=10", 1, 2.5, "--policy"), ("runs/a.json", "float16."), ("Set",), ("must",)]
)
def test_what_is_named(parts):
    assert says(MESSAGE, *parts)


@pytest.mark.parametrize(
    "parts",
    [
        ("--epochs=1",),
        ("epochs",),
        (0,),
        (2,),
        (5,),
        ("a.js",),
        ("float",),
        ("epochs.*10",),
        # Each is there, but not in this order, or not twice.
        ("--policy", "--epochs"),
        ("--epochs=10", 1, 1),
    ],
)
def test_what_is_not_named(parts):
    assert not says(MESSAGE, *parts)
