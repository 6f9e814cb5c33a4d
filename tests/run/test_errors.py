"""One message in the terms of each reader."""

import ast
import pickle
import re
from pathlib import Path

import pytest

import tfamp
from tfamp.run.errors import InputError, as_argument, as_flag, setting, unknown_name

PACKAGE = Path(tfamp.__file__).parent


@pytest.mark.parametrize(
    ("said", "flag", "argument"),
    [
        (setting("epochs"), "--epochs", "epochs"),
        (setting("epochs", 0), "--epochs=0", "epochs=0"),
        (setting("learning_rate", 0.1), "--learning_rate=0.1", "learning_rate=0.1"),
        (setting("model", "my net.py"), "--model='my net.py'", "model='my net.py'"),
        (setting("overwrite", True), "--overwrite", "overwrite=True"),
        (setting("tf32", False), "--notf32", "tf32=False"),
        (setting("recovery", None), "--recovery=none", "recovery=None"),
        (setting("profile_steps", (2, 3)), "--profile_steps=2,3", "profile_steps=(2, 3)"),
        (setting("image_size", 8, "a shape"), "--image_size=8", "a shape"),
    ],
)
def test_a_setting_is_a_flag_or_an_argument(said, flag, argument):
    error = InputError(f"{said}: no. Set another {said}.")
    assert error.told(as_flag) == f"{flag}: no. Set another {flag}."
    assert str(error) == error.told(as_argument) == f"{argument}: no. Set another {argument}."


def test_an_error_carries_the_setting_at_fault():
    assert InputError(f"{setting('loop', 'x')} with {setting('model', 'y')}: no.").field == "loop"
    assert InputError("The folder is full.").field is None
    assert InputError(f"Full. Set {setting('logdir')}.", "run_name").field == "run_name"
    assert unknown_name("model", "resnet_20", ["resnet20"], "model").field == "model"


def test_a_message_inside_another_and_across_processes():
    inner = InputError(f"{setting('seed', -1)}: no.")
    outer = InputError(f"Cell 3 cannot be run: {inner.message}", inner.field)
    again = pickle.loads(pickle.dumps(outer))
    assert again.told(as_flag) == "Cell 3 cannot be run: --seed=-1: no."
    assert (again.field, str(again)) == ("seed", "Cell 3 cannot be run: seed=-1: no.")


@pytest.mark.parametrize("room", ["models", "data", "precision"])
def test_library_parts_spell_no_flag(room):
    """What they say of a setting is told by `setting`; docstrings may name flags."""
    for path in (PACKAGE / room).rglob("*.py"):
        tree = ast.parse(path.read_text(encoding="utf-8"))
        docstrings = {
            id(node.body[0].value)
            for node in ast.walk(tree)
            if isinstance(node, (ast.Module, ast.ClassDef, ast.FunctionDef))
            and node.body
            and isinstance(node.body[0], ast.Expr)
        }
        for node in ast.walk(tree):
            if isinstance(node, ast.Constant) and isinstance(node.value, str):
                is_flag = re.search(r"(?<![\w-])--(?!data_dir=|file_format=)[a-z]", node.value)
                assert id(node) in docstrings or not is_flag, f"{path}:{node.lineno} {node.value}"
