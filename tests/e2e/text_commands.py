"""The commands that the texts of the repository tell a reader to type."""

from __future__ import annotations

import ast
import dataclasses
import re
from collections.abc import Iterator
from pathlib import Path

ROOT = Path(__file__).parents[2]

# How a command begins, behind variables that are set for it.
_PROGRAM = (
    r"(?:scripts/\w+\.(?:sh|py)\b|\S*bin/python|python3?\s|pip3?\s|bash\s|cd\s|git\s(?:tag|clone)"
    r"|apt-get\s|cp\s|echo\s|export\s|shellcheck\s-|uv\s|tensorboard\s|pytest\s)"
)
_COMMAND = re.compile(rf"(?:[A-Z][A-Z_0-9]*=\S* )*{_PROGRAM}")
_FENCE = re.compile(r"^( *)```(\w*)\n(.*?)^\1```", re.MULTILINE | re.DOTALL)


@dataclasses.dataclass(frozen=True)
class TextCommand:
    """A command, and where it stands."""

    text: str
    where: str

    def __str__(self) -> str:
        return f"{self.where}: {self.text}"


def all_commands() -> list[TextCommand]:
    """Every command of every text, in the order of the texts; where equal, the first of them."""
    found: dict[str, TextCommand] = {}
    for path in _texts():
        name = path.relative_to(ROOT).as_posix()
        for text in _commands_of(path):
            found.setdefault(text, TextCommand(text, name))
    return list(found.values())


def commands_with_flags() -> list[str]:
    """The flags of the README's table, as commands."""
    rows = re.findall(r"^\| `(--[^`]+)` \|", (ROOT / "README.md").read_text(), re.MULTILINE)
    return [f"scripts/train.sh {flags}" for flags in rows]


def commands_of_the_report() -> list[str]:
    """The command lines of the runs that the committed report lists."""
    page = ROOT / "experiments" / "results" / "amp_vs_float32" / "report.md"
    return re.findall(r"^- \S+: (\S+/train\.sh .*)", page.read_text(), re.MULTILINE)


def python_blocks(path: Path) -> list[str]:
    """The fenced Python of a page."""
    return [body for _, kind, body in _FENCE.findall(path.read_text()) if kind == "python"]


def _texts() -> Iterator[Path]:
    yield from sorted(ROOT.glob("*.md"))
    yield from (
        path
        for path in sorted((ROOT / "experiments").rglob("*"))
        if path.suffix in (".md", ".py", ".flags")
    )
    yield from (path for path in sorted((ROOT / "scripts").iterdir()) if path.is_file())
    yield from sorted((ROOT / "tfamp").rglob("*.py"))
    yield from (ROOT / name for name in ("constraints.txt", "setup.cfg", ".pre-commit-config.yaml"))


def _commands_of(path: Path) -> Iterator[str]:
    text = path.read_text(encoding="utf-8")
    if path.suffix == ".md":
        yield from _of_page(text)
    elif path.suffix == ".py":
        for node in ast.walk(ast.parse(text)):
            if isinstance(node, ast.Module | ast.ClassDef | ast.FunctionDef):
                yield from _of_lines(ast.get_docstring(node) or "")
    else:
        comments = re.findall(r"^#(?!!) ?(.*)$", text, re.MULTILINE)
        yield from _of_lines("\n".join(comments))


def _of_page(text: str) -> Iterator[str]:
    for _, kind, body in _FENCE.findall(text):
        if kind in ("bash", "sh"):
            yield from _joined(body)
        elif kind == "":
            # What the console printed names commands too: `look  scripts/tensorboard.sh runs`.
            for line in body.splitlines():
                if (found := _COMMAND.search(line)) and re.match(r"\s+\w+ {2,}", line):
                    yield line[found.start() :].strip()
    yield from _in_backticks(_FENCE.sub("", text))


def _of_lines(text: str) -> Iterator[str]:
    # A command stands on a line of its own, behind no prose: indented, or all of a comment's line.
    for line in _joined(text):
        if _COMMAND.match(line) and not _is_prose(line):
            yield line
    yield from _in_backticks(text)


def _in_backticks(text: str) -> Iterator[str]:
    for span in re.findall(r"(?<!`)`([^`\n]+)`(?!`)", text):
        if _COMMAND.match(span):
            yield span.strip()


def _joined(text: str) -> Iterator[str]:
    """Lines, where a backslash at the end of one goes on in the next, less comments."""
    for line in re.sub(r"\\\n\s*", "", text).splitlines():
        line = re.sub(r"(^|\s\s+)#.*", "", line).strip()
        if line:
            yield line


def _is_prose(line: str) -> bool:
    return line.endswith((".", ":", ",")) or bool(re.match(r"scripts/\S+ (?:[a-z]+ ){2}", line))
