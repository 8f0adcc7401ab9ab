"""The whole sample of a model whose fine scales are the clip's patches, as a function of tensors alone."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field

import torch
from torch import Tensor, nn

from model.export import loops
from model.export.inputs import Drawn, search_inputs_of
from model.export.networks import Generators
from model.patches.field import Grid
from model.patches.match import Queries
from model.patches.refine import ClipPatches, Refinement, Step
from model.patches.space import Patch, PatchSpace
from model.pyramid import ScaleSize
from model.sampling.sampler import TRIED, FinishedSampler


class Finished(nn.Module):
    """What `FinishedSampler` makes of one layout: it cannot draw another one, and says whether that has to be."""

    def __init__(self, sampler: FinishedSampler, sizes: Sequence[ScaleSize]) -> None:
        super().__init__()
        self.networks = Generators(sampler.stack, sizes[: sampler.first])
        self._sampler, self._steps = sampler, sampler.patch_steps(sizes)
        patch = sampler.how.patch
        self._spaces = {
            (step.n, sharp): sampler.patches.keys(step.n, patch, sharp=sharp).space
            for step in [*self._steps[0], *self._steps[1]]
            for sharp in (False, True)
        }

    @property
    def search_inputs(self) -> list[Drawn]:
        """Of `search`."""
        clip, how = self._sampler.patches, self._sampler.how
        own, above = self._steps
        return [
            *search_inputs_of(clip, how, own, "layout_patches"),
            *search_inputs_of(clip, how, above, "patches"),
        ]

    def forward(self, z: Tensor, noise: list[Tensor], search: list[Tensor]) -> tuple[Tensor, Tensor, Tensor]:
        """
        Args: z: (1, latent, T, H, W), noise: (1, C, T_n, H_n, W_n) each, search: of `search_inputs`.

        Returns the video (1, 3, T, H, W) float32 in [-1, 1], whether its layout is the clip, () bool, and what the
        networks made, before any patch, (1, 3, T_n, H_n, W_n).
        """
        sampler, (own, above), given = self._sampler, self._steps, iter(search)
        made = self.networks(z, noise)
        whole = sampler.patches
        clip = _Inside(whole.sizes, whole.values, spaces=self._spaces)
        video = _Looped(made, clip, sampler.how, torch.Generator(), given=given).run(own)
        layout = _Looped(video, clip, sampler.how, torch.Generator(), given=given)
        layout.run(above[:TRIED])
        is_the_clip = sampler.is_the_clip(video) | sampler.is_the_clip_in_place(layout)
        return layout.run(above[TRIED:]), is_the_clip, made


@dataclass
class _Inside(ClipPatches):
    """A clip in a program, where the vectors of its patches are computed: written down they take ten times the room.

    Attributes: spaces: of a scale, sharp or not.
    """

    spaces: Mapping[tuple[int, bool], PatchSpace] = field(default_factory=dict)

    def _space(self, videos: Tensor, n: int, sharp: bool, patch: Patch) -> PatchSpace:
        return self.spaces[n, sharp]


@dataclass
class _Looped(Refinement):
    """A refinement in a program.

    Attributes: given: what the search would draw.
    """

    given: Iterator[Tensor] = field(default_factory=lambda: iter(()))

    def _exact(self, queries: Queries, keys: Tensor, grid: Grid, alpha: float) -> Tensor:
        return loops.exact_field(queries, keys, grid, alpha)

    def _spread(self, queries: Queries, keys: Tensor, grid: Grid, alpha: float) -> Tensor:
        begun = next(self.given) if self.found is None else self.found
        return loops.spread_field(queries, keys, grid, begun, alpha, next(self.given))

    def _assembled(self, step: Step, found: Tensor) -> Tensor:
        return loops.assemble(self.clip.values(step.n), found, step.size, self.how.patch, self.how.bandwidth)
