#!/usr/bin/env bash
# The lock files, by uv, from setup.cfg: exact versions and SHA-256 of everything that is installed, for Python 3.10 to
# 3.13 on every system. README.md beside this says what each file is for.
#     infra/lock/lock.sh            # writes them; what is locked already stays as it is
#     infra/lock/lock.sh --upgrade  # with the newest versions that setup.cfg admits
#     infra/lock/lock.sh --check    # exit code 1 if setup.cfg asks for something else than they hold
set -euo pipefail
cd "$(dirname "$0")/../.."
UV=${UV:-uv}
command -v "$UV" >/dev/null || { echo "no $UV; run: make dev" >&2; exit 2; }
FILES=(requirements-cuda.txt requirements-cpu.txt requirements-dev.txt)
RUNTIME=(--extra s3 --extra gs --extra postgres --extra server --extra tune --extra export)
to=infra/lock
options=(--generate-hashes)
case "${1:-}" in
"") ;;
--upgrade) options+=(--upgrade) ;;
--check) # versions alone are compared: the hashes of all files would take as long again
  options=()
  to=$(mktemp -d)
  trap 'rm -r "$to"' EXIT
  (cd infra/lock && cp "${FILES[@]}" "$to")
  ;;
*) echo "$1: lock.sh takes --upgrade or --check" >&2; exit 2 ;;
esac

compile() { # FILE OPTION...
  local file=$1
  shift
  # Where packages come from is the user's own setting, and no part of a lock.
  UV_CUSTOM_COMPILE_COMMAND="make lock" UV_PYTHON_DOWNLOADS=never "$UV" pip compile --quiet --universal --python-version 3.10 \
    --no-annotate --no-emit-index-url --no-emit-find-links "${options[@]+"${options[@]}"}" "$@" \
    --output-file "$to/$file" setup.cfg >/dev/null
}

without_torch() { # FILE: without torch's own wheel, which differs by device, and what its CUDA build alone needs
  awk '/^(torch|triton|cuda-[a-z]+|nvidia-[a-z0-9-]+)==/ { skip = 1; next }  /^[^ ]/ { skip = 0 }  !skip' "$1"
}

versions() { # of a lock file: a line a package, without hashes, as new wheels of an old version bring new ones
  sed -n 's/ *\\$//; /^[a-z0-9]/p' "$1"
}

all() {
  if [ ${#options[@]} = 0 ]; then # a check: the second begins from what the first should come out as, beside it
    compile requirements-cuda.txt "${RUNTIME[@]}" &
    compile requirements-dev.txt "${RUNTIME[@]}" --extra dev --constraints infra/lock/requirements-cuda.txt
    local of_dev=$?
    wait $! && return $of_dev
  else
    compile requirements-cuda.txt "${RUNTIME[@]}" &&
      compile requirements-dev.txt "${RUNTIME[@]}" --extra dev --constraints "$to/requirements-cuda.txt"
  fi
}

if ! all 2>"$to/uv.log"; then
  if [ "${1:-}" = --check ] && grep -qE "Failed to fetch|error sending request|Connection refused" "$to/uv.log"; then
    echo "the lock files are not checked: no package registry answers"
    exit 0
  fi
  cat "$to/uv.log" >&2
  exit 1
fi
rm "$to/uv.log"
without_torch "$to/requirements-cuda.txt" >"$to/requirements-cpu.txt"
without_torch "$to/requirements-dev.txt" >"$to/dev" && mv "$to/dev" "$to/requirements-dev.txt"
[ "${1:-}" = --check ] || exit 0
for file in "${FILES[@]}"; do
  if ! diff <(versions "infra/lock/$file") <(versions "$to/$file"); then
    echo "infra/lock/$file is not what setup.cfg asks for now (> above); run: make lock, and commit it" >&2
    exit 1
  fi
done
echo "the lock files are current"
