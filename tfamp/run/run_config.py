"""config.json: what was run, with what and on what. Each key is declared here, and only here."""

from __future__ import annotations

import dataclasses
import json
import typing
from collections.abc import Mapping
from typing import Any

from tfamp.run import records, schema
from tfamp.run.config import Config, Role, declarations, names_of
from tfamp.run.result import AutoScale, ComputesIn
from tfamp.run.schema import key

# As JSON has them, where a tuple is a list.
_DEFAULTS: dict[str, Any] = json.loads(json.dumps(Config().to_json()))


@dataclasses.dataclass(frozen=True, kw_only=True)
class Float32Effect:
    """What a pattern of `--float32_layers` did."""

    changed: tuple[str, ...] = key("paths of the layers that it moved from 16 bits to float32")
    float32_anyway: tuple[str, ...] = key("paths of those that compute in float32 without it")


@dataclasses.dataclass(frozen=True, kw_only=True)
class RunConfig(schema.JsonFile):
    """All of config.json, which is written when a run is built and has not begun."""

    file = "config.json"

    config: dict[str, Any] = key(
        "the resolved settings, by the names of the flags; of a script those that its model and "
        "optimizer tell",
        absent={},
    )
    asked: dict[str, Any] | None = key(
        "those of them that the user gave, as he gave them: the others were decided; null where "
        "nobody told, as of a config that was made in Python",
        absent=None,
        left_out=True,
    )
    command_line: tuple[str, ...] = key("what the user typed", absent=())
    saves: tuple[str, ...] = key("names of the weights and models that the run writes", absent=())
    versions: dict[str, str] = key(
        "versions of Python, tfamp and what it stands on, by package", absent={}
    )
    git_revision: str | None = key(
        "revision of the checkout that ran, `-dirty` after a change; null for a wheel", absent=None
    )
    device: str | None = key("the training device, as `CPU:0 (its name)`", absent=None)
    tf32: bool | None = key("whether float32 products really run in TF32", absent=None)
    trainable_parameters: int | None = key("their number", absent=None)
    model_sha256: dict[str, str] | None = key(
        "SHA-256 of a user's model file and of what it imports beside it, by path; null for "
        "tfamp's own models and in a script",
        absent=None,
    )
    computes_in: ComputesIn | None = key(
        "what really computes in 16 bits", absent=None, left_out=True
    )
    forced_float32_layers: tuple[str, ...] | None = key(
        "paths of the layers that `--float32_layers` names", absent=None, left_out=True
    )
    float32_layers_effect: dict[str, Float32Effect] | None = key(
        "what each of its patterns did", absent=None, left_out=True
    )
    auto_loss_scale: AutoScale | None = key(
        "what `--loss_scale=auto` chose", absent=None, left_out=True
    )
    optimizers: dict[str, dict[str, Any]] | None = key(
        "what each of several optimizers tells of itself, by name", absent=None, left_out=True
    )

    def settings(self) -> dict[str, Any]:
        """`config` in the words of today: the default of each absent field, for an older run.

        Raises:
            schema.RecordError: There is no `config`.
        """
        if not self.config:
            raise schema.RecordError('config.json has no "config": tfamp.train did not write it.')
        found = {**_DEFAULTS, **self.config}
        if "stop_on_non_finite" not in self.config and found["max_skipped_in_a_row"] is None:
            # No bound was the default then; it is one that no healthy run comes near.
            found["max_skipped_in_a_row"] = _DEFAULTS["max_skipped_in_a_row"]
        return found

    def as_config(self) -> Config:
        """The settings as a `Config`, less those of other versions.

        A field that a script does not tell is None, whatever its type; all scripts tell how they
        compute.

        Raises:
            schema.RecordError: There is no `config`, or a field is of another kind.
        """
        settings, hints = self.settings(), typing.get_type_hints(Config)
        found = {}
        for name in declarations():
            may_be_null = name not in names_of(Role.PRECISION)
            hint = hints[name] | None if may_be_null else hints[name]
            found[name] = schema.fitting(hint, settings[name], self.file, name)
        return Config(**found)


def is_of_a_run(value: Mapping[str, Any]) -> bool:
    """Whether a run wrote a config.json: it is marked, or has the schema of before the mark."""
    return schema.is_marked(value) or (
        value.get("schema_version") == records.SCHEMA_VERSION and "command_line" in value
    )


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
