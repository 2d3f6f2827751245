"""Atom-level tokenization of SMILES, with an exact round trip and an open vocabulary.

A bracket atom is one token, including its chirality marks; so are `Br`, `Cl`, two-digit ring closures `%12` and `%(123)`, and the dative
bonds `->` and `<-` that RDKit writes for metals.
The vocabulary is built from data; the built-in one covers drug-like organic molecules without stereo, isotopes and metals.
"""

from __future__ import annotations

import json
import re
from collections import Counter
from collections.abc import Iterable, Sequence
from pathlib import Path

from protlig_dd.errors import ConfigError, FormatError, nearest
from protlig_dd.files import write_json
from protlig_dd.tokens.vocabulary import Vocabulary

_TOKEN = re.compile(r"\[[^\[\]]+\]|->|<-|%\(\d+\)|%\d\d|Br|Cl|[BCNOPSFIbcnops]|[0-9]|[-=#$:/\\~*.()]")
_ATOM = re.compile(r"\[|[BCNOPSFIbcnops*]")
_SPECIALS = ("<bos>", "<eos>", "<pad>", "<mask>", "<unk>")
_BUILT_IN = (
    *"CNOSPFIBcnops",
    "Cl",
    "Br",
    *"123456789",
    *"()=#-/\\.",
    *("[nH]", "[N+]", "[O-]", "[NH+]", "[NH2+]", "[NH3+]", "[n+]", "[N-]", "[S-]", "[C@@H]", "[C@H]", "[C@]", "[C@@]"),
    *("[nH+]", "[n-]", "[S@]", "[S@@]", "[S+]", "[o+]", "[s+]", "[C-]"),
    *("[CH-]", "[H]", "[P@]", "[P@@]", "[Si]", "[B-]", "[se]", "[Se]"),
)


def tokenize_smiles(smiles: str, *, where: str = "SMILES") -> list[str]:
    """Return the tokens of a SMILES string; joined, they give the string again.

    Raises:
        FormatError: for a character that belongs to no token, with its position; or for an empty string.

    >>> tokenize_smiles("C[C@H](Cl)c1ccccc1")
    ['C', '[C@H]', '(', 'Cl', ')', 'c', '1', 'c', 'c', 'c', 'c', 'c', '1']
    """
    tokens = _TOKEN.findall(smiles)
    if not smiles or sum(map(len, tokens)) != len(smiles):
        place = _first_gap(smiles)
        found = f"'{smiles[place]}' at character {place + 1} of '{smiles}'" if smiles else "an empty string"
        raise FormatError(f"{where}: {found} is not SMILES; expected atoms, bonds, rings and branches; correct or remove the record")
    return tokens


def check_atom(smiles: str, *, where: str) -> None:
    """Raise an error for a text that does not begin with an atom, as every SMILES does (OpenSMILES, section 3.1)."""
    if smiles and not _ATOM.match(smiles):
        raise FormatError(f"{where}: '{smiles}' is not SMILES, which begins with an atom; correct or remove the record")


def _first_gap(smiles: str) -> int:
    end = 0
    for match in _TOKEN.finditer(smiles):
        if match.start() != end:
            break
        end = match.end()
    return min(end, len(smiles) - 1)


def ligand_vocabulary(tokens: Iterable[str] = _BUILT_IN, *, name: str = "built-in ligand", num_rows: int = 0) -> Vocabulary:
    """Return a vocabulary of five special tokens followed by SMILES tokens, all of them emittable.

    Args:
        tokens: SMILES tokens in the order of their ids; repeats are ignored. By default the built-in ones.
        name: the vocabulary's name in messages.
        num_rows: rows of the embedding table; 0 for as many as there are tokens.
    """
    tokens = tuple(dict.fromkeys(tokens))
    emittable = tuple(range(len(_SPECIALS), len(_SPECIALS) + len(tokens)))
    ids = {name: i for i, name in enumerate(_SPECIALS)}
    return Vocabulary(
        name=name,
        symbols=(*_SPECIALS, *tokens),
        mask_id=ids["<mask>"],
        emittable_ids=emittable,
        unknown_id=ids["<unk>"],
        begin_id=ids["<bos>"],
        end_id=ids["<eos>"],
        pad_id=ids["<pad>"],
        num_rows=num_rows,
    )


def save_vocabulary(path: Path, counts: Counter[str], *, min_count: int = 1, merges: Sequence[tuple[str, str]] = ()) -> Vocabulary:
    """Write the tokens that occur at least `min_count` times, most frequent first, and the merges as JSON; return their vocabulary."""
    kept = [t for t, n in sorted(counts.items(), key=lambda item: (-item[1], item[0])) if n >= min_count]
    tokens = [*kept, *(a + b for a, b in merges)]
    write_json(path, {"kind": "ligand vocabulary", "tokens": tokens, **({"merges": [list(pair) for pair in merges]} if merges else {})})
    return ligand_vocabulary(tokens, name=path.stem)


def load_vocabulary(path: Path, *, num_rows: int = 0) -> Vocabulary:
    """Read a vocabulary that `save_vocabulary` wrote, or the `tokenizer.json`/`vocab.json` of a Hugging Face atom-level tokenizer.

    Raises:
        FormatError: if the file is not one of these.
    """
    try:
        content = json.loads(path.read_text())
    except (OSError, ValueError, RecursionError) as error:
        raise FormatError(
            f"{path}: not readable as a vocabulary ({error}); make one with: protlig prepare vocab DATA --out {path}"
        ) from error
    try:
        if isinstance(content, dict) and isinstance(content.get("tokens"), list):
            return ligand_vocabulary(map(str, content["tokens"]), name=path.stem, num_rows=num_rows)
        ids = _hugging_face_ids(content)
        if ids:
            return _from_hugging_face(ids, path, num_rows)
    except ConfigError as error:
        raise FormatError(f"{path}: {error}") from error
    raise FormatError(f"{path}: expected 'tokens', or a Hugging Face map of tokens to ids; make one with: protlig prepare vocab")


def load_merges(path: Path) -> tuple[tuple[str, str], ...]:
    """Return the merges of neighbouring symbols that a vocabulary file holds, in order; none in a file without them.

    Raises:
        FormatError: if they are no pairs of symbols.
    """
    content = json.loads(path.read_text())  # `load_vocabulary` has read the file
    found = content.get("merges", []) if isinstance(content, dict) and isinstance(content.get("tokens"), list) else []
    known = set(content["tokens"]) if found else set()
    for pair in found:
        if not (isinstance(pair, list) and len(pair) == 2 and all(isinstance(s, str) for s in pair) and {*pair, "".join(pair)} <= known):
            raise FormatError(
                f"{path}: found the merge {pair!r}, expected two tokens that make a third; make the file with: protlig prepare vocab"
            )
    return tuple((a, b) for a, b in found)


def _hugging_face_ids(content: object) -> dict[str, int]:
    """The ids of a vocab.json, or of a tokenizer.json including its added tokens; empty for anything else."""
    added: list[dict[str, object]] = []
    if isinstance(content, dict) and isinstance(content.get("model"), dict):
        added = content.get("added_tokens") or []
        content = content["model"].get("vocab")
    if not isinstance(content, dict) or not all(isinstance(v, int) and v >= 0 for v in content.values()):
        return {}
    return {**content, **{str(t["content"]): int(str(t["id"])) for t in added if "content" in t and "id" in t}}


def _from_hugging_face(ids: dict[str, int], path: Path, num_rows: int) -> Vocabulary:
    by_id = {i: token for token, i in ids.items()}
    if len(by_id) < len(ids):
        shared = next(token for token, i in ids.items() if by_id[i] != token)
        raise FormatError(f"{path}: '{shared}' and '{by_id[ids[shared]]}' share the id {ids[shared]}; expected one token an id")
    symbols = tuple(by_id.get(i, f"<unused{i}>") for i in range(max(by_id) + 1))

    def first(*names: str) -> int | None:
        return next((ids[name] for name in names if name in ids), None)

    mask = first("<mask>", "[MASK]")
    if mask is None:
        raise FormatError(f"{path}: found no '<mask>' token{nearest('<mask>', ids)}; expected one for absorbing diffusion")
    special = re.compile(r"<.*>|\[(?:MASK|PAD|CLS|SEP|UNK|BOS|EOS)\]")
    return Vocabulary(
        name=path.stem,
        symbols=symbols,
        mask_id=mask,
        emittable_ids=tuple(i for i, s in enumerate(symbols) if not special.fullmatch(s)),
        unknown_id=first("<unk>", "[UNK]"),
        begin_id=first("<bos>", "<s>", "<cls>", "[CLS]", "[BOS]"),
        end_id=first("<eos>", "</s>", "[SEP]", "[EOS]"),
        pad_id=first("<pad>", "[PAD]"),
        num_rows=num_rows,
    )
