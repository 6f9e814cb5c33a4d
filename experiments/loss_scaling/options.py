"""The flags that every experiment of the lab takes."""

from __future__ import annotations

import logging
from collections.abc import Callable
from pathlib import Path

from experiments.loss_scaling.results_file import FOLDER
from tfamp.run import kinds
from tfamp.run.command import DONE, Command, Given, Option, ctrl_c_ends

_QUICK = Path("runs/loss_scaling_quick")

_OPTIONS = {
    "out": Option(
        None,
        kinds.Folder(),
        f"Folder of the results. Default: {FOLDER}; with --quick {_QUICK}.",
    ),
    "quick": Option(False, kinds.Switch(), "A few steps of tiny models: whether it works at all."),
    "overwrite": Option(False, kinds.Switch(), "Make the runs anew that are there already."),
}


def command(part: str, about: str, body: Callable[[Given, Path], None]) -> Command:
    """The command of a part that trains.

    Args:
        part: Its name.
        about: What it does, for its help.
        body: Does it, given what was typed and the folder for the results.
    """

    def run(given: Given) -> int:
        # Each run has functions of its own, which it takes for a mistake.
        logging.getLogger("tensorflow").setLevel(logging.ERROR)
        folder = Path(given["out"] or (_QUICK if given["quick"] else FOLDER))
        with ctrl_c_ends("Stopped. The same command goes on from here."):
            body(given, folder)
        return DONE

    return Command(name=f"experiments.loss_scaling {part}", about=about, options=_OPTIONS, body=run)
