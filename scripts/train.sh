#!/usr/bin/env bash
# Trains: scripts/train.sh [FLAG...]    all flags: scripts/train.sh --helpshort
#
# The first run makes .venv and installs tfamp into it (scripts/venv.sh: PYTHON, TFAMP_EXTRAS).
# Relative paths in the flags are taken from the directory that you are in.
set -euo pipefail

# shellcheck source=scripts/venv.sh
source "$(dirname -- "${BASH_SOURCE[0]}")/venv.sh"
tfamp_environment ''
exec "$tfamp_python" -m tfamp.train "$@"
