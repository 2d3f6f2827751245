"""The `evaluation:` part of an experiment: what is drawn during training, and what is measured after it."""

from __future__ import annotations

from protlig_dd.config import settings
from protlig_dd.sampling import Ancestral, ConfidenceUnmasking, SamplerSettings


@settings
class EvaluationSettings:
    """What happens after training, and how long it may take.

    Args:
        after_training: sample, evaluate and write the report when training ends.
        num_samples: conditions of the held-out split that get a sample each.
        num_times: noise levels an example in the bound.
        num_examples: examples of the bound, at most.
        samplers: the methods that are shown side by side.
        generate: the track that is generated; the others are given.
        fold: the folding model that generated proteins are folded with (a folder, or facebook/esmfold_v1); "" folds nothing.
        num_folded: how many of them.
        preview_every: steps between samples drawn during training, with their molecules or their agreement with the truth; 0 is never.
        preview_samples: how many.
        coordinates: a Foldseek database with the true C-alphas, under the data's names; previews and evaluation then also compare
            structures of Kanzi's tokens in Angstrom. "" compares tokens only.
        tokenizer: the autoencoder of these tokens: a run folder, or a published file; with `coordinates`, or not at all.
    """

    after_training: bool = False
    num_samples: int = 500
    num_times: int = 8
    num_examples: int = 500
    samplers: tuple[SamplerSettings, ...] = (ConfidenceUnmasking(), Ancestral())
    generate: str = "ligand"
    fold: str = ""
    num_folded: int = 20
    preview_every: int = 0
    preview_samples: int = 8
    coordinates: str = ""
    tokenizer: str = ""

    def __post_init__(self) -> None:
        if bool(self.coordinates) != bool(self.tokenizer):
            given, missing = ("coordinates", "tokenizer") if self.coordinates else ("tokenizer", "coordinates")
            raise ValueError(
                f"{missing}: found nothing beside {given} '{getattr(self, given)}', expected both: a Foldseek database with the true "
                f"C-alphas and the autoencoder of the tokens"
            )
