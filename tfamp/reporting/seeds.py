"""The seeds of runs: their order, and how they are told."""

from __future__ import annotations

from collections.abc import Sequence


def by_seed(seed: int | None) -> tuple[bool, int]:
    """Sorts seeds, none behind all others."""
    return seed is None, seed or 0


def in_words(values: Sequence[int | None]) -> str:
    """Seeds in a row, `0 to 9` where they are many in a row; a script may have set none."""
    known = [value for value in values if value is not None]
    if len(known) == len(values) > 3 and known == list(range(known[0], known[-1] + 1)):
        return f"{known[0]} to {known[-1]}"
    return ", ".join("not set" if value is None else str(value) for value in values)
