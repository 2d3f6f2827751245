"""The `data:` part of a config: one class for each kind of source. `bundle.py` loads the data."""

from __future__ import annotations

from typing import Literal

from protlig_dd.config import settings
from protlig_dd.data.crop import Crop
from protlig_dd.data.readers.affinity import AffinityPolicy
from protlig_dd.data.readers.complexes import Columns
from protlig_dd.data.readers.files import MAX_RECORD
from protlig_dd.data.readers.molecules import MoleculePolicy
from protlig_dd.data.splits import ProteinSplit, RandomSplit, SplitSettings
from protlig_dd.data.synthetic.markov import MarkovChain
from protlig_dd.data.synthetic.textbook import DemoWorld


class _Limited:
    """The check of the limits, which every source of files has."""

    train_limit: int
    too_long: str
    crop: Crop = Crop()
    max_record: int = MAX_RECORD

    def __post_init__(self) -> None:
        if self.train_limit < 0:
            raise ValueError(f"train_limit: found {self.train_limit}, expected 0 (all) or more")
        if self.max_record < 1:
            raise ValueError(f"max_record: found {self.max_record}, expected 1 or more")
        if self.crop != Crop() and self.too_long != "crop":
            raise ValueError(f"crop: found {self.crop.words} with too_long={self.too_long}, expected it with too_long=crop only")


@settings
class PairData(_Limited):
    """A table of protein-ligand pairs.

    Args:
        path: CSV, TSV, JSON lines, Parquet, Arrow or a torch list, as text also .gz or .zst; or a folder: a dataset saved by
            `save_to_disk`, or files named after their parts. The parts of a folder are the split, and `split` is ignored.
        validation_path, test_path: separate files for these parts; `split` then makes only the parts without a file.
        columns: column names that differ from the usual ones.
        split: how `path` is split.
        too_long: what to do with records longer than their track's max_length: refuse, drop (and count) or crop proteins. Parts of the data
            are made, and their similarity is measured, by whole records.
        crop: which window of a protein is kept by `too_long: crop`.
        unknown: what to do with symbols outside a vocabulary, invalid molecules, and structures that do not fit their proteins: refuse, or
            drop and count.
        molecules: the policy for stereochemistry, charges and salts.
        affinity: unit, limits and decimal mark of the affinity column.
        affinity_bins: ascending edges; if given, affinities become the class label "affinity_bin", 0 below the first edge.
        max_record: most characters of a protein, ligand or structure; reading stops with an error at a longer one. FASTA and SMILES files
            are not read or unpacked beyond it, rows of tables not beyond 67 million characters.
        limit: most usable records to read; 0 for all. It is applied before the split.
        train_limit: train on the first this many training examples in a seeded order; 0 for all. Validation and test are unchanged, and
            the examples of a smaller limit are among those of a larger one.
        leakage: measure the identity of validation proteins to training proteins.
    """

    kind: Literal["pairs"] = "pairs"
    path: str
    validation_path: str = ""
    test_path: str = ""
    columns: Columns = Columns()
    split: SplitSettings = ProteinSplit()
    too_long: Literal["refuse", "drop", "crop"] = "drop"
    crop: Crop = Crop()
    unknown: Literal["refuse", "drop"] = "refuse"
    molecules: MoleculePolicy = MoleculePolicy()
    affinity: AffinityPolicy = AffinityPolicy()
    affinity_bins: tuple[float, ...] = ()
    max_record: int = MAX_RECORD
    limit: int = 0
    train_limit: int = 0
    leakage: bool = True

    def __post_init__(self) -> None:
        super().__post_init__()
        if list(self.affinity_bins) != sorted(set(self.affinity_bins)):
            raise ValueError(f"affinity_bins: found {self.affinity_bins}, expected ascending edges")


@settings
class SequenceData(_Limited):
    """Protein sequences: a FASTA file, a table with a sequence column, or a folder of them. Other fields as in `PairData`.

    Args:
        path: a file; a Foldseek database (its name without any ending), whose 3Di letters fill a track "structure"; or a folder: a
            dataset saved by `save_to_disk`, files named after their parts, or `consensus.fasta` with `splits.json`. The parts of a folder
            are the split, and `split` is ignored. A database of any size is read lazily: letters are encoded when a batch is drawn.
            Only `unknown: drop`, which depends on the letters of every entry, reads it into memory.
        structure_path, validation_structure_path, test_structure_path: for a track "structure", the FASTA file of structure tokens
            with the names of the proteins in `path`, `validation_path` and `test_path`: 3Di letters, or four-digit codes with commas. A
            table may have them in a column instead (`columns.structure`).
    """

    kind: Literal["sequences"] = "sequences"
    path: str
    validation_path: str = ""
    test_path: str = ""
    structure_path: str = ""
    validation_structure_path: str = ""
    test_structure_path: str = ""
    columns: Columns = Columns()
    split: SplitSettings = RandomSplit()
    too_long: Literal["refuse", "drop", "crop"] = "drop"
    crop: Crop = Crop()
    unknown: Literal["refuse", "drop"] = "refuse"
    max_record: int = MAX_RECORD
    limit: int = 0
    train_limit: int = 0
    leakage: bool = True


@settings
class MoleculeData(_Limited):
    """Molecules: a SMILES file or a table with a SMILES column. Fields as in `PairData`."""

    kind: Literal["molecules"] = "molecules"
    path: str
    validation_path: str = ""
    test_path: str = ""
    columns: Columns = Columns()
    split: SplitSettings = RandomSplit()
    too_long: Literal["refuse", "drop"] = "drop"
    unknown: Literal["refuse", "drop"] = "refuse"
    molecules: MoleculePolicy = MoleculePolicy()
    max_record: int = MAX_RECORD
    limit: int = 0
    train_limit: int = 0
    leakage: bool = True


@settings
class ShardData(_Limited):
    """Memory-mapped shards made by `protlig prepare shards` or `protlig tokenize`, already encoded. Fields as in `PairData`."""

    kind: Literal["shards"] = "shards"
    path: str
    validation_path: str = ""
    test_path: str = ""
    split: SplitSettings = RandomSplit(validation_fraction=0.01)
    too_long: Literal["refuse", "drop", "crop"] = "drop"
    crop: Crop = Crop()
    affinity_bins: tuple[float, ...] = ()
    limit: int = 0
    train_limit: int = 0
    leakage: bool = False


FileSettings = PairData | SequenceData | MoleculeData
DataSettings = DemoWorld | PairData | SequenceData | MoleculeData | ShardData | MarkovChain

TRACKS_OF = {"pairs": ("protein", "ligand", "structure"), "sequences": ("protein", "structure"), "molecules": ("ligand",)}
"""The tracks that each kind of file fills; if an experiment has one of them, every record needs it."""
