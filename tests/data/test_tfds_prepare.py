from __future__ import annotations

import socket

import pytest

from tests.messages import naming, says
from tfamp.data import tfds_prepare
from tfamp.run.errors import InputError


@pytest.fixture
def no_network(monkeypatch):
    """Every connection fails as it does on a machine without network."""

    def refuse(address, *_, **__):
        raise socket.gaierror(-3, "Temporary failure in name resolution")

    monkeypatch.setattr(socket, "create_connection", refuse)
    for variable in ("http_proxy", "https_proxy", "all_proxy"):
        monkeypatch.delenv(variable, raising=False)
        monkeypatch.delenv(variable.upper(), raising=False)


@pytest.mark.parametrize("name", ["cifar100", "imagenette/160px-v2", "fashion_mnist", "Cifar100"])
def test_known_sets_are_found(name, tmp_path):
    builder = tfds_prepare.find_builder(name, str(tmp_path))
    assert str(builder.data_path).startswith(str(tmp_path))


def test_unknown_set_has_near_matches(tmp_path):
    with pytest.raises(InputError, match=naming("'cifar_100'", "'cifar100'", "dataset")):
        tfds_prepare.find_builder("cifar_100", str(tmp_path))


def test_near_matches_include_the_sets_that_are_not_of_tfds(tmp_path):
    with pytest.raises(InputError, match=naming("'fashion_mnist_mini'", "dataset")):
        tfds_prepare.find_builder("fashion_mnist_mni", str(tmp_path), ["fashion_mnist_mini"])


def test_unknown_version(tmp_path):
    with pytest.raises(InputError, match=r"dataset='cifar100:9.9.9.*set/config:version\.$"):
        tfds_prepare.find_builder("cifar100:9.9.9", str(tmp_path))


def test_unknown_config(tmp_path):
    with pytest.raises(InputError, match=r"dataset='imagenette/161px.*160px-v2"):
        tfds_prepare.find_builder("imagenette/161px", str(tmp_path))


@pytest.mark.parametrize(
    ("name", "expected"),
    [("imdb_reviews", "label: ClassLabel, text: Text"), ("oxford_iiit_pet:4.0.0", None)],
)
def test_only_image_classification_sets(name, expected, tmp_path):
    if expected is None:
        tfds_prepare.find_builder(name, str(tmp_path))
        return
    with pytest.raises(
        InputError, match=naming(f"dataset='{name}'", "image classification")
    ) as caught:
        tfds_prepare.find_builder(name, str(tmp_path))
    assert expected in str(caught.value)


def test_without_network_it_says_what_to_put_where(no_network, tmp_path, caplog):
    builder = tfds_prepare.find_builder("cifar100", str(tmp_path))
    with pytest.raises(InputError) as caught:
        tfds_prepare.prepare(builder)
    message = str(caught.value)
    for part in (
        *("www.cs.toronto.edu", f"{tmp_path}/cifar100/3.0.2"),
        *("cifar-100-binary.tar.gz", f"{tmp_path}/downloads/manual"),
        f"`tfds build cifar100 --data_dir={tmp_path}`",
    ):
        assert says(message, part)
    assert not caplog.records  # No warning that nobody can act on.


def test_without_network_with_a_config(no_network, tmp_path):
    builder = tfds_prepare.find_builder("imagenette/160px-v2", str(tmp_path))
    with pytest.raises(InputError) as caught:
        tfds_prepare.prepare(builder)
    message = str(caught.value)
    assert f"into {tmp_path}/downloads/manual" in message
    assert f"`tfds build imagenette/160px-v2 --data_dir={tmp_path}`" in message
    assert f"copy {tmp_path}/imagenette;" in message


def test_sets_with_manual_files_say_so(tmp_path):
    builder = tfds_prepare.find_builder("imagenet2012", str(tmp_path))
    with pytest.raises(InputError, match=r"ILSVRC2012_img_train\.tar") as caught:
        tfds_prepare.prepare(builder)
    assert f"into {tmp_path}/downloads/manual" in str(caught.value)


def test_a_wrong_file_is_named(no_network, tmp_path):
    builder = tfds_prepare.find_builder("cifar100", str(tmp_path))
    manual = tmp_path / "downloads" / "manual"
    manual.mkdir(parents=True)
    (manual / "cifar-100-binary.tar.gz").write_bytes(b"not the archive")
    with pytest.raises(InputError, match=naming("not the one", "cifar-100-binary.tar.gz")):
        tfds_prepare.prepare(builder)


def test_an_error_of_the_download_becomes_an_input_error(no_network, monkeypatch, tmp_path):
    builder = tfds_prepare.find_builder("cifar100", str(tmp_path))
    monkeypatch.setattr(tfds_prepare, "_is_reachable", lambda host, port: True)

    def fail():
        raise ConnectionError("connection reset half way")

    monkeypatch.setattr(builder, "download_and_prepare", fail)
    with pytest.raises(
        InputError, match=naming("ConnectionError: connection reset half way", "tfds build")
    ):
        tfds_prepare.prepare(builder)


def test_a_proxy_is_asked_instead_of_the_host(no_network, monkeypatch):
    asked = []
    monkeypatch.setattr(
        tfds_prepare, "_is_reachable", lambda host, port: asked.append((host, port)) or True
    )
    monkeypatch.setenv("https_proxy", "http://proxy.example:3128")
    monkeypatch.setenv("no_proxy", "inside.example")
    urls = ["https://data.example/a.zip", "https://inside.example/b.zip", "http://plain.example/c"]
    assert tfds_prepare._unreachable_hosts(urls) == []
    assert sorted(asked) == [
        ("inside.example", 443),
        ("plain.example", 80),
        ("proxy.example", 3128),
    ]
