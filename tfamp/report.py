"""scripts/report.sh, python -m tfamp.report: compares the runs of a LOGDIR, with no TensorFlow."""

from __future__ import annotations

import sys
from pathlib import Path

from tfamp.run import command
from tfamp.run.command import Command, Given, Option
from tfamp.run.errors import InputError
from tfamp.run.kinds import Kind


def _report(given: Given) -> int:
    (logdir,), out = given.places, given["out"]
    return write(Path(logdir), given["baseline"], Path(out) if out else None)


def write(logdir: Path, baseline: str, out: Path | None = None) -> int:
    """Reads, compares, writes and prints; see the module's --help.

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
    return command.DONE


COMMAND = Command(
    name="report",
    about="Compares the runs below LOGDIR, policy by policy: report.html, report.md, report.json "
    "and pictures.",
    options={
        "baseline": Option("float32", Kind(), "Policy that the others are compared with."),
        "out": Option(None, Kind(), "Folder to write the report to. Default: LOGDIR/report."),
    },
    body=_report,
    places=("LOGDIR",),
)
main = COMMAND.main

if __name__ == "__main__":
    sys.exit(main())
