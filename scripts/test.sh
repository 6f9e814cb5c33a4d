#!/usr/bin/env bash
# Runs the tests: scripts/test.sh [PYTEST ARGUMENT...]
#
# Without arguments, everything that needs neither a GPU nor much time. The rest:
# scripts/test.sh -m slow, scripts/test.sh -m gpu. Paths are relative to the repository.
set -euo pipefail

# shellcheck source=scripts/venv.sh
source "$(dirname -- "${BASH_SOURCE[0]}")/venv.sh"
tfamp_environment test
cd -- "$tfamp_root"
# XLA compiles a quarter faster so, and nobody waits for what it has compiled.
export XLA_FLAGS="${XLA_FLAGS---xla_backend_optimization_level=0}"
# Two processes with half of the tests each, in order, so that runs are shared within a file; the one
# that is done first takes over half of what is left to the other.
exec "$tfamp_python" -m pytest -n 2 --dist worksteal "$@"
