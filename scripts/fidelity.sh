#!/usr/bin/env bash
# What each precision and loss scale leaves of a model's gradient:
#
#   scripts/fidelity.sh --run=RUN_DIR [--out=DIR]
#   scripts/fidelity.sh --model=resnet20 [--dataset=NAME] [--batch_size=N] --out=DIR
#
# All options: scripts/fidelity.sh --help
#
# The first run makes .venv and installs tfamp into it (scripts/venv.sh: PYTHON, TFAMP_EXTRAS).
# Relative paths in the flags are taken from the directory that you are in.
set -euo pipefail

# shellcheck source=scripts/venv.sh
source "$(dirname -- "${BASH_SOURCE[0]}")/venv.sh"
tfamp_environment ''
exec "$tfamp_python" -m tfamp.fidelity "$@"
