"""The content of a user's model: its file and what it imports from its own folder."""

from __future__ import annotations

import hashlib

import pytest

from tfamp.models import user_files


def write(folder, **texts):
    for name, text in texts.items():
        path = folder / (name.replace("__in__", "/") + ".py")
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text)


def names(folder):
    return list(user_files.sha256(f"{folder}/net.py:build") or {})


def test_it_is_the_hash_of_the_file(tmp_path):
    write(tmp_path, net="import keras\n")
    assert user_files.sha256(f"{tmp_path}/net.py:build") == {
        "net.py": hashlib.sha256(b"import keras\n").hexdigest()
    }


@pytest.mark.parametrize("model", ["resnet20", "gone/net.py:build", "vit_tiny"])
def test_a_model_without_a_file_has_none(model):
    assert user_files.sha256(model) is None


@pytest.mark.parametrize(
    ("statement", "files"),
    [
        ("import blocks", ["blocks.py", "deep.py"]),
        ("from blocks import conv", ["blocks.py", "deep.py"]),
        ("from blocks import *", ["blocks.py", "deep.py"]),
        ("def build():\n    import blocks as b\n", ["blocks.py", "deep.py"]),
        ("import pack", ["pack/__init__.py"]),
        ("import pack.inner", ["pack/__init__.py", "pack/inner.py", "pack/other.py"]),
        ("from pack import inner", ["pack/__init__.py", "pack/inner.py", "pack/other.py"]),
        ("from pack.inner import thing", ["pack/__init__.py", "pack/inner.py", "pack/other.py"]),
        ("import plain.inner", ["plain/inner.py"]),
        ("import keras, json, tfamp, gone", []),
        ("from .. import outside", []),
        ("from . import blocks", ["blocks.py", "deep.py"]),
        ("this is no Python", []),
    ],
)
def test_what_it_imports_from_its_own_folder_counts(statement, files, tmp_path):
    write(tmp_path, outside="")
    folder = tmp_path / "mine"
    write(
        folder,
        net=statement,
        blocks="import deep",
        deep="import blocks",
        json="",
        tfamp="",
        unused="",
        pack__in____init__="",
        pack__in__inner="from . import other\nfrom ... import outside",
        pack__in__other="",
        plain__in__inner="",
    )
    found = names(folder)
    assert found[0] == "net.py" and sorted(found[1:]) == files


def test_an_edit_of_any_of_them_changes_it(tmp_path):
    write(tmp_path, net="import blocks", blocks="A = 1")
    model = f"{tmp_path}/net.py:build"
    before = user_files.sha256(model)
    assert user_files.sha256(model) == before
    write(tmp_path, blocks="A = 2")
    after = user_files.sha256(model)
    assert after["net.py"] == before["net.py"] and after["blocks.py"] != before["blocks.py"]
