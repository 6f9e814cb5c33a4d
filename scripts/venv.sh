# shellcheck shell=bash
# Sourced by the other scripts, never run: makes .venv and keeps it up to date.
#
#   source "$(dirname -- "${BASH_SOURCE[0]}")/venv.sh"
#   tfamp_environment EXTRAS      then "$tfamp_python" is the interpreter to use
#
# Read from the environment:
#   PYTHON        the Python that .venv is made from (default: the first suitable one found)
#   TFAMP_VENV    where the environment lives (default: .venv in the repository)
#   TFAMP_EXTRAS  more extras of setup.cfg to install, separated by commas or spaces; "none" keeps
#                 out "cuda", which is added where there is an NVIDIA GPU
#
# In the environment:
#   tfamp-environment  marks a folder that tfamp made. No other is ever removed or installed into
#   tfamp-installed    written last: what is installed. Without it an installation did not end
#   install.log        what pip said last

tfamp_root=$(cd -- "$(dirname -- "${BASH_SOURCE[0]}")/.." && pwd -P)
tfamp_venv=${TFAMP_VENV:-$tfamp_root/.venv}
case $tfamp_venv in
  /*) ;;
  *) tfamp_venv=$PWD/$tfamp_venv ;;
esac
tfamp_python=$tfamp_venv/bin/python

# shellcheck source=scripts/install.sh
source "$tfamp_root/scripts/install.sh"

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

# Debian and Ubuntu ship python3 without ensurepip, and the module venv then fails.
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

_tfamp_has_nvidia_gpu() {
  [[ -e /proc/driver/nvidia/version ]] || nvidia-smi -L >/dev/null 2>&1 </dev/null
}

# _tfamp_lists NAME LIST: whether a list with commas has the name.
_tfamp_lists() {
  [[ ",$2," == *",$1,"* ]]
}

# _tfamp_without NAME LIST: the list, less the name.
_tfamp_without() {
  local list=,$2,
  list=${list//,$1,/,} list=${list#,}
  printf '%s' "${list%,}"
}

# _tfamp_check_extras WANTED: pip would only warn of a name that setup.cfg does not have.
_tfamp_check_extras() {
  local extra known
  known=$(sed -n '/^\[options.extras_require\]/,/^\[/s/^\([a-z][a-z0-9_-]*\) =.*/\1/p' \
    "$tfamp_root/setup.cfg" | paste -sd, -)
  for extra in ${1//,/ }; do
    _tfamp_lists "$extra" "$known,none" || _tfamp_fail "TFAMP_EXTRAS has '$extra', which is no" \
      "extra of tfamp. Known: ${known//,/, }, and none. Set TFAMP_EXTRAS to some of these."
  done
  if _tfamp_lists none "$1" && _tfamp_lists cuda "$1"; then
    _tfamp_fail "TFAMP_EXTRAS has both cuda and none, which keeps cuda out. Leave out one of them."
  fi
}

_tfamp_is_empty() {
  [[ ! -e $1 || (-d $1 && -z $(find -H "$1" -mindepth 1 -maxdepth 1 -print -quit)) ]]
}

# tfamp before the mark existed left a stamp, or the log of an installation of this checkout.
_tfamp_is_ours() {
  [[ -f $tfamp_venv/tfamp-environment || -f $tfamp_venv/tfamp-installed ]] ||
    grep -qsxF "Obtaining file://$tfamp_root" "$tfamp_venv/install.log"
}

_tfamp_refuse_foreign() {
  _tfamp_is_empty "$tfamp_venv" || _tfamp_is_ours || _tfamp_fail \
    "$tfamp_venv is there and was not made by tfamp's scripts, so they leave it alone. Move it" \
    "away, or set TFAMP_VENV to a folder that is empty or not there yet. (In an environment of" \
    "your own: pip install -c $tfamp_root/constraints.txt $tfamp_root, then python -m tfamp.train)"
}

# An update that ended before pip touched a package has changed nothing: what was there still is.
_tfamp_recover() {
  local stamp=$1
  if [[ ! -f $stamp && -f $stamp.before ]] &&
    ! grep -q '^Installing collected packages' "$tfamp_venv/install.log"; then
    mv -f -- "$stamp.before" "$stamp"
  fi
}

# tfamp_environment EXTRAS: an environment that has at least these extras ("test", "dev,cuda",
# or "" for none). Does nothing, and needs no network, when it is there already.
tfamp_environment() {
  local stamp=$tfamp_venv/tfamp-installed fingerprint extra extras='' old_fingerprint='' old_extras=''
  local wanted=${TFAMP_EXTRAS:-} is_usable=yes
  wanted=$1,${wanted//[[:space:]]/,}
  _tfamp_check_extras "$wanted"
  # How the user calls the scripts, for the commands that tfamp prints.
  TFAMP_SCRIPTS=$(dirname -- "$0")
  export TFAMP_SCRIPTS
  # Two scripts that start together must not install into the same place at once.
  exec 9<"$tfamp_root"
  if command -v flock >/dev/null && ! flock -n 9; then
    _tfamp_say 'waiting for another script, which is installing'
    flock 9 || true
  fi
  _tfamp_refuse_foreign
  _tfamp_recover "$stamp"
  if [[ -f $stamp ]]; then
    { read -r old_fingerprint && read -r old_extras; } <"$stamp" || true
  fi
  # "none" is remembered like an extra, until cuda is asked for.
  for extra in ${old_extras//,/ } ${wanted//,/ }; do
    _tfamp_lists "$extra" "$extras" || extras=${extras:+$extras,}$extra
  done
  if _tfamp_lists none "$extras" && _tfamp_lists cuda "$extras"; then
    if _tfamp_lists cuda "$wanted"; then
      extras=$(_tfamp_without none "$extras")
    else
      _tfamp_say 'TFAMP_EXTRAS=none: what is there has CUDA'
      extras=$(_tfamp_without cuda "$extras") is_usable=no
    fi
  elif [[ ",$extras," != *,none,* && ",$extras," != *,cuda,* ]] && _tfamp_has_nvidia_gpu; then
    extras=${extras:+$extras,}cuda
    _tfamp_say 'an NVIDIA GPU is here: installing TensorFlow with its CUDA libraries, several GB' \
      '(TFAMP_EXTRAS=none keeps them out)'
  fi
  if [[ ! -f $stamp ]] || ! _tfamp_supported "$tfamp_python"; then
    is_usable=no
  elif [[ -n ${PYTHON:-} && $(_tfamp_version "$PYTHON") != "$(_tfamp_version "$tfamp_python")" ]]; then
    is_usable=no
  fi
  fingerprint=$(_tfamp_fingerprint)
  if [[ $is_usable == no || $old_fingerprint != "$fingerprint" || $old_extras != "$extras" ]]; then
    _tfamp_bring_to "$stamp" "$fingerprint" "$extras" "$is_usable"
  fi
  exec 9<&-
}
