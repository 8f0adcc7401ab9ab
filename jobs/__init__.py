"""What people run: `ls jobs/*.py` is the list of commands; the parts of a command lie in the folder of its noun."""

import atexit
import gc

import infra as infra  # its environment comes before any import of Ray and MLflow

# Imports make many objects and hardly any garbage: looking for it among them takes a fifth of a command's start.
# A process that trains looks as often as usual again (`jobs.training.task.setup_process`).
USUAL_GARBAGE_THRESHOLD = gc.get_threshold()
gc.set_threshold(300_000, *USUAL_GARBAGE_THRESHOLD[1:])
# Python looks for it a last time when a process ends, among the half million objects of torch, MLflow and Ray: over a
# second of a core, for memory that goes with the process.
atexit.register(gc.freeze)
