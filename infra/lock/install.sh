#!/usr/bin/env bash
# What `make setup` and `make dev` run: .venv with everything of lock files, whose hashes are checked, and this project.
#     infra/lock/install.sh python3 cpu        # what the commands need; torch as pip finds it for this machine
#     infra/lock/install.sh python3 cuda       # torch's CUDA build too by its hash, on Linux with an NVIDIA GPU
#     infra/lock/install.sh python3 cpu dev    # and what the tests and linters need
# uv installs what is locked: pip takes several times as long for it. Quiet, but for a line a minute. A second run
# installs only what has changed.
set -euo pipefail
cd "$(dirname "$0")/../.."
python=$1
shift
"$python" -c 'import sys; sys.exit(sys.version_info < (3, 10))' || {
  echo "Python 3.10 or newer is needed, $python is older; run: make PYTHON=python3.11 setup" >&2
  exit 1
}
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
[ -x .venv/bin/python ] || "$python" -m venv .venv
progress &
watcher=$!
trap 'kill "$watcher"' EXIT
pip() { .venv/bin/python -m pip --disable-pip-version-check "$@"; } # -qq: errors alone
pip install -qq --require-hashes -r <(locked uv)
UV_PYTHON_DOWNLOADS=never .venv/bin/uv pip install --quiet --python .venv/bin/python --require-hashes --no-deps \
  "${files[@]}"
# What is left of setup.cfg is torch, unless it was locked. Which wheel of it fits differs by machine: pip's settings say.
pip install -qq --no-compile --no-build-isolation --editable .
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
