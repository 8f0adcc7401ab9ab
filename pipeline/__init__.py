"""Video and image files in; clips and shards out. No networks, Ray or MLflow in this room."""
