#!/usr/bin/env bash
# What `make setup` and `make dev` run: .venv with everything of lock files, whose hashes are checked, and this project.
#     infra/lock/install.sh python3 cpu        # what the commands need; torch as pip finds it for this machine
#     infra/lock/install.sh python3 cuda       # torch's CUDA build too by its hash, on Linux with an NVIDIA GPU
#     infra/lock/install.sh python3 cpu dev    # and what the tests and linters need
# uv installs what is locked: pip takes several times as long for it. Quiet, but for a line a minute. A second run
# installs only what has changed. A run that fails takes away the .venv that it made: the next may be of another Python,
# and what was downloaded is in uv's and pip's caches. Exit code: 0 done; 2 what one line says; else as pip or uv ended.
set -euo pipefail
cd "$(dirname "$0")/../.."
python=$1
shift

fail() { echo "$1" >&2; exit 2; }

recent=$("$python" -c 'import sys; print(sys.version_info >= (3, 10))' 2>/dev/null) ||
  fail "$python: is not there, or is no Python; give one of 3.10 or newer: make PYTHON=python3.11 setup"
[ "$recent" = True ] || fail "$python: is older than Python 3.10; give a newer one: make PYTHON=python3.11 setup"
files=()
for name in "$@"; do files+=(-r "infra/lock/requirements-$name.txt"); done

size() { du -sk .venv | awk '{ printf "%.1f GB", $1 / 1e6 }'; }

progress() {
  local minutes=0
  while sleep 60 >/dev/null 2>&1; do # which may outlive this, and must hold no pipe open
    minutes=$((minutes + 1))
    echo "  still installing after $minutes min: $(size) in .venv"
  done
}

locked() { # PACKAGE: its lines of a lock file
  awk -v start="$1==" 'index($0, start) == 1 { on = 1 }  on { print }  on && !/\\$/ { exit }' infra/lock/requirements-dev.txt
}

echo "installing into $PWD/.venv: a few minutes"
made=""
log=$(mktemp -d)
watcher=""
tidy() {
  local code=$?
  [ -z "$watcher" ] || kill "$watcher" 2>/dev/null || true
  rm -r "$log"
  [ -z "$made" ] || [ "$code" = 0 ] || rm -rf .venv
}
trap tidy EXIT
if [ ! -x .venv/bin/python ]; then
  made=yes
  "$python" -m venv .venv
fi
progress &
watcher=$!
pip() { .venv/bin/python -m pip --disable-pip-version-check "$@"; }
pip_install() { # -qq: errors alone, and no word of a registry that does not answer; the log has it, and turns bars on
  : >"$log/all"
  pip --log "$log/all" install -qq --progress-bar off "$@" 2>"$log/errors" && return
  local away
  away=$(sed -n 's/.*Could not fetch URL \(.*\): connection error: .*/\1/p' "$log/all" | head -n 1)
  [ -z "$away" ] || fail "$away: no package registry answers there; run this again when one does, or set PIP_INDEX_URL"
  cat "$log/errors" >&2
  exit 1
}
pip_install --require-hashes -r <(locked uv)
if [[ " $* " == *" cuda "* ]] && .venv/bin/uv pip freeze --quiet --python .venv/bin/python | grep '^torch==.*+' >/dev/null; then
  files+=(--reinstall-package torch) # another build, such as 2.13.0+cpu, which uv would take for the locked one
fi
UV_PYTHON_DOWNLOADS=never .venv/bin/uv pip install --quiet --python .venv/bin/python --require-hashes --no-deps \
  "${files[@]}"
# What is left of setup.cfg is torch, unless it was locked. Which wheel of it fits differs by machine: pip's settings say.
pip_install --no-compile --no-build-isolation --editable .
told=$(pip check) || { echo "$told" >&2 && exit 1; }
.venv/bin/python - "$(size)" "$SECONDS" <<'END'
import sys
from importlib.metadata import distributions, version
from pathlib import Path

size, seconds = sys.argv[1], int(sys.argv[2])
count = len({distribution.name for distribution in distributions()})
named = ", ".join(f"{name} {version(name)}" for name in ("torch", "ray", "mlflow"))
print(f"installed {count} packages, {size}, in {seconds // 60} min {seconds % 60} s into {Path('.venv').resolve()}:")
print(f"  Python {sys.version.split()[0]}, {named}")
END
