"""The loss-scaling lab; each of its parts is a command of its own.

scripts/python.sh -m experiments.loss_scaling --explain 1e-8 70000
"""

from __future__ import annotations

import importlib
import sys
from collections.abc import Sequence
from typing import NamedTuple

from tfamp.run.command import Command, Given
from tfamp.run.errors import InputError, nearest_names
from tfamp.training import startup


class Part(NamedTuple):
    """A part of the lab.

    Attributes:
        module: The module whose `main(arguments)` runs it and returns the exit code; it is imported
            when its part is asked for, as some take seconds.
        about: What it does.
        trains: Whether it needs TensorFlow, which is imported quietly before the module is.
    """

    module: str
    about: str
    trains: bool = False


PARTS = {
    "strategies": Part("strategies", "ways to choose a loss scale, compared", trains=True),
    "failure": Part("failure", "a training that fails without a loss scale", trains=True),
    "claim": Part("claim", "static scales below, in and above the advised window", trains=True),
    "explain": Part("explain", "what the number formats hold, and what numbers become in them"),
    "scalers": Part("scalers", "tfamp's, Keras's and PyTorch's loss scaler on the same gradients"),
    "page": Part("page", "every number of experiments/loss_scaling.md, made again or compared"),
}


def main(arguments: Sequence[str] | None = None) -> int:
    """Runs the part that the first argument names; dashes before its name change nothing."""
    given = list(sys.argv[1:] if arguments is None else arguments)
    name = given[0].lstrip("-") if given else ""
    if name not in PARTS:
        return COMMAND.main(given)
    if PARTS[name].trains:
        startup.import_tensorflow(float16=True)
    return importlib.import_module(f"experiments.loss_scaling.{PARTS[name].module}").main(given[1:])


def _no_such_part(given: Given) -> int:
    name = given.places[0]
    near = nearest_names(name, PARTS)
    guess = f" Did you mean {near[0]!r}?" if near else ""
    raise InputError(f"Unknown part {name!r}.{guess} {_LIST}")


_LIST = f"The lab has: {', '.join(PARTS)}."
_WIDTH = max(map(len, PARTS))

COMMAND = Command(
    name="experiments.loss_scaling",
    about="The loss-scaling lab. PART is one of:\n\n"
    + "\n".join(f"  {name:{_WIDTH}}  {part.about}" for name, part in PARTS.items())
    + "\n\nPART --help says what it takes.",
    options={},
    body=_no_such_part,
    places=("PART",),
    hint=_LIST,
)


if __name__ == "__main__":
    sys.exit(main())
