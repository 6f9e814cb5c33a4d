"""The room as its first lines draw it."""

import re
from pathlib import Path

import tfamp.telemetry

ROOM = Path(tfamp.telemetry.__file__).parent


def test_each_module_imports_from_what_stands_beside_or_below_it():
    modules = {path.stem for path in ROOM.glob("[a-z]*.py")}
    # What each line begins with, before its words; two spaces at least lie in between.
    lines = re.findall(r"^    ([a-z_, ]+?)  +", tfamp.telemetry.__doc__, re.MULTILINE)
    place = {name: i for i, line in enumerate(lines) for name in line.split(", ")}
    assert set(place) == modules
    for name in modules:
        text = (ROOM / f"{name}.py").read_text(encoding="utf-8")
        imported = set(re.findall(r"from tfamp\.telemetry\.(\w+) import", text))
        imported |= set(re.findall(r"from tfamp\.telemetry import (\w+)", text))
        assert all(place[other] >= place[name] for other in imported), name
