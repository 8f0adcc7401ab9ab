#!/usr/bin/env bash
# A Ray head on this machine to submit jobs to, as to a cluster:
#     infra/local_head.sh                      # further arguments go to `ray start`, e.g. --num-gpus 4
#     ray job submit --address http://127.0.0.1:8265 --working-dir . -- python jobs/train_corpus.py --corpus demo
#     kill %1                                  # or Ctrl-C: it stays in the foreground
# Dashboard and job server listen on 127.0.0.1 only. Ray's own port (GCS) listens on every interface of a machine
# that has more than one; Ray asks every client for the token in ~/.ray/auth_token, which it makes at the first start.
set -euo pipefail
BIN="$(dirname "$0")/../.venv/bin"
[ -x "$BIN/ray" ] || { echo "no $BIN/ray; run: make setup" >&2; exit 2; }
export RAY_USAGE_STATS_ENABLED=0 RAY_ACCEL_ENV_VAR_OVERRIDE_ON_ZERO=0 PATH="$(cd "$BIN" && pwd):$PATH"
exec ray start --head --block --port "${RAY_PORT:-6379}" \
  --dashboard-host 127.0.0.1 --dashboard-port "${RAY_DASHBOARD_PORT:-8265}" "$@"
