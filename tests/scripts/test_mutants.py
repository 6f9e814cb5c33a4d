"""The mutants that scripts/mutants.py makes, how it tries them, and the score that is committed."""

from __future__ import annotations

import json
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
sys.path.insert(0, str(ROOT / "scripts"))
from mutation import score as mutation_score  # noqa: E402

SCORE = ROOT / mutation_score.SCORE


def modules() -> list[mutation_score.ModuleScore]:
    return mutation_score.read(SCORE)["modules"]


# The committed score.


def test_the_page_is_the_scores():
    page = mutation_score.page_of(SCORE).read_text()
    assert page == mutation_score.page(mutation_score.read(SCORE))


def test_the_sums_agree_and_every_survivor_is_explained():
    for module in modules():
        assert (ROOT / module.module).is_file()
        assert module.tried == module.killed + module.timed_out + len(module.survivors)
        assert 0 < module.tried <= module.mutants
        assert (module.seed is None) == (module.tried == module.mutants)
        assert module.commit and module.date and module.module in module.command
        assert all((ROOT / tests).exists() for tests in module.tests)
        for survivor in module.survivors:
            assert survivor.why and "\n" not in survivor.why, (module.module, survivor)


# Written since; nobody has tried mutants of them yet.
NOT_TRIED = {
    f"tfamp/precision/{name}.py"
    for name in (
        "formats", "layer_calls", "layer_internals", "rehearsal", "underflow", "underflow_counts",
        "underflow_found", "way_back",
    )
}  # fmt: skip


def test_the_rest_of_precision_is_in_it_and_nine_in_ten_are_noticed():
    of_precision = [each for each in modules() if each.module.startswith("tfamp/precision/")]
    files = {f"tfamp/precision/{file.name}" for file in ROOT.glob("tfamp/precision/*.py")}
    assert {each.module for each in of_precision} == files - NOT_TRIED - {
        "tfamp/precision/__init__.py"
    }
    tried = sum(each.tried for each in of_precision)
    assert sum(each.noticed for each in of_precision) / tried >= 0.9


def test_a_new_score_keeps_the_old_explanations_and_the_other_modules(tmp_path):
    def score(name, *survivors):
        return mutation_score.ModuleScore(
            name, ["tests"], 9, 5, 3, 4 - len(survivors), 1, list(survivors)
        )

    file = tmp_path / "score.json"
    one = mutation_score.Survivor(7, ["-a", "+b"])
    mutation_score.update(file, [score("one.py", one), score("two.py")], {})
    assert (
        "Line 7: not explained yet\n\n```diff\n-a\n+b\n```"
        in (tmp_path / "survivors.md").read_text()
    )
    file.write_text(file.read_text().replace('"why": ""', '"why": "the same"'))
    moved, new = mutation_score.Survivor(8, ["-a", "+b"]), mutation_score.Survivor(9, ["-c"])
    mutation_score.update(file, [score("one.py", moved, new)], {"mutmut": "3.8"})
    read = mutation_score.read(file)
    assert read["versions"] == {"mutmut": "3.8"}
    assert [module.module for module in read["modules"]] == ["one.py", "two.py"]
    assert [(each.line, each.why) for each in read["modules"][0].survivors] == [
        (8, "the same"), (9, ""),
    ]  # fmt: skip
    page = (tmp_path / "survivors.md").read_text()
    assert "Of 10 mutants 8 were noticed: 80.0 %. There are 18 in all" in page
    assert "| `one.py` | 9 | 5 (seed 3) | 2 | 1 | 2 | 60.0 % |" in page


# What is mutated, where mutmut is installed.


def changes(code: str) -> set[str]:
    pytest.importorskip("mutmut", reason="needs the extra mutation")
    from mutation import maker

    found = maker.mutants_of(code)
    assert len({mutant.code for mutant in found}) == len(found)
    return {line[1:].strip() for mutant in found for line in mutant.diff if line[0] == "+"}


def test_constants_properties_and_calls_for_their_effect_are_mutated():
    assert "LIMIT = 3" in changes("LIMIT = 2\n")
    assert "return self.a - 1" in changes(
        "class A:\n    @property\n    def b(self):\n        return self.a + 1\n"
    )
    assert "None" in changes("def f(x):\n    x.reset()\n    return x\n")


@pytest.mark.parametrize(
    "code",
    [
        '"""Prose."""\n',
        "def f(x: dict[str, int]) -> None:\n    return x\n",
        "@register(package='tfamp')\ndef f(x):\n    return x\n",
        "Number: TypeAlias = int | float\n",
        "def f(x):\n    raise ValueError(f'{x} is not allowed.')\n",
        "def f():\n    return 'All is well.'\n",
        "def f():\n    return (\n        f'Call {f} in '\n        'strategy.run().'\n    )\n",
    ],
)
def test_what_no_test_should_hold_fast_is_left_alone(code):
    assert changes(code) == set()


def test_a_zip_stays_as_strict_as_it_is():
    found = changes("pairs = zip(a, b, strict=True)\n")
    assert "pairs = zip(a, None, strict=True)" in found
    assert all("strict=True" in change for change in found - {"pairs = None"})


def test_a_string_without_a_space_has_one_mutant():
    assert changes("def f():\n    return 'loss'\n") == {"return 'XXlossXX'"}


ADDER = """
def add(a, b):
    return a + b


def unused(a):
    return a - 1


def never_ends(a):
    while a > 0:
        a -= 1
    return a
"""
TESTS = """
from tfamp.sums import adder


def test_add():
    assert adder.add(1, 2) == 3


def test_it_ends():
    assert adder.never_ends(1) == 0
"""


@pytest.fixture
def checkout(tmp_path):
    """A repository with one module of its own, and tests of some of it."""
    root = tmp_path / "checkout"
    (root / "tfamp" / "sums").mkdir(parents=True)
    (root / "tests" / "sums").mkdir(parents=True)
    shutil.copytree(ROOT / "scripts", root / "scripts")
    (root / "tfamp" / "__init__.py").touch()
    (root / "tfamp" / "sums" / "adder.py").write_text(ADDER)
    (root / "tests" / "sums" / "test_adder.py").write_text(TESTS)
    git = ["git", "-c", "user.name=a", "-c", "user.email=a@b.c"]
    for command in (["init", "-q"], ["add", "."], ["commit", "-q", "-m", "all"]):
        subprocess.run([*git, *command], cwd=root, check=True)
    return root


def run(root: Path, *arguments: str) -> subprocess.CompletedProcess:
    return subprocess.run(
        [sys.executable, "scripts/mutants.py", "tfamp/sums/adder.py", *arguments],
        cwd=root, capture_output=True, text=True, timeout=300,
    )  # fmt: skip


@pytest.mark.slow
def test_a_module_is_tried_and_its_survivors_are_shown(checkout):
    pytest.importorskip("mutmut", reason="needs the extra mutation")
    before = (checkout / "tfamp" / "sums" / "adder.py").read_text()
    first = run(checkout, "--score=score.json", "--timeout_s=3")
    assert first.returncode == 1, first.stderr
    assert "adder.py:7 survived\n-    return a - 1\n+    return a + 1\n" in first.stdout
    assert "-    return a + b" not in first.stdout
    (score,) = mutation_score.read(checkout / "score.json")["modules"]
    assert score.killed >= 2 and score.timed_out >= 1 and score.seed is None
    assert {survivor.line for survivor in score.survivors} == {7}
    assert (checkout / "tfamp" / "sums" / "adder.py").read_text() == before
    assert not subprocess.check_output(["git", "diff"], cwd=checkout)
    # A test that kills them is asked, the mutants that were killed are not tried again.
    tests = checkout / "tests" / "sums" / "test_adder.py"
    tests.write_text(TESTS + "\n\ndef test_unused():\n    assert adder.unused(1) == 0\n")
    session = checkout / ".mutants" / "tfamp.sums.adder.jsonl"
    tried = len(session.read_text().splitlines())
    assert run(checkout).returncode == 0
    again = [json.loads(line) for line in session.read_text().splitlines()[tried:]]
    assert {result["line"] for result in again} == {7}


@pytest.mark.slow
def test_tests_that_fail_as_they_are_and_modules_that_are_none_are_refused(checkout):
    pytest.importorskip("mutmut", reason="needs the extra mutation")
    assert run(checkout, "tfamp/nothing.py").returncode == 2
    tests = checkout / "tests" / "sums" / "test_adder.py"
    tests.write_text(TESTS.replace("== 3", "== 4"))
    refused = run(checkout)
    assert refused.returncode == 2 and "do not pass as they are" in refused.stderr
