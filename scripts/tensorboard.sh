#!/usr/bin/env bash
# Shows runs in TensorBoard: scripts/tensorboard.sh [LOGDIR] [TENSORBOARD ARGUMENT...]
#
# LOGDIR is runs unless given. The port is 6006 or the next free one, unless --port is given.
set -euo pipefail

logdir=runs
if (($# > 0)) && [[ $1 != -* ]]; then
  logdir=$1
  shift
fi
if [[ ! -d $logdir ]]; then
  printf 'tfamp: no directory %s here (%s). Give the LOGDIR of a training run:\n' \
    "$logdir" "$PWD" >&2
  printf '  scripts/tensorboard.sh LOGDIR\n' >&2
  exit 1
fi

# shellcheck source=scripts/venv.sh
source "$(dirname -- "${BASH_SOURCE[0]}")/venv.sh"
tfamp_environment ''

host=127.0.0.1
port=''
own_arguments=()
choose_host=yes
previous=''
for argument in "$@"; do
  case $argument in
    --port=*) port=${argument#*=} ;;
    --host=*) choose_host=no host=${argument#*=} ;;
    --host) choose_host=no ;;
    --bind_all) choose_host=no ;;
    *)
      case $previous in
        --port) port=$argument ;;
        --host) host=$argument ;;
      esac
      ;;
  esac
  previous=$argument
done
if [[ $choose_host == yes ]]; then
  own_arguments+=(--host "$host")
fi
if [[ -z $port ]]; then
  # SO_REUSEADDR, as the server sets it: a port that was closed a moment ago is free.
  port=$("$tfamp_python" - <<'PYTHON'
import socket
import sys

for port in range(6006, 6106):
    with socket.socket() as probe:
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            probe.bind(("127.0.0.1", port))
        except OSError:
            continue
    print(port)
    break
else:
    sys.exit("tfamp: no free port from 6006 to 6105. Give one with --port.")
PYTHON
  )
  own_arguments+=(--port "$port")
fi

# TensorBoard imports TensorFlow, which must not take the memory of a GPU that is training.
export CUDA_VISIBLE_DEVICES=-1 TF_CPP_MIN_LOG_LEVEL="${TF_CPP_MIN_LOG_LEVEL:-2}"
# What TensorFlow prints while it loads, whatever its log level. Nothing else is held back.
noise='^WARNING: All log messages before absl::InitializeLog'
noise+='|^I0000 |^To enable the following instructions:'
noise+='|^E0000 .*failed call to cuInit'
# And what the profile plugin notes of each page that it serves.
noise+='|^[{]"httpRequest": |^INFO .* \[profile_'

# Unsmoothed, as a loss scale moves in steps.
view='?smoothing=0#custom_scalars&_smoothingWeight=0'
printf 'tfamp: open http://%s:%s/%s once the server is up (a few seconds)\n' \
  "$host" "$port" "$view"
# --load_fast=true is what TensorBoard does by default here, less a notice about it.
exec "$tfamp_python" -m tensorboard.main --logdir "$logdir" --load_fast=true \
  "${own_arguments[@]}" "$@" \
  2> >(trap '' INT TERM && exec grep --line-buffered -v -E "$noise" >&2)
