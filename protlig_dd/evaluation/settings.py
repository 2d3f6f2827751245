"""The `evaluation:` part of an experiment: samples drawn during training, and what is measured after it."""

from __future__ import annotations

from protlig_dd.config import settings
from protlig_dd.sampling import Ancestral, ConfidenceUnmasking, SamplerSettings


@settings
class SpecificitySettings:
    """How many ligands are generated to see whether they are specific to their targets.

    Args:
        num_targets: targets of the evaluated part, those with three known ligands or more, that are compared; 0 leaves it out.
        samples_per_target: ligands generated for each.
        guidance: weights of classifier-free guidance to compare with the run's own: a row of the table for each.
    """

    num_targets: int = 20
    samples_per_target: int = 10
    guidance: tuple[float, ...] = ()

    def __post_init__(self) -> None:
        if self.num_targets < 0 or self.num_targets == 1:
            raise ValueError(f"num_targets: found {self.num_targets}, expected 2 or more, or 0 to leave it out; targets are compared")
        if self.samples_per_target < 1:
            raise ValueError(f"samples_per_target: found {self.samples_per_target}, expected 1 or more")


@settings
class EvaluationSettings:
    """What is sampled and measured during and after training.

    Args:
        after_training: sample, evaluate and write the report when training ends.
        num_samples: held-out examples for which a sample is drawn each.
        num_times: noise levels for each example in the bound.
        num_examples: maximum number of examples of the bound.
        samplers: the sampling methods to compare.
        generate: the track that is generated; all other tracks are given.
        specificity: ligands generated for several targets, of a run that generates ligands for proteins and has pairs.
        fold: the folding model that generated proteins are folded with (a folder, or facebook/esmfold_v1); "" folds nothing.
        num_folded: number of proteins that are folded.
        preview_every: steps between samples drawn during training, with their molecules or their agreement with the truth; 0 draws none.
        preview_samples: number of such samples.
        coordinates: a Foldseek database with the true C-alphas, under the data's names; previews and evaluation then also compare
            structures of Kanzi's tokens in Angstrom. "" compares tokens only.
        tokenizer: the autoencoder of these tokens: a run folder, or a published file; set together with `coordinates`.
    """

    after_training: bool = False
    num_samples: int = 500
    num_times: int = 8
    num_examples: int = 500
    samplers: tuple[SamplerSettings, ...] = (ConfidenceUnmasking(), Ancestral())
    generate: str = "ligand"
    specificity: SpecificitySettings = SpecificitySettings()
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
