"""`import tfamp` costs next to nothing, and saved models load after it."""

from __future__ import annotations

import ast
import importlib
import os
import subprocess
import sys
import textwrap
from pathlib import Path

import keras
import pytest

import tfamp
from tests.marks import slow
from tfamp import registration
from tfamp.models import registry
from tfamp.precision.recorded_optimizer import RecordedOptimizer
from tfamp.run.config import Config
from tfamp.run.resolve import resolve
from tfamp.training import optim

PACKAGE = Path(tfamp.__file__).parent
# A plain script's model, saved before saved models loaded by themselves: three steps of
# mixed_float16, the first one skipped.
FIRST_FORMAT = Path(__file__).parent / "precision" / "data" / "first_format.keras"


def fresh(script, *arguments):
    """Runs a script in a process of its own; returns what it prints, less TensorFlow's noise."""
    done = subprocess.run(
        [sys.executable, "-c", textwrap.dedent(script), *map(str, arguments)],
        capture_output=True,
        text=True,
        env=os.environ | {"PYTHONPATH": str(PACKAGE.parent), "TF_CPP_MIN_LOG_LEVEL": "3"},
    )
    assert done.returncode == 0, done.stderr
    return done.stdout.split()


def test_every_class_that_is_registered_with_keras_has_a_stand_in():
    found = {}
    for path in PACKAGE.rglob("*.py"):
        module = ".".join(("tfamp", *path.relative_to(PACKAGE).with_suffix("").parts))
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
            for decorator in getattr(node, "decorator_list", []):
                if "register_keras_serializable" in ast.unparse(decorator):
                    found[node.name] = module
    assert found == registration.MODULES
    assert set(registration.RENAMED.values()) <= set(found)
    assert not set(registration.RENAMED) & set(found)


def test_keras_knows_the_classes_themselves_once_they_are_imported():
    for name, module in registration.MODULES.items():
        known = getattr(importlib.import_module(module), name)
        registration.register()
        assert keras.saving.get_registered_object(f"tfamp>{name}") is known


def test_importing_tfamp_imports_neither_keras_nor_tensorflow():
    loaded = fresh("import sys, tfamp; print(*sys.modules)")
    assert "tfamp" in loaded
    assert not {"keras", "tensorflow", "numpy", "keras_cv"} & {
        name.split(".")[0] for name in loaded
    }


@pytest.fixture(scope="module")
def trained_by_tfamp(tmp_path_factory):
    """Files of both of the trainer's optimizers, with their schedules, and of its networks."""
    folder = tmp_path_factory.mktemp("models")
    for name, policy, optimizer, settings in (
        ("resnet20", "mixed_bfloat16", "sgd", {"warmup_steps": 5}),
        ("vit_tiny", "mixed_float16", "adamw", {"lr_schedule": "constant", "warmup_steps": 3}),
    ):
        keras.config.set_dtype_policy(policy)
        model = registry.build(name, (8, 8, 1), 10)
        config = resolve(Config(policy=policy, optimizer=optimizer, **settings))
        scaled = policy == "mixed_float16"
        model.compile(optim.build(config, 100, scaled, history=4), loss="mse", jit_compile=False)
        model.optimizer.build(model.trainable_variables)
        model.save(folder / f"{name}.keras")
    return folder


ORDERS = {
    "keras first": ("import keras, tfamp", "resnet20", "RecordedOptimizer CosineDecay"),
    "tfamp first": ("import tfamp, keras", "vit_tiny", "LossScaleOptimizer PolynomialDecay"),
    "a part of tfamp": (
        "from tfamp.run import config; from keras import models; import keras",
        "resnet20",
        "RecordedOptimizer CosineDecay",
    ),
}


@pytest.mark.parametrize("order", ["keras first", slow("tfamp first"), slow("a part of tfamp")])
def test_a_fresh_process_loads_a_compiled_model(order, trained_by_tfamp):
    imports, name, expected = ORDERS[order]
    script = f"""
        import sys
        {imports}
        old = keras.models.load_model(sys.argv[2])
        print(type(old.optimizer).__name__, old.optimizer.scale, old.optimizer.skipped_total)
        model = keras.models.load_model(sys.argv[1])
        print(model.name, model.compiled, type(model.optimizer).__name__)
        print(type(model.optimizer.inner_optimizer._learning_rate).__name__)
        print([type(finder).__name__ for finder in sys.meta_path].count("_WaitsForKeras"))
        print(type(keras.__spec__.loader).__name__, type(keras.__loader__).__name__)
    """
    file = trained_by_tfamp / f"{name}.keras"
    assert fresh(script, file, FIRST_FORMAT) == [
        *("LossScaleOptimizer", "16384.0", "1"),
        *(name, "True", *expected.split(), "0"),
        *("SourceFileLoader", "SourceFileLoader"),
    ]


# The finder, on a package that stands for Keras.


@pytest.fixture
def stand_in_keras(tmp_path):
    """Runs a script where `keras` is a package of three lines, which fails while `broken` is."""
    (tmp_path / "keras").mkdir()
    (tmp_path / "keras" / "__init__.py").write_text(
        "import pathlib\n"
        "if pathlib.Path(__file__).with_name('broken').exists(): raise ImportError('broken')\n"
        "from keras import saving\n"
    )
    (tmp_path / "keras" / "saving.py").write_text(
        "objects = {}\ndef get_custom_objects(): return objects\n"
    )

    def run(script):
        head = f"import sys; sys.path.insert(0, {str(tmp_path)!r}); broken = {str(tmp_path)!r}"
        return fresh(f"{head} + '/keras/broken'\n{textwrap.dedent(script)}")

    return run


def test_looking_for_keras_without_importing_it_is_harmless(stand_in_keras):
    assert stand_in_keras("""
        import importlib.util, tfamp
        spec = importlib.util.find_spec("keras")
        print(spec.loader.get_filename("keras").endswith("keras/__init__.py"))
        print("keras" in sys.modules, importlib.util.find_spec("keras_that_is_not_there"))
        import keras
        print(len(keras.saving.objects) > 0)
    """) == ["True", "False", "None", "True"]


def test_keras_that_fails_to_load_is_waited_for_again(stand_in_keras):
    assert stand_in_keras("""
        import os, tfamp
        open(broken, "w").close()
        try:
            import keras
        except ImportError as error:
            print(error)
        os.unlink(broken)
        import keras
        print("tfamp>LossScaleOptimizer" in keras.saving.objects)
    """) == ["broken", "True"]


def test_a_class_that_is_registered_already_stays(monkeypatch):
    monkeypatch.setitem(keras.saving.get_custom_objects(), "tfamp>LossScaleOptimizer", "mine")
    registration.register()
    assert keras.saving.get_registered_object("tfamp>LossScaleOptimizer") == "mine"


def test_a_stand_in_makes_objects():
    stand_in = registration.StandIn("tfamp.precision.recorded_optimizer", "RecordedOptimizer")
    assert repr(stand_in) == "<stands for tfamp.precision.recorded_optimizer.RecordedOptimizer>"
    made = stand_in(keras.optimizers.SGD(0.5))
    again = stand_in.from_config(made.get_config())
    assert type(made) is type(again) is RecordedOptimizer
