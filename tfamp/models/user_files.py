"""What a user's model is made of: its file, and what the file imports from its own folder.

Two runs of `--model=net.py:build` trained the same model only if these files were the same. They
are found by reading the import statements, wherever they stand, and not by running them: a sweep
asks before it starts anything. What is imported by other means, and data that the code reads, is
not found; the number of trainable parameters, which a run records too, tells of some of that.
"""

from __future__ import annotations

import ast
import hashlib
import sys
from collections.abc import Iterator
from pathlib import Path

from tfamp.run import catalogue


def sha256(model: str) -> dict[str, str] | None:
    """The content of a user's model, to tell two of one name apart.

    Args:
        model: The value of --model.

    Returns:
        The SHA-256 of each file by its path below the folder of the model's file, that one first;
        None for a model of tfamp's own, and for a file that cannot be read.
    """
    if not catalogue.is_user_model(model):
        return None
    first = Path(model.rpartition(":")[0])
    folder = first.parent
    contents: dict[Path, bytes] = {}
    waiting = [first]
    while waiting:
        path = waiting.pop(0)
        if path in contents:
            continue
        try:
            contents[path] = path.read_bytes()
        except OSError:
            if path == first:
                return None
            continue
        waiting += _imported(contents[path], path, folder)
    return {
        path.relative_to(folder).as_posix(): hashlib.sha256(content).hexdigest()
        for path, content in contents.items()
    }


def _imported(content: bytes, path: Path, folder: Path) -> list[Path]:
    """The files below the folder that the import statements of one of them name."""
    try:
        tree = ast.parse(content)
    except (SyntaxError, ValueError):
        return []
    found: list[Path] = []
    for above, name in _names(tree, path, folder):
        # Of `a.b.c` a and a.b are imported too; c may be a module or something in one.
        parts = name.split(".") if name else []
        if above == folder and parts and parts[0] in (*sys.stdlib_module_names, "tfamp"):
            continue
        for length in range(len(parts) + 1):
            place = above.joinpath(*parts[:length])
            candidates = [place / "__init__.py"] if length or above != folder else []
            if length:
                candidates.append(place.with_name(place.name + ".py"))
            found += [f for f in candidates if f.is_relative_to(folder) and f.is_file()]
    return found


def _names(tree: ast.AST, path: Path, folder: Path) -> Iterator[tuple[Path, str]]:
    """Folders and the dotted names that are imported from them."""
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            yield from ((folder, alias.name) for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            above, start = folder, node.module or ""
            if node.level:
                above = path.parent
                for _ in range(node.level - 1):
                    above = above.parent
            for alias in node.names:
                yield above, f"{start}.{alias.name}".strip(".") if alias.name != "*" else start
