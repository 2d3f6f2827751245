"""Scores of generated proteins: composition, length, repeats, copies, the nearest training protein, hydropathy and charge.

Sequences that are empty or contain anything but the twenty amino acids are counted with the reason and left out. `summary` gives every
score a null: training sequences with their residues shuffled, or residues drawn from the training frequencies. Whether a sequence folds
or binds is not measured here.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from itertools import groupby

import numpy as np
from jaxtyping import Float

from protlig_dd import rng
from protlig_dd.data.similarity import KmerIndex, kmers, nearest_identities
from protlig_dd.errors import ConfigError
from protlig_dd.evaluation.intervals import Estimate, Score, bootstrap_mean, jackknife, wilson
from protlig_dd.evaluation.samples import Validity, subsample
from protlig_dd.tokens.protein import AMINO_ACIDS

_MAX_TRAINING = 20_000  # training sequences in the neighbour search
_MAX_SAMPLES = 300  # samples (and nulls) whose neighbours are searched
_SET = frozenset(AMINO_ACIDS)

_HYDROPATHIES = "4.5 4.2 3.8 2.8 2.5 1.9 1.8 -0.4 -0.7 -0.8 -0.9 -1.3 -1.6 -3.2 -3.5 -3.5 -3.5 -3.5 -3.9 -4.5"
HYDROPATHY = dict(zip("IVLFCMAGTSWYPHEQDNKR", map(float, _HYDROPATHIES.split()), strict=True))
"""Kyte and Doolittle 1982, J. Mol. Biol. 157, 105, table 2: positive is hydrophobic."""


@dataclass(frozen=True, kw_only=True)
class Proteins(Validity):
    """The valid sequences among some strings, and the count of the invalid ones.

    Attributes:
        sequences: the valid ones in order, duplicates kept.
    """

    sequences: tuple[str, ...]


def read_proteins(strings: Sequence[str]) -> Proteins:
    """Return the sequences made of the twenty amino acids only, and how many were left out for which reason (their first invalid letter)."""
    wrong = [next((f"letter '{x}'" for x in text if x not in _SET), "" if text else "empty") for text in strings]
    kept = tuple(text for text, reason in zip(strings, wrong, strict=True) if not reason)
    invalid = Counter(reason for reason in wrong if reason).most_common()
    return Proteins(sequences=kept, num_samples=len(strings), invalid=tuple(invalid))


def letter_counts(sequences: Sequence[str]) -> Float[np.ndarray, "n 20"]:
    """Return how often each amino acid occurs in each sequence, columns in the order of `AMINO_ACIDS`; other letters are not counted."""
    counts = [[sequence.count(letter) for letter in AMINO_ACIDS] for sequence in sequences]
    return np.array(counts, dtype=np.float64).reshape(-1, len(AMINO_ACIDS))


def composition(sequences: Sequence[str]) -> Float[np.ndarray, " 20"]:
    """Return the frequency of each amino acid over all residues, in the order of `AMINO_ACIDS`.

    Raises:
        ConfigError: if there is no residue.
    """
    total = letter_counts(sequences).sum(0)
    if not total.sum():
        raise ConfigError(f"composition: found no amino acid in {len(sequences)} sequences, expected at least one")
    return np.asarray(total / total.sum())


def _entropy(probs: Float[np.ndarray, "*n 20"]) -> Float[np.ndarray, "*n"]:
    """Return the Shannon entropy of distributions, in bits."""
    return np.asarray(-(probs * np.log2(np.where(probs > 0, probs, 1))).sum(-1))


def jensen_shannon(counts: Float[np.ndarray, "*n 20"], reference: Float[np.ndarray, " 20"]) -> Float[np.ndarray, "*n"]:
    """Return the Jensen-Shannon divergence of rows of counts to a distribution, in bits: 0 if equal, 1 if disjoint.

    Source: Lin 1991, IEEE Trans. Inf. Theory 37, 145.
    """
    probs = counts / counts.sum(-1, keepdims=True)
    divergence = _entropy((probs + reference) / 2) - (_entropy(probs) + _entropy(reference)) / 2
    return np.asarray(np.maximum(divergence, 0.0))


def composition_divergence(proteins: Proteins, reference: Float[np.ndarray, " 20"]) -> Estimate:
    """Return the divergence of the pooled residue frequencies to `reference`, in bits, with its jackknife interval over sequences.

    A finite sample of the reference itself is a little above 0: compare with the null.
    """
    if not proteins.sequences:
        return Estimate.missing()
    counts = letter_counts(proteins.sequences)
    total = counts.sum(0)
    value = float(jensen_shannon(total, reference))
    return jackknife(value, jensen_shannon(total - counts, reference) if len(counts) > 1 else np.zeros(1), minimum=0.0)


def length_spread(proteins: Proteins) -> Estimate:
    """Return the standard deviation of the lengths, with its jackknife interval; at least three sequences are needed for one."""
    lengths = np.array([len(s) for s in proteins.sequences], dtype=np.float64)
    num = len(lengths)
    if num < 2:
        return Estimate.missing()
    value = float(lengths.std(ddof=1))
    if num < 3:
        return Estimate.plain(value, num)
    centred = lengths - lengths.mean()
    # leaving x out of n values: the sum of squares about the new mean is S - n/(n-1) x^2
    squares = np.maximum((centred**2).sum() - num / (num - 1) * centred**2, 0.0)
    return jackknife(value, np.sqrt(squares / (num - 2)), minimum=0.0)


def sequence_entropy(sequence: str) -> float:
    """Return the Shannon entropy of a sequence's own residues in bits: 0 for one letter, 4.32 for twenty equally frequent ones; a low entropy means low complexity."""
    return float(_entropy(composition([sequence])))


def longest_run(sequence: str) -> float:
    """Return the length of the longest run of one residue ("MKKKA" has 3), 0 for an empty sequence."""
    return float(max((len(list(run)) for _, run in groupby(sequence)), default=0))


def repeat_fraction(sequence: str) -> float:
    """Return the fraction of a sequence's overlapping 3-letter words that repeat an earlier one; 0 below 4 residues.

    Runs and tandem repeats count alike. Chance alone gives about L / 16,000 for uniform letters: compare with the null.
    """
    words = kmers(sequence)
    return 1 - len(np.unique(words)) / len(words) if len(words) else 0.0


def hydropathy(sequence: str) -> float:
    """Return the mean Kyte-Doolittle hydropathy of a sequence of the twenty amino acids (GRAVY), -4.5 to 4.5."""
    return sum(HYDROPATHY[letter] for letter in sequence) / len(sequence)


def net_charge(sequence: str) -> float:
    """Return the net charge in elementary charges, counting K and R as +1, D and E as -1, all others (H and the termini too) as 0."""
    return float(sum(map(sequence.count, "KR")) - sum(map(sequence.count, "DE")))


def shuffle_residues(sequences: Sequence[str], num: int, *, seed: int = 0) -> list[str]:
    """Return up to `num` of the sequences, drawn without replacement, each with its residues in random order: a null that keeps the composition."""
    draws = np.random.default_rng(rng.key(seed, "shuffled null"))
    rows = draws.permutation(len(sequences))[:num]
    return ["".join(draws.permutation(list(sequences[row]))) for row in rows]


def draw_residues(sequences: Sequence[str], num: int, *, seed: int = 0) -> list[str]:
    """Return `num` sequences of residues drawn independently from the frequencies of `sequences`, with lengths drawn from theirs.

    Raises:
        ConfigError: if there is no residue.
    """
    probs = composition(sequences)
    draws = np.random.default_rng(rng.key(seed, "residue null"))
    lengths = draws.choice([len(s) for s in sequences], size=num)
    return ["".join(draws.choice(list(AMINO_ACIDS), size=length, p=probs)) for length in lengths]


def summary(samples: Sequence[str], training: Sequence[str], *, seed: int = 0) -> list[Score]:
    """Return every score of generated proteins, each with its null.

    Args:
        samples: generated sequences, invalid ones included.
        training: training sequences in capital letters. All are searched for exact copies; nearest neighbours are searched among at most
            20,000 of them, for at most 300 samples, drawn at random.
        seed: seed of the subsamples, the nulls and the bootstrap.

    Raises:
        ConfigError: if there are no samples, or no residue in the training sequences.
        FormatError: if a training sequence contains anything but capital letters.
    """
    if not samples:
        raise ConfigError("samples: found none, expected at least one sequence; generate some first: protlig sample RUN")
    frequencies = composition(training)
    proteins = read_proteins(samples)
    shuffled = read_proteins(shuffle_residues(training, len(samples), seed=seed))
    drawn = read_proteins(draw_residues(training, len(samples), seed=seed))
    scores = [
        Score(
            name="composition divergence",
            value=composition_divergence(proteins, frequencies),
            null=composition_divergence(drawn, frequencies),
            null_name="residues drawn from training",
        )
    ]
    for name, measure in _measures(training, seed).items():
        scores.append(Score(name=name, value=measure(proteins), null=measure(shuffled), null_name="shuffled training"))
    validity = Score(
        name="validity",
        value=wilson(proteins.num_valid, proteins.num_samples),
        null=wilson(shuffled.num_valid, shuffled.num_samples),
        null_name="training",
        note=proteins.describe_invalid(),
    )
    return [validity, *scores]


def _measures(training: Sequence[str], seed: int) -> dict[str, Callable[[Proteins], Estimate]]:
    known = frozenset(training)
    index = KmerIndex(subsample([s for s in training if s], _MAX_TRAINING, seed))

    def nearest(proteins: Proteins) -> Estimate:
        some = subsample(proteins.sequences, _MAX_SAMPLES, seed)
        return bootstrap_mean(nearest_identities(some, index, over="query")[0], seed=seed)

    def mean_of(measure: Callable[[str], float]) -> Callable[[Proteins], Estimate]:
        return lambda proteins: bootstrap_mean([measure(s) for s in proteins.sequences], seed=seed)

    return {
        "uniqueness": lambda proteins: wilson(len(set(proteins.sequences)), proteins.num_valid),
        "exact copies": lambda proteins: wilson(sum(s in known for s in proteins.sequences), proteins.num_valid),
        "nearest training identity": nearest,
        "length": mean_of(lambda sequence: float(len(sequence))),
        "length spread": length_spread,
        "entropy (bits)": mean_of(sequence_entropy),
        "longest run": mean_of(longest_run),
        "repeated words": mean_of(repeat_fraction),
        "hydropathy": mean_of(hydropathy),
        "net charge": mean_of(net_charge),
    }
