"""A TensorBoard server on 127.0.0.1, asked over HTTP as its own pages ask."""

from __future__ import annotations

import contextlib
import gzip
import json
import os
import pathlib
import subprocess
import sys
import urllib.parse
import urllib.request
from collections.abc import Callable, Iterator, Sequence
from typing import Any

import pytest

Ask = Callable[..., Any]


@contextlib.contextmanager
def serve(logdir: pathlib.Path) -> Iterator[Ask]:
    """Starts TensorBoard; gives a function that asks one of its pages, with a body to post."""
    own = ["--host", "127.0.0.1", "--port", "0", "--load_fast=true"]
    server = subprocess.Popen(
        [sys.executable, "-m", "tensorboard.main", "--logdir", str(logdir), *own],
        stdout=subprocess.DEVNULL,
        stderr=subprocess.PIPE,
        text=True,
        env=os.environ | {"CUDA_VISIBLE_DEVICES": "-1", "TF_CPP_MIN_LOG_LEVEL": "2"},
    )
    try:
        said = []
        for line in server.stderr:
            said.append(line)
            if " at http://" in line:
                break
        else:
            pytest.fail(f"TensorBoard did not start: {''.join(said)}")
        address = line.split(" at ")[1].split()[0].rstrip("/")

        def get(page: str, body: Any = None, **query: Any) -> Any:
            assert server.poll() is None, "TensorBoard has ended"
            url = f"{address}/data/plugin/{page}?{urllib.parse.urlencode(query)}"
            data = None if body is None else json.dumps(body).encode()
            request = urllib.request.Request(
                url, data, {"Content-Type": "application/json"} if data else {}
            )
            with urllib.request.urlopen(request, timeout=60) as answer:
                content = answer.read()
                # The profile plugin packs what it sends, asked or not.
                is_packed = answer.headers.get("Content-Encoding") == "gzip"
                return json.loads(gzip.decompress(content) if is_packed else content)

        yield get
    finally:
        server.terminate()
        server.communicate()


def wait_until_loaded(ask: Ask, names: Sequence[str], last_step: int) -> None:
    """Returns once the last figures of every run are served.

    TensorBoard answers before it has read all files, so the last figure written is what to wait
    for.
    """
    last = {"train": "time/epoch_sec", "validation": "validation/loss"}

    def is_loaded(name: str) -> bool:
        tags = ask("scalars/tags")
        return all(
            tag in tags.get(f"{name}/{folder}", {})
            and ask("scalars/scalars", run=f"{name}/{folder}", tag=tag)[-1][1] == last_step
            for folder, tag in last.items()
        )

    for name in names:
        for _ in range(100_000):
            if is_loaded(name):
                break
        else:
            pytest.fail(f"TensorBoard does not show all of {name}")


def session_groups(ask: Ask) -> list[dict[str, Any]]:
    """The rows of the HParams table, with all of its columns."""
    experiment = ask("hparams/experiment", {"experimentName": ""})
    statuses = ("UNKNOWN", "SUCCESS", "FAILURE", "RUNNING")
    body = {
        "experimentName": "",
        "allowedStatuses": [f"STATUS_{status}" for status in statuses],
        "colParams": [{"metric": info["name"]} for info in experiment["metricInfos"]]
        + [{"hparam": info["name"]} for info in experiment["hparamInfos"]],
        "startIndex": 0,
        "sliceSize": 100,
    }
    return ask("hparams/session_groups", body)["sessionGroups"]
