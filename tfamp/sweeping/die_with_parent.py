"""Runs a command that dies with the process that started it.

    die_with_parent.py PARENT_PID COMMAND ...

A program of its own, run by its path, and not a `preexec_fn`: code between fork and exec can
deadlock where the parent has threads. The death signal survives the exec, as prctl(2) says.
"""

from __future__ import annotations

import ctypes
import os
import signal
import sys

# linux/prctl.h
_PR_SET_PDEATHSIG = 1


def main(argv: list[str]) -> None:
    """Ties this process to its parent and becomes the command."""
    parent, command = int(argv[1]), argv[2:]
    ctypes.CDLL(None).prctl(_PR_SET_PDEATHSIG, signal.SIGKILL, 0, 0, 0)
    if os.getppid() != parent:
        # The parent died before the tie was made, so no signal will come.
        sys.exit(f"the process {parent} that started this is gone")
    os.execv(command[0], command)


if __name__ == "__main__":
    main(sys.argv)
