#!/usr/bin/env bash
# The Python that has tfamp: scripts/python.sh FILE [ARGUMENT...], scripts/python.sh -m MODULE ...
#
# The first run makes .venv and installs tfamp into it (scripts/venv.sh: PYTHON, TFAMP_EXTRAS).
# Relative paths are taken from the directory that you are in.
set -euo pipefail

# shellcheck source=scripts/venv.sh
source "$(dirname -- "${BASH_SOURCE[0]}")/venv.sh"
tfamp_environment ''
exec "$tfamp_python" "$@"
