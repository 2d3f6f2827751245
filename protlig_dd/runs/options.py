"""The options of sampling as plain values, checked when they are made. The command line, Python and a service all make these; no torch here."""

from __future__ import annotations

import builtins  # a field is called property
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from protlig_dd.config import parse_shard
from protlig_dd.errors import ConfigError

TaskName = Literal["", "sequence", "inpainting", "scaffold", "co_generation", "folding", "inverse_folding"]
TASKS: tuple[TaskName, ...] = ("", "sequence", "inpainting", "scaffold", "co_generation", "folding", "inverse_folding")
_INPUTS = ["protein", "structure", "fix", "motif", "total_length", "ligand", "infill", "length", "generate", "unconditional", "condition"]
_TAKES = {
    "": set(_INPUTS) - {"structure", "fix", "motif", "total_length"},
    "sequence": {"length"},
    "inpainting": {"infill", "length", "fix"},
    "scaffold": {"motif", "protein", "total_length"},
    "co_generation": {"length"},
    "folding": {"protein"},
    "inverse_folding": {"structure"},
}
"""The inputs that each task uses."""


@dataclass(frozen=True, kw_only=True)
class DrawOptions:
    """How tokens are drawn; what is left out is taken from the run's config.

    Args:
        sampler: "ancestral", "euler", "first_hitting", "confidence", "remasking" or "dplm"; with steps as "ancestral:100".
        strategy: of DPLM's sampler: "argmax", "gumbel_argmax", "vanilla@1.0" or "annealing@2.0:0.1".
        unmasking: of DPLM's sampler: "deterministic" or "stochastic1.0".
        steps: steps of the sampler; 0 for the config's.
        temperature: divides the logits.
        top_p: probability mass of the letters that are kept.
        learned_length: a causal model decides the length, instead of writing one token per residue.
        forbid: symbols that are never drawn, as "TRACK:SYMBOL".
        guidance: weight of classifier-free guidance; 1 for none.
        seed: root seed; sample i depends on the seed and i only.
        batch_size: samples per network call, which changes no sample; 0 for the config's.
        device: "auto", "cpu", "cuda", "mps" or "xpu".
    """

    sampler: str = ""
    strategy: str = ""
    unmasking: str = ""
    steps: int = 0
    temperature: float | None = None
    top_p: float | None = None
    learned_length: bool = False
    forbid: tuple[str, ...] = ()
    guidance: float | None = None
    seed: int = 0
    batch_size: int = 0
    device: str = "auto"

    def __post_init__(self) -> None:
        if self.batch_size < 0:
            raise ConfigError(f"--batch-size: found {self.batch_size}, expected 1 or more; or leave it out")


@dataclass(frozen=True, kw_only=True)
class SampleOptions(DrawOptions):
    """What to sample, from which model, and where to write it: the options of `protlig sample`.

    Args:
        run, model: a run folder, or any model that `runs.open.open_run` takes; exactly one of the two.
        task: one of DPLM's tasks; "" samples from `protein`, `ligand`, `infill` or nothing (`unconditional`).
        protein: a sequence, a FASTA file, or a structure file ("x.pdb:A" for a chain).
        structure: structure tokens, or a FASTA file of them (inverse_folding).
        tokenizer: the autoencoder that decodes structure tokens, for `out` "x.pdb": a run folder or a published file.
        fix: given residues as "1-4=ALVE" (inpainting).
        motif: linkers and residues of `protein` as "10-40,A15-34,10-40" (scaffold).
        total_length: permitted lengths of the scaffold, as "60-90"; None for any.
        emits: letters that a published checkpoint may generate; "" for the twenty amino acids.
        ligand: a SMILES, or a file of SMILES.
        infill: a protein or SMILES with gaps `_`.
        unconditional: generate without any input.
        generate: tracks to generate, separated by commas; "" for those that are not given.
        num: samples per input; None for 10, or 1 with a decoding that always gives the same.
        length: tokens of each generated track; several give `num` samples of each.
        condition: class labels as "NAME=CLASS".
        out: the file to write; "" prints the samples.
        property, property_weight, property_method, particles, property_is_probability: see `sampling.tilting.Tilting`.
        shard: "i/n" draws every n-th sample, from the i-th.
        no_likelihood: do not compute the likelihood bounds.

    Raises:
        ConfigError: for options that contradict each other, or that the task does not use.

    >>> SampleOptions(run="runs/demo_smoke", protein="MKTAYIAK", num=2).shard
    '0/1'
    """

    run: str = ""
    model: str = ""
    task: TaskName = ""
    protein: str = ""
    structure: str = ""
    tokenizer: str = ""
    fix: tuple[str, ...] = ()
    motif: str = ""
    total_length: str | None = None
    emits: Literal["", "amino_acids", "dplm", "dplm2"] = ""
    ligand: str = ""
    infill: str = ""
    unconditional: bool = False
    generate: str = ""
    num: int | None = None
    length: tuple[int, ...] = ()
    condition: tuple[str, ...] = ()
    out: str = ""
    property: str = ""
    property_weight: float | None = None
    property_method: Literal["classifier", "smc", "best_of"] | None = None
    particles: int | None = None
    property_is_probability: bool = False
    shard: str = "0/1"
    no_likelihood: bool = False

    def __post_init__(self) -> None:
        if not (self.task or self.protein or self.ligand or self.infill or self.unconditional):
            raise ConfigError("nothing to condition on: give --protein, --ligand, --infill or --task, or say --unconditional")
        if bool(self.run) == bool(self.model):
            raise ConfigError(f"found RUN '{self.run}' and --model '{self.model}': give one of them, a run folder or a model")
        if self.num is not None and self.num < 1:
            raise ConfigError(f"--num: found {self.num}, expected 1 or more")
        super().__post_init__()
        self._check_inputs()
        if self.tokenizer and not self.wants_coordinates:
            raise ConfigError(
                f"--tokenizer {self.tokenizer}: makes coordinates of structure tokens, found --out '{self.out}'; give --out x.pdb, "
                "or leave it out"
            )
        parse_shard(self.shard)

    def _check_inputs(self) -> None:
        """Refuse inputs that the task does not use: an option that is ignored looks as if it had been obeyed."""
        useful = _TAKES[self.task]
        useless = [name for name in _INPUTS if getattr(self, name) and name not in useful]
        if useless:
            found = f"--task {self.task}" if self.task else "no --task"
            takes = ", ".join(_option(name) for name in _INPUTS if name in useful)
            raise ConfigError(f"{_option(useless[0])}: is of no use with {found}, which takes {takes}; leave it out")

    @builtins.property
    def source(self) -> str:
        """The run folder or model."""
        return self.run or self.model

    @builtins.property
    def wants_coordinates(self) -> bool:
        """Whether structure tokens are decoded and written as a PDB file."""
        return Path(self.out).suffix == ".pdb"

    @builtins.property
    def table(self) -> Path | None:
        """The file of the samples: `out`, or the table of tokens next to the PDB files; None if they are printed."""
        if not self.out:
            return None
        return Path(self.out).with_suffix(".csv") if self.wants_coordinates else Path(self.out)


def _option(name: str) -> str:
    return f"--{name.replace('_', '-')}"
