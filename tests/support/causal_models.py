"""Small causal models with random weights."""

from __future__ import annotations

from typing import Any

import torch

from protlig_dd.causal.model import Causal, CausalSettings
from tests.support.causal_sequences import TRACKS
from tests.support.small_bases import SHAPE

SMALL = CausalSettings(**SHAPE)


def built(settings: CausalSettings = SMALL, backend: Any = "bucketed") -> Causal:
    torch.manual_seed(5)
    model = settings.build(TRACKS, backend)
    for parameter in model.parameters():
        parameter.data += 0.1 * torch.randn_like(parameter)
    return model.eval()
