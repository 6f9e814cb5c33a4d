from __future__ import annotations

import itertools

import numpy as np
import pytest
import tensorflow as tf
import tensorflow_datasets as tfds

from tfamp.data import pipeline, registry, tfds_prepare, tfds_sets
from tfamp.run.errors import InputError

# Sets that TFDS knows by being defined here. Image i has the value i in every pixel, so that what
# resizing and decoding leave can be told.


class TfampTinyVaried(tfds.core.GeneratorBasedBuilder):
    """JPEG images of different sizes; train and test."""

    VERSION = tfds.core.Version("1.0.0")
    SIZES = ((20, 30), (31, 17), (24, 24))
    SPLITS = {"train": 40, "test": 9}  # noqa: RUF012

    def _info(self):
        return tfds.core.DatasetInfo(
            builder=self,
            features=tfds.features.FeaturesDict(
                {
                    "id": tfds.features.Text(),
                    "image": tfds.features.Image(
                        shape=(None, None, 3), encoding_format=self.encoding()
                    ),
                    "label": tfds.features.ClassLabel(num_classes=5),
                }
            ),
            supervised_keys=("image", "label"),
        )

    def encoding(self):
        return "jpeg"

    def _split_generators(self, dl_manager):
        del dl_manager
        return {name: self._generate_examples(count) for name, count in self.SPLITS.items()}

    def _generate_examples(self, count):
        for i in range(count):
            height, width = self.SIZES[i % len(self.SIZES)]
            image = np.full((height, width, 3), i, np.uint8)
            yield i, {"id": str(i), "image": image, "label": i % 5}


class TfampTinyTrainOnly(TfampTinyVaried):
    """No split to validate on."""

    VERSION = tfds.core.Version("1.0.0")
    SPLITS = {"train": 3}  # noqa: RUF012


@pytest.fixture(scope="module")
def tiny_dir(tmp_path_factory):
    data_dir = tmp_path_factory.mktemp("tiny")
    for name in ("tfamp_tiny_varied", "tfamp_tiny_train_only"):
        tfds.builder(name, data_dir=str(data_dir)).download_and_prepare()
    return str(data_dir)


def load_tiny(tiny_dir, **arguments):
    values = {"batch_size": 6, "seed": 1, "image_size": 8, "data_dir": tiny_dir, **arguments}
    return registry.load("tfamp_tiny_varied", **values)


def pixel_values(images):
    """Undoes the normalisation and returns the middle pixel of the first channel, [batch]."""
    return np.round((images[:, 4, 4, 0] * 0.229 + 0.485) * 255.0).astype(int)


def values_of(dataset, num_batches):
    return [pixel_values(images) for images, _ in itertools.islice(dataset, num_batches)]


@pytest.fixture(params=["in memory", "streamed"])
def reading(request, monkeypatch):
    if request.param == "streamed":
        monkeypatch.setattr(pipeline, "MEMORY_LIMIT_BYTES", 0)
    return request.param


def test_images_of_different_sizes(tiny_dir, reading):
    data = load_tiny(tiny_dir)
    assert data.image_shape == (8, 8, 3)
    assert (data.num_train, data.num_validation, data.num_classes) == (40, 9, 5)
    assert data.steps_per_epoch == 6
    assert data.train.element_spec == (
        tf.TensorSpec((6, 8, 8, 3), tf.float32),
        tf.TensorSpec((6, 5), tf.float32),
    )
    assert data.train.cardinality() == tf.data.INFINITE_CARDINALITY
    # 9 examples in batches of 3, the largest divisor up to 6 that is at least 3.
    assert data.validation.cardinality() == 3
    images, labels = zip(*data.validation, strict=True)
    values = pixel_values(np.concatenate(images))
    assert sorted(values) == list(range(9))
    np.testing.assert_array_equal(np.concatenate(labels).argmax(-1), values % 5)


def test_epochs_are_permutations_without_straddling(tiny_dir, reading):
    batches = values_of(load_tiny(tiny_dir).train, 18)
    epochs = [np.concatenate(batches[start : start + 6]) for start in (0, 6, 12)]
    for epoch in epochs:
        assert len(set(epoch)) == 36
        assert set(epoch) <= set(range(40))
    assert len({tuple(epoch) for epoch in epochs}) == 3


def test_order_is_a_function_of_the_seed(tiny_dir, reading):
    tf.random.set_seed(1)
    first = values_of(load_tiny(tiny_dir).train, 9)
    tf.random.set_seed(2)
    np.testing.assert_array_equal(values_of(load_tiny(tiny_dir).train, 9), first)
    assert not np.array_equal(values_of(load_tiny(tiny_dir, seed=2).train, 9), first)


@pytest.mark.parametrize("start_step", [4, 6, 13])
def test_start_step_continues_the_unbroken_stream(tiny_dir, reading, start_step):
    unbroken = values_of(load_tiny(tiny_dir).train, start_step + 5)[start_step:]
    resumed = values_of(load_tiny(tiny_dir, start_step=start_step).train, 5)
    np.testing.assert_array_equal(resumed, unbroken)


def test_files_come_in_a_new_order_each_epoch(tmp_path):
    # Without a buffer only the order of the files is left to differ.
    files = []
    for name in range(6):
        files.append(str(tmp_path / f"{name}.tfrecord"))
        with tf.io.TFRecordWriter(files[-1]) as writer:
            writer.write(str(name).encode())

    def decode(record):
        return tf.zeros((1, 1, 1), tf.uint8), tf.strings.to_number(record, tf.int64)

    split = tfds_sets.StreamedSplit(tuple(files), decode, num_examples=6, shuffle_buffer=1)
    batches = split.train_batches(batch_size=6, seed=0, start_step=0).take(3)
    orders = [labels.numpy().tolist() for _, _, labels in batches]
    assert all(sorted(order) == list(range(6)) for order in orders)
    assert len({tuple(order) for order in orders}) == 3


def test_exact_jpeg_decoding(tiny_dir):
    data = load_tiny(tiny_dir, deterministic=True)
    values = np.concatenate([pixel_values(images) for images, _ in data.validation])
    assert sorted(values) == list(range(9))


def test_deterministic_takes_the_exact_method(tiny_dir, monkeypatch):
    methods = []
    decode_jpeg = tf.io.decode_jpeg

    def spy(*args, **kwargs):
        methods.append(kwargs.get("dct_method"))
        return decode_jpeg(*args, **kwargs)

    monkeypatch.setattr(tf.io, "decode_jpeg", spy)
    load_tiny(tiny_dir)
    assert methods == []
    load_tiny(tiny_dir, deterministic=True)
    assert set(methods) == {"INTEGER_ACCURATE"}


def test_image_size_is_required_where_sizes_vary(tiny_dir):
    with pytest.raises(InputError, match=r"tfamp_tiny_varied/1.0.0' vary in size.*Set image_size"):
        load_tiny(tiny_dir, image_size=None)


def test_a_split_to_validate_on_is_required(tiny_dir):
    with pytest.raises(InputError, match="has the splits train"):
        registry.load(
            "tfamp_tiny_train_only", batch_size=1, seed=0, image_size=8, data_dir=tiny_dir
        )


def test_a_prepared_directory_is_enough(tiny_dir, tmp_path):
    # A set that this TFDS does not know, copied here from elsewhere.
    import json
    import pathlib
    import shutil

    target = tmp_path / "somebodys_set" / "1.0.0"
    shutil.copytree(pathlib.Path(tiny_dir) / "tfamp_tiny_varied" / "1.0.0", target)
    for file in target.glob("tfamp_tiny_varied-*"):
        file.rename(target / file.name.replace("tfamp_tiny_varied", "somebodys_set"))
    info = json.loads((target / "dataset_info.json").read_text())
    info["name"] = "somebodys_set"
    (target / "dataset_info.json").write_text(json.dumps(info))
    builder = tfds_prepare.find_builder("somebodys_set", str(tmp_path))
    tfds_prepare.prepare(builder)
    assert tfds_sets.open_images(builder, 8, deterministic=False).train.num_examples == 40


@pytest.mark.slow
def test_real_fashion_mnist(fashion_mnist_dir, debian_source):
    import gzip

    data = registry.load("fashion_mnist", batch_size=128, seed=0, data_dir=str(fashion_mnist_dir))
    assert data.image_shape == (28, 28, 1)
    assert (data.num_train, data.num_validation, data.num_classes) == (60_000, 10_000, 10)
    assert data.steps_per_epoch == 468
    images, labels = next(iter(data.train))
    assert abs(float(tf.reduce_mean(images))) < 0.1
    assert float(tf.math.reduce_std(images)) == pytest.approx(1.0, abs=0.1)
    assert labels.shape == (128, 10)
    validation = list(data.validation)
    assert len(validation) == 80
    assert validation[0][0].shape == (125, 28, 28, 1)
    # TFDS shuffles when it prepares: the same images, in another order.
    source = gzip.decompress((debian_source / "t10k-images-idx3-ubyte.gz").read_bytes())
    expected = np.frombuffer(source, np.uint8, offset=16).reshape(10_000, 784)
    pixels = np.concatenate([images for images, _ in validation]).reshape(10_000, 784)
    pixels = np.round((pixels * 0.3530 + 0.2860) * 255.0).astype(np.uint8)
    np.testing.assert_array_equal(
        sorted(row.tobytes() for row in pixels), sorted(row.tobytes() for row in expected)
    )
