"""The options of drawing tokens, shared by `protlig sample` and `protlig optimize`."""

from __future__ import annotations

import argparse


def add_sampler_options(sub: argparse.ArgumentParser) -> None:
    """Add the arguments of `runs.options.DrawOptions`, but --device."""
    sub.add_argument(
        "--sampler",
        metavar="KIND[:STEPS]",
        help="ancestral, euler, first_hitting, confidence, remasking or dplm; with steps: ancestral:100 (default: the run's)",
    )
    sub.add_argument("--strategy", help="dplm: argmax, gumbel_argmax, vanilla[@T] or annealing@2.0:0.1")
    sub.add_argument("--unmasking", help="dplm: deterministic, or stochastic1.0")
    sub.add_argument("--steps", type=int, help="steps of the sampler (default: the run's)")
    sub.add_argument("--temperature", type=float, help="divides the logits (default: the run's)")
    sub.add_argument("--top-p", type=float, help="keep only the most likely letters, up to this total probability")
    sub.add_argument(
        "--learned-length", action="store_true", help="causal models: the model ends a structure, instead of writing one token per residue"
    )
    sub.add_argument("--forbid", action="append", metavar="TRACK:SYMBOL", help="a symbol never to draw, such as ligand:Br")
    sub.add_argument("--guidance", type=float, help="weight of classifier-free guidance; 1 is none (default: the run's)")
    sub.add_argument("--seed", type=int, help="a sample depends on the seed, its input and its copy number only (%(default)s)")
    sub.add_argument("--batch-size", type=int, help="samples per network call; changes no sample (default: the run's)")
