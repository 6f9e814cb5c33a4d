"""scripts/report.sh, python -m tfamp.report: compares the runs of a LOGDIR, with no TensorFlow."""

from __future__ import annotations

import argparse
import sys
from collections.abc import Sequence
from pathlib import Path

from tfamp.run import commands
from tfamp.run.errors import InputError, as_flag


def main(arguments: Sequence[str] | None = None) -> int:
    """Writes a report of the runs in a folder.

    Returns:
        0 written, 2 bad input.
    """
    parser = argparse.ArgumentParser(
        prog=commands.typed("report"),
        description="Compares the runs below LOGDIR, policy by policy: report.html, report.md, "
        "report.json and pictures.",
    )
    parser.add_argument("logdir", metavar="LOGDIR", type=Path, help="folder that holds the runs")
    parser.add_argument(
        "--baseline",
        default="float32",
        help="policy that the others are compared with (default: %(default)s)",
    )
    parser.add_argument(
        "--out", type=Path, help="folder to write the report to (default: LOGDIR/report)"
    )
    options = parser.parse_args(arguments)
    try:
        return write(options.logdir, options.baseline, options.out)
    except InputError as error:
        print(f"tfamp: {error.told(as_flag)}", file=sys.stderr)
        return 2


def write(logdir: Path, baseline: str, out: Path | None = None) -> int:
    """Reads, compares, writes and prints; see `main`.

    Raises:
        InputError: There is nothing to report on, or it cannot be written.
    """
    from tfamp.reporting import comparison, document, runs
    from tfamp.reporting.pages import report_page

    out = out or logdir / "report"
    if not logdir.is_dir():
        raise InputError(f"{logdir} is no folder. Give the LOGDIR of training runs.")
    found, passed_over = runs.find(logdir, out)
    if not found and not passed_over:
        raise InputError(
            f"{logdir} holds no runs. Give the --logdir of tfamp.train, or train one first."
        )
    compared = comparison.compare(found, baseline)
    content = document.build(logdir, baseline, compared, passed_over)
    report_page.write(out, content, compared.groups)
    print(report_page.summary(content, out))
    return 0


if __name__ == "__main__":
    sys.exit(main())
