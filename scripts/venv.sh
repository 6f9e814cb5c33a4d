# shellcheck shell=bash
# Sourced by the other scripts, never run: makes .venv and keeps it up to date.
#
#   source "$(dirname -- "${BASH_SOURCE[0]}")/venv.sh"
#   tfamp_environment EXTRAS      then "$tfamp_python" is the interpreter to use
#
# Read from the environment:
#   PYTHON        the Python that .venv is made from (default: the first suitable one found)
#   TFAMP_VENV    where the environment lives (default: .venv in the repository)
#   TFAMP_EXTRAS  more extras of setup.cfg to install, separated by commas or spaces ("cuda")

tfamp_root=$(cd -- "$(dirname -- "${BASH_SOURCE[0]}")/.." && pwd -P)
tfamp_venv=${TFAMP_VENV:-$tfamp_root/.venv}
case $tfamp_venv in
  /*) ;;
  *) tfamp_venv=$PWD/$tfamp_venv ;;
esac
tfamp_python=$tfamp_venv/bin/python

_tfamp_say() {
  printf 'tfamp: %s\n' "$*" >&2
}

_tfamp_fail() {
  _tfamp_say "$*"
  exit 1
}

# Runs the interpreter instead of trusting its name: a pyenv shim exists and still fails.
_tfamp_version() {
  "$1" -c 'import sys; print("%d.%d" % sys.version_info[:2])' 2>/dev/null
}

_tfamp_supported() {
  case $(_tfamp_version "$1") in
    3.10 | 3.11 | 3.12 | 3.13) return 0 ;;
    *) return 1 ;;
  esac
}

# Debian and Ubuntu ship python3 without ensurepip, and `python -m venv` then fails.
_tfamp_can_make_venv() {
  "$1" -c 'import ensurepip, venv' >/dev/null 2>&1
}

# Sets base_python, or stops with a message that says what to install.
_tfamp_find_python() {
  local candidate without_venv='' seen=''
  if [[ -n ${PYTHON:-} ]]; then
    command -v -- "$PYTHON" >/dev/null ||
      _tfamp_fail "PYTHON=$PYTHON is not a program. Set PYTHON to a Python 3.10 to 3.13."
    _tfamp_version "$PYTHON" >/dev/null ||
      _tfamp_fail "PYTHON=$PYTHON does not start. Set PYTHON to a Python 3.10 to 3.13."
    _tfamp_supported "$PYTHON" || _tfamp_fail "PYTHON=$PYTHON is Python" \
      "$(_tfamp_version "$PYTHON"). Set PYTHON to a Python 3.10 to 3.13."
    _tfamp_can_make_venv "$PYTHON" || _tfamp_fail "PYTHON=$PYTHON has no venv or ensurepip" \
      "module. On Debian or Ubuntu: apt-get install python3-venv"
    base_python=$PYTHON
    return
  fi
  for candidate in python3 python3.13 python3.12 python3.11 python3.10; do
    command -v "$candidate" >/dev/null || continue
    if ! _tfamp_supported "$candidate"; then
      seen="$seen $candidate ($(_tfamp_version "$candidate" || echo 'does not start'))"
    elif ! _tfamp_can_make_venv "$candidate"; then
      without_venv=${without_venv:-$candidate}
    else
      base_python=$candidate
      return
    fi
  done
  if [[ -n $without_venv ]]; then
    _tfamp_fail "$without_venv has no venv or ensurepip module. On Debian or Ubuntu:" \
      "apt-get install python3-venv"
  fi
  _tfamp_fail "no Python 3.10 to 3.13 found (seen:${seen:- none})." \
    "Install one (Debian or Ubuntu: apt-get install python3 python3-venv)," \
    "or set PYTHON to its path."
}

# One line that changes whenever the installed packages would.
_tfamp_fingerprint() {
  (cd -- "$tfamp_root" && { cat setup.cfg pyproject.toml constraints.txt; pwd -P; } | cksum)
}

_tfamp_make_venv() {
  local base_python
  if [[ -x $tfamp_python ]] && _tfamp_supported "$tfamp_python"; then
    if [[ -z ${PYTHON:-} || $(_tfamp_version "$PYTHON") == $(_tfamp_version "$tfamp_python") ]] &&
      "$tfamp_python" -m pip --version >/dev/null 2>&1; then
      return
    fi
  fi
  _tfamp_find_python
  _tfamp_say "making $tfamp_venv with $base_python ($(_tfamp_version "$base_python"))"
  "$base_python" -m venv --clear "$tfamp_venv" || _tfamp_fail \
    "$base_python -m venv failed. On Debian or Ubuntu: apt-get install python3-venv"
}

_tfamp_install() {
  local extras=$1 log=$tfamp_venv/install.log
  if [[ -f $log ]]; then
    _tfamp_say "bringing $tfamp_venv up to date (log: $log)"
  else
    _tfamp_say "installing TensorFlow and the rest; this takes about 2 minutes (log: $log)"
  fi
  # Relative paths, because pip splits PIP_CONSTRAINT at spaces. It pins the build tools too.
  if ! (cd -- "$tfamp_root" &&
    PIP_CONSTRAINT=constraints.txt PIP_BUILD_CONSTRAINT=constraints.txt PIP_USER=0 \
      "$tfamp_python" -m pip install --no-input --disable-pip-version-check \
      -e ".${extras:+[$extras]}") >"$log" 2>&1 </dev/null; then
    tail -n 30 -- "$log" >&2
    _tfamp_fail "the installation failed; the whole log is in $log"
  fi
}

# tfamp_environment EXTRAS: an environment that has at least these extras ("test", "dev,cuda",
# or "" for none). Does nothing, and needs no network, when it is there already.
tfamp_environment() {
  local stamp=$tfamp_venv/tfamp-installed fingerprint extra old_fingerprint='' old_extras=''
  local -a wanted
  IFS=', ' read -r -a wanted <<<"$1 ${TFAMP_EXTRAS:-}"
  # Two scripts that start together must not install into the same place at once.
  exec 9<"$tfamp_root"
  if command -v flock >/dev/null && ! flock -n 9; then
    _tfamp_say 'waiting for another script, which is installing'
    flock 9 || true
  fi
  fingerprint=$(_tfamp_fingerprint)
  if [[ -n ${PYTHON:-} || ! -x $tfamp_python || ! -f $stamp ]] ||
    ! _tfamp_supported "$tfamp_python"; then
    _tfamp_make_venv
  fi
  if [[ -f $stamp ]]; then
    { read -r old_fingerprint && read -r old_extras; } <"$stamp" || true
  fi
  local extras=$old_extras
  for extra in ${wanted[@]+"${wanted[@]}"}; do
    [[ ",$extras," == *",$extra,"* ]] || extras=${extras:+$extras,}$extra
  done
  if [[ $old_fingerprint != "$fingerprint" || $old_extras != "$extras" ]]; then
    rm -f -- "$stamp"
    _tfamp_install "$extras"
    printf '%s\n%s\n' "$fingerprint" "$extras" >"$stamp"
  fi
  exec 9<&-
}
