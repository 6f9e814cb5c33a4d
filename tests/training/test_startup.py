from __future__ import annotations

import os
import subprocess
import sys
import textwrap

import pytest

from tfamp.training.startup import captured_stderr


def python(code, **environment):
    """Runs code in a process of its own."""
    env = {
        k: v for k, v in os.environ.items() if k not in ("TF_CPP_MIN_LOG_LEVEL", "KERAS_BACKEND")
    }
    return subprocess.run(
        [sys.executable, "-c", textwrap.dedent(code)],
        capture_output=True,
        text=True,
        env=env | environment,
        check=False,
    )


def test_nothing_is_printed_where_all_goes_well():
    done = python(
        """
        from tfamp.training import startup
        startup.import_tensorflow(float16=True)
        import sys, keras, tensorflow as tf
        tf.linalg.matmul(tf.ones((2, 2), tf.float16), tf.ones((2, 2), tf.float16))
        assert keras.backend.backend() == "tensorflow"
        sys.stderr.write("still there")
        """,
        KERAS_BACKEND="jax",
    )
    assert (done.returncode, done.stdout, done.stderr) == (0, "", "still there")


def test_an_import_that_fails_is_shown_with_all_it_said(tmp_path):
    # Stands in for a TensorFlow that does not load.
    (tmp_path / "keras.py").write_text("import tensorflow")
    (tmp_path / "tensorflow.py").write_text(
        "import os\nos.write(2, b'libcudart.so.12: not found\\n')\n"
        "raise ImportError('DLL load failed')\n"
    )
    done = python(
        "from tfamp.training import startup\nstartup.import_tensorflow()",
        PYTHONPATH=f"{tmp_path}:{os.getcwd()}",
    )
    assert done.returncode == 1
    assert done.stderr.count("libcudart.so.12: not found") == 1
    assert "ImportError: DLL load failed" in done.stderr


@pytest.mark.parametrize(
    ("set_by_user", "level"), [({}, "2"), ({"TF_CPP_MIN_LOG_LEVEL": "0"}, "0")]
)
def test_the_users_own_log_level_wins(set_by_user, level):
    # Fails at once: only the environment matters here.
    done = python(
        """
        import os, sys
        sys.modules["keras"] = None
        from tfamp.training import startup
        try:
            startup.import_tensorflow()
        except ImportError:
            print(os.environ["TF_CPP_MIN_LOG_LEVEL"], os.environ["KERAS_BACKEND"])
        """,
        **set_by_user,
    )
    assert done.stdout == f"{level} tensorflow\n"


# In this process: what reaches file descriptor 2.


def test_what_is_written_inside_is_dropped(capfd):
    with captured_stderr():
        os.write(2, b"from C++\n")
        print("from Python", file=sys.stderr)
    os.write(2, b"after\n")
    assert capfd.readouterr().err.endswith("after\n")
    with captured_stderr():
        os.write(2, b"again\n")
    assert "again" not in capfd.readouterr().err


def test_what_is_written_inside_is_replayed_once_before_the_error(capfd):
    with pytest.raises(ImportError), captured_stderr():
        os.write(2, b"the reason\n")
        raise ImportError("no")
    os.write(2, b"after\n")
    assert capfd.readouterr().err == "the reason\nafter\n"


def test_an_interrupt_replays_too(capfd):
    with pytest.raises(KeyboardInterrupt), captured_stderr():
        os.write(2, b"loading\n")
        raise KeyboardInterrupt
    assert capfd.readouterr().err == "loading\n"


def test_no_descriptor_is_left_open():
    before = set(os.listdir("/proc/self/fd"))
    for _ in range(3):
        with captured_stderr():
            pass
    assert len(os.listdir("/proc/self/fd")) == len(before)
