"""Video files in; 13-frame clips, shards and pyramids out. No networks, Ray or MLflow in this room."""
