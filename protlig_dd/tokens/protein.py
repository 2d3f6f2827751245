"""Proteins as tokens: the 33-token ESM alphabet.

Source: the `vocab.txt` of facebook/esm2 (ids 0 `<cls>`, 1 `<pad>`, 2 `<eos>`, 3 `<unk>`, 4-23 the amino acids, 24 X, 32 `<mask>`).
"""

from __future__ import annotations

from collections import Counter
from typing import Literal

from protlig_dd.errors import ConfigError, FormatError
from protlig_dd.tokens.vocabulary import Vocabulary

AMINO_ACIDS = "LAGVSERTIDPKQNFYMHWC"
"""The twenty amino acids in the order of their ESM ids, 4 to 23."""

REPLACED = "letters that are no amino acid, read as another one, as tracks.protein.unknown says: "
"""The start of reports of replaced letters."""

Emits = Literal["amino_acids", "dplm", "dplm2"]

_EMITTED = {"amino_acids": tuple(range(4, 24)), "dplm": (3, *range(4, 24), *range(25, 32)), "dplm2": (*range(4, 24), 29, 30, 31)}
"""Ids that a model may emit. The last two are the sets of DPLM's and DPLM-2's published samplers, with `<unk>`, B, U, Z, O, gaps."""

_KNOWN = frozenset(AMINO_ACIDS + "XBUZO")
_REPLACEABLE = "-.~?*"
_NUCLEOTIDES = "ACGTUNacgtun"

SYMBOLS = ("<cls>", "<pad>", "<eos>", "<unk>", *AMINO_ACIDS, *"XBUZO.-", "<null_1>", "<mask>")


def protein_vocabulary(*, num_rows: int = 33, mask_id: int = 32, emits: Emits = "amino_acids") -> Vocabulary:
    """Return the ESM alphabet, in which by default only the twenty amino acids are emittable.

    Args:
        num_rows: embedding rows, 33 or more; SEDD's published shape has 37.
        mask_id: 32 is ESM's `<mask>`; SEDD's published shape uses its last row, 36.
        emits: the set of emittable ids; "dplm" and "dplm2" are those of the published samplers, for comparisons step by step.

    Raises:
        ConfigError: if the mask is a letter or another special id, or there are too few rows for it.
    """
    if mask_id < SYMBOLS.index("<mask>"):
        raise ConfigError(f"mask_id: found {mask_id}, which is '{SYMBOLS[mask_id]}'; expected 32, or a padded row from 33 on")
    return Vocabulary(
        name="ESM protein",
        symbols=SYMBOLS,
        mask_id=mask_id,
        emittable_ids=_EMITTED[emits],
        unknown_id=None if emits == "dplm" else 3,
        begin_id=0,
        end_id=2,
        pad_id=1,
        num_rows=num_rows,
    )


def split_protein(sequence: str, *, where: str = "sequence", unknown: str = "refuse", most_unknown: float = 1.0) -> list[str]:
    """Return the residues of a sequence, upper-cased, without white space and without a final stop sign `*`.

    Args:
        sequence: one-letter codes; lower case (soft masking) is read as upper case.
        where: the start of messages, such as "proteins.fasta:1042".
        unknown: "refuse", or a letter such as "X" that replaces other letters, gaps (`-`, `.`, `~`), `?` and `*`. Digits, brackets and
            other signs are refused all the same: they belong to numbering, to names of tokens, or to text that is no sequence.
        most_unknown: the largest share of a sequence that may be replaced; a single residue always may.

    Raises:
        FormatError: for a sign that is no residue, or a letter outside the alphabet if `unknown` is "refuse"; for more replaced letters
            than `most_unknown`; or for an empty sequence.

    >>> split_protein("mkt J*", unknown="X")
    ['M', 'K', 'T', 'X']
    """
    letters = _letters(sequence)
    if not letters:
        raise FormatError(f"{where}: found an empty sequence, expected amino-acid letters; remove the record")
    replaced = Counter[str]()
    for place, letter in enumerate(letters):
        if letter not in _KNOWN:
            found = f"{where}: '{letter}' at residue {place + 1} is not an amino acid of the ESM vocabulary"
            if not _is_replaceable(letter):
                raise FormatError(f"{found}, and no letter or gap that could be read as X; correct or remove the record")
            if unknown == "refuse":
                raise FormatError(f"{found}; pass unknown='X' to map it, or remove the record")
            replaced[letter] += 1
            letters[place] = unknown
    count = replaced.total()
    if count > 1 and count > most_unknown * len(letters):
        shown = ", ".join(f"'{letter}' x {n}" for letter, n in replaced.most_common(5))
        raise FormatError(
            f"{where}: {count} of {len(letters)} residues ({shown}) would be read as '{unknown}', more than the share {most_unknown:g} of "
            f"tracks.protein.most_unknown; take out the gaps of an alignment, or remove the record"
        )
    return letters


def replaced_letters(sequence: str, unknown: str) -> Counter[str]:
    """Return how often each letter of a sequence is read as `unknown`, in words.

    >>> replaced_letters("MKJ-J", "X")
    Counter({'J as X': 2, '- as X': 1})
    >>> replaced_letters("1 MK<mask>", "X")  # is refused
    Counter()
    """
    if sequence.isascii() and sequence.isalpha() and "J" not in sequence.upper():
        return Counter()  # nearly all sequences
    return Counter(f"{letter} as {unknown}" for letter in _letters(sequence) if letter not in _KNOWN and _is_replaceable(letter))


def _is_replaceable(letter: str) -> bool:
    """Whether a sign stands for a residue or a gap; digits and brackets do not."""
    return letter.isalpha() or letter in _REPLACEABLE


def looks_like_nucleotides(sequence: str) -> bool:
    """Return whether a text of ten letters or more has only those of nucleotides, and three of them or more.

    >>> looks_like_nucleotides("ATGGCCATTGTAATGGGCC"), looks_like_nucleotides("MKTAYIAKQR"), looks_like_nucleotides("GAGAGAGAGAGA")
    (True, False, False)
    """
    return len(sequence) >= 10 and not sequence.strip(_NUCLEOTIDES) and len(set(sequence.upper()) - {"N"}) > 2


def _letters(sequence: str) -> list[str]:
    # Only ASCII letters: str.upper would turn other characters into amino acids ("\u017f" into "S", "\ufb01" into "FI").
    return [c.upper() if c.isascii() else c for c in "".join(sequence.split()).removesuffix("*")]
