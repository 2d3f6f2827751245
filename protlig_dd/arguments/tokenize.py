"""The options of `protlig tokenize`."""

from __future__ import annotations

from protlig_dd.arguments.common import add_command

_TOKENIZE = """X.fasta gets the amino acids and X_3di.fasta the tokens, under the same names: a config takes them as data.path and
data.structure_path. X.jsonl holds name, sequence and structure. Without --out the tokens are printed.
  protlig tokenize pdbs/ --track 3di --out train.fasta
Residues and names are those of Foldseek's createdb. X.fasta.skipped.tsv lists what was left out, and why."""


def add_tokenize(commands) -> None:  # type: ignore[no-untyped-def]
    """Add `tokenize`."""
    text = "turn structures (PDB and mmCIF, also .gz) into structure tokens, with their sequences"
    sub = add_command(commands, "tokenize", "tokenize.tokenize", text, _TOKENIZE)
    sub.add_argument(
        "source", metavar="FILE_OR_FOLDER", help="a structure file, or a folder of them and its subfolders"
    )
    sub.add_argument("--track", default="3di", help="which tokens: 3di (3di)")
    sub.add_argument("--out", default="", metavar="X.fasta|X.jsonl", help="where to write (default: print the tokens)")
    sub.add_argument("--shard", default="0/1", metavar="i/n", help="only every n-th file, from i")
    sub.add_argument("--workers", type=int, default=0, help="processes that read structures; 0 is one a core (0)")
