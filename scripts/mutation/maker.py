"""The mutants of a module: what mutmut makes of it, less what no test should hold fast."""

from __future__ import annotations

import contextlib
import dataclasses
import difflib
import hashlib
from collections.abc import Iterator
from typing import Any

import libcst
import mutmut.mutation.file_mutation
import mutmut.mutation.mutators
import mutmut.mutation.pragma_handling


@dataclasses.dataclass(frozen=True)
class Mutant:
    """A module with one change.

    Attributes:
        line: Where the change begins, from 1.
        code: The whole module, changed.
        diff: The lines that it takes away (`-`) and puts in their place (`+`).
    """

    line: int
    code: str
    diff: tuple[str, ...]

    @property
    def key(self) -> str:
        """What tells this mutant from all others, of other versions of the module too."""
        return hashlib.sha256(self.code.encode()).hexdigest()[:20]


def mutants_of(code: str) -> list[Mutant]:
    """All mutants of a module's code, in the order of their lines, each once."""
    nothing_ignored = mutmut.mutation.pragma_handling.IgnoredCode(set(), set(), set())
    operators = [*mutmut.mutation.mutators.mutation_operators, (libcst.Expr, _dropped_call)]
    wrapper = libcst.metadata.MetadataWrapper(libcst.parse_module(code))
    visitor = _Visitor(operators, nothing_ignored)
    wrapper.visit(visitor)
    mutants: dict[str, Mutant] = {}
    for mutation in visitor.mutations:
        changed = wrapper.module.deep_replace(mutation.original_node, mutation.mutated_node).code
        if changed == code:
            continue
        with contextlib.suppress(SyntaxError):
            compile(changed, "mutant", "exec")
            mutants.setdefault(changed, Mutant(*_difference(code, changed)))
    return sorted(mutants.values(), key=lambda mutant: mutant.line)


def _dropped_call(node: libcst.Expr) -> Iterator[libcst.Expr]:
    if isinstance(node.value, libcst.Call):
        yield node.with_changes(value=libcst.Name("None"))


class _Visitor(mutmut.mutation.file_mutation.MutationVisitor):
    """mutmut's visitor, with the script's choice of what to leave out."""

    def __init__(self, *arguments: Any) -> None:
        super().__init__(*arguments)
        self._in_prose: set[libcst.CSTNode] = set()

    def _skip_node_and_children(self, node: libcst.CSTNode) -> bool:
        if isinstance(node, libcst.ConcatenatedString):
            # What is broken over lines is prose, whatever each piece looks like.
            self._in_prose |= {node.left, node.right}
        if isinstance(node, libcst.FunctionDef) and node.decorators:
            # mutmut passes over these as its wrappers cannot hold them; here nothing is wrapped.
            node = node.with_changes(decorators=())
        is_alias = isinstance(node, libcst.AnnAssign) and "TypeAlias" in _words(
            node.annotation.annotation
        )
        is_strict = isinstance(node, libcst.Arg) and _is_strict(node)
        return is_alias or is_strict or super()._skip_node_and_children(node)

    def _create_mutations(self, node: libcst.CSTNode) -> None:
        before = len(self.mutations)
        super()._create_mutations(node)
        if isinstance(node, libcst.SimpleString):
            # The first is the string between two XX, the others change its case.
            is_prose = " " in node.value or node in self._in_prose
            del self.mutations[before + (not is_prose) :]
        if isinstance(node, libcst.Call):
            made = [] if _is_message(node) else self.mutations[before:]
            self.mutations[before:] = [
                mutation for mutation in made if _strict(mutation.mutated_node) == _strict(node)
            ]


def _is_message(call: libcst.Call) -> bool:
    return any(
        isinstance(argument.value, libcst.ConcatenatedString | libcst.FormattedString)
        for argument in call.args
    )


def _strict(node: libcst.CSTNode) -> list[str]:
    """The argument that says whether a zip is strict, an assertion that always holds."""
    if not isinstance(node, libcst.Call):
        return []
    return [_words(argument.value) for argument in node.args if _is_strict(argument)]


def _is_strict(argument: libcst.Arg) -> bool:
    return argument.keyword is not None and argument.keyword.value == "strict"


def _words(node: libcst.CSTNode) -> str:
    return libcst.Module([]).code_for_node(node)


def _difference(code: str, changed: str) -> tuple[int, str, tuple[str, ...]]:
    lines = list(difflib.unified_diff(code.splitlines(), changed.splitlines(), n=0, lineterm=""))
    first = int(lines[2].split()[1].lstrip("-").split(",")[0])
    return first, changed, tuple(line for line in lines[3:] if not line.startswith("@@"))
