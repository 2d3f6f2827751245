"""The options of `protlig inspect`, `prepare` and `download`."""

from __future__ import annotations

from protlig_dd.cli.common import add_command

_STRUCTURES = "a FASTA file of structure tokens, with the names of the proteins"


def add_data(commands) -> None:  # type: ignore[no-untyped-def]
    """Add `inspect`, `prepare` and `download`."""
    sub = add_command(
        commands, "inspect", "data.inspect", "say what a data file holds and what training would drop, and why"
    )
    sub.add_argument("file", help="CSV, TSV, Parquet, Arrow, JSONL, FASTA, SMILES (also .gz, .zst), or a folder")
    sub.add_argument("--config", default="", help="use the tracks of this config")
    sub.add_argument(
        "--column", action="append", default=[], metavar="ROLE=NAME", help="a column whose name is unusual"
    )
    sub.add_argument("--structures", default="", help=_STRUCTURES)
    sub = add_command(
        commands, "prepare", "data.prepare", "make a ligand vocabulary, memory-mapped shards, or nested subsets"
    )
    sub.add_argument("what", choices=["vocab", "shards", "subsets"])
    sub.add_argument("files", nargs="+", help="data files; a folder of one data set counts as one")
    sub.add_argument("--out", required=True, help="the vocabulary file, or the folder of shards or subsets")
    sub.add_argument("--min-count", type=int, default=1, help="vocab: leave out rarer tokens (1)")
    sub.add_argument("--config", default="", help="shards: use the tracks and data policies of this config")
    sub.add_argument("--structures", default="", help=f"shards: {_STRUCTURES}")
    sizes = [1_000, 10_000, 100_000, 500_000, 1_000_000]
    sub.add_argument(
        "--sizes", type=int, nargs="+", default=sizes, help="subsets: training sequences of each (1000 ... 1000000)"
    )
    sub.add_argument("--validation", type=int, default=1000, help="subsets: sequences that validate all of them (1000)")
    sub.add_argument("--seed", type=int, default=42, help="subsets: which sequences are taken (42)")
    sub.add_argument("--name", default="uniref50", help="subsets: what the folders are called (uniref50)")
    sub = add_command(
        commands,
        "download",
        "data.download",
        "fetch a public data set, or 3Dmol.js for reports, from its publisher, resumable and checked",
    )
    sub.add_argument(
        "name",
        help="uniref50, bindingdb, plinder, davis, kiba, zinc250k or pubchem; 3dmol for 'protlig report --viewer'",
    )
    sub.add_argument("--out", default="data", help="the folder (data)")
    sub.add_argument("--limit", type=int, default=0, help="convert only so many records (0: all)")
    sub.add_argument("--base-url", default="", help="a mirror")
