"""A config as an older run recorded it, in the words of today."""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import Any

from tfamp.run.config import Config

_DEFAULTS = json.loads(json.dumps(Config().to_json()))


def completed(config: Mapping[str, Any]) -> dict[str, Any]:
    """Fills in what was not yet a setting when a run recorded its config.

    Args:
        config: `config` of a config.json.

    Returns:
        The same with the default of each absent field, which is what such a run did. Its order is
        that of `Config`, with fields that are none of today's behind.
    """
    found = {**_DEFAULTS, **config}
    if "stop_on_non_finite" not in config and config.get("max_skipped_in_a_row", 0) is None:
        # No bound was the default then; it is one that no healthy run comes near.
        found["max_skipped_in_a_row"] = _DEFAULTS["max_skipped_in_a_row"]
    return found


def changed_files(
    there: Mapping[str, str], here: Mapping[str, str]
) -> dict[str, tuple[str | None, str | None]]:
    """The files of a user's model in which two `model_sha256` differ.

    Returns:
        The two hashes by the file's name, None for one that is not there.
    """
    pairs = {name: (there.get(name), here.get(name)) for name in dict.fromkeys((*there, *here))}
    return {name: pair for name, pair in pairs.items() if pair[0] != pair[1]}


def short_hash(value: str | None) -> str:
    """A file's hash as a message shows it."""
    return "no such file" if value is None else f"sha256 {value[:12]}"
