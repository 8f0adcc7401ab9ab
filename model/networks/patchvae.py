"""The paper's alternatives to its patch-VAE (§4.2, Fig. 9, A.4): only what differs from the method.

Which one a model is, its TrainConfig says, field by field ("ablations" there); `model/presets.py` names them.
    no freezing     no code here: `GeneratorStack.trained` chooses what learns
    r = 1           no code here: the kernel of the generators or of the encoder is 1
    PatchVAE        `PatchEncoder`: a Bernoulli map of where, one Gaussian vector of what
    GAN only        no code here: `encoder.FixedCode` in place of the encoder
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from model.config import TrainConfig
from model.networks.blocks import conv, convolve
from model.networks.encoder import Encoder, Posterior

TEMPERATURE = 0.5  # of the relaxed Bernoulli, as the published code of Gupta et al.
PRIOR = 0.5  # probability that a position is occupied, as both published codes


@dataclass(frozen=True)
class PatchPosterior:
    """q(z|x) of PatchVAE: z = appearance · occupancy, which are independent given x."""

    appearance: Posterior  # (B, latent, 1, 1, 1): one vector a video
    logits: Tensor  # (B, 1, T, H, W): log-odds that a position is occupied

    @property
    def mu(self) -> Tensor:
        """The mean of z, (B, latent, T, H, W)."""
        return self.appearance.mu * torch.sigmoid(self.logits)

    def sample(self, generator: torch.Generator) -> Tensor:
        """z, (B, latent, T, H, W), differentiable in both: reparameterised Gaussian times relaxed Bernoulli."""
        return self.appearance.sample(generator) * relaxed_bernoulli(self.logits, generator)

    def split(self) -> list[PatchPosterior]:
        """One of each sample of the batch."""
        return [PatchPosterior(q, logits) for q, logits in zip(self.appearance.split(), self.logits.split(1))]


AnyPosterior = Posterior | PatchPosterior


class PatchEncoder(Encoder):
    """The encoder of PatchVAE (Gupta, Singh, Shrivastava 2020), trained on one clip (§4.2, A.4).

    Beside M and S a third convolution gives the occupancy map; what M and S see is multiplied by its probabilities, and
    what they give is averaged over the positions. The text (A.4) says only that the prior is Bernoulli and Gaussian and
    the latent dimension 128; that there is one map, and where it multiplies, is as in the authors' code.
    Differs from the authors' code: that decodes log π plus Gumbel noise where the prior has 0 and 1; here training
    sees the relaxed Bernoulli of Gupta's published code, numbers between 0 and 1. Differs from Gupta's: that has
    several parts, each with a map and a vector of its own.
    """

    def __init__(self, config: TrainConfig) -> None:
        super().__init__(config)
        self.occupancy = conv(config.channels, 1, self.kernel)

    def forward(self, x: Tensor) -> PatchPosterior:  # type: ignore[override]
        """q(z|x) of x⁰, (B, 3, T, H, W)."""
        features = self.features(x)
        logits = convolve(features, self.occupancy.weight, self.occupancy.bias).float()
        present = features * torch.sigmoid(logits)
        mu, logvar = (
            convolve(present, head.weight, head.bias).float().mean(dim=(2, 3, 4), keepdim=True)
            for head in (self.mu, self.logvar)
        )
        return PatchPosterior(Posterior(mu, logvar), logits)


def relaxed_bernoulli(logits: Tensor, generator: torch.Generator) -> Tensor:
    """Numbers between 0 and 1, near either end, above ½ with probability σ(logits); differentiable in the logits.

    The binary Concrete distribution of Maddison et al. 2017, at TEMPERATURE.
    """
    u = torch.rand(logits.shape, generator=generator, device=logits.device)
    return torch.sigmoid((logits + torch.logit(u)) / TEMPERATURE)


def kl_bernoulli(logits: Tensor) -> Tensor:
    """KL(Bernoulli(σ(logits)) ‖ Bernoulli(PRIOR)) in nats, mean over all elements: a scalar, 0 or more."""
    p, log_p, log_rest = torch.sigmoid(logits), nn.functional.logsigmoid(logits), nn.functional.logsigmoid(-logits)
    return (p * (log_p - math.log(PRIOR)) + (1 - p) * (log_rest - math.log(1 - PRIOR))).mean()


def occupied_normal(shape: Sequence[int], generator: torch.Generator) -> Tensor:
    """z from PatchVAE's prior: one N(0, I) vector a video where a coin of PRIOR says so, 0 elsewhere.

    shape: (B, latent, T, H, W) of z. On the generator's device.
    """
    batch, latent, *positions = shape
    appearance = torch.randn((batch, latent, 1, 1, 1), generator=generator, device=generator.device)
    coins = torch.rand((batch, 1, *positions), generator=generator, device=generator.device)
    return appearance * (coins < PRIOR)
