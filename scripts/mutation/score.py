"""The score of the tests against mutants: what is committed of it, and the page of survivors."""

from __future__ import annotations

import dataclasses
import datetime
import json
import subprocess
from collections.abc import Sequence
from pathlib import Path
from typing import Any

SCORE = "tests/mutation/score.json"


@dataclasses.dataclass
class Survivor:
    """A mutant that no test noticed.

    Attributes:
        line: Where it was, from 1.
        diff: The lines that it took away and put in their place.
        why: Why it is left, one line; by hand.
    """

    line: int
    diff: list[str]
    why: str = ""


@dataclasses.dataclass
class ModuleScore:
    """What became of one module's mutants.

    Attributes:
        module: Its path.
        tests: Which tests were asked.
        mutants: How many there are.
        tried: How many of them were tried: all, or a random sample.
        seed: What the sample was drawn with; None where all were tried.
        killed: Noticed by a test.
        timed_out: So slow that it would be noticed.
        survivors: The others.
        command: How it was measured.
        commit: Where it was measured.
        date: When, UTC.
    """

    module: str
    tests: list[str]
    mutants: int
    tried: int
    seed: int | None
    killed: int
    timed_out: int
    survivors: list[Survivor]
    command: str = ""
    commit: str = ""
    date: str = ""

    @property
    def noticed(self) -> int:
        """Killed and timed out."""
        return self.killed + self.timed_out

    def __str__(self) -> str:
        of_all = "" if self.tried == self.mutants else f", a sample of {self.mutants:,}"
        return (
            f"{self.module}: {self.noticed} of {self.tried} noticed "
            f"({_percent(self.noticed, self.tried)}), {self.timed_out} of them timed out, "
            f"{len(self.survivors)} survived{of_all}"
        )


def read(file: Path) -> dict[str, Any]:
    """What a score file holds, its modules as `ModuleScore`."""
    score = json.loads(file.read_text())
    score["modules"] = [
        ModuleScore(**{**module, "survivors": [Survivor(**each) for each in module["survivors"]]})
        for module in score["modules"]
    ]
    return score


def update(file: Path, measured: Sequence[ModuleScore], versions: dict[str, str]) -> None:
    """Puts modules' scores into a score file, in place of what it held of them.

    A survivor that was explained there stays explained.
    """
    before: list[ModuleScore] = read(file)["modules"] if file.exists() else []
    reasons = {
        (module.module, tuple(survivor.diff)): survivor.why
        for module in before
        for survivor in module.survivors
    }
    commit = _output("git", "rev-parse", "--short=12", "HEAD")
    if _output("git", "status", "--porcelain", "tfamp", "tests/"):
        commit += " and changes"
    for module in measured:
        module.commit = commit
        module.date = f"{datetime.datetime.now(datetime.timezone.utc):%Y-%m-%d %H:%M}"
        for survivor in module.survivors:
            survivor.why = reasons.get((module.module, tuple(survivor.diff)), "")
    modules = {module.module: module for module in [*before, *measured]}
    score = {
        "versions": versions,
        "modules": [dataclasses.asdict(modules[name]) for name in sorted(modules)],
    }
    file.parent.mkdir(parents=True, exist_ok=True)
    file.write_text(json.dumps(score, indent=1, ensure_ascii=False) + "\n")
    write_page(file)


def write_page(file: Path) -> None:
    """Writes the page of a score file beside it."""
    page_of(file).write_text(page(read(file)))


def page_of(file: Path) -> Path:
    """Where the page of a score file stands."""
    return file.with_name("survivors.md")


def page(score: dict[str, Any]) -> str:
    """The page of a score, in Markdown."""
    modules: list[ModuleScore] = score["modules"]
    tried = sum(module.tried for module in modules)
    noticed = sum(module.noticed for module in modules)
    lines = [
        "# Mutants that no test notices",
        "",
        f"Of {tried:,} mutants {noticed:,} were noticed: {_percent(noticed, tried)}. There are "
        f"{sum(module.mutants for module in modules):,} in all; where fewer were tried, they are a "
        "random sample. The tests were written against what survived in these very samples, so "
        "another seed finds more: this is no estimate for the mutants that were not tried.",
        "",
        "| module | mutants | tried | killed | timed out | survived | noticed |",
        "|---|---|---|---|---|---|---|",
    ]
    for module in modules:
        cells = [
            f"`{module.module}`",
            f"{module.mutants}",
            f"{module.tried}" + ("" if module.seed is None else f" (seed {module.seed})"),
            f"{module.killed}",
            f"{module.timed_out}",
            f"{len(module.survivors)}",
            _percent(module.noticed, module.tried),
        ]
        lines.append(f"| {' | '.join(cells)} |")
    versions = ", ".join(f"{name} {version}" for name, version in score["versions"].items())
    lines += ["", f"Made with {versions}; the command and the commit of each are in score.json."]
    for module in modules:
        if module.survivors:
            lines += ["", f"## {module.module}"]
        for survivor in module.survivors:
            why = survivor.why or "not explained yet"
            lines += ["", f"Line {survivor.line}: {why}", "", "```diff", *survivor.diff, "```"]
    return "\n".join(lines) + "\n"


def _percent(part: int, whole: int) -> str:
    return f"{100 * part / whole:.1f} %" if whole else "-"


def _output(*command: str) -> str:
    root = Path(__file__).parents[2]
    done = subprocess.run(command, cwd=root, check=True, capture_output=True, text=True)
    return done.stdout.strip()
