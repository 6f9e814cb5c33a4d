"""config.json: what was run, with what and on what. Each key is declared here, and only here."""

from __future__ import annotations

import dataclasses
import typing
from collections.abc import Mapping
from typing import Any

from tfamp.run import recorded, records, schema
from tfamp.run.config import Config, Role, names_of
from tfamp.run.result import ComputesIn
from tfamp.run.schema import key


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
        return recorded.completed(self.config)

    def as_config(self) -> Config:
        """The settings as a `Config`, less those of other versions.

        A field that a script does not tell is None, whatever its type; all scripts tell how they
        compute.

        Raises:
            schema.RecordError: There is no `config`, or a field is of another kind.
        """
        settings, hints = self.settings(), typing.get_type_hints(Config)
        found = {}
        for field in dataclasses.fields(Config):
            hint, value = hints[field.name], settings[field.name]
            may_be_null = field.name not in names_of(Role.PRECISION)
            found[field.name] = schema.fitting(
                hint | None if may_be_null else hint, value, self.file, field.name
            )
        return Config(**found)


def is_of_a_run(value: Mapping[str, Any]) -> bool:
    """Whether a run wrote a config.json: it is marked, or has the schema of before the mark."""
    return schema.is_marked(value) or (
        value.get("schema_version") == records.SCHEMA_VERSION and "command_line" in value
    )
