"""CONTRIBUTING.md's picture of the house and its table of places say what is there."""

import re
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
TEXT = (ROOT / "CONTRIBUTING.md").read_text(encoding="utf-8")


def section(title):
    """What stands below a heading, up to the next one."""
    return re.search(rf"^## {re.escape(title)}\n(.*?)(?=^## |\Z)", TEXT, re.M | re.S)[1]


def pictured():
    """{folder: its modules}, as the picture has them: `folder/   module, module: what it is`."""
    picture = re.search(r"```\n(.*?)```", section("How the code is laid out"), re.S)[1]
    entries = re.findall(r"^(tfamp/\S*) +(.*(?:\n +.*)*)", picture, re.M)
    assert entries
    return {
        folder.rstrip("/"): sorted(re.findall(r"\w+", names.partition(":")[0]))
        for folder, names in entries
    }


def modules():
    """{folder: its modules}, as they are."""
    found = {}
    for path in sorted((ROOT / "tfamp").rglob("*.py")):
        names = found.setdefault(path.parent.relative_to(ROOT).as_posix(), [])
        if path.stem != "__init__":
            names.append(path.stem)
    return {folder: sorted(names) for folder, names in found.items()}


def test_the_picture_has_every_module_and_no_other():
    there, shown = modules(), pictured()
    assert sorted(shown) == sorted(there)
    for folder, names in there.items():
        assert shown[folder] == names, folder


PLACES = re.findall(r"^\| (.+?) \| (.+) \|$", section("Where do I add ...?"), re.M)[2:]


def test_the_table_answers_what_is_asked():
    asked = " ".join(what for what, _ in PLACES)
    for what in (
        "flag", "choice", "per-step figure", "result.json", "config.json", "model", "data set",
        "augmentation", "optimizer", "command", "page", "private", "loss-scale rule", "in a text",
    ):  # fmt: skip
        assert what in asked, what


@pytest.mark.parametrize(("what", "where"), PLACES)
def test_each_place_is_there(what, where):
    """Files are named below tfamp/ or the root; `name` in `file` is a word of that file."""
    files = re.findall(r"`([\w/]+\.(?:py|sh|toml|md))`", where)
    assert files, what
    for name in files:
        assert (ROOT / "tfamp" / name).is_file() or (ROOT / name).is_file(), name
    for word, name in re.findall(r"`(\w+)` \(`([\w/]+\.py)`\)", where):
        path = ROOT / "tfamp" / name
        text = (path if path.is_file() else ROOT / name).read_text(encoding="utf-8")
        assert re.search(rf"\b{word}\b", text), f"{word} in {name}"
