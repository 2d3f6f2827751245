"""The token models of all families: the union of their settings, what an experiment checks of them, building, objectives."""

from __future__ import annotations

from collections.abc import Mapping
from functools import partial
from typing import Literal

from torch import nn

from protlig_dd.causal.decoding import CausalDecoding
from protlig_dd.causal.model import CausalSettings
from protlig_dd.causal.objective import CausalObjective
from protlig_dd.device import DeviceChoice
from protlig_dd.diffusion.times import TaskMixture
from protlig_dd.models import DiTSettings, DualTrackSettings, EncoderSettings
from protlig_dd.nn.attention import Backend
from protlig_dd.objective import Objective
from protlig_dd.tokens.tracks import Track
from protlig_dd.training.session import initialised

ModelSettings = DiTSettings | DualTrackSettings | EncoderSettings | CausalSettings
"""What `model:` of an experiment may be."""

AUTOENCODERS = frozenset({"kanzi"})
"""The values of `model.kind` that name structure autoencoders: they have experiments of their own, and no tracks."""

Decoding = CausalDecoding
"""What `sampling.decoding` of an experiment is; used by causal models only."""


def check_model(model: ModelSettings, tasks: TaskMixture, tracks: set[str], distributed: str) -> None:
    """Refuse tracks, tasks and ways of sharding that a model cannot be trained with.

    Raises:
        ValueError: naming the setting.
    """
    used = {name for name, weight in tasks.weights.items() if weight > 0}
    apart = [name for name, task in tasks.tasks.items() if task.apart and name in used]
    if apart and not isinstance(model, EncoderSettings):
        raise ValueError(
            f"diffusion.tasks.{apart[0]}: found tracks that must not see each other with model.kind '{model.kind}', expected encoder"
        )
    if isinstance(model, DiTSettings):
        noised = {track: name for name in used for track in tasks.tasks[name].noised_tracks}
        if fault := next((track for track in model.given_kmers or {} if track in noised), ""):
            raise ValueError(
                f"diffusion.tasks.{noised[fault]}: generates the track '{fault}', which model.given_kmers only reads; "
                f"leave the task out, or use model.kind: dual_track"
            )
    if isinstance(model, CausalSettings):
        model.check(tracks, used, distributed)


def sampled_track(model: ModelSettings, generate: str) -> str:
    """Return the track that samples are drawn of during training: a causal model's structures, or else `evaluation.generate`."""
    return "structure" if isinstance(model, CausalSettings) else generate


def build_model(
    model: ModelSettings, tracks: Mapping[str, Track], backend: Backend, *, seed: int, where: Literal["cpu", "meta"] = "cpu"
) -> nn.Module:
    """Return a freshly initialised model on the host; or on the meta device, without weights, otherwise as other processes build it.

    Raises:
        ConfigError: if the config states another number of parameters.
    """
    build = partial(model.build, tracks, backend)
    if where == "meta" and isinstance(model, CausalSettings):
        build = partial(model.build, tracks, backend, empty=True)
    return initialised(build, seed=seed, expected=model.parameters, where=where)


def likelihood_objective(model: ModelSettings, tracks: Mapping[str, Track], choice: DeviceChoice) -> Objective | None:
    """Return the objective of a model that is trained by its likelihood; None for a model that is trained to denoise."""
    if isinstance(model, CausalSettings):
        return CausalObjective(model.vocabulary(tracks), device=choice.device)
    return None


def likelihood_track(model: ModelSettings) -> str | None:
    """Return the track that a model trained by its likelihood learns, with the end of each sequence; None for a model trained to denoise."""
    return "structure" if isinstance(model, CausalSettings) else None


def reads_on_rank0(model: ModelSettings) -> bool:
    """Whether rank 0 alone builds the weights where a strategy shares them out: they may be those of a large base."""
    return isinstance(model, CausalSettings)
