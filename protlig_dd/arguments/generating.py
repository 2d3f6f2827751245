"""The options of `protlig sample` and `protlig optimize`."""

from __future__ import annotations

import argparse

from protlig_dd.cli.common import add_command, add_device


def add_sampling(commands) -> None:  # type: ignore[no-untyped-def]
    """Add `sample`."""
    sub = add_command(
        commands,
        "sample",
        "sample.sample",
        "generate from a trained run",
        "A `_` in a text is a token to generate: --infill 'MKT___LV', --ligand 'c1cc____cc1'.\n"
        "--model takes a run, a folder in Hugging Face's layout, a Lightning .ckpt or a Hub id such as airkingbd/dplm_150m:\n"
        "  protlig sample --model airkingbd/dplm_150m --task sequence --length 100 200 --num 10 --out designs.fasta\n"
        "  protlig sample --model runs/dplm_tiny --task inpainting --length 60 --fix 1-4=ALVE 20-22=EME\n"
        "  protlig sample --model runs/dplm_tiny --task scaffold --motif '10-40,A15-34,10-40' --protein motif.pdb\n"
        "  protlig sample --model runs/dplm2_tiny --task folding --protein sequences.fasta --out codes.fasta\n"
        "  protlig sample runs/kanzi_folding --task folding --protein x.fasta --tokenizer runs/kanzi_tiny --out x.pdb\n"
        "--out decides the form: .csv .fasta .smi .sdf .jsonl .pdb; every setting is kept beside it as OUT.json.",
    )
    sub.add_argument("run", nargs="?", default="", help="the run folder")
    sub.add_argument("--model", default="", help="in its place: a run folder, or a published checkpoint")
    sub.add_argument(
        "--task",
        default="",
        choices=["", "sequence", "inpainting", "scaffold", "co_generation", "folding", "inverse_folding"],
        help="what to generate, in the words of DPLM",
    )
    sub.add_argument(
        "--protein", default="", help="a sequence, a FASTA file, or a PDB/mmCIF file (file.pdb:A for one chain)"
    )
    sub.add_argument("--structure", default="", help="structure tokens, or a FASTA of them (inverse_folding)")
    sub.add_argument(
        "--tokenizer",
        default="",
        metavar="RUN_OR_FILE",
        help="of Kanzi's codes, for --out x.pdb: a run, or a published file (.pt)",
    )
    sub.add_argument("--fix", nargs="+", default=[], metavar="1-4=ALVE", help="residues that are given (inpainting)")
    sub.add_argument("--motif", default="", help="10-40,A15-34,10-40: linkers, and residues of --protein (scaffold)")
    sub.add_argument("--total-length", default=None, metavar="60-90", help="permitted lengths of the whole (scaffold)")
    sub.add_argument("--emits", default="", choices=["", "amino_acids", "dplm", "dplm2"], help="letters that may come")
    sub.add_argument("--ligand", default="", help="a SMILES, or a file of them")
    sub.add_argument("--infill", default="", help="a protein or SMILES with gaps `_`")
    sub.add_argument(
        "--unconditional", action="store_true", help="generate all tracks, or those of --generate, from nothing"
    )
    sub.add_argument("--generate", default="", help="the tracks to generate, with commas (default: those not given)")
    sub.add_argument(
        "--num",
        type=int,
        default=None,
        help="samples for each condition (10; 1 where a causal model's likeliest tokens are taken)",
    )
    sub.add_argument(
        "--length",
        type=int,
        nargs="+",
        default=[],
        help="tokens of each generated track; several for --num samples of each (default: drawn from the training lengths)",
    )
    sub.add_argument(
        "--condition", action="append", default=[], metavar="NAME=CLASS", help="a class label, such as affinity_bin=2"
    )
    sub.add_argument("--out", default="", help="the file to write (default: print)")
    add_sampler_options(sub)
    _add_property_options(sub)
    sub.add_argument("--shard", default="0/1", metavar="i/n", help="only every n-th sample, from i: one shard a device")
    sub.add_argument(
        "--no-likelihood", action="store_true", help="leave out each sample's likelihood bound, and the ranking by it"
    )
    add_device(sub)


def _add_property_options(sub: argparse.ArgumentParser) -> None:
    sub.add_argument("--property", default="", help="draw towards it: charge, hydropathy, qed, ..., or module:function")
    sub.add_argument("--property-weight", type=float, help="samples of p(x) exp(weight * property(x)) (1)")
    sub.add_argument(
        "--property-method",
        choices=["classifier", "smc", "best_of"],
        help="how (smc: the law itself, in the limit)",
    )
    sub.add_argument("--particles", type=int, help="of smc, or the n of best_of; so many times the cost (16)")
    sub.add_argument("--property-is-probability", action="store_true", help="module:function gives a class probability")


def add_sampler_options(sub: argparse.ArgumentParser) -> None:
    """Add what decides how samples are drawn."""
    sub.add_argument(
        "--sampler",
        default="",
        help="ancestral, euler, first_hitting, confidence, remasking, dplm; with steps: ancestral:100",
    )
    sub.add_argument("--strategy", default="", help="dplm: argmax, gumbel_argmax, vanilla[@T] or annealing@2.0:0.1")
    sub.add_argument("--unmasking", default="", help="dplm: deterministic, or stochastic1.0")
    sub.add_argument("--steps", type=int, default=0, help="steps of the sampler")
    sub.add_argument("--temperature", type=float, help="of the letters' probabilities")
    sub.add_argument("--top-p", type=float, help="keep the likeliest letters of this total probability")
    sub.add_argument(
        "--learned-length",
        action="store_true",
        help="a causal model ends a structure itself, not at the protein's length",
    )
    sub.add_argument(
        "--forbid",
        action="append",
        default=[],
        metavar="TRACK:SYMBOL",
        help="a symbol never to draw, such as ligand:Br",
    )
    sub.add_argument("--guidance", type=float, help="classifier-free guidance weight (1: none)")
    sub.add_argument("--seed", type=int, default=0, help="sample i depends on the seed and i only (0)")
    sub.add_argument("--batch-size", type=int, default=0, help="samples a network call; changes no sample")


def add_optimize(commands) -> None:  # type: ignore[no-untyped-def]
    """Add `optimize`."""
    sub = add_command(
        commands,
        "optimize",
        "optimize.optimize_lead",
        "improve a lead by partial re-noising and selection",
        "A callable objective is written module:function, and takes a list of SMILES.",
    )
    sub.add_argument("run", help="the run folder")
    sub.add_argument("--ligand", required=True, help="the SMILES of the lead")
    sub.add_argument("--protein", default="", help="the protein it is for, as in `protlig sample`")
    sub.add_argument(
        "--objective", default="qed", help="qed, logp, sa, a property's name, or module:function (higher is better)"
    )
    sub.add_argument("--keep", default="", metavar="SMARTS", help="a substructure that every result must have")
    sub.add_argument("--rounds", type=int, default=10, help="rounds of re-noising and selection (10)")
    sub.add_argument("--population", type=int, default=16, help="molecules kept in each round (16)")
    sub.add_argument("--out", default="", help="the CSV to write (default: print)")
    add_sampler_options(sub)
    add_device(sub)
