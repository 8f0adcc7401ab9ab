#!/usr/bin/env bash
# A Ray head on this machine to submit jobs to, as to a cluster. It stays in the foreground; Ctrl-C ends it.
#     infra/cluster/local_head.sh              # further arguments go to `ray start`, e.g. --num-gpus 4
# It prints what to export and type in another terminal: without both variables `ray status` finds no head.
# Everything listens on 127.0.0.1 only, which on Linux takes RAY_ENABLE_WINDOWS_OR_OSX_CLUSTER=0: without it Ray's own
# ports (GCS, raylet, workers) are open on every interface, whatever --node-ip-address says. Other users of this machine
# remain, so every client must show the token in ~/.ray/auth_token, which is made here if there is none;
# RAY_AUTH_MODE=disabled opts out. To let other machines join, set the variable to 1, keep the token, and let a
# firewall close the ports to strangers.
set -euo pipefail
BIN="$(dirname "$0")/../../.venv/bin"
[ -x "$BIN/ray" ] || { echo "no $BIN/ray; run: make setup" >&2; exit 2; }
PATH="$(cd "$BIN" && pwd):$PATH"
export PATH RAY_USAGE_STATS_ENABLED=0 RAY_ACCEL_ENV_VAR_OVERRIDE_ON_ZERO=0 RAY_AUTH_MODE="${RAY_AUTH_MODE:-token}"
export RAY_ENABLE_WINDOWS_OR_OSX_CLUSTER="${RAY_ENABLE_WINDOWS_OR_OSX_CLUSTER:-0}"
for name in RAY_PORT RAY_DASHBOARD_PORT; do
  if [ -n "${!name:-}" ] && ! { [[ ${!name} =~ ^[1-9][0-9]{0,4}$ ]] && [ "${!name}" -le 65535 ]; }; then
    echo "$name=${!name}: is no port; give one from 1 to 65535" >&2
    exit 2
  fi
done
for port in "${RAY_PORT:-6379}" "${RAY_DASHBOARD_PORT:-8265}"; do # Ray itself would try for half a minute
  if (exec 3<>"/dev/tcp/127.0.0.1/$port") 2>/dev/null; then
    echo "port $port is taken; end what listens there, or set RAY_PORT and RAY_DASHBOARD_PORT to free ones" >&2
    exit 2
  fi
done
[ "$RAY_AUTH_MODE" != token ] || ray get-auth-token --generate >/dev/null
cat <<END
A Ray head on this machine. In another terminal, in $(cd "$BIN/../.." && pwd):
    source .venv/bin/activate
    export RAY_AUTH_MODE=$RAY_AUTH_MODE RAY_ENABLE_WINDOWS_OR_OSX_CLUSTER=$RAY_ENABLE_WINDOWS_OR_OSX_CLUSTER
    ray status --address 127.0.0.1:${RAY_PORT:-6379}
    ray job submit --address http://127.0.0.1:${RAY_DASHBOARD_PORT:-8265} --working-dir . -- \\
        python jobs/train_corpus.py --corpus demo --storage "\$PWD/runs"
END
exec ray start --head --block --port "${RAY_PORT:-6379}" \
  --dashboard-host 127.0.0.1 --dashboard-port "${RAY_DASHBOARD_PORT:-8265}" \
  --dashboard-agent-listen-port 0 "$@" # the default, 52365, is taken where another Ray runs: no job would start
