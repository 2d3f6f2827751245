"""The exact entropy of the textbook world's ligands given their length, with or without their protein.

A ligand is drawn in steps of known probability: its number of tokens, its group (the rule's own with probability `law`), and one of the
equally likely ligands of that size and group. No ligand has two groups, so its probability is a product. Proteins have no such closed form:
drafts with a second motif are rejected, which makes a protein's probability a sum over families and placements.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from jaxtyping import Float

from protlig_dd.data.synthetic.textbook import RULES, DemoWorld, Pair, ligand_law
from protlig_dd.tokens.ligand import tokenize_smiles


@dataclass(frozen=True, kw_only=True)
class LigandEntropy:
    """The entropy of a ligand of known length.

    Attributes:
        nats: entropy of a whole ligand in nats.
        tokens: mean SMILES tokens of a ligand.
    """

    nats: float
    tokens: float

    @property
    def per_token(self) -> float:
        """Nats a token (ratio of sums): the lower bound on any model's mean negative log-likelihood."""
        return self.nats / self.tokens


def ligand_entropy(world: DemoWorld, *, given_protein: bool) -> LigandEntropy:
    """Return H(ligand | length, protein), or H(ligand | length), of a world.

    Groups are equally likely over proteins, and a length is drawn before the group and independently of it. So

        H = sum_n P(n) [ H(group | rule) + mean over groups of log |ligands of n tokens and the group| ],

    with H(group | rule) = -law log law - (1 - law) log((1 - law) / 11); without the protein, log 12 instead.
    """
    row = world.law_table()[0]
    groups = float(-(row[row > 0] * np.log(row[row > 0])).sum()) if given_protein else float(np.log(len(RULES)))
    law = ligand_law(world)
    choices = sum(p * float(np.mean([np.log(len(cell)) for cell in cells])) for _, p, cells in law)
    return LigandEntropy(nats=groups + choices, tokens=sum(n * p for n, p, _ in law))


def ligand_nll(world: DemoWorld, pairs: Sequence[Pair], *, given_protein: bool) -> Float[np.ndarray, " s"]:
    """Return the exact negative log-probability in nats of each pair's ligand given its length, with or without its protein."""
    sizes = {n: [len(cell) for cell in cells] for n, _, cells in ligand_law(world)}
    number = {rule.group: i for i, rule in enumerate(RULES)}
    rules = {rule.name: i for i, rule in enumerate(RULES)}
    table = world.law_table()
    found = []
    for pair in pairs:
        group = number[pair.group]
        chance = table[rules[pair.rule], group] if given_protein else 1 / len(RULES)
        found.append(np.log(sizes[len(tokenize_smiles(pair.ligand))][group]) - np.log(chance))
    return np.array(found)
