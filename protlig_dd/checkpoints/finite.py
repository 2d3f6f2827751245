"""Numbers of a model that are none (NaN, infinite): refused in one line, before they become letters, scores or vectors."""

from __future__ import annotations

from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from protlig_dd.errors import CheckpointError


def require_finite(values: Tensor | np.ndarray | float, where: str) -> None:
    """Refuse a model's output that has a NaN or an infinite number.

    Args:
        values: the output.
        where: the model, and what it was asked for, for the message.

    Raises:
        CheckpointError: naming `where`.
    """
    if not bool(torch.isfinite(torch.as_tensor(values)).all()):
        raise CheckpointError(
            f"{where}: the model's output is not finite (NaN or infinite); its weights are damaged, its training diverged, or half precision "
            f"overflowed: take an earlier checkpoint, or --device cpu for float32"
        )


def require_finite_weights(model: nn.Module, where: str) -> None:
    """Refuse weights that have a NaN or an infinite number, before they are passed on.

    Raises:
        CheckpointError: naming the tensor.
    """
    for name, tensor in model.state_dict().items():
        if not bool(torch.isfinite(tensor).all()):
            raise CheckpointError(
                f"{where}: the weight '{name}' is not finite (NaN or infinite), and so is the model's output; take an earlier checkpoint"
            )


class Watched:
    """A network that remembers whether any of its logits was NaN or +inf; -inf is the logit of an id that is never drawn.

    The calls wait for nothing: `check` looks at what they noted.
    """

    def __init__(self, network: Any, where: str) -> None:
        self.network, self.where, self._is_sound = network, where, True

    def __call__(self, *args: Any, **kwargs: Any) -> Any:
        """Return the network's logits, a tensor or one for each track."""
        found = self.network(*args, **kwargs)
        for logits in found.values() if isinstance(found, dict) else [found]:
            self._is_sound = (logits < torch.inf).all() & self._is_sound
        return found

    def check(self) -> None:
        """Refuse what was drawn from such logits.

        Raises:
            CheckpointError: naming the model.
        """
        require_finite(0.0 if bool(self._is_sound) else np.nan, self.where)
