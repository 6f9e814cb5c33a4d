"""TensorBoard's tab Profile shows a trace of --profile_steps."""

import importlib.metadata

import pytest
from short_runs import SHORT, run_once
from tensorboard_server import serve

from tfamp.run.config import Config
from tfamp.run.resolve import resolve


@pytest.mark.slow  # With the extra `profile` only, which a newcomer has no need of.
def test_the_tab_shows_the_traced_steps(tmp_path):
    try:
        importlib.metadata.distribution("tensorboard-plugin-profile")
    except importlib.metadata.PackageNotFoundError:
        pytest.skip("needs the extra profile: TFAMP_EXTRAS=profile scripts/test.sh -m slow")
    values = {"logdir": str(tmp_path), "run_name": "run", "profile_steps": (2, 3)}
    assert run_once(resolve(Config(**(SHORT | values)))).error is None
    with serve(tmp_path) as ask:
        (run,) = ask("profile/runs")
        assert run.startswith("run/train/")
        tools = ask("profile/run_tools", run=run)
        assert {"overview_page", "trace_viewer@", "framework_op_stats"} <= set(tools)
        (host,) = ask("profile/hosts", run=run, tag="trace_viewer@")
        named = ask("profile/data", run=run, tag="framework_op_stats", host=host["hostname"])
        operations = {cell["v"] for row in named[0]["rows"] for cell in row["c"]}
        assert {"BiasAddGrad", "AssignAddVariableOp"} <= operations
