"""The callback list of both loops, which leaves a step's figures on the device."""

from __future__ import annotations

from typing import Any

import keras


class DeviceCallbackList(keras.callbacks.CallbackList):
    """Hands each step's logs to the callbacks as device tensors.

    Keras's own list turns the logs of every step into Python floats, which waits for the device
    at every step (`pythonify_logs`, in the main thread or in another). Callbacks here read them
    when they need them.
    """

    def on_train_batch_begin(self, batch: int, logs: Any = None) -> None:
        """Calls every callback."""
        for callback in self.callbacks:
            callback.on_train_batch_begin(batch, logs)

    def on_train_batch_end(self, batch: int, logs: Any = None) -> None:
        """Calls every callback with the logs as they are."""
        for callback in self.callbacks:
            callback.on_train_batch_end(batch, logs)

    def on_test_batch_begin(self, batch: int, logs: Any = None) -> None:
        """Calls every callback."""
        for callback in self.callbacks:
            callback.on_test_batch_begin(batch, logs)

    def on_test_batch_end(self, batch: int, logs: Any = None) -> None:
        """Calls every callback with the logs as they are."""
        for callback in self.callbacks:
            callback.on_test_batch_end(batch, logs)
