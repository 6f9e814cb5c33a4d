"""How the user starts tfamp's programs, for the commands that tfamp prints.

A command that is printed is copied. The scripts of a checkout tell in TFAMP_SCRIPTS how they were
called, and the same way works again; without them, Python has the modules.
"""

from __future__ import annotations

import os
import shlex

_MODULES = {"tensorboard": "tensorboard.main --logdir"}


def has_scripts() -> bool:
    """Whether a script of the checkout started this process."""
    return bool(os.environ.get("TFAMP_SCRIPTS"))


def typed(program: str, *arguments: str) -> str:
    """A command line to copy.

    Args:
        program: "train", "sweep", "report" or "tensorboard".
        arguments: What follows; quoted where a shell asks for it.
    """
    if has_scripts():
        venv = os.environ.get("TFAMP_VENV")
        command = f"TFAMP_VENV={shlex.quote(venv)} " if venv else ""
        command += shlex.quote(os.path.join(os.environ["TFAMP_SCRIPTS"], f"{program}.sh"))
    else:
        command = f"python -m {_MODULES.get(program, f'tfamp.{program}')}"
    return " ".join([command, *map(shlex.quote, arguments)])
