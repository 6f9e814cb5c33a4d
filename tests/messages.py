"""What a message must name, whatever words it is put in.

A message has three parts: what came, what is allowed, what to set. A test gives the names, values,
paths and numbers of each, and at most the word that tells one refusal from another.
"""

from __future__ import annotations

import re


def naming(*parts: object) -> str:
    """A pattern for messages that hold each of `parts`, whole and in this order.

    Whole: `1` is not in `10`, `-1` or `1.5`, and `policy` not in `--policy` or `policies`.
    """
    return "(?s)" + ".*?".join(map(_whole, map(str, parts)))


def says(message: str, *parts: object) -> bool:
    """Whether the message holds each of `parts`, whole and in this order."""
    return re.search(naming(*parts), message) is not None


def _whole(part: str) -> str:
    before = r"(?<![\w-])(?<!\d[.,])" if part[0].isalnum() else ""
    after = r"(?!\w|[.,]\d)" if part[-1].isalnum() else ""
    return before + re.escape(part) + after
