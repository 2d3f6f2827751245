"""`protlig sample`: conditions from texts and files, samples to a file or the screen."""

from __future__ import annotations

import logging
import math
from argparse import Namespace
from collections import Counter
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

from tqdm import tqdm

from protlig_dd.causal.decoding import CausalDecoding
from protlig_dd.causal.model import CausalSettings
from protlig_dd.cli.coordinates import decoder_for, write_coordinates
from protlig_dd.cli.tasks import check_inputs, task_requests
from protlig_dd.config import build, parse_shard, to_mapping
from protlig_dd.data.readers.conditions import read_ligands, read_proteins
from protlig_dd.errors import ConfigError
from protlig_dd.evaluation.objectives import property_from
from protlig_dd.runs.experiment import Experiment
from protlig_dd.runs.families.tokens import generator_for
from protlig_dd.runs.open import open_run
from protlig_dd.runs.output import PartialFile, check_output, rank, structures_beside, write_rows
from protlig_dd.runs.run import Run
from protlig_dd.sampling import Guidance, SamplerSettings, Tilting
from protlig_dd.sampling.requests import Request

log = logging.getLogger(__name__)


def sampler_from(options: Namespace, config: Experiment) -> SamplerSettings:
    """Return the sampler that `--sampler kind[:steps]`, `--strategy`, `--unmasking` and `--steps` mean, or the run's own."""
    values = _named_sampler(options) or to_mapping(config.sampling.sampler)
    if options.strategy or options.unmasking:
        values = (values if values["kind"] == "dplm" else {"kind": "dplm"}) | _published_words(options)
    if options.steps:
        values["num_steps"] = options.steps
    return build(SamplerSettings, values, "--sampler")


def _published_words(options: Namespace) -> dict[str, Any]:
    """The settings of DPLM's sampler that `annealing@2.0:0.1` and `stochastic1.0` stand for."""
    changes: dict[str, Any] = {}
    name, _, numbers = options.strategy.partition("@")
    try:
        if name:
            changes["strategy"] = name
        if name == "annealing" and numbers:
            first, last = numbers.split(":")
            changes["annealing"] = [float(first), float(last)]
        elif numbers:
            changes["temperature"] = float(numbers)
        if options.unmasking:
            word = options.unmasking.removeprefix("stochastic")
            changes["randomness"] = 0.0 if word == "deterministic" else float(word or 1.0)
    except ValueError:
        raise ConfigError(
            f"--strategy '{options.strategy}' --unmasking '{options.unmasking}': expected argmax, gumbel_argmax, vanilla@1.0 or "
            f"annealing@2.0:0.1, and deterministic or stochastic1.0"
        ) from None
    return changes


def _named_sampler(options: Namespace) -> dict[str, Any]:
    """The settings that `--sampler kind[:steps]` stands for."""
    if not options.sampler:
        return {}
    kind, _, steps = options.sampler.partition(":")
    values: dict[str, Any] = {"kind": kind}
    if steps:
        if not steps.isdigit():
            raise ConfigError(
                f"--sampler '{options.sampler}': found '{steps}' steps, expected a number, such as ancestral:100"
            )
        values["num_steps"] = int(steps)
    return values


def decoding_from(options: Namespace, config: Experiment) -> CausalDecoding:
    """Return the run's decoding with the command line's changes.

    Raises:
        ConfigError: for an option that a causal model has no use for.
    """
    others = ("sampler", "strategy", "unmasking", "steps", "forbid", "guidance", "property")
    if useless := [name for name in others if getattr(options, name)]:
        raise ConfigError(
            f"--{useless[0]}: a causal model writes one token after another; expected --temperature, --top-p or --learned-length"
        )
    changes = {name: getattr(options, name) for name in ("temperature", "top_p") if getattr(options, name) is not None}
    if options.learned_length:
        changes["length"] = "learned"
    return build(CausalDecoding, {**to_mapping(config.sampling.decoding), **changes}, "sampling.decoding")


def guidance_from(options: Namespace, config: Experiment) -> Guidance:
    """Return the run's guidance with the command line's changes."""
    forbidden: dict[str, tuple[str, ...]] = dict(config.sampling.guidance.forbidden or {})
    for one in options.forbid:
        track, sep, symbol = one.partition(":")
        if not sep or track not in config.tracks:
            raise ConfigError(f"--forbid '{one}': expected TRACK:SYMBOL with a track among {', '.join(config.tracks)}")
        forbidden[track] = (*forbidden.get(track, ()), symbol)
    changes: dict[str, Any] = {"temperature": options.temperature, "top_p": options.top_p, "weight": options.guidance}
    given = {name: value for name, value in changes.items() if value is not None}
    values = {**to_mapping(config.sampling.guidance), **given, "forbidden": forbidden or None}
    return build(Guidance, values, "guidance")


def tilting_from(options: Namespace, config: Experiment) -> Tilting | None:
    """Return the run's property with what `--property` and its companions change, or None where neither names one."""
    own = config.sampling.property
    changes = {
        "name": options.property or None,
        "weight": options.property_weight,
        "method": options.property_method,
        "particles": options.particles,
        "is_probability": options.property_is_probability or None,
    }
    given = {name: value for name, value in changes.items() if value is not None}
    if own is None and not options.property:
        if given:
            raise ConfigError("--property: found none beside options about it; expected a name or module:function")
        return None
    tilting: Tilting = build(Tilting, {**(to_mapping(own) if own else {}), **given}, "property")
    return tilting


def _about_property(rows: list[dict[str, Any]], tilting: Tilting | None) -> Iterator[str]:
    """What the guidance did, beside the same samples without it."""
    if tilting is None or not rows:
        return
    means, left_out = [], 0
    for column in ("property", "property_unguided"):
        known = [row[column] for row in rows if math.isfinite(row[column])]
        left_out += len(rows) - len(known)
        means.append(sum(known) / len(known) if known else math.nan)
    line = f"{tilting.name}: mean {means[0]:.4g} by {tilting.method} with weight {tilting.weight:g}; without guidance {means[1]:.4g} (the null)"
    if "ess" in rows[0]:
        sizes = [row["ess"] for row in rows]
        line += f"; effective sample size {sum(sizes) / len(sizes):.3g} of {tilting.particles}, least {min(sizes):.3g}"
    yield line + (f"; {left_out} excluded texts not counted" if left_out else "")


def _requests(options: Namespace, run: Run) -> list[Request]:
    """Turn the options into requests: each protein with each ligand, if both are files of many."""
    tracks = run.parts.tracks
    proteins = read_proteins(options.protein) if options.protein else [("", "")]
    ligands = read_ligands(options.ligand) if options.ligand else [("", "")]
    infill_track = _infill_track(options.infill, run) if options.infill else ""
    labels = _labels(options.condition)
    requests = []
    for protein_name, protein in proteins:
        for ligand_name, ligand in ligands:
            given = {n: t for n, t in (("protein", protein), ("ligand", ligand)) if t}
            if infill_track:
                given[infill_track] = options.infill
            wanted = [n for n in options.generate.split(",") if n] or [n for n in tracks if n not in given]
            if infill_track or any("_" in t for t in given.values()):
                wanted = [n for n in options.generate.split(",") if n]
            name = "_".join(n for n in (protein_name, ligand_name) if n) or (
                "infill" if infill_track else "unconditional"
            )
            for length in options.length or [None]:
                named = name if len(options.length) < 2 else f"{name}_{length}"
                generate = {n: length for n in wanted if n not in given}
                requests.append(Request(name=named, given=given, generate=generate, conditions=labels))
    return requests


def _tell_replaced(requests: Sequence[Request], run: Run) -> None:
    """Say which letters of the given proteins the run reads as another one (tracks.protein.unknown)."""
    letters = run.parts.tracks.get("protein")
    replaced: Counter[str] = Counter()
    for text in {request.given.get("protein", "").replace("_", "") for request in requests if letters is not None}:
        given = "".join(text.split()).upper().removesuffix("*")
        read = letters.split(given, where="--protein") if given and letters is not None else []
        replaced.update(f"{a} as {b}" for a, b in zip(given, read, strict=True) if a != b)
    if replaced:
        found = ", ".join(f"{how} ({count})" for how, count in replaced.most_common())
        log.warning("letters that are no amino acid are read as another one, as tracks.protein.unknown says: %s", found)


def _infill_track(text: str, run: Run) -> str:
    """Tell which track a text with gaps belongs to: capital letters of amino acids are a protein where there is such a track."""
    names = list(run.parts.tracks)
    looks_like_protein = text.replace("_", "").isalpha() and text.replace("_", "").isupper() and len(set(text)) > 4
    preferred = "protein" if looks_like_protein else "ligand"
    return preferred if preferred in names else names[0]


def _labels(options: list[str]) -> dict[str, int]:
    labels = {}
    for one in options:
        name, sep, value = one.partition("=")
        if not sep or not value.isdigit():
            raise ConfigError(f"--condition '{one}': expected NAME=CLASS with a whole number, such as affinity_bin=2")
        labels[name] = int(value)
    return labels


def _check_options(options: Namespace) -> None:
    """Refuse what cannot be meant, before a model is opened."""
    if not (options.task or options.protein or options.ligand or options.infill or options.unconditional):
        raise ConfigError(
            "nothing to condition on: give --protein, --ligand, --infill or --task, or say --unconditional"
        )
    if bool(options.run) == bool(options.model):
        raise ConfigError(
            f"found RUN '{options.run}' and --model '{options.model}': give one of them, a run folder or a model"
        )
    if options.num is not None and options.num < 1:
        raise ConfigError(f"--num: found {options.num}, expected 1 or more")
    if options.batch_size < 0:
        raise ConfigError(f"--batch-size: found {options.batch_size}, expected 1 or more; or leave it out")
    check_inputs(options)
    if options.tokenizer and Path(options.out).suffix != ".pdb":
        raise ConfigError(
            f"--tokenizer {options.tokenizer}: makes coordinates of structure tokens, found --out '{options.out}'; give --out x.pdb, "
            "or leave it out"
        )


def sample(options: Namespace) -> Iterator[str]:
    """Generate samples; a stopped command started again goes on."""
    _check_options(options)
    asked = Path(options.out) if options.out else None
    with_coordinates = asked is not None and asked.suffix == ".pdb"
    out = asked.with_suffix(".csv") if asked is not None and with_coordinates else asked  # the tokens stand beside them
    if out is not None:
        check_output(out)
    if options.property:  # refused before a model is opened
        property_from(options.property, ("protein",), is_probability=options.property_is_probability)
    run = open_run(options.run or options.model, device=options.device, emits=options.emits)
    decoder = decoder_for(options, run) if with_coordinates else None
    if options.num is None:
        is_greedy = isinstance(run.config.model, CausalSettings) and decoding_from(options, run.config).temperature == 0
        options.num = 1 if is_greedy else 10
    tilting = tilting_from(options, run.config)
    requests = task_requests(options, run) if options.task else _requests(options, run)
    _tell_replaced(requests, run)
    num = 1 if options.task == "scaffold" else options.num  # each scaffold has linkers of its own
    if isinstance(run.config.model, CausalSettings):
        how: dict[str, Any] = {"decoding": decoding_from(options, run.config)}
    elif options.learned_length:
        raise ConfigError(
            "--learned-length: this run denoises tokens of a given number; expected a run of a causal model"
        )
    else:
        sampler, guidance = sampler_from(options, run.config), guidance_from(options, run.config)
        how = {"sampler": sampler, "guidance": guidance, "tilting": tilting}
    generator = generator_for(
        run,
        seed=options.seed,
        batch_size=options.batch_size or None,
        with_likelihood=not options.no_likelihood,
        **how,
    )
    first, jobs = parse_shard(options.shard)
    ids = range(first, len(requests) * num, jobs)
    settings = generator.settings() | {"num": num, "shard": options.shard}
    settings |= {"requests": [to_mapping(r) for r in requests], "likelihood": not options.no_likelihood}
    if out is None:
        rows = [s.row() for s in generator.generate(requests, num, ids=ids)]
        for row in rank(rows):
            yield "  ".join(f"{k}={v}" for k, v in row.items())
        yield from _about_property(rows, tilting)
        return
    partial = PartialFile(out, settings)
    done = {row["id"] for row in partial.rows}
    left = [i for i in ids if i not in done]
    fresh = (s.row() for s in generator.generate(requests, num, ids=left))
    for _ in tqdm(partial.append(fresh), total=len(ids), initial=len(done), unit="sample", disable=None):
        pass
    write_rows(out, rank(partial.rows), settings)
    partial.remove()
    if decoder is not None and asked is not None:
        files = write_coordinates(asked, partial.rows, requests, num, decoder, options.seed)
        yield f"coordinates: {files[0]}" + (f" and {len(files) - 1} more" if len(files) > 1 else "")
    yield from _about_property(partial.rows, tilting)
    structures = structures_beside(out, partial.rows)
    beside = f", their structure tokens: {structures}" if structures is not None else ""
    yield f"{len(partial.rows)} samples: {out}{beside} (settings: {out}.json)"
