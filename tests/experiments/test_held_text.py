"""A text is held to its values, and a planted fault is found."""

import pytest

from experiments.held_text import differences, loose_numbers, rewritten
from tests.messages import says

VALUES = {"largest": lambda: "65504", "table": lambda: "\n| a |\n| 1 |\n"}
TEXT = """\
# The page of exercise one

float16 ends at <!--= largest -->65504<!--/-->, ResNet-20 at `2^3`, and
[this](page2.md) has it again: **<!--= largest -->65504<!--/-->**.

1. first

<!--= table -->
| a |
| 1 |
<!--/-->

```bash
train --steps=3
```
"""


def test_a_true_text_has_no_difference():
    assert differences(TEXT, VALUES) == []
    assert rewritten(TEXT, VALUES) == TEXT


@pytest.mark.parametrize(
    ("had", "has", "expected"),
    [
        ("**<!--= largest -->65504", "**<!--= largest -->65505", ("line 4", "65504", "65505")),
        ("| 1 |", "| 2 |", ("line 8", "table", "1", "2")),
        ("| 1 |\n", "", ("line 8", "table", "<!--/-->", "| 1 |")),
        ("<!--= largest -->65504<!--/-->, R", "<!--= biggest -->65504<!--/-->, R",
         ("line 3", "biggest")),
        ("float16 ends at", "float16 ends above 65000, at", ("line 3", "65000")),
        ("float16 ends at", "float16 (-5.96e-8) ends at", ("line 3", "5.96")),
        ("**<!--= largest -->65504<!--/-->**", "**<!--= largest -->65504**", ("mark",)),
        ("again: **<!", "again:\n<!", ("line 5", "mark", "start of a line")),
        ("1. first", "1. <!--= largest -->65504<!--/--> first", ("line 6", "start of a line")),
    ],
)  # fmt: skip
def test_a_planted_fault_is_found(had, has, expected):
    assert TEXT.count(had) == 1
    found = differences(TEXT.replace(had, has), VALUES)
    assert len(found) == 1 or "mark" in expected, found
    if "<!--/-->" not in expected:
        assert any(says(one, *expected) for one in found), found


def test_a_value_that_no_line_tells_is_found():
    assert differences(TEXT, VALUES | {"smallest": lambda: "0"}) == ["no line tells smallest"]


def test_a_text_may_have_numbers_of_its_own():
    text = TEXT.replace("float16 ends at", "float16 ends above 65000, at")
    assert differences(text, VALUES, is_strict=False) == []


def test_a_text_is_written_anew():
    stale = TEXT.replace("65504", "1").replace("| 1 |", "| 7 |\n| 8 |")
    assert rewritten(stale, VALUES) == TEXT


@pytest.mark.parametrize(
    ("text", "numbers"),
    [
        ("2,000 steps, at 2⁻²⁴ or 0.5 %.", ["2,000", "2", "0.5"]),
        ("float16, ResNet-20, e4m3 and x2", []),
        ("a `2^15` and ![3 curves](4.png)", ["3"]),
        ("```\n1\n```\n2", ["2"]),
    ],
)
def test_loose_numbers(text, numbers):
    assert [number for _, number in loose_numbers(text)] == numbers
