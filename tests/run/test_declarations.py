"""A setting is declared once: flags, checks, help, pairing and comparison read it from there."""

import ast
import dataclasses
from pathlib import Path

import pytest
from absl import flags

import tfamp
from tfamp.run import flags as run_flags
from tfamp.run.config import Config, Role, declarations, declared, names_of
from tfamp.run.errors import InputError, as_flag
from tfamp.run.kinds import Number
from tfamp.run.ranges import whole

PACKAGE = Path(tfamp.__file__).parent


@dataclasses.dataclass(frozen=True)
class Longer(Config):
    """A config with one setting more."""

    sparkle: int = declared(3, Role.IDENTITY, Number(whole(1, 9)), "How much it sparkles.")


def longer(*arguments):
    """From a command line to the longer config."""
    values = flags.FlagValues()
    run_flags.define(values, Longer)
    values(["train", *arguments])
    return run_flags.config_from_flags(values, Longer), values


def test_a_new_setting_is_one_entry():
    """The flag, its default, its text, its check and config.json come with the declaration."""
    config, values = longer("--sparkle=4", "--epochs=2")
    assert (config.sparkle, config.epochs) == (4, 2)
    assert config.to_json()["sparkle"] == 4
    assert longer()[0].sparkle == 3
    help_text = values.main_module_help() + values.get_help()
    assert "How much it sparkles." in help_text
    assert "from 1 to 9" in help_text
    with pytest.raises(InputError) as raised:
        longer("--sparkle=10")
    assert raised.value.field == "sparkle"
    assert raised.value.told(as_flag) == "--sparkle=10: it must be from 1 to 9."


def test_every_setting_has_a_role_and_says_what_it_does():
    assert set(declarations()) == {field.name for field in dataclasses.fields(Config)}
    assert sorted(names_of(*Role)) == sorted(declarations())
    for name, each in declarations().items():
        assert each.help.endswith("."), name
        if getattr(Config, name) is not None:
            each.kind.check(name, getattr(Config, name))


@pytest.mark.parametrize("name", sorted(declarations()))
def test_what_a_kind_writes_it_reads(name):
    kind = declarations()[name].kind
    examples = {
        "profile_steps": (2, 3),
        "float32_layers": ("a{1,2}", "^b$"),
        "learning_rate": 0.1 + 1e-12,
    }
    value = examples.get(name, getattr(Config, name))
    if value is not None:
        assert kind.read(kind.write(value)) == value


# What names settings and is no list of a role's.
MAY_NAME = {
    "reporting/advice.py": "what its commands set anew, and what a run is named by",
    "telemetry/script_config.py": "what a later phase of a script may change",
    "telemetry/script_run.py": "keys of result.json",
}


def test_there_is_no_second_list_of_settings():
    """Three names of settings in one display, outside the declaration, are a list of them."""
    names, found = set(declarations()), []
    for path in sorted(PACKAGE.rglob("*.py")):
        if path.relative_to(PACKAGE).as_posix() in ("run/config.py", *MAY_NAME):
            continue
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
            if isinstance(node, (ast.Tuple, ast.List, ast.Set)):
                texts = {part.value for part in node.elts if isinstance(part, ast.Constant)}
                if len(texts & names) >= 3:
                    found.append(f"{path.relative_to(PACKAGE)}:{node.lineno} {sorted(texts)}")
    assert found == []
