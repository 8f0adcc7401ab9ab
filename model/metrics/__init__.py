"""How close samples are to the real clip (features, svfid, fid, nnf), how much they differ (diversity, nnf)."""
