#!/bin/sh
# Whether what a container runs does its work, by the command of its first process: the HEALTHCHECK of the image.
#     infra/cluster/healthy.sh [PID]    # exit code 0 if a Ray node or an MLflow server answers; a job needs only to run
set -eu
command=$(tr '\0' ' ' <"/proc/${1:-1}/cmdline")
after() { # the word after an option
  printf '%s' "$command" | sed -n "s/.* $1 \([^ ]*\).*/\1/p"
}
answers() { # whether anything speaks HTTP there: also a refusal, of who shows no token
  python -c 'import sys, http.client as h; c = h.HTTPConnection(sys.argv[1], timeout=5); c.request("GET", sys.argv[2])
sys.exit(c.getresponse().status >= 500)' "127.0.0.1:$1" "$2" 2>/dev/null
}
case $command in
*"ray start --head"*)
  answers "$(after --dashboard-port)" /api/version && ray health-check --address "127.0.0.1:$(after --port)"
  ;;
*"ray start"*) ray health-check --address "$(after --address)" ;;
*"mlflow server"*) answers "$(after --port)" /health ;;
esac
