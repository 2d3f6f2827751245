"""The options of `protlig evaluate`, `report`, `runs`, `score`, `embed` and `export`."""

from __future__ import annotations

from protlig_dd.cli.common import add_command, add_device


def add_judging(commands) -> None:  # type: ignore[no-untyped-def]
    """Add `evaluate`, `report` and `runs`."""
    sub = add_command(
        commands,
        "evaluate",
        "evaluate.evaluate",
        "bounds, sample quality and condition dependence, each beside its null",
        "What is printed is kept in RUN/evaluation.json, and drawn by: protlig report RUN. A run without a test part has --split validation.\n"
        "  protlig evaluate runs/dual_track_demo --num 100\n"
        "  protlig evaluate runs/3di_tiny --split validation --prostt5 Rostlab/ProstT5\n"
        "  protlig evaluate runs/kanzi_folding --split validation --coordinates db --tokenizer runs/kanzi_tiny",
    )
    sub.add_argument("run", help="the run folder")
    sub.add_argument(
        "--split", default="test", choices=["train", "validation", "test"], help="the part of the data (test)"
    )
    sub.add_argument("--num", type=int, default=0, help="samples and examples, at most (default: the config's)")
    sub.add_argument("--which", default="last", choices=["last", "best"], help="the checkpoint")
    sub.add_argument(
        "--fold", default="", help="fold generated proteins with this ESMFold: a folder, or facebook/esmfold_v1"
    )
    sub.add_argument(
        "--coordinates",
        default="",
        metavar="DB",
        help="compare decoded structures with the C-alphas of this Foldseek database (default: evaluation.coordinates of the run)",
    )
    sub.add_argument(
        "--tokenizer",
        default="",
        metavar="RUN_OR_FILE",
        help="for --coordinates: the autoencoder of Kanzi's tokens (default: evaluation.tokenizer of the run)",
    )
    sub.add_argument(
        "--prostt5",
        default="",
        metavar="SOURCE",
        help="beside a 3Di run, what ProstT5 reaches: a folder, or Rostlab/ProstT5",
    )
    add_device(sub)
    sub = add_command(
        commands,
        "report",
        "evaluate.report",
        "write one self-contained HTML page about a run",
        "Scores are those of the last protlig evaluate RUN.\n  protlig report runs/3di_tiny --out page.html\n"
        "  protlig report runs/kanzi_folding --viewer viewer/3Dmol-min.js",
    )
    sub.add_argument("run", help="the run folder")
    sub.add_argument("--out", default="", help="the page (default RUN/report.html)")
    sub.add_argument(
        "--viewer",
        default="",
        metavar="3Dmol-min.js",
        help="a local 3Dmol.js ('protlig download 3dmol'), written into the page: structures are turned by hand",
    )
    sub = add_command(
        commands, "runs", "evaluate.runs", "list runs, or compare some", "  protlig runs\n  protlig runs runs/a runs/b"
    )
    sub.add_argument("folders", nargs="*", help="run folders (default: those under runs/)")


def add_scoring(commands) -> None:  # type: ignore[no-untyped-def]
    """Add `score`, `embed` and `export`."""
    model = "a run folder, a folder in Hugging Face's layout, a Lightning .ckpt, or a Hub id"
    sub = add_command(
        commands,
        "score",
        "score.score",
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
    add_device(sub)
    sub = add_command(commands, "embed", "score.embed", "representations of proteins from an encoder")
    sub.add_argument("--model", required=True, help=model)
    sub.add_argument("--protein", required=True, help="a FASTA file, or a sequence")
    sub.add_argument("--out", required=True, help="NAME.safetensors or NAME.parquet")
    sub.add_argument("--pool", default="mean", help="residues, mean (default) or begin")
    sub.add_argument("--tokens", type=int, default=16_384, help="tokens of one network call (16384)")
    sub.add_argument("--shard", default="0/1", metavar="i/n", help="only every n-th protein, from i")
    sub.add_argument(
        "--too-long",
        default="refuse",
        choices=["refuse", "skip"],
        help="what is done about proteins that the model cannot hold; skip names them (refuse)",
    )
    add_device(sub)
    sub = add_command(
        commands,
        "export",
        "score.export",
        "write an encoder or a causal model as a folder that stock transformers loads",
        "  protlig export runs/3di_tiny --out exported\n  protlig export runs/dplm_tiny --out exported --licence MIT --push USER/NAME",
    )
    sub.add_argument("model", help=model)
    sub.add_argument("--out", required=True, help="the folder")
    sub.add_argument("--licence", default="", help="of the weights, for the passport")
    sub.add_argument(
        "--push", default="", metavar="USER/NAME", help="also upload it to the Hub, as a private repository"
    )
