#!/usr/bin/env bash
# What `make setup` and `make dev` run: .venv with everything of lock files, whose hashes pip checks, and this project.
#     infra/lock/install.sh python3 cpu        # what the commands need; torch as pip finds it for this machine
#     infra/lock/install.sh python3 cuda       # torch's CUDA build too by its hash, on Linux with an NVIDIA GPU
#     infra/lock/install.sh python3 cpu dev    # and what the tests and linters need
# Quiet, but for a line a minute. A second run installs only what has changed.
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
  while sleep 60 </dev/null >/dev/null 2>&1; do
    minutes=$((minutes + 1))
    echo "  still installing after $minutes min: $(size) in .venv"
  done
}

echo "installing into $PWD/.venv: a few minutes"
[ -x .venv/bin/python ] || "$python" -m venv .venv
progress &
trap 'kill $!' EXIT
pip=(.venv/bin/python -m pip --quiet --disable-pip-version-check)
"${pip[@]}" install --require-hashes --no-deps "${files[@]}"
# What is left of setup.cfg is torch, unless it was locked: which wheel of it fits differs by machine.
"${pip[@]}" install --no-build-isolation --editable .
"${pip[@]}" check
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
