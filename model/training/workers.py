"""The processes that train one video together, each on its share of the examples; most often there is one.

Every process holds the same networks and optimizers, and takes the same steps: what they share are sums over examples.
Gradients are summed here, in one explicit reduction an optimizer step, and not by DistributedDataParallel: that
averages where the loss is a sum (eq. 5, 11), and it reduces once a backward pass, where an iteration has several that
add to the same gradients: the critic's, the penalty's (whose graph holds a gradient already), and one a micro-batch.
"""

from __future__ import annotations

import os
from collections.abc import Iterable, Sequence
from typing import TYPE_CHECKING, TypeVar

import torch
from torch import Tensor

from model.device import training_device

if TYPE_CHECKING:
    from accelerate import Accelerator

T = TypeVar("T")


class PeerLost(RuntimeError):
    """Another of the processes that train together is gone. What this one knows is in the last checkpoint."""


class Workers:
    """This process among those that torch.distributed's environment variables name (Ray Train sets them)."""

    def __init__(self) -> None:
        self.size, self.rank = 1, 0
        if int(os.environ.get("WORLD_SIZE", "1")) > 1:
            from accelerate import Accelerator  # for several alone: its import takes a fifth of a second

            # cpu=True where there is no GPU: without it accelerate takes each process for the only one.
            self._accelerator: Accelerator = Accelerator(cpu=not torch.cuda.is_available())
            self.size, self.rank = self._accelerator.num_processes, self._accelerator.process_index
        self.device = training_device()  # accelerate has chosen this process's GPU

    @property
    def leads(self) -> bool:
        """Whether this is the process that writes: checkpoints, logs, pictures."""
        return self.rank == 0

    def share(self, items: Sequence[T]) -> Sequence[T]:
        """This process's part of them."""
        return items[self.rank :: self.size]

    def sum(self, tensor: Tensor) -> Tensor:
        """The sum over the processes, the same bits in each. Raises PeerLost."""
        if self.size == 1:
            return tensor
        try:
            total: Tensor = self._accelerator.reduce(tensor, "sum")
        except RuntimeError as error:
            raise PeerLost(str(error)) from error
        return total

    def sum_gradients(self, parameters: Iterable[Tensor]) -> None:
        """Replace every gradient by its sum over the processes, in one reduction. Raises PeerLost."""
        if self.size == 1:
            return
        gradients = [p.grad for p in parameters if p.grad is not None]
        total = self.sum(torch.cat([gradient.flatten() for gradient in gradients]))
        for gradient, part in zip(gradients, total.split([gradient.numel() for gradient in gradients]), strict=True):
            gradient.copy_(part.view_as(gradient))

    def from_leader(self, value: T) -> T:
        """The leading process's value, in every process. Raises PeerLost."""
        if self.size == 1:
            return value
        from accelerate.utils import broadcast_object_list

        box = [value if self.leads else None]
        try:
            broadcast_object_list(box, from_process=0)
        except RuntimeError as error:
            raise PeerLost(str(error)) from error
        return box[0]  # type: ignore[return-value]
