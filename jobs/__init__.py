"""What people run. The only room that knows Ray and MLflow."""

import os

# Read by mlflow at import and at each call: no usage reports, and an absent server costs seconds instead of minutes.
os.environ.setdefault("MLFLOW_DISABLE_TELEMETRY", "true")
os.environ.setdefault("DO_NOT_TRACK", "true")
os.environ.setdefault("MLFLOW_HTTP_REQUEST_MAX_RETRIES", "2")
