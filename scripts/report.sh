#!/usr/bin/env bash
# Compares runs, policy by policy: scripts/report.sh LOGDIR [--baseline=POLICY] [--out=DIR]
#
# All options: scripts/report.sh --help
#
# The first run makes .venv and installs tfamp into it (scripts/venv.sh: PYTHON, TFAMP_EXTRAS).
# Relative paths are taken from the directory that you are in.
set -euo pipefail

# shellcheck source=scripts/venv.sh
source "$(dirname -- "${BASH_SOURCE[0]}")/venv.sh"
tfamp_environment ''
exec "$tfamp_python" -m tfamp.report "$@"
