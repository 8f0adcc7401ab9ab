#!/usr/bin/env bash
# A Ray head on this machine to submit jobs to, as to a cluster. It stays in the foreground; Ctrl-C ends it.
#     infra/local_head.sh                      # further arguments go to `ray start`, e.g. --num-gpus 4
# and in another terminal:
#     export RAY_AUTH_MODE=token
#     ray job submit --address http://127.0.0.1:8265 --working-dir . -- python jobs/train_corpus.py --corpus demo
# Dashboard and job server listen on 127.0.0.1 only. Ray's own port (GCS) listens on every interface, so every client
# must show the token in ~/.ray/auth_token, which is made here if there is none. RAY_AUTH_MODE=disabled opts out.
set -euo pipefail
BIN="$(dirname "$0")/../.venv/bin"
[ -x "$BIN/ray" ] || { echo "no $BIN/ray; run: make setup" >&2; exit 2; }
PATH="$(cd "$BIN" && pwd):$PATH"
export PATH RAY_USAGE_STATS_ENABLED=0 RAY_ACCEL_ENV_VAR_OVERRIDE_ON_ZERO=0 RAY_AUTH_MODE="${RAY_AUTH_MODE:-token}"
[ "$RAY_AUTH_MODE" != token ] || ray get-auth-token --generate >/dev/null
exec ray start --head --block --port "${RAY_PORT:-6379}" \
  --dashboard-host 127.0.0.1 --dashboard-port "${RAY_DASHBOARD_PORT:-8265}" "$@"
