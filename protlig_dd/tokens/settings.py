"""The `tracks:` section of a config: one class for each kind of track."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Literal

from protlig_dd.config import settings
from protlig_dd.errors import ConfigError
from protlig_dd.tokens.ligand import ligand_vocabulary, load_merges, load_vocabulary, tokenize_smiles
from protlig_dd.tokens.merges import MergedSplit
from protlig_dd.tokens.protein import AMINO_ACIDS, Emits, protein_vocabulary, replaced_letters, split_protein
from protlig_dd.tokens.selfies_notation import read_selfies, selfies_vocabulary, split_selfies
from protlig_dd.tokens.structure import Alphabet, num_joint_rows, separator, split_codes, structure_vocabulary
from protlig_dd.tokens.tracks import Track

Notation = Literal["smiles", "selfies"]
BUILT_IN, LEARNED = "built-in", "learned"
"""The ligand vocabulary that needs no file, and the one that is made when training begins."""


@settings
class ProteinTrack:
    """The settings of a protein sequence track (33 ESM ids; rows and mask id may be those of a published shape).

    Args:
        unknown: "refuse", or the letter that replaces other letters, gaps, `?` and stop signs in sequences, such as X; replaced ones are
            counted in the report. Digits, brackets and names of tokens are never replaced.
        most_unknown: the largest share of a sequence that may be replaced (a single residue always may); the record is refused or
            dropped beyond it.
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
    most_unknown: float = 0.2
    add_ends: bool = True
    beside: Alphabet | None = None
    emits: Emits = "amino_acids"

    def __post_init__(self) -> None:
        if self.unknown not in ("refuse", *AMINO_ACIDS, *"XBUZO"):
            raise ValueError(f"unknown: found '{self.unknown}', expected 'refuse' or a letter of the alphabet, such as X")
        if not 0 <= self.most_unknown <= 1:
            raise ValueError(f"most_unknown: found {self.most_unknown}, expected a share from 0 to 1")

    def build(self, name: str) -> Track:
        """Return the track."""
        replaced = None if self.unknown == "refuse" else partial(replaced_letters, unknown=self.unknown)
        split = partial(split_protein, unknown=self.unknown, most_unknown=self.most_unknown)
        rows = num_joint_rows(self.beside) if self.beside else self.num_rows
        vocabulary = protein_vocabulary(num_rows=rows, mask_id=self.mask_id, emits=self.emits)
        ends = self.add_ends
        return Track(name=name, vocabulary=vocabulary, max_length=self.max_length, split=split, add_ends=ends, replaced=replaced)


@settings
class LigandTrack:
    """The settings of a track of molecules, which are given and returned as SMILES.

    Args:
        vocabulary: "built-in"; or a file made by `protlig prepare vocab`; or "learned": the built-in symbols and `merges` of neighbours that
            are frequent in the run's own molecules, found when training begins and kept in the run folder; with `train.init_from`, that of
            the run it names.
        merges: number of merges of a learned vocabulary. A merge makes one token of two, so that a ring is one token: fewer tokens a
            molecule, and more valid and faster samples.
        notation: what the tokens are: those of the SMILES, or of the molecule's SELFIES, in which every sequence is a molecule.
    """

    kind: Literal["ligand"] = "ligand"
    max_length: int = 128
    num_rows: int = 0
    vocabulary: str = BUILT_IN
    merges: int = 0
    notation: Notation = "smiles"
    add_ends: bool = True

    def __post_init__(self) -> None:
        if self.merges < 0 or (self.vocabulary == LEARNED) != (self.merges > 0):
            raise ValueError(f"merges: found {self.merges} with vocabulary '{self.vocabulary}'; expected 1 or more with 'learned', else 0")

    @property
    def split(self) -> Callable[..., list[str]]:
        """What cuts a SMILES into the symbols of the notation."""
        return split_selfies if self.notation == "selfies" else tokenize_smiles

    def build(self, name: str) -> Track:
        """Return the track, with its vocabulary read from the file if one is named.

        Raises:
            ConfigError: for a learned vocabulary that has not been learned yet.
        """
        if self.vocabulary == LEARNED:
            raise ConfigError(f"tracks.{name}.vocabulary: 'learned' is made when training begins; found no run folder with it")
        file = None if self.vocabulary == BUILT_IN else Path(self.vocabulary)
        as_selfies = self.notation == "selfies"
        built_in = selfies_vocabulary if as_selfies else ligand_vocabulary
        vocabulary = built_in(num_rows=self.num_rows) if file is None else load_vocabulary(file, num_rows=self.num_rows)
        merges = () if file is None else load_merges(file)
        return Track(
            name=name,
            vocabulary=vocabulary,
            max_length=self.max_length,
            split=MergedSplit(self.split, merges) if merges else self.split,
            add_ends=self.add_ends,
            read=read_selfies if as_selfies else None,
        )


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
