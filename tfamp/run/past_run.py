"""A run that ended, completed or not, as another command goes on from it: settings and weights."""

from __future__ import annotations

import dataclasses
import math
from pathlib import Path

from tfamp.run import schema
from tfamp.run.config import Config
from tfamp.run.directory import RunDirectory
from tfamp.run.errors import InputError, setting
from tfamp.run.result import FINAL_WEIGHTS, RunResult
from tfamp.run.run_config import RunConfig
from tfamp.run.schema import OtherVersionError, RecordError

# Runs below a folder that a message names, at most.
_NAMED = 3


@dataclasses.dataclass(frozen=True)
class PastRun:
    """What a run left.

    Attributes:
        path: Its folder.
        config: The settings that it had.
        record: config.json.
        result: result.json; None where a kill left none.
    """

    path: Path
    config: Config
    record: RunConfig
    result: RunResult | None

    @property
    def weights(self) -> Path:
        """The file of the last weights, which is there."""
        return self.path / FINAL_WEIGHTS

    @property
    def settled_log2_scale(self) -> float | None:
        """Log2 of the loss scale that it ended with; None where it scaled nothing."""
        figures = None if self.result is None else self.result.figures
        scale = None if figures is None else figures.loss_scale
        return None if scale is None or not scale.final > 0 else math.log2(scale.final)

    @property
    def steps(self) -> int:
        """Steps that it had taken; 0 where it does not tell."""
        figures = None if self.result is None else self.result.figures
        return 0 if figures is None else figures.steps_attempted


def read(path: Path) -> PastRun:
    """Reads a run of tfamp.train that left its weights.

    Raises:
        InputError: It is none, or of another schema, or its weights are not there.
    """
    directory = RunDirectory(path)
    path = directory.path
    came = setting("run", str(path))
    try:
        if not directory.config.is_file():
            raise InputError(f"{came}: {_what_is_there(path)} Give the folder of one run.")
        record = RunConfig.read(directory.config)
        config = record.as_config()
    except OSError as error:
        raise InputError(
            f"{came} cannot be read: {error.strerror or error}. Give the folder of a run that you "
            "may read."
        ) from error
    except OtherVersionError as other:
        raise InputError(
            f"{came}: {other} Train it again with this tfamp, or use the one that trained it."
        ) from other
    except RecordError as error:
        raise InputError(f"{came}: {error} Give the folder of a run of tfamp.train.") from error
    if config.dataset is None:
        raise InputError(
            f"{came} is the run of a script, which tells neither its data nor how its model is "
            "made. Give a run of tfamp.train, or call tfamp.gradient_fidelity in the script."
        )
    result = _result(directory)
    if not directory.path.joinpath(FINAL_WEIGHTS).is_file():
        raise InputError(f"{came} has no {FINAL_WEIGHTS}: {_why_no_weights(config, result)}")
    return PastRun(path, config, record, result)


def _what_is_there(path: Path) -> str:
    if not path.exists():
        return "there is no such folder."
    if not path.is_dir():
        return "it is no folder."
    below = sorted(each.parent.name for each in path.glob("*/config.json"))
    named = ", ".join(below[:_NAMED]) + (f" and {len(below) - _NAMED} more" * (len(below) > _NAMED))
    return f"it holds no run, but runs: {named}." if below else "it holds no run (no config.json)."


def _result(directory: RunDirectory) -> RunResult | None:
    """What it tells of its end, as far as it can be read: nothing here relies on it."""
    try:
        return RunResult.from_json(schema.read_object(directory.result) or {})
    except (OSError, ValueError):
        return None


def _why_no_weights(config: Config, result: RunResult | None) -> str:
    if not config.save_model:
        return "it was trained with --nosave_model. Train it again without."
    if result is None:
        return "it trains still, or was killed. Wait for its end, or train it again."
    saved = result.saved
    why = saved.why_no_weights if saved is not None and saved.why_no_weights else "it is gone."
    return f"{why.rstrip('.')}. Train it again."
