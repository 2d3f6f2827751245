"""Structure tokens: one symbol for each residue, with ids after those of the protein alphabet in one joint table.

Source: DPLM-2 (Wang et al. 2024): ids 0-32 are the ESM alphabet, then `<cls_struct>`, `<eos_struct>`, `<unk_struct>`, the codes, and last
`<mask_struct>`. With 8,192 codes that is 8,229 rows; with Foldseek's twenty 3Di letters, 57. Kanzi has 1,000 codes (levels 8, 5, 5, 5);
"ss3" is helix, strand and coil.
"""

from __future__ import annotations

import re
from functools import partial
from typing import Literal

from protlig_dd.errors import FormatError
from protlig_dd.tokens.protein import SYMBOLS
from protlig_dd.tokens.tracks import Track
from protlig_dd.tokens.vocabulary import Vocabulary

Alphabet = Literal["dplm2", "kanzi", "3di", "ss3"]

_CODES: dict[Alphabet, tuple[str, ...]] = {
    "dplm2": tuple(f"{i:04d}" for i in range(8192)),
    "kanzi": tuple(f"{i:03d}" for i in range(1000)),
    "3di": tuple("ACDEFGHIKLMNPQRSTVWY"),
    "ss3": tuple("CEH"),
}
_KNOWN = {name: frozenset(codes) for name, codes in _CODES.items()}
_WIDTH = {name: len(codes[0]) for name, codes in _CODES.items()}
_FIRST_CODE = len(SYMBOLS) + 3
_NAMED = re.compile(r"<K(\d+)>|(?<![\w<])K(\d+)(?![\w>])")


def separator(alphabet: Alphabet) -> str:
    """Return the text between two tokens: a comma between numbers, nothing between letters."""
    return "," if _WIDTH[alphabet] > 1 else ""


def num_joint_rows(alphabet: Alphabet) -> int:
    """Return the rows of a joint table of the protein alphabet and a structure alphabet: 8,229 for DPLM-2."""
    return len(SYMBOLS) + len(_CODES[alphabet]) + 4


def _numbered(found: re.Match[str], width: int) -> str:
    """The digits of a code given as `<K5>` or K5; a number that is too large stays unchanged, and is refused later."""
    digits = f"{int(found[1] or found[2]):0{width}d}"
    return f",{digits}," if len(digits) == width else f",{found[0]},"


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
    """Return the symbols of a structure text: letters, or codes of a fixed width with or without commas between them.

    Kanzi's codes may also be given as `<K5>` or `K5`, as language models write them.

    Raises:
        FormatError: for an empty text, or anything that is not a symbol of the alphabet, with its position.

    >>> split_codes("<K5> <K599>", "kanzi")
    ['005', '599']
    """
    width, codes = _WIDTH[alphabet], _CODES[alphabet]
    if width > 1:
        symbols = re.findall(rf"\d{{{width}}}|[^\s,]+", _NAMED.sub(partial(_numbered, width=width), text))
        expected = f"codes of {width} digits, {codes[0]} to {codes[-1]}, with or without commas"
    else:
        symbols, expected = list("".join(text.split()).upper()), f"the letters {''.join(codes)}"
    if not symbols:
        raise FormatError(f"{where}: found an empty structure, expected {expected}; remove the record")
    known = _KNOWN[alphabet]
    for place, symbol in enumerate(symbols, 1):
        if symbol not in known:
            raise FormatError(f"{where}: '{symbol}' at residue {place} is no {alphabet} code; expected {expected}")
    return symbols


def alphabet_of(structure: Track | None) -> str:
    """Return the alphabet of a structure track, such as "3di"; "none" without a track."""
    return "none" if structure is None else structure.vocabulary.name.removesuffix(" structure")
