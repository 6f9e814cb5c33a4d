"""Changes modules of tfamp one small place at a time, and says which changes no test notices.

    TFAMP_EXTRAS=mutation scripts/python.sh scripts/mutants.py tfamp/precision/history.py

A changed module is a mutant; one that no test notices survives, and shows what the tests miss.
mutmut makes the mutants. Its own runner would be no use here: it forks from a process in which
TensorFlow is at work already, and wraps each function, which AutoGraph does not survive. So this
script loads TensorFlow once and forks for each mutant, before anything was computed. The mutant is
written into a copy of the checkout, and the tests that run the mutated line are asked, those of the
module's own file and the quickest first, until one fails. The checkout itself is never touched.

Left out, as no test should hold them fast: decorators, annotations, docstrings, strings with a
space in them (prose), upper and lower case of the other strings, whether a zip is strict, and how
an exception or a warning is called with its message. Added to what mutmut does: a call whose value
nobody uses is dropped; what stands at the top of a module and in decorated functions is mutated
too.

A test is asked if it runs the line in this process; those that start processes of their own, and
those marked slow, are not. What was found is kept in .mutants/: the same command goes on where it
was stopped, and asks again of survivors when a test has changed. A mutant takes 2 to 5 seconds.
"""

from __future__ import annotations

import argparse
import hashlib
import importlib.metadata
import platform
import random
import sys
from collections.abc import Iterable, Sequence
from pathlib import Path

from mutation import maker, score, trial
from mutation.session import Session

ROOT = Path(__file__).resolve().parents[1]


def main(arguments: Sequence[str] | None = None) -> int:
    """Runs the command; 0 if no mutant survived, 1 if some did, 2 if it could not begin."""
    parser = _parser()
    options = parser.parse_args(arguments)
    if not options.modules:
        if not options.score:
            parser.error("name modules, or with --score the file whose page is to be made anew")
        score.write_page(options.score)
        return 0
    modules = [_module(name) for name in options.modules]
    folders = options.tests or sorted({_tests_of(module) for module in modules})
    with trial.copy_of_checkout(ROOT) as copy:
        trial.load_tensorflow(copy)
        print(f"Running {' '.join(folders)} to see which test runs which line ...", flush=True)
        try:
            tests = trial.tests_by_line(copy, modules, folders)
        except trial.TestsFailed as failed:
            _refuse(f"the tests do not pass as they are: {failed}. Mend them first.")
        version = f"{_version_of(copy, tests)} {options.limit_s:g} s"
        scores = []
        for module in modules:
            session = Session(options.session, module, version)
            scores.append(_try_module(copy, module, tests, session, options))
            scores[-1].tests = folders
            scores[-1].command = _command(module, folders, options)
            print(f"\n{scores[-1]}", flush=True)
    if options.score:
        # An empty module has no mutants and no score.
        scores = [each for each in scores if each.tried]
        score.update(options.score, scores, _versions())
    return int(any(each.survivors for each in scores))


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("modules", nargs="*", metavar="MODULE", help="such as tfamp/run/config.py")
    parser.add_argument(
        "--tests",
        nargs="+",
        metavar="PATH",
        help="files or folders of tests that are asked; the module's own folder below tests/ "
        "unless given",
    )
    parser.add_argument(
        "--limit_s",
        type=float,
        default=20,
        metavar="SECONDS",
        help="ask no more tests of a mutant than take so long together; it has survived if none "
        "of those fails (default 20)",
    )
    parser.add_argument(
        "--timeout_s",
        type=float,
        default=60,
        metavar="SECONDS",
        help="how long a mutant may run besides ten times what its tests take (default 60)",
    )
    parser.add_argument("--sample", type=int, metavar="N", help="try N mutants of each module")
    parser.add_argument("--seed", type=int, default=0, help="which N those are (default 0)")
    parser.add_argument(
        "--score",
        type=Path,
        metavar="FILE",
        help=f"write the modules' scores into FILE, such as {score.SCORE}, and the "
        "survivors into the page beside it; their explanations stay. Without a module: makes the "
        "page anew, after an explanation was written into FILE",
    )
    parser.add_argument(
        "--session",
        type=Path,
        default=ROOT / ".mutants",
        metavar="FOLDER",
        help="where results are kept (.mutants); with another one all begins anew",
    )
    return parser


def _module(name: str) -> str:
    path = Path(name).resolve()
    if not path.is_file() or not path.is_relative_to(ROOT / "tfamp"):
        _refuse(f"{name!r} is no module of tfamp. Name a file below {ROOT / 'tfamp'}.")
    return path.relative_to(ROOT).as_posix()


def _tests_of(module: str) -> str:
    tests = Path("tests", *Path(module).parts[1:-1])
    if not (ROOT / tests).is_dir():
        _refuse(f"{module} has no folder {tests} of tests. Name its tests with --tests.")
    return tests.as_posix()


def _refuse(why: str) -> None:
    print(f"mutants.py: {why}", file=sys.stderr)
    raise SystemExit(2)


def _command(module: str, folders: Sequence[str], options: argparse.Namespace) -> str:
    """What measures this one module again."""
    words = ["scripts/mutants.py", module, "--tests", *folders, f"--limit_s={options.limit_s:g}"]
    if options.sample is not None:
        words += [f"--sample={options.sample}", f"--seed={options.seed}"]
    return " ".join(words)


def _versions() -> dict[str, str]:
    names = ("mutmut", "tensorflow", "keras", "pytest")
    installed = {name: importlib.metadata.version(name) for name in names}
    return {"python": platform.python_version()} | installed


def _version_of(copy: Path, tests: Iterable[str]) -> str:
    """What changes when a file changes that holds one of the tests."""
    files = sorted({name.split("::")[0] for name in tests})
    content = b"".join((copy / file).read_bytes() for file in files)
    return hashlib.sha256(content).hexdigest()[:20]


def _try_module(
    copy: Path,
    module: str,
    tests: dict[str, trial.AskedTest],
    session: Session,
    options: argparse.Namespace,
) -> score.ModuleScore:
    there_are = maker.mutants_of((copy / module).read_text())
    tried = there_are
    if options.sample is not None and options.sample < len(there_are):
        tried = random.Random(options.seed).sample(there_are, options.sample)
        tried.sort(key=lambda mutant: mutant.line)
    outcomes: list[str] = []
    for i, mutant in enumerate(tried):
        outcome = session.known(mutant)
        if outcome is None:
            asked = trial.asked_of(mutant, module, tests, options.limit_s)
            # Other work on the machine must make no mutant time out.
            seconds = options.timeout_s + 10 * sum(tests[name].seconds for name in asked)
            outcome = trial.SURVIVED
            if asked:
                outcome = trial.outcome_of(copy, module, mutant, asked, seconds)
            session.keep(mutant, outcome)
        outcomes.append(outcome)
        if outcome == trial.SURVIVED:
            print(f"\n{module}:{mutant.line} survived", *mutant.diff, sep="\n", flush=True)
        elif sys.stdout.isatty():
            print(f"\r{module}: {i + 1} of {len(tried)}", end="", flush=True)
    return score.ModuleScore(
        module=module,
        tests=[],
        mutants=len(there_are),
        tried=len(tried),
        seed=None if len(tried) == len(there_are) else options.seed,
        killed=outcomes.count(trial.KILLED),
        timed_out=outcomes.count(trial.TIMED_OUT),
        survivors=[
            score.Survivor(mutant.line, list(mutant.diff))
            for mutant, outcome in zip(tried, outcomes, strict=True)
            if outcome == trial.SURVIVED
        ],
    )


if __name__ == "__main__":
    sys.exit(main())
