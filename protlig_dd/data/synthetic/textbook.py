"""The textbook world: synthetic protein-ligand pairs with a known law, generated from a seed and a size.

Everything here is SYNTHETIC. A protein is a member of a made-up family: a profile's consensus with substitutions, one binding motif of a
textbook rule at a random place, and often decoys, other rules' motifs with one key residue wrong. Its ligand has the rule's group with
probability `rule_strength`, otherwise one of the other eleven groups with equal probability. So a model that uses the motif can be right in
exactly `law` of its samples, and one that ignores the protein in exactly `chance`. A ligand's number of tokens is drawn before its group and
independently of it, so a sampler that fixes the length can still reach the law. The validation and test proteins come from families with
other consensus sequences; they share only the motif with the training families.

The pairs of a split are one stream of draws: pair i does not depend on the number of pairs. The rules and the chemistry are in `rules.py`.
"""

from __future__ import annotations

import functools
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal, TypeVar

import numpy as np

from protlig_dd import rng
from protlig_dd.config import settings
from protlig_dd.data.similarity import KmerIndex, jaccard
from protlig_dd.data.synthetic.rules import RULES, Rule, assemble, count_motifs, group_of, ligand_parts, motif_of
from protlig_dd.errors import ConfigError
from protlig_dd.tokens.ligand import tokenize_smiles
from protlig_dd.tokens.protein import AMINO_ACIDS

__all__ = ["RULES", "DemoWorld", "Pair", "Rule", "generate", "group_of", "knn_null", "motif_of"]

T = TypeVar("T")
_LONGEST_MOTIF = max(len(rule.choices) for rule in RULES)
# Percent of residues in UniProtKB/Swiss-Prot, to a tenth, in the order of AMINO_ACIDS.
_COMPOSITION = np.array([9.7, 8.3, 7.1, 6.9, 6.6, 6.7, 5.5, 5.4, 5.9, 5.5, 4.7, 5.8, 3.9, 4.1, 3.9, 2.9, 2.4, 2.3, 1.1, 1.4])
_COMPOSITION_ENDS = np.append(np.cumsum(_COMPOSITION / _COMPOSITION.sum())[:-1], 1.0)
_LETTERS = np.array(list(AMINO_ACIDS))


@settings
class DemoWorld:
    """The size and the law of a synthetic textbook world.

    Attributes:
        seed: seed of all random draws.
        num_train: training pairs; likewise `num_validation` and `num_test`.
        families_per_rule: training families with each rule's motif.
        heldout_families_per_rule: families of each rule in validation, and as many others in test.
        protein_length: fewest and most residues.
        max_ligand_tokens: most SMILES tokens of a ligand, counted atom by atom.
        rule_strength: probability that a ligand has the group of its protein's rule.
        max_decoys: most near-motifs of other rules in a protein.
        decoy_prob: probability of each of them (if there is room for it).
        substitution_rate: mean fraction of a family's consensus that a member replaces; each position has its own rate, up to twice this.
        ligands_per_rule: combinations of parts tried for each rule; most give a distinct ligand that is short enough.
    """

    kind: Literal["demo"] = "demo"
    seed: int = 0
    num_train: int = 20_000
    num_validation: int = 1_000
    num_test: int = 1_000
    families_per_rule: int = 100
    heldout_families_per_rule: int = 10
    protein_length: tuple[int, int] = (24, 32)
    max_ligand_tokens: int = 26
    rule_strength: float = 0.85
    max_decoys: int = 2
    decoy_prob: float = 0.5
    substitution_rate: float = 0.25
    ligands_per_rule: int = 1_500

    def __post_init__(self) -> None:
        least = dict.fromkeys(("num_train", "families_per_rule", "heldout_families_per_rule", "ligands_per_rule"), 1)
        for name, low in (least | dict.fromkeys(("num_validation", "num_test", "max_decoys"), 0)).items():
            if getattr(self, name) < low:
                raise ConfigError(f"{name}: found {getattr(self, name)}, expected {low} or more")
        for name, most in (("rule_strength", 1.0), ("decoy_prob", 1.0), ("substitution_rate", 0.5)):
            if not 0 <= getattr(self, name) <= most:
                raise ConfigError(f"{name}: found {getattr(self, name)}, expected a number from 0 to {most}")
        fewest, most_residues = self.protein_length
        if not _LONGEST_MOTIF <= fewest <= most_residues:
            raise ConfigError(
                f"protein_length: found {fewest} to {most_residues}, expected fewest first, at least {_LONGEST_MOTIF} (a motif)"
            )

    @property
    def law(self) -> float:
        """The probability that a ligand has the group of its own protein's rule: the accuracy of a perfect model."""
        return self.rule_strength

    @property
    def chance(self) -> float:
        """The probability that a ligand has the group of an independent protein's rule: the accuracy with shuffled proteins.

        Every rule has probability 1/12 and, by symmetry, so has every group; hence sum_g P(g) P(g) = 1/12 for any law.
        """
        return 1 / len(RULES)

    def law_table(self) -> np.ndarray:
        """Return the 12 x 12 law, P(group | rule): rows are the rules and columns the groups, both in the order of RULES."""
        others = (1 - self.law) / (len(RULES) - 1)
        return np.where(np.eye(len(RULES), dtype=bool), self.law, others)


@dataclass(frozen=True, kw_only=True, slots=True)
class Pair:
    """One synthetic protein-ligand pair and its origin.

    Attributes:
        protein: one-letter residues.
        ligand: SMILES in order of assembly: scaffold, substituents, linker, group.
        rule: name of the rule whose motif the protein has.
        group: name of the ligand's group: the rule's own in a fraction `law` of pairs.
        family: number of the protein's family; no two splits share one.
    """

    protein: str
    ligand: str
    rule: str
    group: str
    family: int


@dataclass(frozen=True, kw_only=True)
class _Family:
    """A profile: the most likely residue at each position, and the probability of another one."""

    number: int
    rule: int
    consensus: np.ndarray
    rates: np.ndarray


def generate(world: DemoWorld) -> dict[str, list[Pair]]:
    """Return the pairs of a world by split: "train", "validation" and "test".

    Raises:
        ConfigError: if no number of tokens up to `max_ligand_tokens` has ligands of every rule.
        MissingDependencyError: if RDKit is absent.
    """
    pool = _pool(world.seed, world.ligands_per_rule, world.max_ligand_tokens)
    sizes = {"train": world.num_train, "validation": world.num_validation, "test": world.num_test}
    pairs, first = {}, 0
    for split, size in sizes.items():
        families, draw = _families(world, split, first), _generator(world.seed, "pairs", split)
        first += len(families)
        pairs[split] = [_draw_pair(world, families, pool, draw) for _ in range(size)]
    return pairs


def _generator(seed: int, *names: str | int) -> np.random.Generator:
    return np.random.Generator(np.random.PCG64(rng.key(seed, "demo", *names)))


def _families(world: DemoWorld, split: str, first: int) -> list[_Family]:
    """Return a split's families, with the rules in turn, numbered from `first`."""
    per_rule = world.families_per_rule if split == "train" else world.heldout_families_per_rule
    families = []
    for i in range(per_rule * len(RULES)):
        draw = _generator(world.seed, "family", split, i)
        length = int(draw.integers(*world.protein_length, endpoint=True))
        rates = 2 * world.substitution_rate * draw.random(length)
        consensus = _background(draw, length)
        while motif_of("".join(consensus)):  # otherwise a family without substitutions has no member with a single motif
            consensus = _background(draw, length)
        families.append(_Family(number=first + i, rule=i % len(RULES), consensus=consensus, rates=rates))
    return families


def _background(draw: np.random.Generator, length: int) -> np.ndarray:
    return _LETTERS[np.searchsorted(_COMPOSITION_ENDS, draw.random(length), side="right")]


def _draw_pair(world: DemoWorld, families: list[_Family], pool: _Pool, draw: np.random.Generator) -> Pair:
    family = _pick(families, draw)
    protein = _draw_protein(world, family, draw)
    group = family.rule
    if draw.random() >= world.rule_strength:
        group = int(group + draw.integers(1, len(RULES))) % len(RULES)  # one of the other eleven, equally likely
    ligand = pool.draw_ligand(group, draw)
    rule = RULES[family.rule]
    return Pair(protein=protein, ligand=ligand, rule=rule.name, group=RULES[group].group, family=family.number)


def _draw_protein(world: DemoWorld, family: _Family, draw: np.random.Generator) -> str:
    """Return a member of a family that has its rule's motif once and no other rule's; other drafts are rejected."""
    rule = RULES[family.rule]
    while True:
        length = len(family.consensus)
        residues = np.where(draw.random(length) < family.rates, _background(draw, length), family.consensus).tolist()
        free = _place(residues, "." * length, _instance(rule, draw), draw)
        for _ in range(world.max_decoys):
            if draw.random() < world.decoy_prob:
                other = int(family.rule + draw.integers(1, len(RULES))) % len(RULES)
                free = _place(residues, free, _decoy(RULES[other], draw), draw)
        protein = "".join(residues)
        if count_motifs(protein) == {rule.name: 1}:
            return protein


def _place(residues: list[str], free: str, motif: list[str], draw: np.random.Generator) -> str:
    """Write a motif over residues at a random free place (a run of "."), if there is one, and return the places that remain free."""
    size = len(motif)
    starts = [s for s in range(len(residues) - size + 1) if free.startswith("." * size, s)]
    if not starts:
        return free
    start = _pick(starts, draw)
    residues[start : start + size] = motif
    return free[:start] + "#" * size + free[start + size :]


def _pick(options: Sequence[T], draw: np.random.Generator) -> T:
    return options[int(draw.random() * len(options))]  # a third of the time of Generator.integers


def _instance(rule: Rule, draw: np.random.Generator) -> list[str]:
    return [allowed if len(allowed) == 1 else _pick(allowed, draw) for allowed in rule.choices]


def _decoy(rule: Rule, draw: np.random.Generator) -> list[str]:
    """Return a near-motif of a rule: an instance with one key residue replaced by one not allowed there."""
    residues = _instance(rule, draw)
    place = _pick(rule.key_positions, draw)
    residues[place] = _pick([letter for letter in AMINO_ACIDS if letter not in rule.choices[place]], draw)
    return residues


@dataclass(frozen=True, kw_only=True)
class _Pool:
    """Distinct ligands by rule and number of tokens, and the distribution of that number, the same for all rules."""

    cells: tuple[dict[int, list[str]], ...]
    lengths: tuple[int, ...]
    length_ends: np.ndarray

    def draw_ligand(self, rule: int, draw: np.random.Generator) -> str:
        """Return a ligand of a rule: first its number of tokens is drawn, then one of the equally likely ligands of that size."""
        length = self.lengths[int(np.searchsorted(self.length_ends, draw.random(), side="right"))]
        return _pick(self.cells[rule][length], draw)


@functools.lru_cache(maxsize=4)
def _pool(seed: int, ligands_per_rule: int, max_tokens: int) -> _Pool:
    """Build the ligands of a world once per process; sizes are weighted by the smallest number of such ligands over the rules."""
    cells = tuple(_rule_ligands(rule, seed, ligands_per_rule, max_tokens) for rule in RULES)
    lengths = tuple(sorted(set.intersection(*(set(cell) for cell in cells))))
    if not lengths:
        raise ConfigError(
            f"max_ligand_tokens: found {max_tokens}, which leaves no size that every rule has ligands of; "
            f"raise it (26 is enough), or ligands_per_rule (found {ligands_per_rule}; 100 is enough)"
        )
    weights = np.array([min(len(cell[length]) for cell in cells) for length in lengths])
    ends = np.cumsum(weights) / weights.sum()  # integer weights, so the last end is exactly 1.0
    return _Pool(cells=cells, lengths=lengths, length_ends=ends)


def ligand_law(world: DemoWorld) -> list[tuple[int, float, list[list[str]]]]:
    """Return, for each number of tokens, its probability and the equally likely ligands of each group, in the order of RULES."""
    pool = _pool(world.seed, world.ligands_per_rule, world.max_ligand_tokens)
    probs = np.diff(pool.length_ends, prepend=0.0)
    return [(n, float(p), [cell[n] for cell in pool.cells]) for n, p in zip(pool.lengths, probs, strict=True)]


def _rule_ligands(rule: Rule, seed: int, count: int, max_tokens: int) -> dict[int, list[str]]:
    """Return distinct ligands of one rule by their number of tokens, from `count` random combinations of parts."""
    parts = list(ligand_parts(rule))
    order = _generator(seed, "ligands", rule.name).permutation(len(parts))[:count]
    molecules: dict[str, str] = {}
    for ligand in (assemble(rule, parts[i]) for i in order):
        if ligand is not None:
            molecules.setdefault(*ligand)  # a molecule made of other parts again keeps its first SMILES
    cells: dict[int, list[str]] = {}
    for smiles in molecules.values():
        if (length := len(tokenize_smiles(smiles))) <= max_tokens:
            cells.setdefault(length, []).append(smiles)
    return cells


def knn_null(train_pairs: Sequence[Pair], test_proteins: Sequence[str], *, kmer: int = 3) -> list[str]:
    """Return, for each protein, the ligand of the most similar training protein: the null model of a nearest-neighbour search.

    Similarity is the Jaccard index of the sets of k-mers; of equally similar training pairs the first is used.

    Args:
        train_pairs: at least one pair.
        test_proteins: sequences of one-letter residues.
        kmer: residues in a k-mer.
    """
    assert train_pairs and kmer >= 1, f"{len(train_pairs)} pairs, kmer {kmer}"
    index = KmerIndex([pair.protein for pair in train_pairs], size=kmer)
    return [train_pairs[int(index.nearest(protein, 1, by=jaccard)[0])].ligand for protein in test_proteins]
