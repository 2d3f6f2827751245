"""Properties by name, for guidance and optimisation: properties of proteins and of molecules, and functions of the user.

Molecules that cannot be parsed have no property: guidance excludes them (-inf), optimisation leaves them out (NaN).
"""

from __future__ import annotations

import importlib
import math
import os
import sys
from collections.abc import Callable, Collection, Mapping
from functools import partial
from types import MappingProxyType
from typing import Any

import numpy as np

from protlig_dd.diffusion.denoiser import Denoising
from protlig_dd.errors import ConfigError, nearest
from protlig_dd.evaluation.ligands import parse_molecule, silent_rdkit
from protlig_dd.evaluation.properties import PROPERTIES
from protlig_dd.evaluation.proteins import HYDROPATHY, longest_run, repeat_fraction, sequence_entropy
from protlig_dd.sampling.loop import Stepper, sample
from protlig_dd.sampling.tilting import Property, Tilting, texts_of
from protlig_dd.sampling.towards import sample_tilted
from protlig_dd.tokens.tracks import TrackBatch

SHORT_NAMES: Mapping[str, str] = MappingProxyType({"qed": "QED", "logp": "logP", "sa": "SA score", "mw": "MW", "tpsa": "TPSA"})
"""The names of properties of molecules on the command line."""

_LETTERS: dict[str, tuple[Mapping[str, float], bool]] = {
    "charge": ({"K": 1.0, "R": 1.0, "D": -1.0, "E": -1.0}, False),
    "hydropathy": (HYDROPATHY, True),
    "aromaticity": (dict.fromkeys("FWY", 1.0), True),
    "cysteines": ({"C": 1.0}, False),
}
_OF_SEQUENCES: dict[str, Callable[[str], float]] = {"entropy": sequence_entropy, "repeats": repeat_fraction, "longest_run": longest_run}
PROTEIN_PROPERTIES = (*_LETTERS, *_OF_SEQUENCES)
"""Net charge, mean hydropathy (GRAVY), share of F, W and Y, number of C; entropy of the residues in bits, repeats, the longest run."""


def property_from(name: str, tracks: Collection[str], *, is_probability: bool = False) -> Property:
    """Return the property with a name, or given by module:function; a function gets the proteins if they are generated.

    Args:
        name: one of `PROTEIN_PROPERTIES`, a property of molecules, or module:function, which takes a list of texts.
        tracks: the tracks that are generated.
        is_probability: whether the function returns probabilities of a class.

    Raises:
        ConfigError: for an unknown name, with the nearest one, or a function that cannot be imported.
    """
    if ":" in name:
        track = "protein" if "protein" in tracks else next(iter(tracks))
        function = user_function(name, "--property")
        return Property(name=name, track=track, function=function, is_probability=is_probability)
    if is_probability:
        raise ConfigError(f"--property '{name}': is no probability; only a module:function can be one")
    if name in _LETTERS:
        letters, is_mean = _LETTERS[name]
        function = partial(_over_letters, letters=letters, is_mean=is_mean)
        return Property(name=name, track="protein", function=function, letters=letters, is_mean=is_mean)
    if name in _OF_SEQUENCES:
        return Property(name=name, track="protein", function=partial(_each, of=_OF_SEQUENCES[name]))
    known = SHORT_NAMES.get(name.lower(), name)
    if known not in PROPERTIES:
        names = [*PROTEIN_PROPERTIES, *SHORT_NAMES, *PROPERTIES]
        raise ConfigError(f"--property '{name}': expected one of {', '.join(names)}, or module:function{nearest(name, names)}")
    return Property(name=name, track="ligand", function=partial(_of_molecules, name=known, missing=-math.inf))


def sample_measured(
    denoising: Denoising, batch: TrackBatch, *, tilting: Tilting, generate: tuple[str, ...], sampler: Stepper, seed: int
) -> tuple[TrackBatch, dict[str, np.ndarray]]:
    """Return samples drawn towards a property, with the values "property", "property_unguided" and, for smc, "ess" [b] of each.

    The unguided value, the null, is that of the sample drawn without guidance from the same seed and id.

    Raises:
        ConfigError: for an unknown property, or as `sample_tilted`.
    """
    prop = property_from(tilting.name, generate, is_probability=tilting.is_probability)
    how: Any = {"generate": generate, "sampler": sampler, "seed": seed}
    found = sample_tilted(denoising, batch, prop=prop, tilting=tilting, **how)
    plain = sample(denoising.denoiser, denoising.diffusion, batch, **how).batch
    null = prop(texts_of(denoising.tracks[prop.track], plain, plain.tracks[prop.track].tokens))
    measured = {"property": found.values, "property_unguided": null}
    return found.batch, measured if found.ess is None else {**measured, "ess": found.ess}


def molecule_scores(name: str, *, sign: float = 1.0) -> Callable[[list[str]], np.ndarray]:
    """Return the function that computes a property of SMILES times a sign, NaN for those that cannot be parsed."""
    return lambda texts: sign * _of_molecules(texts, name=name, missing=math.nan)


def user_function(name: str, option: str) -> Callable[[list[str]], np.ndarray]:
    """Return the function given by module:function; modules in the current folder are found too, after installed ones.

    Raises:
        ConfigError: with the option, if it cannot be imported.
    """
    module, _, function = name.partition(":")
    if os.getcwd() not in sys.path:  # last: files of this folder must not stand in for packages; PYTHONPATH=. puts it first
        sys.path.append(os.getcwd())
    try:
        found = getattr(importlib.import_module(module), function)
    except (ImportError, AttributeError, ValueError, SyntaxError) as error:
        raise ConfigError(
            f"{option} '{name}': {error}; expected module:function, installed or in this folder (an installed module of the same name comes "
            f"first, unless PYTHONPATH=. is set)"
        ) from error
    if not callable(found):
        raise ConfigError(f"{option} '{name}': found {type(found).__name__}, expected a function of a list of texts")
    return lambda texts: np.asarray(found(texts), dtype=float)


def _over_letters(texts: list[str], *, letters: Mapping[str, float], is_mean: bool) -> np.ndarray:
    """The sum, or mean, over letters; a letter without a value counts 0."""
    sums = [sum(letters.get(letter, 0.0) for letter in text) for text in texts]
    return np.array([s / max(len(t), 1) if is_mean else s for s, t in zip(sums, texts, strict=True)], dtype=float)


def _each(texts: list[str], *, of: Callable[[str], float]) -> np.ndarray:
    return np.array([of(text) for text in texts], dtype=float)


def _of_molecules(texts: list[str], *, name: str, missing: float) -> np.ndarray:
    with silent_rdkit():
        molecules = [parse_molecule(text)[0] for text in texts]
    return np.array([missing if m is None else PROPERTIES[name](m) for m in molecules], dtype=float)
