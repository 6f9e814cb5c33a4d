#!/usr/bin/env bash
# Trains every cell of a matrix, then makes the report:
#
#   scripts/sweep.sh LOGDIR [--policies=A,B] [--models=A,B] [--datasets=A,B] [--loops=A,B]
#                    [--seeds=A,B] [--loss_scales=A,B] [--jobs=N] [--dry_run] [-- TRAIN FLAG...]
#
# All options: scripts/sweep.sh --help    all train flags: scripts/train.sh --helpshort
# Finished cells are passed over: after a kill, the same command goes on where it stopped.
#
# The first run makes .venv and installs tfamp into it (scripts/venv.sh: PYTHON, TFAMP_EXTRAS).
# Relative paths in the flags are taken from the directory that you are in.
set -euo pipefail

# shellcheck source=scripts/venv.sh
source "$(dirname -- "${BASH_SOURCE[0]}")/venv.sh"
tfamp_environment ''
exec "$tfamp_python" -m tfamp.sweep "$@"
