"""Texts that are held to what they tell: a number between marks is made of a result, not typed.

    float16 ends at <!--= float16.largest -->65504<!--/-->.

The name says which value stands there; GitHub and editors show the text without the marks. A table
or a console's output stands between marks in the same way. What is between two marks is compared
with the value, and can be written anew. A number in a sentence outside of marks is found.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator, Mapping

# A value is made when it is asked for: a result may not be there.
Values = Mapping[str, Callable[[], str]]

_HELD = re.compile(r"<!--= (?P<name>\S+) -->(?P<told>.*?)<!--/-->", re.DOTALL)
_MARK = re.compile(r"<!--[=/]")
# What is no sentence: code, links' targets, comments, headings' and lists' own marks.
_NO_SENTENCE = re.compile(
    r"^ *```.*?^ *```$|`[^`\n]+`|\]\([^)\n]*\)|<!--.*?-->|^ *\d+\. ", re.DOTALL | re.MULTILINE
)
# At the start of a line a comment begins a block of its own, in which Markdown is left as it is.
_BLOCK = re.compile(r"^[\s>]*(?:[-*+]\s+|\d+\.\s+)?<!--[=/].*?-->(?=.*\S)", re.MULTILINE)
# Not the 20 of ResNet-20, nor the 16 of float16.
_NUMBER = re.compile(r"(?<![\w⁻⁰¹²³⁴-⁹])(?<!\w-)\d[\d.,]*")


def differences(text: str, values: Values, is_strict: bool = True) -> list[str]:
    """What is wrong with a text, a line each: none where it tells what the results say.

    Args:
        text: The text.
        values: What each name stands for. Each must be told somewhere in the text.
        is_strict: Whether a number outside of marks is wrong.
    """
    found, told = [], set()
    for match in _HELD.finditer(text):
        name, line = match["name"], text.count("\n", 0, match.start()) + 1
        told.add(name)
        if name not in values:
            found.append(f"line {line}: there is no value named {name}")
            continue
        try:
            expected = values[name]()
        except FileNotFoundError as error:
            found.append(f"line {line}: {name} is told by {error.filename}, which is not there")
            continue
        if match["told"] != expected:
            found.append(f"line {line}: {name} is {_first_difference(match['told'], expected)}")
    found += [f"no line tells {name}" for name in values if name not in told]
    marks = len(_MARK.findall(text))
    if marks != 2 * len(_HELD.findall(text)):
        found.append("a mark <!--= NAME --> has no <!--/-->, or one stands within another")
    for match in _BLOCK.finditer(text):
        line = text.count("\n", 0, match.end()) + 1
        found.append(f"line {line}: a mark at the start of a line must be all of the line")
    loose = loose_numbers(text) if is_strict else ()
    return found + [f"line {line}: {number} is held by nothing" for line, number in loose]


def rewritten(text: str, values: Values) -> str:
    """The text with every value as it is now; names without a value stay as they are."""

    def anew(match: re.Match[str]) -> str:
        name = match["name"]
        return f"<!--= {name} -->{values[name]()}<!--/-->" if name in values else match[0]

    return _HELD.sub(anew, text)


def loose_numbers(text: str) -> Iterator[tuple[int, str]]:
    """The line and the number of each that stands in a sentence, outside of marks."""

    def blank(match: re.Match[str]) -> str:
        return re.sub(r"[^\n]", " ", match[0])

    sentences = _NO_SENTENCE.sub(blank, _HELD.sub(blank, text))
    for match in _NUMBER.finditer(sentences):
        yield sentences.count("\n", 0, match.start()) + 1, match[0].rstrip(".,")


def _first_difference(told: str, expected: str) -> str:
    if "\n" not in told + expected:
        return f"{expected}, and the text says {told}"
    lines = zip((told + "\n").splitlines(), (expected + "\n").splitlines(), strict=False)
    for had, has in lines:
        if had != has:
            return f"{has!r}, and the text says {had!r}"
    return f"{len(expected.splitlines())} lines, and the text has {len(told.splitlines())}"
