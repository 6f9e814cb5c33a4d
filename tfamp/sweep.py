"""scripts/sweep.sh, python -m tfamp.sweep: trains every cell of a matrix, then makes the report."""

from __future__ import annotations

import argparse
import functools
import os
import shlex
import signal
import subprocess
import sys
from collections.abc import Callable, Sequence
from typing import NoReturn

from tfamp.run import commands
from tfamp.run.config import FLOAT16_POLICIES
from tfamp.run.errors import InputError
from tfamp.sweeping import cells as cells_lib
from tfamp.sweeping import matrix as matrix_lib
from tfamp.sweeping.cell import Cell
from tfamp.sweeping.folder import SweepFolder
from tfamp.sweeping.runner import Runner

_DESCRIPTION = """\
Trains every cell of a matrix, each in a process of its own, then makes the report.
Finished cells are passed over: after a kill, the same command goes on where it stopped."""

_EPILOG = """\
What follows -- goes to every cell; {train} --helpshort lists it.

example:
  {sweep} runs/policies --policies=float32,mixed_float16,mixed_bfloat16 \\
      --loops=fit,custom --seeds=0,1,2 -- --epochs=3 --batch_size=128

exit code: 0 all cells completed and the report is written, 1 a cell or the report failed,
2 bad input, 128 + signal where a signal ended the sweep."""


class _Parser(argparse.ArgumentParser):
    """Raises what argparse prints, so that all bad input is said in one way."""

    def error(self, message: str) -> NoReturn:
        raise InputError(
            f"{message[:1].upper()}{message[1:]}. Options of the sweep come before '--', the "
            "trainer's flags after it."
        )


def _parser() -> _Parser:
    parser = _Parser(
        prog=commands.typed("sweep"),
        usage="%(prog)s LOGDIR [option ...] [-- train flag ...]",
        description=_DESCRIPTION,
        epilog=_EPILOG.format(train=commands.typed("train"), sweep=commands.typed("sweep")),
        formatter_class=argparse.RawDescriptionHelpFormatter,
        allow_abbrev=False,
    )
    default = matrix_lib.Matrix()
    parser.add_argument("logdir", metavar="LOGDIR", nargs="?", help="folder of the runs")
    texts = {
        "policies": "precision policies",
        "models": "models, or path/to/file.py:function",
        "datasets": "data sets",
        "loops": "training loops",
        "seeds": "seeds",
        "loss_scales": "dynamic, none or numbers; for the float16 policies only",
    }
    for axis, text in texts.items():
        shown = ",".join(str(value) for value in getattr(default, axis))
        parser.add_argument(f"--{axis}", metavar="A,B", help=f"{text} (default: {shown})")
    parser.add_argument("--jobs", metavar="N", default="1", help="cells at a time (default: 1)")
    parser.add_argument(
        "--dry_run", action="store_true", help="print the commands and change nothing"
    )
    return parser


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
    arguments = list(sys.argv[1:] if argv is None else argv)
    # A line is seen when it is said, in a file and a pipe too.
    say = functools.partial(print, flush=True)
    try:
        return _main(arguments, say, cell_command, report_command)
    except InputError as error:
        print(f"tfamp: {error.told(matrix_lib.as_option)}", file=sys.stderr)
        print("Run with --help to see the options of a sweep.", file=sys.stderr)
        return 2
    except KeyboardInterrupt:
        return 128 + signal.SIGINT
    except BrokenPipeError:
        # Whoever read this went away (`| head`); Python would complain of it once more at its end.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return 128 + signal.SIGPIPE


def _main(
    arguments: list[str],
    say: Callable[[str], None],
    cell_command: Callable[[Cell], list[str]],
    report_command: Sequence[str],
) -> int:
    own, train_flags = _split(arguments)
    options, unknown = _parser().parse_known_args(own)
    if unknown:
        raise InputError(
            f"Unknown option {unknown[0]!r}. The sweep takes LOGDIR, --dry_run, --jobs and "
            f"{', '.join('--' + axis for axis in matrix_lib.AXES.values())}. Put flags of the "
            "trainer after '--', such as: LOGDIR --seeds=0,1 -- --epochs=3"
        )
    if not options.logdir:
        raise InputError(
            "No LOGDIR came. The first argument is the folder of the runs. Give one, such as "
            "runs/sweep."
        )
    jobs = _jobs(options.jobs)
    lists = {axis: getattr(options, axis) for axis in matrix_lib.AXES.values()}
    matrix = matrix_lib.read(lists, train_flags)
    cells = cells_lib.make(matrix, options.logdir, train_flags)
    overwrite = cells[0].config.overwrite
    cells_lib.check_on_disk(cells, overwrite)
    if options.dry_run:
        for cell in cells:
            say(f"# finished: {cell.name}" if cell.is_finished() else shlex.join(cell.command()))
        return 0

    folder = SweepFolder(options.logdir)
    with folder.locked(say) as lock:
        # Again: another sweep may have been at work until the lock was free.
        cells_lib.check_on_disk(cells, overwrite)
        folder.note([sys.argv[0], *arguments], jobs, [cell.name for cell in cells])
        finished = [cell for cell in cells if cell.is_finished()]
        waiting = [cell for cell in cells if cell not in finished]
        _say_plan(matrix, train_flags, jobs, finished, waiting, say)
        outcome = Runner(jobs, cell_command, say, held=(lock,)).run(waiting, finished)
    if outcome.signum is not None:
        done = sum(cell.is_finished() for cell in cells)
        print(
            f"\nInterrupted by {signal.Signals(outcome.signum).name}: {done} of {len(cells)} cells "
            "are completed. The same command goes on from there.",
            file=sys.stderr,
        )
        return 128 + outcome.signum
    done = len(cells) - len(outcome.failed)
    say(f"{done} of {len(cells)} cells completed.")
    for cell in outcome.failed:
        say(f"  failed: {cell.name}, see {cell.log}")
    if outcome.failed:
        say("The same command runs these again and passes over the others.")
    is_reported = _report([*report_command, options.logdir])
    return 0 if is_reported and not outcome.failed else 1


def _split(arguments: list[str]) -> tuple[list[str], list[str]]:
    if "--" not in arguments:
        return arguments, []
    place = arguments.index("--")
    return arguments[:place], arguments[place + 1 :]


def _jobs(given: str) -> int:
    try:
        jobs = int(given)
    except ValueError:
        jobs = 0
    if jobs < 1:
        raise InputError(
            f"--jobs={given}: it takes a whole number of 1 or more. Set --jobs=1, or leave it out."
        )
    return jobs


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


def _report(command: Sequence[str]) -> bool:
    try:
        code = subprocess.run(command, stdin=subprocess.DEVNULL, check=False).returncode
    except OSError as error:
        print(f"The report did not start: {error}", file=sys.stderr)
        return False
    if code != 0:
        print(f"The report failed (exit code {code}): {shlex.join(command)}", file=sys.stderr)
    return code == 0


if __name__ == "__main__":
    sys.exit(main())
