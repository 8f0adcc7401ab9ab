"""How close samples are to the real clip (features, frechet, nnf), how much they differ (diversity, nnf)."""
