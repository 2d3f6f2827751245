"""The exact floor of a synthetic source, to compare a fitted E with: the law's entropy, and the law's own loss on the validation set."""

from __future__ import annotations

from dataclasses import dataclass, replace

from protlig_dd.data.synthetic.entropy import ligand_entropy, ligand_nll
from protlig_dd.data.synthetic.markov import MarkovChain, nll, sequences
from protlig_dd.data.synthetic.textbook import DemoWorld, generate
from protlig_dd.runs.experiment import Experiment, Parts
from protlig_dd.tokens.ligand import tokenize_smiles


@dataclass(frozen=True, kw_only=True)
class Truth:
    """The loss of a perfect model.

    Attributes:
        entropy: entropy of the law in nats per token: the mean over all validation sets.
        on_validation: nats per token of the law on the validation examples of the runs: the expected E.
        what: the law in words.
    """

    entropy: float
    on_validation: float
    what: str

    def line(self) -> str:
        """Return the floor as a line of text."""
        return f"true floor: {self.entropy:.4f} nats a token, {self.on_validation:.4f} on these validation examples ({self.what})"


def truth_of(config: Experiment) -> Truth | None:
    """Return the exact floor of `validation/nll`, or None if the law of the data is not known in closed form.

    It is known for a Markov chain on a single protein track, and for the textbook world's ligands, alone or given the protein, if that is the
    only task. It is not known for natural data, nor for the textbook world's proteins.
    """
    tracks, tasks = set(config.tracks), Parts(config).tasks
    used = {name for name, weight in tasks.weights.items() if weight > 0}
    rows = config.evaluation.num_examples
    if isinstance(config.data, MarkovChain) and tracks == {"protein"}:
        chain = config.data
        texts = sequences(replace(chain, num_train=1))["validation"][:rows]
        return Truth(entropy=chain.entropy, on_validation=float(nll(chain, texts).mean()), what=f"a Markov chain of order {chain.order}")
    if not isinstance(config.data, DemoWorld) or len(used) != 1:
        return None
    task = tasks.tasks[next(iter(used))]
    noised = {name for group in task.noised for name in group}
    if noised != {"ligand"}:
        return None
    given = "protein" in task.tracks
    world = config.data
    pairs = generate(replace(world, num_train=1))["validation"][:rows]
    tokens = sum(len(tokenize_smiles(pair.ligand)) for pair in pairs)
    return Truth(
        entropy=ligand_entropy(world, given_protein=given).per_token,
        on_validation=float(ligand_nll(world, pairs, given_protein=given).sum()) / tokens,
        what=f"the textbook world's ligands{' given the protein' if given else ''}, their length known",
    )
