#!/bin/sh
# Builds the environment from requirements.lock and nothing else: sh book/environment.sh VENV [PYTHON [TORCH]]. make calls it.
# uv installs the lock in seconds; where it cannot be had or fails, pip does the same in minutes.
# Either compiles what it installs: else every command would compile it anew where Python is set to write no bytecode.
venv=$1 wanted=${2:-} torch=${3:-}
py=$venv/bin/python
log=$venv/install.log

stop() {
  echo "$1" >&2
  exit 2
}

fits() {
  "$1" -c 'import sys; sys.exit(not (3, 11) <= sys.version_info < (3, 14))' >/dev/null 2>&1
}

# The last lines of what an installer wrote to the log, or one line where it met no package index.
explain() {
  if grep -qiE 'connection|timed out|name resolution|proxy|certificate' "$log"; then
    stop "no package index can be reached, so the packages of requirements.lock cannot be installed (details: $log)"
  fi
  tail -n 20 "$log" >&2
  stop "the packages of requirements.lock could not be installed (details: $log)"
}

case $torch in '' | cpu) ;; *) stop "TORCH=$torch is unknown: TORCH=cpu leaves CUDA out, without TORCH it is there" ;; esac

found=
if [ -n "$wanted" ]; then
  if fits "$wanted"; then
    found=$wanted
  elif version=$("$wanted" -c 'import platform; print(platform.python_version())' 2>/dev/null); then
    stop "no Python 3.11, 3.12 or 3.13 found: PYTHON=$wanted is Python $version"
  else
    stop "no Python 3.11, 3.12 or 3.13 found: PYTHON=$wanted is not a Python that can be started here"
  fi
else
  for candidate in python3.11 python3 python3.12 python3.13 python; do
    if fits "$candidate"; then
      found=$candidate
      break
    fi
  done
  [ -n "$found" ] || stop 'no Python 3.11, 3.12 or 3.13 found: install one, or name it with PYTHON='
fi

echo "building $venv with $found" >&2
if [ -z "$torch" ] && [ "$(uname)" = Linux ] && ! command -v nvidia-smi >/dev/null; then
  echo 'it takes 6 GB, 4 GB of them for CUDA, which this machine without a GPU does not use; TORCH=cpu leaves CUDA out,' \
    "where PyTorch's own package index can be reached" >&2
fi
"$found" -m venv "$venv" || exit 2
[ -w "${HOME:-/nowhere}" ] || export UV_NO_CACHE=1

if "$py" -m pip install --quiet uv 2>"$log"; then
  if [ "$torch" = cpu ]; then
    # uv takes torch and torchvision from PyTorch's index of CPU builds, which need none of the CUDA packages that the lock names.
    # No machine that this was written on could reach that index: the command is as uv documents it, and untried.
    grep -vE '^(cuda-|nvidia-|triton)' requirements.lock >"$venv/cpu.lock"
    "$py" -m uv pip install --python "$py" --compile-bytecode --torch-backend=cpu -r "$venv/cpu.lock" -e . \
      || stop "TORCH=cpu needs PyTorch's own package index: without TORCH=cpu everything comes from your usual one"
    exit 0
  fi
  "$py" -m uv pip install --python "$py" --compile-bytecode -r requirements.lock -e . && exit 0
elif [ "$torch" = cpu ] || grep -qiE 'connection|timed out|name resolution|proxy|certificate' "$log"; then
  explain
fi
echo 'uv did not succeed; installing with pip' >&2
"$py" -m pip install -r requirements.lock -e . 2>"$log" || explain
