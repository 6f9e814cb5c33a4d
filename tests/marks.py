"""What a parameter of a test is marked with."""

import functools

import pytest

# A case that another one of the newcomer's suite stands for; CI runs it. Each value of each
# parameter, and each pair that shares code, keeps a case that is not slow.
slow = functools.partial(pytest.param, marks=pytest.mark.slow)
