"""The paper as code: networks, losses, training, checkpoints, sampling, metrics. Knows torch, nothing of Ray or MLflow."""
