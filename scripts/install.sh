# shellcheck shell=bash
# Sourced by venv.sh, never run: makes an environment and installs tfamp into it, so that whoever
# waits sees how far it is, and what is interrupted is known as such.
#
# shellcheck disable=SC2154  # tfamp_root, tfamp_venv and tfamp_python are venv.sh's.

_tfamp_mark() {
  printf 'Made by scripts/venv.sh of tfamp, which may remove all of this folder.\n' \
    >"$tfamp_venv/tfamp-environment" || _tfamp_fail "cannot write to $tfamp_venv"
}

_tfamp_make_venv() {
  local base_python said
  _tfamp_find_python
  _tfamp_say "making $tfamp_venv with $base_python ($(_tfamp_version "$base_python"))"
  mkdir -p -- "$tfamp_venv" || _tfamp_fail "cannot make $tfamp_venv. Set TFAMP_VENV to another place."
  # The mark comes first and stays: what is killed half-way is known as tfamp's.
  _tfamp_mark
  find -H "$tfamp_venv" -mindepth 1 -maxdepth 1 ! -name tfamp-environment -exec rm -rf -- {} + ||
    _tfamp_fail "cannot empty $tfamp_venv"
  said=$("$base_python" -m venv "$tfamp_venv" 2>&1) || _tfamp_fail "$base_python -m venv failed:" \
    "$said. On Debian or Ubuntu: apt-get install python3-venv"
}

_tfamp_num_installed() {
  local -a found=("$tfamp_venv"/lib/python*/site-packages/*.dist-info)
  printf '%d' "${#found[@]}"
}

# _tfamp_follow LOG: copies what pip says (file 8) to the log and shows how far it is: a moving line
# on a terminal, else a plain line now and then. While pip installs it says nothing, so the packages
# that are there are counted.
_tfamp_follow() {
  local log=$1 part='' line='' commas doing='starting pip' shown='' status
  local num_found=0 total=0 before=0 installed=0 next=10 started=$SECONDS said_at=$SECONDS say_now columns
  columns=$(tput cols 2>/dev/null) || columns=80
  while true; do
    status=0 say_now=''
    IFS= read -r -t 1 -u 8 part || status=$?
    line+=$part
    if ((status == 0)); then
      printf '%s\n' "$line" >>"$log"
      case $line in
        'Collecting '* | 'Processing '*)
          doing=${line#* } doing=${doing%% *} doing=${doing##*/}
          num_found=$((num_found + 1)) doing="looking at ${doing%%[-<>=!~;[]*}"
          ;;
        *'Downloading '*'.whl ('*)
          doing=${line#*Downloading } doing="downloading ${doing%%-*} ${doing#* }"
          [[ $line == *[0-9][0-9].[0-9]' MB)' || $line == *' GB)' ]] && say_now=yes
          ;;
        'Installing collected packages: '*)
          commas=${line//[^,]/} total=$((${#commas} + 1)) before=$(_tfamp_num_installed)
          ;;
      esac
      line=''
    elif ((status <= 128)); then
      break
    fi
    if ((total > 0)); then
      installed=$(($(_tfamp_num_installed) - before))
      installed=$((installed < 0 ? 0 : installed > total ? total : installed))
      shown="installing, $installed of $total packages"
      ((installed >= next)) && next=$((installed + 10)) say_now=yes
    else
      shown="$num_found packages found, $doing"
      ((status == 0 && num_found > 0 && num_found % 20 == 0)) && [[ $part == [CP]* ]] && say_now=yes
    fi
    shown="tfamp: $shown, $((SECONDS - started)) s"
    if [[ -t 2 ]]; then
      printf '\r\033[K%s' "${shown:0:columns-1}" >&2
    elif [[ $say_now == yes ]] || ((SECONDS - said_at >= 15)); then
      printf '%s\n' "$shown" >&2
      said_at=$SECONDS
    fi
  done
  printf '%s' "$line" >>"$log"
  [[ ! -t 2 ]] || printf '\r\033[K' >&2
}

# The stamp is not there, so the next run begins again.
_tfamp_interrupted() {
  local IFS=' ' # A signal that comes within `IFS= read` leaves none.
  trap '' INT TERM HUP
  [[ -z ${_tfamp_pip:-} ]] || kill -TERM "$_tfamp_pip" 2>/dev/null || true
  [[ ! -t 2 ]] || printf '\n' >&2
  _tfamp_say "the installation was interrupted. The next run of a script begins it again, and" \
    "finds in pip's cache what was downloaded"
  exit "$((128 + $1))"
}

# _tfamp_install EXTRAS: pip, into an environment that is there.
_tfamp_install() {
  local extras log=$tfamp_venv/install.log status=0 started=$SECONDS
  extras=$(_tfamp_without none "$1")
  # Relative paths, because pip splits PIP_CONSTRAINT at spaces. It pins the build tools too.
  exec 8< <(
    cd -- "$tfamp_root" &&
      PIP_CONSTRAINT=constraints.txt PIP_BUILD_CONSTRAINT=constraints.txt PIP_USER=0 \
        PYTHONUNBUFFERED=1 exec "$tfamp_python" -m pip install --no-input \
        --disable-pip-version-check -e ".${extras:+[$extras]}" 2>&1 </dev/null
  )
  _tfamp_pip=$!
  _tfamp_follow "$log"
  wait "$_tfamp_pip" || status=$?
  _tfamp_pip=''
  exec 8<&-
  if ((status != 0)); then
    tail -n 30 -- "$log" >&2
    if _tfamp_lists cuda "$extras" && ! _tfamp_lists cuda "${TFAMP_EXTRAS:-}"; then
      _tfamp_say "TFAMP_EXTRAS=none goes on without CUDA"
    fi
    _tfamp_fail "the installation failed, and the next run of a script begins it again;" \
      "the whole log is in $log"
  fi
  _tfamp_say "installed in $((SECONDS - started)) s"
}

# _tfamp_bring_to STAMP FINGERPRINT EXTRAS IS_USABLE: installs, into what is there or anew.
_tfamp_bring_to() {
  local stamp=$1 fingerprint=$2 extras=$3 is_usable=$4 log=$tfamp_venv/install.log
  trap '_tfamp_interrupted 2' INT
  trap '_tfamp_interrupted 15' TERM
  trap '_tfamp_interrupted 1' HUP
  if [[ $is_usable == yes ]] && "$tfamp_python" -m pip --version >/dev/null 2>&1; then
    _tfamp_say "bringing $tfamp_venv up to date (log: $log)"
    _tfamp_mark
  else
    if [[ ! -f $stamp ]] && ! _tfamp_is_empty "$tfamp_venv"; then
      _tfamp_say "the last installation into $tfamp_venv did not end; making it anew"
    fi
    _tfamp_make_venv
    _tfamp_say "installing TensorFlow and the rest; this takes about 2 minutes (log: $log)"
  fi
  : >"$log"
  [[ ! -f $stamp ]] || mv -f -- "$stamp" "$stamp.before"
  _tfamp_install "$extras"
  printf '%s\n%s\n' "$fingerprint" "$extras" >"$stamp.new"
  mv -f -- "$stamp.new" "$stamp"
  rm -f -- "$stamp.before"
  trap - INT TERM HUP
}
