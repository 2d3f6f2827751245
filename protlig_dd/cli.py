"""The command line: parses, calls `commands`, prints. Importing it, and `--help`, load neither torch nor any model."""

from __future__ import annotations

import argparse
import importlib
import logging
import sys
from collections.abc import Sequence

from protlig_dd import __version__
from protlig_dd.errors import ProtligError
from protlig_dd.spellings import native_flags

EXAMPLES = """examples:
  protlig train                                   train, sample and evaluate the embedded demo (a synthetic world)
  protlig train sedd/protein_66m data.path=my.fasta
  protlig sample runs/dual_track_demo --protein MKTAYIAKQRHEAVHWF --num 10 --out ligands.csv
  protlig evaluate runs/dual_track_demo && protlig report runs/dual_track_demo
  protlig inspect pairs.csv                       what would be understood, and dropped, before any training
"""


def build_parser() -> argparse.ArgumentParser:
    """Return the parser of all subcommands."""
    parser = argparse.ArgumentParser(
        prog="protlig",
        description="Discrete diffusion on proteins, ligands and structure tokens.",
        epilog=EXAMPLES,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("--version", action="version", version=f"protlig_dd {__version__}")
    commands = parser.add_subparsers(dest="command", metavar="COMMAND", required=True)
    _add_training(commands)
    _add_sampling(commands)
    _add_optimize(commands)
    _add_judging(commands)
    _add_scoring(commands)
    _add_data(commands)
    _command(
        commands,
        "doctor",
        "doctor.doctor",
        "show devices, precision and attention, and what would mend what is missing",
    )
    return parser


def _command(commands, name: str, function: str, text: str, epilog: str = "") -> argparse.ArgumentParser:  # type: ignore[no-untyped-def]
    sub = commands.add_parser(
        name, help=text, description=text, epilog=epilog, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    sub.set_defaults(function=function)
    return sub  # type: ignore[no-any-return]


def _device(sub: argparse.ArgumentParser) -> None:
    sub.add_argument("--device", default="auto", help="auto (default), cpu, cuda, mps or xpu")


def _add_training(commands) -> None:  # type: ignore[no-untyped-def]
    epilog = (
        "Any setting can be changed with key.sub=value, for instance train.steps=100 model.hidden_size=128.\n"
        "Starting the same command again goes on where it stopped; Ctrl-C and SIGTERM save first."
    )
    for name, text in (
        ("train", "train an experiment; with no CONFIG the embedded demo"),
        ("check", "validate a config; estimate parameters, FLOPs and memory"),
    ):
        sub = _command(commands, name, f"training.{name}", text, epilog)
        sub.add_argument(
            "config", nargs="?", default="dual_track/demo", help="a packaged config (see below) or a YAML file"
        )
        sub.add_argument("overrides", nargs="*", metavar="key.sub=value", help="settings to change")
        _device(sub)
        if name == "train":
            sub.add_argument("--out", default="", help="the run folder (default runs/NAME)")
            sub.add_argument(
                "--resume", default="", choices=["", "auto", "never", "last-good"], help="what to do with a run folder"
            )


def _add_sampling(commands) -> None:  # type: ignore[no-untyped-def]
    sub = _command(
        commands,
        "sample",
        "sampling.sample",
        "generate from a trained run",
        "A `_` in a text is a token to generate: --infill 'MKT___LV', --ligand 'c1cc____cc1'.\n"
        "--model takes a run, a folder in Hugging Face's layout, a Lightning .ckpt or a Hub id such as airkingbd/dplm_150m:\n"
        "  protlig sample --model airkingbd/dplm_150m --task sequence --length 100 200 --num 10 --out designs.fasta\n"
        "  protlig sample --model runs/dplm_tiny --task inpainting --length 60 --fix 1-4=ALVE 20-22=EME\n"
        "  protlig sample --model runs/dplm_tiny --task scaffold --motif '10-40,A15-34,10-40' --protein motif.pdb\n"
        "  protlig sample --model runs/dplm2_tiny --task folding --protein sequences.fasta --out codes.fasta\n"
        "--out decides the form: .csv .fasta .smi .sdf .jsonl; every setting is kept beside it as OUT.json.",
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
    sub.add_argument("--num", type=int, default=10, help="samples for each condition (10)")
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
    _add_sampler_options(sub)
    sub.add_argument("--property", default="", help="draw towards it: charge, hydropathy, qed, ..., or module:function")
    sub.add_argument("--property-weight", type=float, default=1.0, help="samples of p(x) exp(weight * property(x)) (1)")
    sub.add_argument(
        "--property-method",
        default="smc",
        choices=["classifier", "smc", "best_of"],
        help="how (smc: exact in the limit)",
    )
    sub.add_argument(
        "--particles", type=int, default=16, help="of smc, or the n of best_of; so many times the cost (16)"
    )
    sub.add_argument("--property-is-probability", action="store_true", help="module:function gives a class probability")
    sub.add_argument("--shard", default="0/1", metavar="i/n", help="only every n-th sample, from i: one shard a device")
    sub.add_argument(
        "--no-likelihood", action="store_true", help="leave out each sample's likelihood bound, and the ranking by it"
    )
    _device(sub)


def _add_sampler_options(sub: argparse.ArgumentParser) -> None:
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
        "--forbid",
        action="append",
        default=[],
        metavar="TRACK:SYMBOL",
        help="a symbol never to draw, such as ligand:Br",
    )
    sub.add_argument("--guidance", type=float, help="classifier-free guidance weight (1: none)")
    sub.add_argument("--seed", type=int, default=0, help="sample i depends on the seed and i only (0)")
    sub.add_argument("--batch-size", type=int, default=0, help="samples a network call; changes no sample")


def _add_optimize(commands) -> None:  # type: ignore[no-untyped-def]
    sub = _command(
        commands,
        "optimize",
        "optimizing.optimize_lead",
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
    _add_sampler_options(sub)
    _device(sub)


def _add_judging(commands) -> None:  # type: ignore[no-untyped-def]
    sub = _command(
        commands,
        "evaluate",
        "judging.evaluate",
        "bounds, sample quality and condition dependence, each beside its null",
    )
    sub.add_argument("run", help="the run folder")
    sub.add_argument(
        "--split", default="test", choices=["train", "validation", "test"], help="the part of the data (test)"
    )
    sub.add_argument("--num", type=int, default=0, help="samples and examples, at most (default: the config's)")
    sub.add_argument("--which", default="last", choices=["last", "best"], help="the checkpoint")
    _device(sub)
    sub = _command(commands, "report", "judging.report", "write one self-contained HTML page about a run")
    sub.add_argument("run", help="the run folder")
    sub.add_argument("--out", default="", help="the page (default RUN/report.html)")
    sub = _command(commands, "runs", "judging.runs", "list runs, or compare some")
    sub.add_argument("folders", nargs="*", help="run folders (default: those under runs/)")


def _add_scoring(commands) -> None:  # type: ignore[no-untyped-def]
    model = "a run folder, a folder in Hugging Face's layout, a Lightning .ckpt, or a Hub id"
    sub = _command(
        commands,
        "score",
        "scoring.score",
        "likelihood of sequences, or zero-shot effects of mutants",
        "Sequences: bound (with its interval), pll (pseudo-log-likelihood, no likelihood), chain (exact along random orders; short ones).\n"
        "Mutants (a CSV in ProteinGym's format): masked-marginal, wt-marginal, bound; with Spearman and its null where scores are given.\n"
        "  protlig score --model airkingbd/dplm_150m --protein proteins.fasta --out scores.csv\n"
        "  protlig score --model airkingbd/dplm_150m --protein wild_type.fasta --mutants assay.csv --method masked-marginal",
    )
    sub.add_argument("--model", required=True, help=model)
    sub.add_argument("--protein", default="", help="a sequence or a FASTA file; with --mutants the wild type")
    sub.add_argument("--mutants", default="", help="a table with the columns mutant and DMS_score")
    sub.add_argument("--method", default="", help="see below (default: bound; for mutants masked-marginal)")
    sub.add_argument(
        "--draws", type=int, default=4, help="draws in each stratum of the bound, or orders of the chain (4)"
    )
    sub.add_argument("--seed", type=int, default=0, help="of the hidden sets and orders (0)")
    sub.add_argument("--out", default="", help="the .csv or .jsonl to write (default: print)")
    _device(sub)
    sub = _command(commands, "embed", "scoring.embed", "representations of proteins from an encoder")
    sub.add_argument("--model", required=True, help=model)
    sub.add_argument("--protein", required=True, help="a FASTA file, or a sequence")
    sub.add_argument("--out", required=True, help="NAME.safetensors or NAME.parquet")
    sub.add_argument("--pool", default="mean", help="residues, mean (default) or begin")
    sub.add_argument("--tokens", type=int, default=16_384, help="tokens of one network call (16384)")
    sub.add_argument("--shard", default="0/1", metavar="i/n", help="only every n-th protein, from i")
    _device(sub)
    sub = _command(commands, "export", "scoring.export", "write an encoder as a folder that stock transformers loads")
    sub.add_argument("model", help=model)
    sub.add_argument("--out", required=True, help="the folder")
    sub.add_argument("--licence", default="", help="of the weights, for the passport")
    sub.add_argument(
        "--push", default="", metavar="USER/NAME", help="also upload it to the Hub, as a private repository"
    )


def _add_data(commands) -> None:  # type: ignore[no-untyped-def]
    sub = _command(
        commands, "inspect", "data.inspect", "say what a data file holds and what training would drop, and why"
    )
    sub.add_argument("file", help="CSV, TSV, Parquet, JSONL, FASTA, SMILES (also .gz, .zst)")
    sub.add_argument("--config", default="", help="use the tracks of this config")
    sub.add_argument(
        "--column", action="append", default=[], metavar="ROLE=NAME", help="a column whose name is unusual"
    )
    sub = _command(commands, "prepare", "data.prepare", "make a ligand vocabulary, or memory-mapped shards")
    sub.add_argument("what", choices=["vocab", "shards"])
    sub.add_argument("files", nargs="+", help="data files")
    sub.add_argument("--out", required=True, help="the vocabulary file, or the folder of shards")
    sub.add_argument("--min-count", type=int, default=1, help="vocab: leave out rarer tokens (1)")
    sub.add_argument("--config", default="", help="shards: use the tracks and data policies of this config")
    sub = _command(
        commands, "download", "data.download", "fetch a public data set from its publisher, resumable and checked"
    )
    sub.add_argument("name", help="uniref50, bindingdb, plinder, davis, kiba, zinc250k or pubchem")
    sub.add_argument("--out", default="data", help="the folder (data)")
    sub.add_argument("--limit", type=int, default=0, help="convert only so many records (0: all)")
    sub.add_argument("--base-url", default="", help="a mirror")


def main(arguments: Sequence[str] | None = None) -> int:
    """Run a command; return 0, 1 for a failure that the user can mend (one line on stderr), or the command's own code."""
    logging.basicConfig(level=logging.INFO, format="%(message)s", stream=sys.stderr)
    parser = build_parser()
    parsed, rest = parser.parse_known_args(native_flags(sys.argv[1:] if arguments is None else arguments))
    if rest:
        # overrides may follow options: argparse leaves them over
        if hasattr(parsed, "overrides") and all("=" in r and not r.startswith("-") for r in rest):
            parsed.overrides += rest
        else:
            parser.error(f"unrecognized arguments: {' '.join(rest)}")
    module, _, name = parsed.function.partition(".")
    try:
        command = getattr(importlib.import_module(f"protlig_dd.commands.{module}"), name)
        for line in command(parsed):
            if isinstance(line, int):
                return line
            print(line, flush=True)
    except ProtligError as error:
        print(f"protlig {parsed.command}: {error}", file=sys.stderr)
        return 1
    except KeyboardInterrupt:
        print(f"protlig {parsed.command}: interrupted", file=sys.stderr)
        return 130
    except BrokenPipeError:
        return 0
    except OSError as error:
        print(f"protlig {parsed.command}: {error.filename or ''} {error.strerror or error}", file=sys.stderr)
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main())
