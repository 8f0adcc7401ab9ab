"""How close samples are to the real clip (features, frechet), how much they differ (diversity)."""
