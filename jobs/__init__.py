"""What people run: `ls jobs/*.py` is the list of commands; the parts of a command lie in the folder of its noun."""

import infra as infra  # its environment comes before any import of Ray and MLflow
