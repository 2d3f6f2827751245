"""Structure tokens: one symbol for each residue, whose ids follow those of the protein alphabet in one joint table.

Source: DPLM-2 (Wang et al. 2024): ids 0-32 are the ESM alphabet, then `<cls_struct>`, `<eos_struct>`, `<unk_struct>`, the codes, and last
`<mask_struct>`. With 8,192 codes that is 8,229 rows; with Foldseek's twenty 3Di letters, 57.
"""

from __future__ import annotations

from typing import Literal

from protlig_dd.errors import FormatError
from protlig_dd.tokens.protein import SYMBOLS
from protlig_dd.tokens.vocabulary import Vocabulary

Alphabet = Literal["dplm2", "3di"]

_CODES: dict[str, tuple[str, ...]] = {
    "dplm2": tuple(f"{i:04d}" for i in range(8192)),
    "3di": tuple("ACDEFGHIKLMNPQRSTVWY"),
}
_KNOWN = {name: frozenset(codes) for name, codes in _CODES.items()}
_WIDTH = 4
_FIRST_CODE = len(SYMBOLS) + 3


def num_joint_rows(alphabet: Alphabet) -> int:
    """Return the rows of a table that holds the protein alphabet and a structure alphabet: 8,229 for DPLM-2."""
    return len(SYMBOLS) + len(_CODES[alphabet]) + 4


def structure_vocabulary(alphabet: Alphabet) -> Vocabulary:
    """Return the structure vocabulary with its ids in the joint table; only codes are emittable."""
    begin, codes = len(SYMBOLS), _CODES[alphabet]
    protein = tuple(f"protein:{symbol}" for symbol in SYMBOLS)
    return Vocabulary(
        name=f"{alphabet} structure",
        symbols=(*protein, "<cls_struct>", "<eos_struct>", "<unk_struct>", *codes, "<mask_struct>"),
        mask_id=_FIRST_CODE + len(codes),
        emittable_ids=tuple(range(_FIRST_CODE, _FIRST_CODE + len(codes))),
        unknown_id=begin + 2,
        begin_id=begin,
        end_id=begin + 1,
    )


def split_codes(text: str, alphabet: Alphabet, *, where: str = "structure") -> list[str]:
    """Return the symbols of a structure text: 3Di letters, or four-digit codes with or without commas between them.

    Raises:
        FormatError: for an empty text, or anything that is no symbol of the alphabet, with its place.
    """
    compact = "".join(text.split())
    if alphabet == "dplm2":
        pieces = [piece for piece in compact.split(",") if piece]
        symbols = [piece[i : i + _WIDTH] for piece in pieces for i in range(0, len(piece), _WIDTH)]
        expected = "four-digit codes 0000 to 8191, with or without commas"
    else:
        symbols, expected = list(compact.upper()), f"the letters {''.join(_CODES[alphabet])}"
    if not symbols:
        raise FormatError(f"{where}: found an empty structure, expected {expected}; remove the record")
    known = _KNOWN[alphabet]
    for place, symbol in enumerate(symbols, 1):
        if symbol not in known:
            raise FormatError(f"{where}: '{symbol}' at residue {place} is no {alphabet} code; expected {expected}")
    return symbols
