"""The options of `protlig tokenize`."""

from __future__ import annotations

from protlig_dd.cli.common import add_command, add_device

_TOKENIZE = """X.fasta gets the amino acids and X_3di.fasta the tokens, under the same names: a config takes them as data.path and
data.structure_path. X.jsonl holds name, sequence and structure. Without --out the tokens are printed.
  protlig tokenize pdbs/ --track 3di --out train.fasta
  protlig tokenize pdbs/ --track kanzi --tokenizer runs/kanzi_tiny --out train.fasta
Residues and names are those of Foldseek's createdb. X.fasta.skipped.tsv lists what was left out, and why.

Of a Foldseek database a folder of memory-mapped shards is written, once, for training (data.kind=shards). Jobs may share the work:
  protlig tokenize afdb50/afdb50 --track 3di --out cache
  protlig tokenize afdb50/afdb50 --track kanzi --tokenizer runs/kanzi_base --out cache --shard 2/8"""


def add_tokenize(commands) -> None:  # type: ignore[no-untyped-def]
    """Add `tokenize`."""
    text = "turn structures (PDB and mmCIF, also .gz) into structure tokens, with their sequences"
    sub = add_command(commands, "tokenize", "tokenize.tokenize", text, _TOKENIZE)
    sub.add_argument(
        "source", metavar="SOURCE", help="a structure file, a folder of them and its subfolders, or a Foldseek database"
    )
    sub.add_argument("--track", default="3di", help="which tokens: 3di or kanzi (3di)")
    sub.add_argument(
        "--out",
        default="",
        metavar="X.fasta|X.jsonl",
        help="where to write (default: print the tokens); a folder for a database",
    )
    sub.add_argument(
        "--shard",
        default="0/1",
        metavar="i/n",
        help="only every n-th file or entry, from the i-th; i counts from 0: 0/2 and 1/2 are all",
    )
    sub.add_argument(
        "--tokenizer", default="", metavar="RUN_OR_FILE", help="of Kanzi: a run, or a published file (.pt)"
    )
    sub.add_argument(
        "--max-length", type=int, default=None, help="of a database: leave longer proteins out, and count them (1024)"
    )
    add_device(sub)
    sub.add_argument("--workers", type=int, default=0, help="processes that read structures; 0 is one a core (0)")
