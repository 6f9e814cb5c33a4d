"""What became of mutants in earlier runs, so that a run can be stopped and gone on with."""

from __future__ import annotations

import contextlib
import json
from pathlib import Path

from mutation.maker import Mutant
from mutation.trial import SURVIVED


class Session:
    """A file with a line of JSON for each mutant of one module that was tried.

    Args:
        folder: Where the file lies.
        module: The module's path.
        tests: What is another string when other tests are asked.
    """

    def __init__(self, folder: Path, module: str, tests: str) -> None:
        folder.mkdir(parents=True, exist_ok=True)
        self._file = folder / f"{module.removesuffix('.py').replace('/', '.')}.jsonl"
        self._tests = tests
        self._known: dict[str, dict[str, str]] = {}
        if self._file.exists():
            for line in self._file.read_text().splitlines():
                with contextlib.suppress(json.JSONDecodeError):  # cut off by a kill
                    result = json.loads(line)
                    self._known[result["mutant"]] = result

    def known(self, mutant: Mutant) -> str | None:
        """A mutant's outcome, unless it is not known, or it survived other tests than these."""
        result = self._known.get(mutant.key)
        if result is None or (result["outcome"] == SURVIVED and result["tests"] != self._tests):
            return None
        return result["outcome"]

    def keep(self, mutant: Mutant, outcome: str) -> None:
        """Writes a mutant's outcome down."""
        result = {
            "mutant": mutant.key,
            "line": mutant.line,
            "tests": self._tests,
            "outcome": outcome,
        }
        with self._file.open("a") as file:
            file.write(json.dumps(result) + "\n")
