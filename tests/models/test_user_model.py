from __future__ import annotations

import sys
import textwrap

import numpy as np
import pytest

from tests.messages import naming, says
from tfamp.models import registry
from tfamp.run.errors import InputError

GOOD = """
    import keras

    def small_net(input_shape, num_classes):
        inputs = keras.Input(input_shape)
        x = keras.layers.Flatten()(inputs)
        return keras.Model(inputs, keras.layers.Dense(num_classes, name="logits")(x), name="mine")

    def sequential(input_shape, num_classes):
        return keras.Sequential([keras.layers.Flatten(), keras.layers.Dense(num_classes)])

    class Net(keras.Model):
        def __init__(self, num_classes):
            super().__init__(name="net")
            self.flatten = keras.layers.Flatten()
            self.dense = keras.layers.Dense(num_classes)

        def call(self, inputs):
            return self.dense(self.flatten(inputs))

    def subclassed(input_shape, num_classes):
        return Net(num_classes)
"""


@pytest.fixture
def write(tmp_path):
    def write_file(text, name="my_models.py"):
        path = tmp_path / name
        path.write_text(textwrap.dedent(text))
        return path

    return write_file


def refused(name, input_shape=(8, 8, 1), num_classes=3):
    """Returns the message with which `build` refuses."""
    with pytest.raises(InputError) as raised:
        registry.build(name, input_shape, num_classes)
    return str(raised.value)


# What works.


@pytest.mark.parametrize("function", ["small_net", "sequential", "subclassed"])
@pytest.mark.parametrize(
    "policy", ["float32", "mixed_float16", "mixed_bfloat16", "float16", "bfloat16"]
)
def test_the_model_is_built_and_is_the_users_object(function, policy, write, set_policy):
    kept = f"""
    MADE = []

    def remembered(input_shape, num_classes):
        MADE.append({function}(input_shape, num_classes))
        return MADE[-1]
    """
    set_policy(policy)
    model = registry.build(f"{write(GOOD + kept)}:remembered", (8, 8, 1), 3)
    (module,) = [m for name, m in sys.modules.items() if getattr(m, "MADE", None) == [model]]
    assert module.MADE[0] is model
    assert model.built
    assert [tuple(w.shape) for w in model.trainable_weights] == [(64, 3), (3,)]
    assert model(np.ones((2, 8, 8, 1), "float32")).shape == (2, 3)


def test_a_file_may_import_its_neighbour_and_define_dataclasses(write):
    write("WIDTH = 5\n", "my_neighbour.py")
    path = write("""
        from __future__ import annotations
        import dataclasses
        import keras
        import my_neighbour

        @dataclasses.dataclass
        class Size:
            width: int = my_neighbour.WIDTH

        def net(input_shape, num_classes):
            return keras.Sequential([
                keras.Input(input_shape), keras.layers.Flatten(),
                keras.layers.Dense(Size().width), keras.layers.Dense(num_classes),
            ])
    """)
    model = registry.build(f"{path}:net", (8, 8, 1), 3)
    assert model.layers[1].units == 5


def test_a_changed_file_is_read_again(write):
    assert registry.build(f"{write(GOOD)}:small_net", (8, 8, 1), 3).name == "mine"
    path = write(GOOD.replace('"mine"', '"changed_and_longer"'))
    assert registry.build(f"{path}:small_net", (8, 8, 1), 3).name == "changed_and_longer"


# What is refused before anything runs.


@pytest.mark.parametrize("name", ["net.py", "net.py:", "net:function", "net.py:a-b", "a/b"])
def test_the_form_is_checked(name):
    with pytest.raises(InputError, match=naming(name, "model", "path/to/file.py:function")):
        registry.check_name(name)


def test_absent_file(tmp_path):
    with pytest.raises(InputError, match=naming(f"{tmp_path}/absent.py", "path/to/file.py")):
        registry.check_name(f"{tmp_path}/absent.py:net")


def test_directory_instead_of_a_file(tmp_path):
    (tmp_path / "folder.py").mkdir()
    with pytest.raises(InputError, match=naming(f"{tmp_path}/folder.py", "not a file")):
        registry.check_name(f"{tmp_path}/folder.py:net")


def test_unreadable_file(write, monkeypatch):
    path = write(GOOD)

    def deny(*_):
        raise PermissionError(13, "Permission denied")

    monkeypatch.setattr(type(path), "open", deny)
    with pytest.raises(InputError, match=naming(path, "Permission denied")):
        registry.check_name(f"{path}:small_net")


def test_checking_does_not_run_the_file(write):
    registry.check_name(f"{write('raise RuntimeError')}:net")


# What is refused when it runs.


@pytest.mark.parametrize(
    ("text", "problem"),
    [
        ("import keras\n\n1 / 0\n", "ZeroDivisionError: division by zero at {path}, line 3"),
        ("import no_such_module_here\n", "ModuleNotFoundError: "),
        ("def net(:\n", "SyntaxError: "),
        ("import sys\nsys.exit(3)\n", "sys.exit(3) at {path}, line 2"),
    ],
)
def test_a_file_that_fails_to_import(text, problem, write):
    path = write(text)
    message = refused(f"{path}:net")
    assert says(message, path, "import", problem.format(path=path))


def test_absent_function_lists_what_is_there(write):
    message = refused(f"{write(GOOD)}:smal_net")
    names = ("Net", "sequential", "small_net", "subclassed")
    assert says(message, "no function", "'smal_net'", "'small_net'", *names)


def test_a_constant_is_no_function(write):
    message = refused(f"{write('net = 3')}:net")
    assert says(message, "no function", "'net'", "no functions")


@pytest.mark.parametrize(
    ("body", "problem"),
    [
        ("def net(): pass", ("other arguments", "TypeError")),
        ("def net(shape, classes): return 'model'", ("str", "keras.Model")),
        ("def net(shape, classes): pass", ("NoneType", "keras.Model")),
        (
            "import keras\ndef net(shape, classes): return keras.layers.Dense(classes)",
            ("Dense", "keras.Model"),
        ),
    ],
)
def test_functions_that_do_not_give_a_model(body, problem, write):
    message = refused(f"{write(body)}:net")
    assert says(message, *problem, "function(input_shape, num_classes)", "keras.Model")


def test_what_the_function_itself_raises_is_left_as_it_is(write):
    name = write("def net(shape, classes):\n    raise KeyError('width')")
    with pytest.raises(KeyError, match="width"):
        registry.build(f"{name}:net", (8, 8, 1), 3)


def sequential(*layers, shape="shape"):
    return f"""
        import keras
        from keras.layers import *
        def net(shape, classes):
            return keras.Sequential([keras.Input({shape}), {", ".join(layers)}])
    """


@pytest.mark.parametrize(
    ("layers", "problem"),
    [
        (["Flatten()", "Dense(7)"], ("(None, 7)", "(None, 3)")),
        (["Dense(classes)"], ("(None, 8, 8, 3)", "(None, 3)")),
        (["Flatten()", "Dense(classes, activation='softmax')"], ("softmax",)),
        (["Flatten()", "Dense(classes)", "Softmax()"], ("softmax",)),
    ],
)
def test_outputs_that_are_no_logits(layers, problem, write):
    assert says(refused(f"{write(sequential(*layers))}:net"), *problem)


def test_two_outputs(write):
    path = write("""
        import keras
        def net(shape, classes):
            inputs = keras.Input(shape)
            x = keras.layers.Flatten()(inputs)
            dense = keras.layers.Dense
            return keras.Model(inputs, [dense(classes)(x), dense(classes)(x)])
    """)
    assert says(refused(f"{path}:net"), "list", "one tensor", "(None, 3)")


def test_images_that_the_model_does_not_take(write):
    path = write(sequential("Flatten()", "Dense(classes)", shape="(32, 32, 3)"))
    message = refused(f"{path}:net")
    assert says(message, "images", "(8, 8, 1)", "ValueError: ")
