"""The sampler, guidance and property of a run, with the changes that options ask for."""

from __future__ import annotations

from typing import Any

from protlig_dd.config import build, to_mapping
from protlig_dd.errors import ConfigError
from protlig_dd.runs.experiment import Experiment
from protlig_dd.runs.options import DrawOptions, SampleOptions
from protlig_dd.sampling import Guidance, SamplerSettings, Tilting


def sampler_from(options: DrawOptions, config: Experiment) -> SamplerSettings:
    """Return the sampler that `--sampler kind[:steps]`, `--strategy`, `--unmasking` and `--steps` mean, or the run's own."""
    values = _named_sampler(options) or to_mapping(config.sampling.sampler)
    if options.strategy or options.unmasking:
        values = (values if values["kind"] == "dplm" else {"kind": "dplm"}) | _published_words(options)
    if options.steps is not None:
        values["num_steps"] = options.steps
    return build(SamplerSettings, values, "--sampler")


def _published_words(options: DrawOptions) -> dict[str, Any]:
    """The settings of DPLM's sampler that `annealing@2.0:0.1` and `stochastic1.0` stand for."""
    changes: dict[str, Any] = {}
    name, _, numbers = options.strategy.partition("@")
    try:
        if name:
            changes["strategy"] = name
        if name == "annealing" and numbers:
            first, last = numbers.split(":")
            changes["annealing"] = [float(first), float(last)]
        elif numbers:
            changes["temperature"] = float(numbers)
        if options.unmasking:
            word = options.unmasking.removeprefix("stochastic")
            changes["randomness"] = 0.0 if word == "deterministic" else float(word or 1.0)
    except ValueError:
        raise ConfigError(
            f"--strategy '{options.strategy}' --unmasking '{options.unmasking}': expected argmax, gumbel_argmax, vanilla@1.0 or "
            f"annealing@2.0:0.1, and deterministic or stochastic1.0"
        ) from None
    return changes


def _named_sampler(options: DrawOptions) -> dict[str, Any]:
    """The settings that `--sampler kind[:steps]` stands for."""
    if not options.sampler:
        return {}
    kind, _, steps = options.sampler.partition(":")
    values: dict[str, Any] = {"kind": kind}
    if steps:
        if not steps.isdigit():
            raise ConfigError(f"--sampler '{options.sampler}': found '{steps}' steps, expected a number, such as ancestral:100")
        values["num_steps"] = int(steps)
    return values


def guidance_from(options: DrawOptions, config: Experiment) -> Guidance:
    """Return the run's guidance with the command line's changes."""
    forbidden: dict[str, tuple[str, ...]] = dict(config.sampling.guidance.forbidden or {})
    for one in options.forbid:
        track, sep, symbol = one.partition(":")
        if not sep or track not in config.tracks:
            raise ConfigError(f"--forbid '{one}': expected TRACK:SYMBOL with a track among {', '.join(config.tracks)}")
        forbidden[track] = (*forbidden.get(track, ()), symbol)
    changes: dict[str, Any] = {"temperature": options.temperature, "top_p": options.top_p, "weight": options.guidance}
    given = {name: value for name, value in changes.items() if value is not None}
    values = {**to_mapping(config.sampling.guidance), **given, "forbidden": forbidden or None}
    return build(Guidance, values, "guidance")


def tilting_from(options: SampleOptions, config: Experiment) -> Tilting | None:
    """Return the run's property with what `--property` and its companions change, or None where neither names one.

    Raises:
        ConfigError: for a function, module:function, that stands in the config only: opening a folder must not run what it names.
    """
    own = config.sampling.property
    changes = {
        "name": options.property or None,
        "weight": options.property_weight,
        "method": options.property_method,
        "particles": options.particles,
        "is_probability": options.property_is_probability or None,
    }
    given = {name: value for name, value in changes.items() if value is not None}
    if own is None and not options.property:
        if given:
            raise ConfigError("--property: found none beside options about it; expected a name or module:function")
        return None
    if own is not None and not options.property and ":" in own.name:
        raise ConfigError(
            f"sampling.property.name: found '{own.name}' in the run's config.yaml, a function that would be imported and run; a file may "
            f"only name a property; if you trust the function, give it yourself: --property {own.name}"
        )
    tilting: Tilting = build(Tilting, {**(to_mapping(own) if own else {}), **given}, "property")
    return tilting
