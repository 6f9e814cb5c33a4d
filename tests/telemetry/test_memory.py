from __future__ import annotations

import tensorflow as tf

from tfamp.telemetry import memory

MIB = 2**20


def test_the_training_device_is_the_first_gpu_or_else_the_cpu(monkeypatch):
    monkeypatch.setattr(tf.config, "list_physical_devices", lambda kind=None: [])
    assert memory.training_device() == "CPU:0"
    monkeypatch.setattr(tf.config, "list_physical_devices", lambda kind=None: ["card"])
    assert memory.training_device() == "GPU:0"


def test_the_name_of_what_trains(monkeypatch):
    assert memory.device_name("CPU:0")
    monkeypatch.setattr(tf.config, "list_physical_devices", lambda kind=None: ["a", "b"])
    monkeypatch.setattr(
        tf.config.experimental, "get_device_details", lambda gpu: {"device_name": f"card {gpu}"}
    )
    assert memory.device_name("GPU:1") == "card b"
    monkeypatch.setattr(tf.config.experimental, "get_device_details", lambda gpu: {})
    assert memory.device_name("GPU:0") == "GPU"


def test_a_peak_is_the_peak_since_the_reset():
    device = memory.training_device()
    memory.reset_device_peak(device)
    before, _ = memory.device_bytes(device)
    with tf.device(device):
        block = tf.zeros((64, MIB // 4))
        held, peak = memory.device_bytes(device)
        assert held - before >= 64 * MIB
        assert peak >= held
        del block
        after, peak_after = memory.device_bytes(device)
    assert after - before < 8 * MIB
    assert peak_after >= before + 64 * MIB
    memory.reset_device_peak(device)
    current, peak = memory.device_bytes(device)
    assert peak - current < 8 * MIB


def test_the_hosts_peak_is_in_bytes():
    peak = memory.host_peak_rss_bytes()
    # TensorFlow alone takes some hundred MiB; kilobytes taken for bytes would show.
    assert 100 * MIB < peak < 1024 * 1024 * MIB
    with open("/proc/self/status", encoding="utf-8") as file:
        kilobytes = next(int(x.split()[1]) for x in file if x.startswith("VmRSS"))
    assert peak >= 0.9 * kilobytes * 1024


def test_gpu_memory_grows_on_demand(monkeypatch):
    grown = []
    monkeypatch.setattr(tf.config, "list_physical_devices", lambda kind=None: ["a", "b"])
    monkeypatch.setattr(
        tf.config.experimental, "set_memory_growth", lambda gpu, on: grown.append((gpu, on))
    )
    memory.grow_gpu_memory()
    assert grown == [("a", True), ("b", True)]
