"""Videos of chosen latents: from the clip to a sample, between samples, one sample's layout with another's detail."""

from __future__ import annotations

import math
from collections.abc import Callable

import numpy as np
import torch
from torch import Tensor

from model.device import autocast, usual_threads
from model.networks.generators import GeneratorStack
from model.patches.refine import Step, refine
from model.sampling.sample import Draw, Tick, stream_of
from model.sampling.sampler import patch_steps
from model.sampling.scales import CannotApply, need_clip
from model.sampling.variations import slerp
from model.sampling.workbench import Workbench, passes

DETAIL_NOISE = 0.3  # standard deviations of the layout, on a layout whose fine scales are patches


class Latents(Workbench):
    """`vary`, `between`, `recombined`: of models with networks. Others raise CannotApply, one line."""

    @torch.no_grad()
    def vary(self, strength: float, *, seed: int = 0, index: int = 0) -> np.ndarray:
        """Between the clip and a free sample: z = √(1 − s²)·μ + s·ε at scale 0, μ of the posterior and ε of the prior.

        Args: strength: s in [0, 1]. At 0 it is the reconstruction, at 1 a sample whose z is the prior's.

        Returns uint8 (T, H, W, 3). Raises CannotApply, one line, for another strength and without the clip.
        """
        if not 0 <= strength <= 1:
            raise CannotApply(f"--strength {strength}: from 0, the clip, to 1, a free sample")
        stack = self._latent()
        random = stream_of(seed, index)
        drawn = stack.draw(1, random)
        need_clip(self._chunks)
        real = self._video(self._chunks[0], self.sizes[0])
        with usual_threads(), autocast(self.device, self.config.precision):
            mean = stack.encoder(real.to(self.device)).mu.float().cpu()
        if strength == 0:
            return self._reconstruction(mean)
        z = math.sqrt(1 - strength**2) * mean + strength * drawn

        def noise(n: int) -> Tensor | None:
            drawn = stack.noise(n, 1, random)
            return None if drawn is None else strength * drawn

        return self._of_latents(z, noise, (seed, index))

    def _reconstruction(self, mean: Tensor) -> np.ndarray:
        """As `Sampler.reconstruction`: one search through all scales."""
        own, above = self._patch_steps()
        x, tick = self._networks(mean, lambda n: None, passes([*own, *above]))
        if self.makes_patches:
            x = refine(x, self.patches(), [*own, *above], self._scales.how, stream_of(0, 0, Draw.PATCHES), tick=tick)
        return self._frames(x)

    def _patch_steps(self) -> tuple[list[Step], list[Step]]:
        """See `patch_steps`; none where networks make all scales."""
        return patch_steps(self.config, self.sizes, self._scales.patch_from) if self.makes_patches else ([], [])

    @torch.no_grad()
    def between(self, seed: int, seed_to: int, share: float, *, index: int = 0) -> np.ndarray:
        """Sample `index` of one seed becoming that of another: spherical interpolation of z and of every noise.

        Args: share: 0 is the first, 1 the second.

        Returns uint8 (T, H, W, 3).
        """
        stack = self._latent()
        a, b = stream_of(seed, index), stream_of(seed_to, index)
        with usual_threads():
            z = slerp(stack.draw(1, a), stack.draw(1, b), share)

        def noise(n: int) -> Tensor | None:
            one, other = stack.noise(n, 1, a), stack.noise(n, 1, b)
            return None if one is None or other is None else slerp(one, other, share)

        return self._of_latents(z, noise, (seed_to if share == 1 else seed, index))

    @torch.no_grad()
    def recombined(self, layout: tuple[int, int], detail: tuple[int, int]) -> np.ndarray:
        """The layout of one sample with the detail of another, each named by seed and index.

        The layout is z of scale 0, the detail the noise of all scales above; where patches make those, noise on the
        layout that they are searched for.

        Returns uint8 (T, H, W, 3).
        """
        stack = self._latent()
        z, random = stack.draw(1, stream_of(*layout)), stream_of(*detail)
        stack.draw(1, random)  # its own z, which is not taken
        return self._of_latents(z, lambda n: stack.noise(n, 1, random), detail, detail_noise=DETAIL_NOISE)

    def _latent(self) -> GeneratorStack:
        return self._networks_of("latent space")

    def _networks(self, z: Tensor, noise: Callable[[int], Tensor | None], more: int) -> tuple[Tensor, Tick]:
        """The generators on a latent: of all scales, or of those below the patches; and to be called for the steps that
        follow, so many more."""
        stack = self._latent()
        scales = range(min(self._scales.patch_from, stack.num_scales))
        tick = self._ticks(len(scales) + more)
        x = self._generators(z, scales, stack, noise, tick)
        return x if self.makes_patches else stack.to_video(x), tick

    def _of_latents(
        self,
        z: Tensor,
        noise: Callable[[int], Tensor | None],
        place: tuple[int, int],
        *,
        detail_noise: float = 0.0,
    ) -> np.ndarray:
        """The video of a latent, made as the first layout of a sample is; it is kept though it may be the clip's.

        Args: place: seed and index of the search of patches.
        """
        own, above = self._patch_steps()
        x, tick = self._networks(z, noise, passes([*own, *above]))
        if not self.makes_patches:
            return self._frames(x)
        how, random = self._scales.how, stream_of(*place, Draw.PATCHES)
        x = refine(x, self.patches(), own, how, stream_of(*place, Draw.PATCHES, 0), tick=tick) if own else x
        if detail_noise:
            with usual_threads():
                deviation = x.std()
            x = x + detail_noise * deviation * torch.randn(x.shape, generator=random).to(x.device)
        return self._frames(refine(x, self.patches(), above, how, random, tick=tick))
