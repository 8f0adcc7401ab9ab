"""Patches as short vectors: of every patch of a video its first principal components, as one convolution.

Distances between patches of 3×7×7 pixels in RGB have 441 terms; those between their 32 first components have 32, and
are the same to a few per cent, as neighbouring pixels are much alike.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor

from model.patches.search import unravelled

COMPONENTS = 32
MOST_PATCHES = 8192  # that the components are computed from, drawn at random
MANY = 2**22  # patches whose numbers are not shuffled
Patch = tuple[int, int, int]  # frames, height, width


@dataclass(frozen=True)
class PatchSpace:
    """The principal components of some patches.

    Attributes:
        filters: (D, 3, t, h, w) float32, orthonormal; D is COMPONENTS, or what a patch has if that is less.
    """

    filters: Tensor

    @property
    def values(self) -> int:
        """Numbers in a patch, in all channels."""
        return self.filters[0].numel()

    def project(self, videos: Tensor) -> Tensor:
        """The vector of every patch: (B, 3, T, H, W) → (B, T - t + 1, H - h + 1, W - w + 1, D) float32."""
        return F.conv3d(videos, self.filters).movedim(1, -1).contiguous()


def principal_components(videos: Tensor, patch: Patch) -> PatchSpace:
    """The space of a clip's patches.

    Args:
        videos: (B, 3, T, H, W) float32, no side smaller than the patch's: its chunks.
    """
    patches = videos
    for dim, side in zip((2, 3, 4), patch, strict=True):
        patches = patches.unfold(dim, side, 1)
    patches = patches.movedim(1, 4)  # (B, T', H', W', 3, t, h, w), a view
    places, total = patches.shape[:4], patches.shape[:4].numel()
    seeded = torch.Generator().manual_seed(0)
    if total <= MANY:
        order = torch.randperm(total, generator=seeded)[:MOST_PATCHES]
    else:  # hardly one of them twice
        order = torch.randint(total, (MOST_PATCHES,), generator=seeded)
    rows = patches[unravelled(order.to(videos.device), places)].reshape(len(order), -1).double()
    rows = rows - rows.mean(dim=0)
    _, vectors = torch.linalg.eigh(rows.T @ rows)  # ascending
    filters = vectors.flip(1)[:, :COMPONENTS].T.float()
    return PatchSpace(filters.reshape(-1, 3, *patch).contiguous())
