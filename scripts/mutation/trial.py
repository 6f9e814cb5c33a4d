"""How a mutant is tried: in a copy of the checkout, by a fork of a process that has TensorFlow."""

from __future__ import annotations

import contextlib
import dataclasses
import gc
import importlib
import importlib.util
import itertools
import json
import os
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

from mutation.maker import Mutant

KILLED, SURVIVED, TIMED_OUT = "killed", "survived", "timed out"
_PYTEST_PASSED, _PYTEST_FAILED, _PYTEST_NO_TESTS, _NOTHING_RUN = 0, 1, 5, 99
# Hypothesis is loaded before pytest could rewrite its assertions.
_LATE = "ignore::pytest.PytestAssertRewriteWarning"
_PYTEST_OPTIONS = ("-q", "-p", "no:cacheprovider", "-W", _LATE)


class TestsFailed(Exception):
    """The tests do not pass on the code as it is."""

    __test__ = False  # for pytest


@contextlib.contextmanager
def copy_of_checkout(root: Path) -> Iterator[Path]:
    """A copy of all files that git knows or would add, to be mutated."""
    listed = ["git", "ls-files", "-z", "--cached", "--others", "--exclude-standard"]
    names = subprocess.run(listed, cwd=root, check=True, capture_output=True, text=True).stdout
    with tempfile.TemporaryDirectory(prefix="tfamp-mutants-") as folder:
        copy = Path(folder).resolve()
        for name in filter(None, names.split("\0")):
            if (root / name).is_file():
                (copy / name).parent.mkdir(parents=True, exist_ok=True)
                shutil.copy2(root / name, copy / name)
        yield copy


def load_tensorflow(copy: Path) -> None:
    """Loads, once for all children, what the tests need besides tfamp."""
    # Nothing may be computed here: threads do not survive a fork.
    os.environ["TF_CPP_MIN_LOG_LEVEL"] = "2"
    # Also for the processes that a test starts. A file's bytecode would outlive its mutant.
    os.environ["PYTHONPATH"] = str(copy)
    os.environ["PYTHONDONTWRITEBYTECODE"] = "1"
    sys.dont_write_bytecode = True
    sys.path.insert(0, str(copy))
    # Its C++ start-up lines obey no variable.
    stderr = os.dup(2)
    os.dup2(os.open(os.devnull, os.O_WRONLY), 2)
    try:
        for name in ("keras", "tensorflow", "hypothesis", "pytest"):
            importlib.import_module(name)
    finally:
        os.dup2(stderr, 2)
    # A child's garbage collector has nothing to find in what is loaded so far.
    gc.freeze()


def _in_child(copy: Path, work: Callable[[], int], seconds: float | None = None) -> int | None:
    """The exit code of some work in a forked process; None if it took longer than `seconds`."""
    sys.stdout.flush()
    child = os.fork()
    if child == 0:
        code = _NOTHING_RUN
        try:
            os.setsid()
            os.chdir(copy)
            found = importlib.util.find_spec("tfamp")
            if found and found.origin and Path(found.origin).is_relative_to(copy):
                output = os.open(copy.with_suffix(".out"), os.O_WRONLY | os.O_CREAT | os.O_TRUNC)
                os.dup2(output, 1)
                os.dup2(output, 2)
                code = work()
        finally:
            os._exit(code)
    end = time.monotonic() + (seconds or 1e9)
    while True:
        done, status = os.waitpid(child, os.WNOHANG)
        if done or time.monotonic() > end:
            break
        time.sleep(0.02)
    # The tests' own processes too.
    with contextlib.suppress(ProcessLookupError):
        os.killpg(child, signal.SIGKILL)
    if not done:
        os.waitpid(child, 0)
        return None
    return os.waitstatus_to_exitcode(status)


@dataclasses.dataclass(frozen=True)
class AskedTest:
    """A test that passes on the code as it is.

    Attributes:
        seconds: How much of the processor's time it took.
        lines: The lines of each module that it runs.
    """

    seconds: float
    lines: dict[str, set[int]]


def tests_by_line(copy: Path, modules: Sequence[str], tests: Sequence[str]) -> dict[str, AskedTest]:
    """Which tests run which lines, by one run of all of them on the code as it is."""
    found = copy.with_suffix(".json")
    code = _in_child(copy, lambda: _trace(copy, modules, tests, found))
    if code != _PYTEST_PASSED:
        print(copy.with_suffix(".out").read_text()[-4000:], file=sys.stderr)
        raise TestsFailed(f"pytest's exit code is {code}")
    return {
        name: AskedTest(seconds, {module: set(run) for module, run in lines.items()})
        for name, (seconds, lines) in json.loads(found.read_text()).items()
    }


def _trace(copy: Path, modules: Sequence[str], tests: Sequence[str], found: Path) -> int:
    import coverage
    import pytest
    from tensorflow.python.autograph.core import config

    # Code that AutoGraph has rewritten runs from another file, where coverage does not see it.
    config.CONVERSION_RULES = (config.DoNotConvert("tfamp"), *config.CONVERSION_RULES)
    seen = coverage.Coverage(data_file=None, include=[str(copy / module) for module in modules])
    seconds: dict[str, float] = {}

    class Timed:
        @pytest.hookimpl(wrapper=True)
        def pytest_runtest_protocol(self, item: Any) -> Any:
            seen.switch_context(item.nodeid)
            # The processor's time, as other work on the machine says nothing of a test.
            begun = time.process_time()
            done = yield
            seconds[item.nodeid] = time.process_time() - begun
            seen.switch_context("")
            return done

    seen.start()
    code = pytest.main([*tests, *_PYTEST_OPTIONS], plugins=[Timed()])
    seen.stop()
    lines: dict[str, dict[str, list[int]]] = {name: {} for name in seconds}
    for module in modules:
        contexts = seen.get_data().contexts_by_lineno(str(copy / module))
        for line, names in contexts.items():
            for name in filter(None, names):
                lines[name].setdefault(module, []).append(line)
    found.write_text(json.dumps({name: (seconds[name], lines[name]) for name in seconds}))
    return int(code)


def asked_of(mutant: Mutant, module: str, tests: dict[str, AskedTest], limit_s: float) -> list[str]:
    """The tests that run a mutant's line, or at an import the module: the quickest first.

    Before all others those in the module's own file, which look at it most closely.
    """
    around = {mutant.line + i for i, line in enumerate(mutant.diff) if line.startswith("-")}
    running = {name for name, test in tests.items() if test.lines.get(module, set()) & around}
    running = running or {name for name, test in tests.items() if module in test.lines}
    in_order = sorted(running, key=lambda name: (not _is_own(name, module), tests[name].seconds))
    ends = itertools.accumulate(tests[name].seconds for name in in_order)
    return [
        name
        for i, (name, end) in enumerate(zip(in_order, ends, strict=True))
        if end <= limit_s or not i
    ]


def outcome_of(copy: Path, module: str, mutant: Mutant, asked: list[str], seconds: float) -> str:
    """What became of a mutant that may run so many seconds."""
    own = [name for name in asked if _is_own(name, module)]
    others = asked[len(own) :]
    original = (copy / module).read_text()
    (copy / module).write_text(mutant.code)
    try:
        for names in filter(None, (own, others)):
            # By themselves, as most mutants need no other file to be collected.
            code = _in_child(copy, lambda names=names: _ask(names), seconds)
            if code in (_PYTEST_NO_TESTS, _NOTHING_RUN):
                raise RuntimeError(f"{module}:{mutant.line}: no test was run (exit code {code})")
            if code != _PYTEST_PASSED:
                return TIMED_OUT if code is None else KILLED
        return SURVIVED
    finally:
        (copy / module).write_text(original)


def _is_own(test: str, module: str) -> bool:
    return f"/test_{Path(module).stem}.py::" in test


def _ask(asked: list[str]) -> int:
    import pytest

    position = {name: i for i, name in enumerate(asked)}

    class Asked:
        @pytest.hookimpl(trylast=True)
        def pytest_collection_modifyitems(self, items: list[Any]) -> None:
            items[:] = sorted(
                (item for item in items if item.nodeid in position),
                key=lambda item: position[item.nodeid],
            )

        def pytest_runtest_logreport(self, report: Any) -> None:
            if report.failed:
                # One is enough, and what would be cleaned up ends with the process.
                os._exit(_PYTEST_FAILED)

    files = dict.fromkeys(name.split("::")[0] for name in asked)
    return int(pytest.main([*files, *_PYTEST_OPTIONS], plugins=[Asked()]))
