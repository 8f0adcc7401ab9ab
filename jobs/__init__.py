"""What people run. The only room that knows Ray and MLflow."""

import os

# Read by mlflow at import and at each call: no usage reports, seconds instead of minutes for an absent server, and no
# links, which the table has.
os.environ.setdefault("MLFLOW_DISABLE_TELEMETRY", "true")
os.environ.setdefault("DO_NOT_TRACK", "true")
os.environ.setdefault("MLFLOW_HTTP_REQUEST_MAX_RETRIES", "2")
os.environ.setdefault("MLFLOW_SUPPRESS_PRINTING_URL_TO_STDOUT", "true")
