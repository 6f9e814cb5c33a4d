"""Memory peaks of the training device, and of the host beside it."""

from __future__ import annotations

import resource
import sys

import tensorflow as tf


def training_device() -> str:
    """The device that trains, `GPU:0` or `CPU:0`, as `tf.config.experimental` takes it."""
    return "GPU:0" if tf.config.list_physical_devices("GPU") else "CPU:0"


def device_name(device: str) -> str:
    """What stands behind a device: a card's name, or the processor's."""
    kind, index = device.split(":")
    if kind == "GPU":
        gpu = tf.config.list_physical_devices("GPU")[int(index)]
        return tf.config.experimental.get_device_details(gpu).get("device_name", "GPU")
    try:
        with open("/proc/cpuinfo", encoding="utf-8") as file:
            for line in file:
                if line.startswith("model name"):
                    return line.split(":", 1)[1].strip()
    except OSError:
        pass
    return "CPU"


def described_device() -> str:
    """The training device and what stands behind it, as `CPU:0 (its name)`."""
    device = training_device()
    return f"{device} ({device_name(device)})"


def device_bytes(device: str) -> tuple[int, int]:
    """Bytes that TensorFlow holds on a device now, and their peak since the last reset."""
    info = tf.config.experimental.get_memory_info(device)
    return int(info["current"]), int(info["peak"])


def reset_device_peak(device: str) -> None:
    """Begins a new measurement of the peak."""
    tf.config.experimental.reset_memory_stats(device)


def host_peak_rss_bytes() -> int:
    """The largest resident set of this process so far, in bytes."""
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return peak if sys.platform == "darwin" else peak * 1024


def grow_gpu_memory() -> None:
    """Lets TensorFlow take GPU memory as it needs it, so that peaks mean something."""
    for gpu in tf.config.list_physical_devices("GPU"):
        tf.config.experimental.set_memory_growth(gpu, True)
