"""What a sampling command will draw: options and an opened run become requests, a generator, and the settings stored with the samples."""

from __future__ import annotations

from collections.abc import Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from protlig_dd.config import parse_shard, to_mapping
from protlig_dd.data.readers.conditions import read_ligands, read_proteins, tell_proteins
from protlig_dd.errors import ConfigError
from protlig_dd.runs.coordinates import decoder_for
from protlig_dd.runs.families.tokenizers import StructureTokenizer
from protlig_dd.runs.families.tokens import AnyGenerator, family_of
from protlig_dd.runs.generate import open_tokens
from protlig_dd.runs.options import SampleOptions
from protlig_dd.runs.output import check_tracks
from protlig_dd.runs.run import Run
from protlig_dd.runs.tasks import task_requests
from protlig_dd.sampling import DPLMUnmasking, Tilting
from protlig_dd.sampling.requests import Request, Sample


@dataclass(frozen=True, kw_only=True, eq=False)
class SamplingPlan:
    """The samples of a command before they are drawn.

    Attributes:
        requests: what to generate; sample i answers request i // num.
        num: samples per request.
        ids: the samples of this shard.
        generator: draws them.
        settings: all settings that decide the samples, to be stored with them.
        tilting: the property that samples are drawn towards, or None.
        decoder: the tokenizer that decodes structure tokens, or None.
    """

    requests: tuple[Request, ...]
    num: int
    ids: range
    generator: AnyGenerator
    settings: dict[str, Any]
    tilting: Tilting | None
    decoder: StructureTokenizer | None

    @classmethod
    def of(cls, options: SampleOptions, run: Run) -> SamplingPlan:
        """Return the plan of options for an opened run.

        Raises:
            ConfigError, FormatError: for options or inputs that the run cannot serve.
        """
        decoder = decoder_for(options, run) if options.wants_coordinates else None
        drawing = family_of(run).drawing(options, run.config)
        requests = task_requests(options, run, options.num or 10) if options.task else _requests(options, run)
        _check_given(requests, run)
        _check_form(options, requests)
        is_single = options.task == "scaffold"  # each scaffold is a request with linkers of its own
        num = 1 if is_single else options.num or (1 if _copies_are_equal(drawing, requests, run) else 10)
        generator = family_of(run).generator(
            run, seed=options.seed, batch_size=options.batch_size, with_likelihood=not options.no_likelihood, **drawing
        )
        first, jobs = parse_shard(options.shard)
        settings = generator.settings() | {"num": num, "shard": options.shard}
        settings |= {"requests": [to_mapping(r) for r in requests], "likelihood": not options.no_likelihood, "weights": run.weights_hash}
        return cls(
            requests=tuple(requests),
            num=num,
            ids=range(first, len(requests) * num, jobs),
            generator=generator,
            settings=settings,
            tilting=drawing.get("tilting"),
            decoder=decoder,
        )

    def draw(self, done: Collection[int] = ()) -> Iterator[Sample]:
        """Yield the samples whose ids are not in `done`, in order of their ids."""
        left = [i for i in self.ids if i not in done]
        yield from self.generator.generate(self.requests, self.num, ids=left)


def _requests(options: SampleOptions, run: Run) -> list[Request]:
    """Return a request for each protein with each ligand."""
    proteins = read_proteins(options.protein) if options.protein else [("", "")]
    ligands = read_ligands(options.ligand) if options.ligand else [("", "")]
    infill_track = _infill_track(options.infill, run) if options.infill else ""
    named = [n for n in options.generate.split(",") if n]
    labels = _labels(options.condition)
    requests = []
    for protein_name, protein in proteins:
        for ligand_name, ligand in ligands:
            given = {n: t for n, t in (("protein", protein), ("ligand", ligand)) if t}
            if infill_track:
                given[infill_track] = options.infill
            has_gaps = infill_track or any("_" in t for t in given.values())
            wanted = named if has_gaps else named or [n for n in run.tracks if n not in given]
            plain = "infill" if infill_track else "unconditional"
            name = "_".join(n for n in (protein_name, ligand_name) if n) or plain
            for length in options.length or [None]:
                requests.append(
                    Request(
                        name=name if len(options.length) < 2 else f"{name}_{length}",
                        given=given,
                        generate={n: length for n in wanted if n not in given},
                        conditions=labels,
                    )
                )
    return requests


def _check_given(requests: Sequence[Request], run: Run) -> None:
    """Refuse given texts that their tracks cannot read, before anything is drawn, and log what is read as something else."""
    given = {(track, text): one.name for one in requests for track, text in one.given.items() if track in run.tracks}
    for track, text in given:
        open_tokens(run.tracks[track], text)
    if "protein" in run.tracks:
        tell_proteins([(name, text) for (track, text), name in given.items() if track == "protein"], run.tracks["protein"])


def _check_form(options: SampleOptions, requests: Sequence[Request]) -> None:
    """Refuse a form of output that cannot hold the samples before they are drawn."""
    tracks = [{*request.given, *request.generate} for request in requests]
    if options.wants_coordinates and any("structure" not in names for names in tracks):
        raise ConfigError(f"--out {options.out}: the samples have no structure tokens to decode; write .csv, or add them with --generate")
    if options.table is not None:
        check_tracks(options.table, tracks)


def _copies_are_equal(drawing: Mapping[str, Any], requests: Sequence[Request], run: Run) -> bool:
    """Whether all copies of a request would be one and the same sample: nothing is drawn, neither tokens nor a length."""
    if "decoding" in drawing:
        return bool(drawing["decoding"].temperature == 0)
    sampler = drawing["sampler"]
    if drawing["tilting"] is not None or not isinstance(sampler, DPLMUnmasking) or sampler.draws:
        return False
    return not any(_draws_length(request, run) for request in requests)


def _draws_length(request: Request, run: Run) -> bool:
    """Whether the length of a track is drawn: it is not given, nor that of another track to which it is aligned."""
    known = {*request.given, *(name for name, length in request.generate.items() if length is not None)} & run.tracks.keys()
    drawn = [name for name, length in request.generate.items() if length is None and name in run.tracks]
    return any(not any(run.tracks[n].aligned_to == other or run.tracks[other].aligned_to == n for other in known) for n in drawn)


def _infill_track(text: str, run: Run) -> str:
    """Return the track of a text with gaps: capital letters are a protein, if the run has that track."""
    names = list(run.tracks)
    looks_like_protein = text.replace("_", "").isalpha() and text.replace("_", "").isupper() and len(set(text)) > 4
    preferred = "protein" if looks_like_protein else "ligand"
    return preferred if preferred in names else names[0]


def _labels(conditions: Sequence[str]) -> dict[str, int]:
    """Return the class labels of `--condition NAME=CLASS`."""
    labels = {}
    for one in conditions:
        name, sep, value = one.partition("=")
        if not sep or not value.isdigit():
            raise ConfigError(f"--condition '{one}': expected NAME=CLASS with a whole number, such as affinity_bin=2")
        labels[name] = int(value)
    return labels
