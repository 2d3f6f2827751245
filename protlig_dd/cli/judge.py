"""`protlig judge`: are generated ligands of any program specific to their targets?"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from protlig_dd.cli.common import Commands, add_command
from protlig_dd.errors import ConfigError, FormatError

if TYPE_CHECKING:
    from protlig_dd.data.readers.generated import GeneratedLigand
    from protlig_dd.data.readers.records import Record
    from protlig_dd.evaluation.targets import Training

_JUDGE = """SAMPLES and the files of --beside name the target of each ligand by its sequence or by its name in the table of actives. The targets
compared are those that have ligands in SAMPLES and three different actives or more; ligands of a single target are compared with all
targets of the table. Pairs with the label 0 are no actives.
  protlig judge ligands.csv --actives test_pairs.csv --training train_pairs.csv
  protlig judge ligands.smi --actives test_pairs.csv --beside tuned=tuned.csv --beside docked=docked.sdf --out judged.json"""


@dataclass(frozen=True, kw_only=True)
class JudgeOptions:
    """Options of `protlig judge`."""

    samples: str
    actives: str
    training: str = ""
    beside: tuple[str, ...] = ()
    target: str = ""
    seed: int = 0
    out: str = ""


def add_judge(commands: Commands) -> None:
    """Add `judge`."""
    text = "compare generated ligands with the actives of their own and of other targets"
    sub = add_command(commands, "judge", judge, JudgeOptions, text, _JUDGE)
    sub.add_argument("samples", help="generated ligands: a table, SMILES or SDF, as `protlig sample --out` writes them")
    sub.add_argument("--actives", required=True, help="a table of pairs that the model was not trained on")
    sub.add_argument("--training", help="the table of pairs that it was trained on, for copies and the nulls that draw training ligands")
    text = "ligands of another model, in a row of their own; may be repeated"
    sub.add_argument("--beside", action="append", metavar="NAME=FILE", help=text)
    sub.add_argument("--target", metavar="COLUMN", help="the column that names the target of a sample (default: protein, then name)")
    sub.add_argument("--seed", type=int, help="seed of nulls and intervals (%(default)s)")
    sub.add_argument("--out", metavar="FILE.json", help="also write the scores, in the form of evaluation.json")


def judge(options: JudgeOptions) -> Iterator[str]:
    """Say how specific generated ligands are to their targets, beside what other molecules reach."""
    from protlig_dd.data.readers.complexes import read_pairs
    from protlig_dd.data.readers.generated import read_generated
    from protlig_dd.evaluation.intervals import format_scores
    from protlig_dd.evaluation.sections import write_evaluation
    from protlig_dd.evaluation.specificity import specificity
    from protlig_dd.evaluation.targets import Targets
    from protlig_dd.runs.output import check_output

    files = dict(map(_named, options.beside))
    if options.out:
        check_output(Path(options.out), (".json",))
    known = _Known(_positives(read_pairs(Path(options.actives))))
    training = _training(read_pairs(Path(options.training))) if options.training else None
    samples, lines = known.grouped(options.samples, read_generated(Path(options.samples), target=options.target))
    beside = {}
    for name, file in files.items():
        beside[name], told = known.grouped(file, read_generated(Path(file), target=options.target))
        lines += told
    try:
        compared = samples if len(samples) > 1 else known.proteins  # one target alone is compared with all others of the table
        targets = Targets.of({name: known.proteins[name] for name in compared}, known.actives, training)
    except ValueError as error:
        raise ConfigError(f"--actives {options.actives}: {error}") from error
    found = specificity(samples, targets, training, beside=beside, seed=options.seed)
    if training is None:
        lines.append("no --training: neither copies nor training ligands are compared")
    if options.samples.endswith((".sdf", ".sd")):
        lines.append(f"{options.samples}: an SDF file has valid molecules only, so their share says nothing about the model")
    section = found.section(f"Specificity of {options.samples}", lines=lines)
    yield from section.lines
    yield format_scores(section.scores)
    yield from found.table().lines()
    if options.out:
        write_evaluation(Path(options.out), [section])
        yield f"scores: {options.out}"


def _named(text: str) -> tuple[str, str]:
    name, sep, file = text.partition("=")
    if not (sep and name and file):
        raise ConfigError(f"--beside '{text}': expected NAME=FILE, such as tuned=tuned.csv")
    return name, file


def _positives(records: Iterable[Record]) -> Iterator[tuple[str, str, str]]:
    """Yield name, protein and ligand of the pairs that are not labelled as not binding."""
    for record in records:
        if record.problem is not None:
            raise FormatError(record.problem[1])
        if record.label != 0 and record.texts.get("protein") and record.texts.get("ligand"):
            yield record.name, record.texts["protein"], record.texts["ligand"]


def _training(records: Iterable[Record]) -> Training:
    from protlig_dd.evaluation.targets import Training

    pairs: dict[str, list[str]] = {}
    for _, protein, ligand in _positives(records):
        pairs.setdefault(protein, []).append(ligand)
    return Training(pairs=pairs)


class _Known:
    """The targets of a table: their sequences and actives by name, and the name that a text of a sample stands for."""

    def __init__(self, pairs: Iterable[tuple[str, str, str]]) -> None:
        from protlig_dd.runs.embed import numbered

        names, ligands = dict[str, str](), dict[str, list[str]]()
        for name, protein, ligand in pairs:
            names.setdefault(protein, name or f"target{len(names) + 1}")
            ligands.setdefault(protein, []).append(ligand)
        self.proteins: Mapping[str, str] = dict(numbered([(name, protein) for protein, name in names.items()]))
        self.actives: Mapping[str, Sequence[str]] = {name: ligands[protein] for name, protein in self.proteins.items()}
        self._of_text = {text: name for name, protein in self.proteins.items() for text in (protein, name)}

    def grouped(self, file: str, ligands: Iterable[GeneratedLigand]) -> tuple[dict[str, list[str]], list[str]]:
        """Return the ligands of a file by target, and a line about those of other targets.

        Raises:
            FormatError: if none is of a known target.
        """
        found, unknown = dict[str, list[str]](), dict[str, int]()
        for one in ligands:
            name = next((self._of_text[text] for text in one.targets if text in self._of_text), None)
            if name is None:
                text = (*filter(None, one.targets), "no target")[0][:40]
                unknown[text] = unknown.get(text, 0) + 1
            else:
                found.setdefault(name, []).append(one.ligand)
        told = f"{sum(unknown.values())} of other targets than the actives', such as '{next(iter(unknown), '')}'"
        if not found:
            raise FormatError(
                f"{file}: found {told}, expected ligands of {', '.join(list(self.proteins)[:5])}; name the column with --target"
            )
        return found, [f"{file}: {told}, left out"] if unknown else []
