"""TensorFlow's import without its start-up noise, but with its errors."""

from __future__ import annotations

import contextlib
import os
import sys
import tempfile
from collections.abc import Iterator


@contextlib.contextmanager
def captured_stderr() -> Iterator[None]:
    """Holds back what is written to file descriptor 2; replays it if the body raises.

    TensorFlow's C++ start-up lines obey no environment variable, so the descriptor
    itself is turned away.
    """
    sys.stderr.flush()
    saved = os.dup(2)
    with tempfile.TemporaryFile() as held:
        os.dup2(held.fileno(), 2)
        try:
            yield
        except BaseException:
            sys.stderr.flush()
            os.dup2(saved, 2)
            held.seek(0)
            os.write(2, held.read())
            raise
        finally:
            sys.stderr.flush()
            os.dup2(saved, 2)
            os.close(saved)


def import_tensorflow(float16: bool = False) -> None:
    """Imports TensorFlow and Keras quietly; later lines below ERROR are silenced too.

    A user's own `TF_CPP_MIN_LOG_LEVEL` or `KERAS_BACKEND` wins, except that Keras must run
    on TensorFlow.

    Args:
        float16: Whether float16 will be used. oneDNN says once, as an error, that it has no
            kernels for it on many processors.

    Raises:
        ImportError: TensorFlow is not there or does not load; its output is shown.
    """
    os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "2")
    os.environ["KERAS_BACKEND"] = "tensorflow"
    with captured_stderr():
        import keras  # noqa: F401
        import tensorflow as tf

        # Looking for a GPU where there is none prints too.
        tf.config.list_physical_devices()
        if float16:
            tf.linalg.matmul(*2 * [tf.ones((2, 2), tf.float16)])
