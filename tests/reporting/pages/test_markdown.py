"""Texts from disk stay text in Markdown."""

import pytest

from tfamp.reporting.pages import markdown


@pytest.mark.parametrize(
    ("text", "escaped"),
    [
        ("mixed_float16", "mixed_float16"),
        ("a|b", r"a\|b"),
        ("_a_ and *b*", r"\_a\_ and \*b\*"),
        ("<b>&", "&lt;b&gt;&amp;"),
        ("- a", r"\- a"),
        ("12. a", r"12\. a"),
        ("1.45", "1.45"),
        ("-0.25 to +0.25", "-0.25 to +0.25"),
        ("---", r"\---"),
        ("two\nlines", "two lines"),
        ("\u202etxt", "�txt"),
    ],
)
def test_markdown_is_escaped(text, escaped):
    assert markdown.escape(text) == escaped
