"""The rules of the textbook world: the chemical group for each protein motif, and the fragments of ligands.

Each rule pairs a motif from biochemistry textbooks (or PROSITE) with the group that the same books give as its partner. The pairing of
proteins that have only such a motif with molecules that have only such a group is synthetic: no pair here was ever measured.
Nothing here is random; `textbook.py` draws proteins and pairs.
"""

from __future__ import annotations

import functools
import itertools
import re
from collections.abc import Iterator
from dataclasses import dataclass
from types import ModuleType
from typing import Any

from protlig_dd.errors import require
from protlig_dd.tokens.protein import AMINO_ACIDS

_STRYER = "Berg, Tymoczko and Stryer, Biochemistry"


@dataclass(frozen=True, kw_only=True)
class Rule:
    """One law of the textbook world: proteins with `motif` bind ligands with `group`.

    Attributes:
        name: name of the motif, in one or two words.
        motif: a PROSITE pattern: residues, `[FL]` for a choice, `x` for any residue, joined by hyphens.
        group: the chemical group's name.
        smarts: matches the group, and no other rule's group, in every ligand of this world.
        attachment: SMILES of the group, starting with its bond to the rest of the ligand, `[*]`.
        linkers: names of the possible linkers between scaffold and group.
        source: the book, and a protein with the residue numbers of its motif.
    """

    name: str
    motif: str
    group: str
    smarts: str
    attachment: str
    linkers: tuple[str, ...] = ("bond", "methylene", "ethylene", "oxyethylene")
    source: str

    @functools.cached_property
    def choices(self) -> tuple[str, ...]:
        """The residues allowed at each position of the motif."""
        return tuple(AMINO_ACIDS if e == "x" else e.strip("[]") for e in self.motif.split("-"))

    @functools.cached_property
    def key_positions(self) -> tuple[int, ...]:
        """The positions of the motif that are not `x`."""
        return tuple(i for i, allowed in enumerate(self.choices) if len(allowed) < len(AMINO_ACIDS))

    @functools.cached_property
    def regex(self) -> re.Pattern[str]:
        """The motif as a look-ahead, so that overlapping occurrences are found."""
        return re.compile("(?=" + "".join(f"[{allowed}]" for allowed in self.choices) + ")")


RULES: tuple[Rule, ...] = (
    Rule(
        name="zinc protease",
        motif="H-E-x-x-H",
        group="hydroxamate",
        smarts="[#6][CX3](=O)[NX3H1][OX2H1]",
        attachment="[*]C(=O)NO",
        source=f"{_STRYER}, 'Catalytic Strategies'; PROSITE PS00142; thermolysin H142-H146, chelated through its zinc by hydroxamates",
    ),
    Rule(
        name="carbonic anhydrase",
        motif="H-F-H-W-G",
        group="primary sulfonamide",
        smarts="[#6][SX4](=O)(=O)[NX3H2]",
        attachment="[*]S(N)(=O)=O",
        source=f"{_STRYER}, 'Catalytic Strategies'; human carbonic anhydrase II H94-G98, whose zinc binds acetazolamide's sulfonamide",
    ),
    Rule(
        name="trypsin S1 pocket",
        motif="D-S-C-x-G-D-S-G",
        group="aryl amidine",
        smarts="c[CX3](=[NX2H1])[NX3H2]",
        attachment="[*]C(=N)N",
        linkers=("bond",),
        source=f"{_STRYER}, 'Catalytic Strategies'; PROSITE PS00135; bovine trypsin D189-G196, D189 holding benzamidine",
    ),
    Rule(
        name="kinase hinge",
        motif="E-[FY]-M-x-x-G",
        group="2-aminopyrimidine",
        smarts="[#6][NX3H1]c1[nX2][cH][cH][cH][nX2]1",
        attachment="[*]Nc2ncccn2",
        source="Silverman and Holladay, The Organic Chemistry of Drug Design and Drug Action; ABL1 E316-G321, SRC E339-G344; "
        "aminopyrimidines make the hinge's two hydrogen bonds in place of adenine",
    ),
    Rule(
        name="aspartyl protease",
        motif="[FL]-D-T-G-[AS]",
        group="hydroxyethylamine",
        smarts="[#6][CX4H1]([OX2H1])[CX4H2][NX3H1][CH3]",
        attachment="[*]C(O)CNC",
        source=f"{_STRYER}, 'Catalytic Strategies'; PROSITE PS00141; HIV-1 protease L24-A28, pepsin F31-S35; "
        "the hydroxyl mimics the tetrahedral intermediate, as in saquinavir",
    ),
    Rule(
        name="papain cysteine",
        motif="C-G-S-C-W",
        group="nitrile",
        smarts="[#6][CX2]#[NX1]",
        attachment="[*]C#N",
        source=f"{_STRYER}, 'Catalytic Strategies'; PROSITE PS00139; papain C22-W26, C25 adding to nitriles as a thioimidate",
    ),
    Rule(
        name="cytochrome P450",
        motif="F-x-x-G-x-R-x-C-x-G",
        group="N-imidazole",
        smarts="[#6]-[nX3]1[cH][cH][nX2][cH]1",
        attachment="[*]n2ccnc2",
        source="Goodman and Gilman, The Pharmacological Basis of Therapeutics, 'Antifungal Agents'; PROSITE PS00086; "
        "CYP3A4 F435-G444, C442 on the haem iron that azoles such as clotrimazole take",
    ),
    Rule(
        name="bromodomain WPF shelf",
        motif="W-P-F-x-x-P-V",
        group="acetamide",
        smarts="[#6][NX3H1][CX3](=O)[CH3]",
        attachment="[*]NC(C)=O",
        source=f"{_STRYER}, 'The Control of Gene Expression in Eukaryotes'; BRD4 W81-V87, reading acetyl-lysine, whose amide this is",
    ),
    Rule(
        name="SH2 phosphotyrosine pocket",
        motif="F-L-V-R-E-S",
        group="methylphosphonate",
        smarts="[#6][CX4H2][PX4](=O)([OX2H1])[OX2H1]",
        attachment="[*]CP(=O)(O)O",
        source=f"{_STRYER}, 'Signal-Transduction Pathways'; SRC F172-S177, R175 on phosphotyrosine; "
        "the phosphonomethyl group is its stable mimic",
    ),
    Rule(
        name="penicillin-binding serine",
        motif="S-T-[FV]-K",
        group="beta-lactam",
        smarts="O=[CX3]1[CX4H2][CX4H2][NX3]1[#6]",
        attachment="[*]N2CCC2=O",
        source=f"{_STRYER}, 'Enzymes: Basic Concepts and Kinetics' (penicillin); Escherichia coli PBP3 S307-K310, "
        "TEM-1 S70-K73, the serine acylated by beta-lactams",
    ),
    Rule(
        name="acetylcholinesterase serine",
        motif="F-G-E-S-A-G",
        group="N-methylcarbamate",
        smarts="[#6][OX2][CX3](=O)[NX3H1][CH3]",
        attachment="[*]OC(=O)NC",
        source="Goodman and Gilman, The Pharmacological Basis of Therapeutics, 'Anticholinesterase Agents'; PROSITE PS00122; "
        "Torpedo acetylcholinesterase F197-G202, S200 carbamoylated by physostigmine",
    ),
    Rule(
        name="caspase cysteine",
        motif="Q-A-C-R-G",
        group="aldehyde",
        smarts="[#6][CX3H1]=[OX1]",
        attachment="[*]C=O",
        source="Alberts and others, Molecular Biology of the Cell, 'Cell Death'; PROSITE PS01122; caspase-3 Q161-G165, "
        "C163 adding to the aldehyde of Ac-DEVD-CHO",
    ),
)
"""The twelve rules, in the order used by every table."""

# [1] is replaced by linker and group, [2] and [3] by substituents; ring bonds use the digit 1 in scaffolds and 2 in groups.
SCAFFOLDS: dict[str, str] = {
    "benzene, 1,3,4": "c1cc([2])c([3])cc1[1]",
    "pyrazine, 2,5,6": "c1nc([2])c([3])nc1[1]",
    "pyridine, 2,4,6": "n1c([2])cc([3])cc1[1]",
    "thiazole, 2,4,5": "c1([2])nc([3])sc1[1]",
    "cyclohexane, 1,3,4": "C1CC([2])C([3])CC1[1]",
}

LINKERS: dict[str, str] = {"bond": "", "methylene": "C", "ethylene": "CC", "oxyethylene": "OCC"}

SUBSTITUENTS: dict[str, str] = {
    "hydrogen": "[H]", "methyl": "C", "fluoro": "F", "chloro": "Cl", "bromo": "Br", "hydroxy": "O", "methoxy": "OC", "ethyl": "CC",
    "methylthio": "SC", "ethoxy": "OCC", "propyl": "CCC",
}  # fmt: skip

SMALL_SUBSTITUENTS = ("hydrogen", "methyl", "fluoro", "chloro", "hydroxy", "methoxy", "ethyl")
"""The possible second substituents."""


def count_motifs(protein: str) -> dict[str, int]:
    """Return the number of occurrences of each rule's motif in a protein, by rule name, for those that occur."""
    counts = {rule.name: len(rule.regex.findall(protein)) for rule in RULES}
    return {name: count for name, count in counts.items() if count}


def motif_of(protein: str) -> set[str]:
    """Return the names of the rules whose motif occurs in a protein, such as {"zinc protease"}.

    >>> motif_of("MKTHELTHAV")
    {'zinc protease'}
    """
    return set(count_motifs(protein))


def group_of(smiles: str) -> set[str]:
    """Return the names of the rules' groups in a SMILES string; none for an invalid or empty one.

    Raises:
        MissingDependencyError: if RDKit is absent.
    """
    chem = _chem()
    base = require("rdkit.rdBase", "the demo's molecules", extra="ligand")
    with base.BlockLogs():  # invalid SMILES are expected
        molecule = chem.MolFromSmiles(smiles)
    return set() if molecule is None else set(count_groups(molecule))


def count_groups(molecule: Any) -> dict[str, int]:
    """Return the number of occurrences of each rule's group in an RDKit molecule, by group name, for those that occur."""
    counts = {name: len(molecule.GetSubstructMatches(pattern)) for name, pattern in _patterns()}
    return {name: count for name, count in counts.items() if count}


def ligand_parts(rule: Rule) -> Iterator[tuple[str, str, str, str]]:
    """Return every choice of (scaffold, linker, first substituent, second substituent) for a rule's ligands, by name."""
    firsts = (name for name in SUBSTITUENTS if name != "hydrogen")
    return itertools.product(SCAFFOLDS, rule.linkers, firsts, SMALL_SUBSTITUENTS)


def assemble(rule: Rule, parts: tuple[str, str, str, str]) -> tuple[str, str] | None:
    """Return a ligand's canonical SMILES, and its SMILES in order of assembly, which the world uses.

    In order of assembly the scaffold comes first and the group last, as a chemist would draw it; canonical order puts the same group in
    many places, which a model of the demo's size learns several times more slowly.

    Args:
        rule: the rule whose group the ligand has.
        parts: names of the scaffold, the linker and the two substituents.

    Returns:
        None unless RDKit sanitises the molecule and it has the rule's group once and no other.
    """
    chem = _chem()
    scaffold, linker, first, second = parts
    smiles = SCAFFOLDS[scaffold].replace("[1]", LINKERS[linker] + rule.attachment.removeprefix("[*]"))
    smiles = smiles.replace("[2]", SUBSTITUENTS[first]).replace("[3]", SUBSTITUENTS[second]).replace("([H])", "")
    molecule = chem.MolFromSmiles(smiles)
    assert molecule is not None, f"{smiles} with {parts} does not sanitise"
    if count_groups(molecule) != {rule.group: 1}:
        return None
    return str(chem.MolToSmiles(molecule)), smiles


def _chem() -> ModuleType:
    return require("rdkit.Chem", "the demo's molecules", extra="ligand")


@functools.lru_cache(maxsize=1)
def _patterns() -> tuple[tuple[str, Any], ...]:
    return tuple((rule.group, _chem().MolFromSmarts(rule.smarts)) for rule in RULES)
