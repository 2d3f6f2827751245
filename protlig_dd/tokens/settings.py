"""The `tracks:` section of a config: one class for each kind of track."""

from __future__ import annotations

from functools import partial
from pathlib import Path
from typing import Literal

from protlig_dd.config import settings
from protlig_dd.tokens.ligand import ligand_vocabulary, load_vocabulary, tokenize_smiles
from protlig_dd.tokens.protein import AMINO_ACIDS, Emits, protein_vocabulary, split_protein
from protlig_dd.tokens.structure import Alphabet, num_joint_rows, separator, split_codes, structure_vocabulary
from protlig_dd.tokens.tracks import Track

BUILT_IN = "built-in"
"""The ligand vocabulary that needs no file."""


@settings
class ProteinTrack:
    """The settings of a protein sequence track (33 ESM ids; rows and mask id may be those of a published shape).

    Args:
        beside: the alphabet of a structure track in the same table of ids (DPLM-2), or null.
        emits: the letters that may be generated: the twenty amino acids, or the sets of DPLM's and DPLM-2's published samplers.

    `add_ends` is on by default: with rotary attention over masks only, every position would get the same output; the begin and end tokens
    make them distinguishable.
    """

    kind: Literal["protein"] = "protein"
    max_length: int = 512
    num_rows: int = 33
    mask_id: int = 32
    unknown: str = "refuse"
    add_ends: bool = True
    beside: Alphabet | None = None
    emits: Emits = "amino_acids"

    def __post_init__(self) -> None:
        if self.unknown not in ("refuse", *AMINO_ACIDS, *"XBUZO"):
            raise ValueError(f"unknown: found '{self.unknown}', expected 'refuse' or a letter of the alphabet, such as X")

    def build(self, name: str) -> Track:
        """Return the track."""
        split = partial(split_protein, unknown=self.unknown)
        rows = num_joint_rows(self.beside) if self.beside else self.num_rows
        vocabulary = protein_vocabulary(num_rows=rows, mask_id=self.mask_id, emits=self.emits)
        return Track(name=name, vocabulary=vocabulary, max_length=self.max_length, split=split, add_ends=self.add_ends)


@settings
class LigandTrack:
    """The settings of a SMILES track; `vocabulary` is "built-in" or a file made by `protlig prepare vocab`."""

    kind: Literal["ligand"] = "ligand"
    max_length: int = 128
    num_rows: int = 0
    vocabulary: str = BUILT_IN
    add_ends: bool = True

    def build(self, name: str) -> Track:
        """Return the track, with its vocabulary read from the file if one is named."""
        if self.vocabulary == BUILT_IN:
            vocabulary = ligand_vocabulary(num_rows=self.num_rows)
        else:
            vocabulary = load_vocabulary(Path(self.vocabulary), num_rows=self.num_rows)
        ends = self.add_ends
        return Track(name=name, vocabulary=vocabulary, max_length=self.max_length, split=tokenize_smiles, add_ends=ends)


@settings
class StructureTrack:
    """The settings of a structure track, one token per residue, with ids after the protein's in one joint table (DPLM-2's layout).

    Args:
        alphabet: "dplm2" (8,192 codes), "kanzi" (1,000 codes), "3di" (Foldseek's twenty letters) or "ss3" (helix H, strand E, coil C).
        max_length: largest number of tokens, specials included.
        aligned_to: the track that this one shares positions with, token by token.
    """

    kind: Literal["structure"] = "structure"
    alphabet: Alphabet = "dplm2"
    max_length: int = 512
    add_ends: bool = True
    aligned_to: str = "protein"

    def build(self, name: str) -> Track:
        """Return the track."""
        return Track(
            name=name,
            vocabulary=structure_vocabulary(self.alphabet),
            max_length=self.max_length,
            split=partial(split_codes, alphabet=self.alphabet),
            aligned_to=self.aligned_to,
            add_ends=self.add_ends,
            separator=separator(self.alphabet),
        )


TrackSettings = ProteinTrack | LigandTrack | StructureTrack
