"""The families of token models: how each draws samples, during training and in evaluation, and how likely it finds true examples."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import Any, Protocol, runtime_checkable

from protlig_dd.causal.export import export_causal
from protlig_dd.causal.generate import CausalGenerator
from protlig_dd.causal.likelihood import causal_likelihood
from protlig_dd.causal.model import CausalSettings
from protlig_dd.config import build, to_mapping
from protlig_dd.data.table import TokenTable
from protlig_dd.errors import ConfigError
from protlig_dd.runs.experiment import Experiment
from protlig_dd.runs.export import export_encoder, require_free
from protlig_dd.runs.families.models import Decoding
from protlig_dd.runs.generate import Generator
from protlig_dd.runs.likelihoods import Told, bounds, dependence
from protlig_dd.runs.options import SampleOptions
from protlig_dd.runs.run import Run
from protlig_dd.runs.sampler_settings import guidance_from, sampler_from, tilting_from
from protlig_dd.sampling import SamplerSettings
from protlig_dd.training.distributed import largest_over_ranks

AnyGenerator = Generator | CausalGenerator


@dataclass(frozen=True, kw_only=True)
class Way:
    """A way to sample in evaluation.

    Attributes:
        name: in words, for the screen and the report.
        short: for the names of files.
        generator: draws the samples.
        is_shown: whether the report shows these samples.
    """

    name: str
    short: str
    generator: AnyGenerator
    is_shown: bool


@runtime_checkable
class TokenFamily(Protocol):
    """What training, sampling and evaluation ask of a family of token models."""

    def generator(self, run: Run, **settings: Any) -> AnyGenerator:
        """Return the generator of a run; each family has its own settings."""

    def drawing(self, options: SampleOptions, config: Experiment) -> dict[str, Any]:
        """Return the generator settings of a config, with the changes that options ask for.

        Raises:
            ConfigError: for options that the family does not have.
        """

    def preview_generator(self, run: Run) -> AnyGenerator:
        """Return the generator used during training, by all processes together."""

    def ways(self, run: Run) -> Iterator[Way]:
        """Yield the ways to sample that evaluation compares."""

    def export(self, run: Run, folder: Path, *, licence: str, source: str) -> dict[str, Any]:
        """Write the model as a folder that stock transformers loads, and return its passport."""

    def true_examples(self, run: Run, table: TokenTable, split: str) -> Iterator[Told]:
        """Yield what the model says about true examples: likelihoods or bounds, and whether it uses the condition."""


class Denoisers:
    """Models trained to denoise tracks: dit, dual_track and encoder."""

    export = staticmethod(export_encoder)

    def generator(self, run: Run, **settings: Any) -> Generator:
        """Return the generator of a run."""
        return Generator(run, **settings)

    def drawing(self, options: SampleOptions, config: Experiment) -> dict[str, Any]:
        """Return sampler, guidance and property."""
        if options.learned_length:
            raise ConfigError("--learned-length: this run denoises tokens of a given number; expected a run of a causal model")
        return {
            "sampler": sampler_from(options, config),
            "guidance": guidance_from(options, config),
            "tilting": tilting_from(options, config),
        }

    def preview_generator(self, run: Run) -> Generator:
        """Return a generator with the run's own sampler."""
        return Generator(run, seed=run.config.seed, with_likelihood=False)

    def ways(self, run: Run) -> Iterator[Way]:
        """Yield each of `evaluation.samplers`; the run's own sampler also gets likelihood bounds."""
        config = run.config
        for sampler in config.evaluation.samplers:
            is_own = sampler == config.sampling.sampler
            generator = Generator(run, seed=config.seed, sampler=sampler, with_likelihood=is_own)
            is_shown = is_own or sampler == config.evaluation.samplers[0]
            yield Way(name=_name(sampler), short=sampler.kind, generator=generator, is_shown=is_shown)

    def true_examples(self, run: Run, table: TokenTable, split: str) -> Iterator[Told]:
        """Yield the bounds, and the condition dependence of each conditional task."""
        yield bounds(run, table, split)
        for name, task in run.parts.tasks.tasks.items():
            if task.clean and run.parts.tasks.weights[name] > 0:
                yield dependence(run, table, split, name)


class CausalModels:
    """Models that write the structure of a protein token by token."""

    export = staticmethod(export_causal)

    def generator(self, run: Run, **settings: Any) -> CausalGenerator:
        """Return the generator of a run."""
        return CausalGenerator(run, **settings)

    def drawing(self, options: SampleOptions, config: Experiment) -> dict[str, Any]:
        """Return the decoding."""
        others = ("sampler", "strategy", "unmasking", "steps", "forbid", "guidance", "property")
        if useless := [name for name in others if getattr(options, name)]:
            raise ConfigError(
                f"--{useless[0]}: a causal model writes one token after another; expected --temperature, --top-p or --learned-length"
            )
        given = {"temperature": options.temperature, "top_p": options.top_p}
        changes: dict[str, Any] = {name: value for name, value in given.items() if value is not None}
        if options.learned_length:
            changes["length"] = "learned"
        return {"decoding": build(Decoding, {**to_mapping(config.sampling.decoding), **changes}, "sampling.decoding")}

    def preview_generator(self, run: Run) -> CausalGenerator:
        """Return a greedy generator that decides the length; a sharded model answers all processes together."""
        together = partial(largest_over_ranks, device=run.choice.device)
        return CausalGenerator(run, decoding=Decoding(length="learned"), with_likelihood=False, together=together)

    def ways(self, run: Run) -> Iterator[Way]:
        """Yield decoding to the given length and to a length of the model's own."""
        config = run.config
        for length in ("given", "learned"):
            decoding = replace(config.sampling.decoding, length=length)
            yield Way(
                name=f"causal decoding, length {length}, temperature {decoding.temperature:g}",
                short=f"causal_{length}",
                generator=CausalGenerator(run, seed=config.seed, decoding=decoding, with_likelihood=False),
                is_shown=length == "given",
            )

    def true_examples(self, run: Run, table: TokenTable, split: str) -> Iterator[Told]:
        """Yield the likelihood of true structures."""
        yield causal_likelihood(run, table, split)


DENOISERS, CAUSAL = Denoisers(), CausalModels()


def family_of(run: Run) -> TokenFamily:
    """Return the family that a run's model belongs to."""
    return CAUSAL if isinstance(run.config.model, CausalSettings) else DENOISERS


def export_run(run: Run, folder: Path, *, licence: str, source: str) -> dict[str, Any]:
    """Write a run's model as a folder that stock transformers loads, read it back, and return its passport.

    Args:
        run: an opened run.
        folder: the folder to write: absent, empty, or an earlier export.
        licence: licence of the weights, for the passport.
        source: where the weights come from, for the passport.

    Raises:
        ConfigError: for a folder that holds something else, or a model without a published layout.
        CheckpointError: if no published model has its vocabulary.
    """
    require_free(folder)
    return family_of(run).export(run, folder, licence=licence, source=source)


def _name(sampler: SamplerSettings) -> str:
    values = {k: v for k, v in to_mapping(sampler).items() if k != "kind" and v}
    return sampler.kind + (f" ({', '.join(f'{k} {v}' for k, v in values.items())})" if values else "")
