"""The README's plain Keras script, run as it stands."""

import json
import runpy
import sys
from pathlib import Path

from tfamp.run import records

ROOT = Path(__file__).parents[2]


def test_the_script_in_the_readme_is_the_one_that_is_run():
    script = (ROOT / "experiments" / "drop_in.py").read_text(encoding="utf-8")
    body = script[script.index("import sys") :]
    assert f"```python\n{body}```" in (ROOT / "README.md").read_text(encoding="utf-8")


def test_it_leaves_a_run_directory(tmp_path, monkeypatch, capsys):
    script = str(ROOT / "experiments" / "drop_in.py")
    monkeypatch.setattr(sys, "argv", [script, str(tmp_path / "run")])
    runpy.run_path(script, run_name="__main__")
    assert "loss scale 32768, skipped 0" in capsys.readouterr().out
    rows = records.read_rows(tmp_path / "run" / "metrics.jsonl")
    steps = [row for row in rows if row["kind"] == "step"]
    assert [row["step"] for row in steps] == list(range(1, 3 * 48 + 1))
    assert all(records.GRADIENT_NORM in row and records.SCALE in row for row in steps)
    assert steps[-1][records.TRAIN_LOSS] < steps[0][records.TRAIN_LOSS]
    result = json.loads((tmp_path / "run" / "result.json").read_text())
    assert result["status"] == "completed"
    assert result["validation_accuracy"] > 0.8
