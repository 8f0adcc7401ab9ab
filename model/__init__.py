"""The paper as code: networks, losses, training, checkpoints, sampling, metrics. Knows torch, but no Ray or MLflow."""
