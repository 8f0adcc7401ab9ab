"""What the work stands on, and what can be away or fail: files, stores, the cluster, MLflow.

It knows nothing of videos or neural networks. Importing this package sets the environment that Ray, Ray Tune and MLflow
read when they are imported.
"""

import os

__version__ = "0.2.0"  # of the whole project: setup.cfg and `hp-vae-gan --version` read it here

# At "0", as it is by default on Windows and macOS, everything that a Ray started here opens is for this machine alone;
# else it would listen on every interface, and run what anyone sends it.
LOOPBACK_ONLY = "RAY_ENABLE_WINDOWS_OR_OSX_CLUSTER"
STARTS_HERE = ("", "local")  # values of RAY_ADDRESS that name no cluster: Ray is started on this machine
_SETTINGS = {
    # Ray: no usage report; tasks without a GPU see none; a task that took too much memory is not started again as it
    # was; its agent may take two minutes to start, on a machine with much else to do, before Ray ends.
    "RAY_USAGE_STATS_ENABLED": "0",
    "RAY_ACCEL_ENV_VAR_OVERRIDE_ON_ZERO": "0",
    "RAY_task_oom_retries": "0",
    "RAY_agent_register_timeout_ms": "120000",
    # Tune: our files are the log, our lines the display, Ctrl-C is the driver's.
    "TUNE_DISABLE_AUTO_CALLBACK_LOGGERS": "1",
    "RAY_AIR_NEW_OUTPUT": "0",
    "RAY_CHDIR_TO_TRIAL_DIR": "0",
    "TUNE_DISABLE_SIGINT_HANDLER": "1",
    # MLflow: no usage reports; an absent server costs seconds and not minutes; no links, which the table has.
    "MLFLOW_DISABLE_TELEMETRY": "true",
    "DO_NOT_TRACK": "true",
    "MLFLOW_HTTP_REQUEST_MAX_RETRIES": "2",
    "MLFLOW_SUPPRESS_PRINTING_URL_TO_STDOUT": "true",
}
for _name, _value in _SETTINGS.items():
    os.environ.setdefault(_name, _value)
if os.environ.get("RAY_ADDRESS", "").strip() in STARTS_HERE:
    os.environ.setdefault(LOOPBACK_ONLY, "0")
