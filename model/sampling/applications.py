"""What a trained model makes of a given video or image: the paper's applications (Fig. 8), and those for videos."""

from __future__ import annotations

from model.sampling.entering import Entering
from model.sampling.latents import Latents
from model.sampling.remaking import Remaking


class Applications(Entering, Remaking, Latents):
    """The applications of one model and its clip; see `Workbench` for what they have in common.

    Entering: `inject`, `edit`, `retarget`, `enlarge`. Remaking: `fill`, `extend`, `loop`. Latents: `vary`, `between`,
    `recombined`. What one of them cannot do is a `scales.CannotApply`, one line.
    """
