"""scripts/sweep.sh, python -m tfamp.sweep: trains every cell of a matrix, then makes the report."""

from __future__ import annotations

import functools
import shlex
import signal
import subprocess
import sys
from collections.abc import Callable, Sequence

from tfamp.run import command
from tfamp.run.command import Command, Given, Option
from tfamp.run.config import FLOAT16_POLICIES
from tfamp.run.kinds import Kind, Number, Switch
from tfamp.run.ranges import whole
from tfamp.sweeping import cells as cells_lib
from tfamp.sweeping import matrix as matrix_lib
from tfamp.sweeping.cell import Cell
from tfamp.sweeping.folder import SweepFolder
from tfamp.sweeping.runner import Runner

_ABOUT = """\
Trains every cell of a matrix, each in a process of its own, then makes the report.
Finished cells are passed over: after a kill, the same command goes on where it stopped.
What follows -- goes to every cell; {train} --helpshort lists it.

example:
  {sweep} runs/policies --policies=float32,mixed_float16,mixed_bfloat16 \\
      --loops=fit,custom --seeds=0,1,2 -- --epochs=3 --batch_size=128

exit code: 0 all cells completed and the report is written, 1 a cell or the report failed,
2 bad input, 128 + signal where a signal ended the sweep."""

_AXES = {
    "policies": "Precision policies",
    "models": "Models, or path/to/file.py:function",
    "datasets": "Data sets",
    "loops": "Training loops",
    "seeds": "Seeds",
    "loss_scales": "dynamic, none or numbers; for the float16 policies only",
}


def _options() -> dict[str, Option]:
    default = matrix_lib.Matrix()
    options = {}
    for axis, text in _AXES.items():
        shown = ",".join(str(value) for value in getattr(default, axis))
        options[axis] = Option(None, Kind(), f"{text}, separated by commas. Default: {shown}.")
    options["jobs"] = Option(1, Number(whole(1)), "Cells at a time.")
    options["dry_run"] = Option(False, Switch(), "Print the commands and change nothing.")
    return options


def main(
    argv: Sequence[str] | None = None,
    cell_command: Callable[[Cell], list[str]] = Cell.command,
    report_command: Sequence[str] = (sys.executable, "-m", "tfamp.report"),
) -> int:
    """Runs a sweep; see the module's --help.

    Args:
        argv: The arguments, without the program's name.
        cell_command: Makes the command line of a cell's process.
        report_command: The report's command line, less the LOGDIR at its end.

    Returns:
        0 all completed, 1 a cell or the report failed, 2 bad input, 128 + signal where a signal
        ended the sweep.
    """
    return Command(
        name="sweep",
        about=_ABOUT.format(train=command.typed("train"), sweep=command.typed("sweep")),
        options=_options(),
        body=lambda given: _sweep(given, cell_command, report_command),
        places=("LOGDIR",),
        rest="TRAIN FLAG",
        hint="Options of the sweep come before '--', the trainer's flags after it, as in: "
        "LOGDIR --seeds=0,1 -- --epochs=3",
        terms=matrix_lib.as_option,
    ).main(argv)


def _sweep(
    given: Given, cell_command: Callable[[Cell], list[str]], report_command: Sequence[str]
) -> int:
    # A line is seen when it is said, in a file and a pipe too.
    say = functools.partial(print, flush=True)
    (logdir,), train_flags, jobs = given.places, list(given.rest), given["jobs"]
    lists = {axis: given[axis] for axis in matrix_lib.AXES.values()}
    matrix = matrix_lib.read(lists, train_flags)
    cells = cells_lib.make(matrix, logdir, train_flags)
    overwrite = cells[0].config.overwrite
    cells_lib.check_on_disk(cells, overwrite)
    if given["dry_run"]:
        for cell in cells:
            say(f"# finished: {cell.name}" if cell.is_finished() else shlex.join(cell.command()))
        return command.DONE

    folder = SweepFolder(logdir)
    with folder.locked(say) as lock:
        # Again: another sweep may have been at work until the lock was free.
        cells_lib.check_on_disk(cells, overwrite)
        folder.note([sys.argv[0], *given.arguments], jobs, [cell.name for cell in cells])
        finished = [cell for cell in cells if cell.is_finished()]
        waiting = [cell for cell in cells if cell not in finished]
        _say_plan(matrix, train_flags, jobs, finished, waiting, say)
        outcome = Runner(jobs, cell_command, say, held=(lock,)).run(waiting, finished)
    if outcome.signum is not None:
        done = sum(cell.is_finished() for cell in cells)
        raise command.stopped(
            outcome.signum,
            f"Interrupted by {signal.Signals(outcome.signum).name}: {done} of {len(cells)} cells "
            "are completed. The same command goes on from there.",
        )
    done = len(cells) - len(outcome.failed)
    say(f"{done} of {len(cells)} cells completed.")
    for cell in outcome.failed:
        say(f"  failed: {cell.name}, see {cell.log}")
    if outcome.failed:
        say("The same command runs these again and passes over the others.")
    is_reported = _report([*report_command, logdir])
    return command.DONE if is_reported and not outcome.failed else command.FAILED


def _say_plan(
    matrix: matrix_lib.Matrix,
    train_flags: Sequence[str],
    jobs: int,
    finished: Sequence[Cell],
    waiting: Sequence[Cell],
    say: Callable[[str], None],
) -> None:
    total = len(finished) + len(waiting)
    say(
        f"{total} {'cell' if total == 1 else 'cells'}, {len(finished)} of them finished already, "
        f"{len(waiting)} to run:"
    )
    scales = any(policy in FLOAT16_POLICIES for policy in matrix.policies)
    for axis in matrix_lib.AXES.values():
        if axis == "loss_scales" and not scales:
            continue
        say(f"  {axis:<12}{', '.join(str(value) for value in getattr(matrix, axis))}")
    if not cells_lib.gives_jit_compile(train_flags):
        say(
            "Every cell is compiled with XLA (--jit_compile), so that only what is swept differs; "
            "'-- --nojit_compile' turns it off."
        )
    if jobs > 1:
        say(
            f"Warning: --jobs={jobs} processes slow each other down, so times and throughput of "
            "these cells cannot be compared. Use --jobs=1 to measure them."
        )


def _report(arguments: Sequence[str]) -> bool:
    try:
        code = subprocess.run(arguments, stdin=subprocess.DEVNULL, check=False).returncode
    except OSError as error:
        print(f"The report did not start: {error}", file=sys.stderr)
        return False
    if code != 0:
        print(f"The report failed (exit code {code}): {shlex.join(arguments)}", file=sys.stderr)
    return code == 0


if __name__ == "__main__":
    sys.exit(main())
