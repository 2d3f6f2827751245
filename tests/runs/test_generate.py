"""Samples from a run: gaps, lengths, invariance to batches and shards, and requests that cannot be served."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from protlig_dd.errors import ConfigError, FormatError
from protlig_dd.evaluation.likelihood import ExampleBounds, bound
from protlig_dd.runs.generate import Generator, open_tokens
from protlig_dd.runs.open import open_run
from protlig_dd.runs.options import SampleOptions
from protlig_dd.runs.run import Run
from protlig_dd.sampling import FirstHitting, Guidance, Tilting
from protlig_dd.sampling.requests import Request, Sample
from protlig_dd.tokens.settings import LigandTrack, ProteinTrack

pytestmark = pytest.mark.xdist_group("run")
PROTEIN = "MKTAYIAKQRHEAVHWFKTAYIAKQ"


@pytest.fixture(scope="module")
def run(smoke_run: Path) -> Run:
    return open_run(smoke_run, device="cpu")


def draw(run: Run, request: Request, num: int = 4, **options: object) -> list[Sample]:
    return list(Generator(run, seed=3, sampler=FirstHitting(), with_likelihood=False, **options).generate([request], num))  # type: ignore[arg-type]


LIGANDS = Request(name="p", given={"protein": PROTEIN}, generate={"ligand": None})


def test_given_tokens_come_back_unchanged_and_gaps_are_filled(run: Run) -> None:
    for sample in draw(run, Request(name="x", given={"protein": "MKTA____IAKQRHEAVHWFKTAYIAKQ", "ligand": "CCO"})):
        protein = sample.texts["protein"]
        assert sample.texts["ligand"] == "CCO"
        assert (protein[:4], protein[8:]) == ("MKTA", "IAKQRHEAVHWFKTAYIAKQ") and "_" not in protein


def test_a_smiles_with_gaps_is_filled_with_as_many_tokens(run: Run) -> None:
    for sample in draw(run, Request(name="x", given={"ligand": "c1cc____cc1"})):
        assert sample.texts["ligand"].startswith("c1cc") and sample.texts["ligand"].endswith("cc1")


def test_a_length_is_kept_and_without_one_it_is_that_of_a_training_example(run: Run) -> None:
    track = run.parts.tracks["ligand"]
    for sample in draw(run, Request(name="x", given={"protein": PROTEIN}, generate={"ligand": 7})):
        assert len(track.split(sample.texts["ligand"], where="")) == 7
    known = set((run.lengths.lengths["ligand"] - 2).tolist())
    for sample in draw(run, LIGANDS, 8):
        assert len(track.split(sample.texts["ligand"], where="")) in known


@pytest.mark.parametrize("batch_size", [1, 3, 64])
def test_sample_i_is_the_same_whatever_the_batch_size(run: Run, batch_size: int) -> None:
    assert draw(run, LIGANDS, 5, batch_size=batch_size) == draw(run, LIGANDS, 5, batch_size=5)


def test_shards_together_are_the_whole(run: Run) -> None:
    generator = Generator(run, seed=1, sampler=FirstHitting(), with_likelihood=False)
    whole = list(generator.generate([LIGANDS, LIGANDS], 3))
    parts = [list(generator.generate([LIGANDS, LIGANDS], 3, ids=range(i, 6, 2))) for i in range(2)]
    assert sorted((s for part in parts for s in part), key=lambda s: s.id) == whole


def by_request(run: Run, requests: list[Request], num: int = 3, **options: object) -> dict[str, list[dict[str, object]]]:
    """The samples of each name, in order: texts, likelihoods (rounded) and measured values."""
    found: dict[str, list[dict[str, object]]] = {}
    for sample in Generator(run, seed=2, sampler=FirstHitting(), **options).generate(requests, num):  # type: ignore[arg-type]
        found.setdefault(sample.request, []).append({k: v for k, v in sample.row().items() if k not in ("id", "name")})
    return found


FIVE = [Request(name=f"p{i}", given={"protein": PROTEIN[i:]}, generate={"ligand": None}) for i in range(5)]


@pytest.mark.parametrize("tilting", [None, Tilting(name="charge", method="best_of", particles=2)], ids=["plain", "particles"])
def test_the_order_of_requests_and_other_requests_change_no_sample(run: Run, tilting: Tilting | None) -> None:
    """Also drawn lengths, the draws of particles, and the likelihood bounds."""
    requests = FIVE if tilting is None else [Request(name=r.name, given=r.given, generate={"protein": 5 + i}) for i, r in enumerate(LONG)]
    whole = by_request(run, requests, tilting=tilting)
    assert by_request(run, requests[::-1], tilting=tilting) == whole
    more = by_request(run, [Request(name="new", generate=requests[0].generate), *requests], tilting=tilting)
    assert {name: rows for name, rows in more.items() if name != "new"} == whole


LONG = [Request(name=f"l{i}", given={"ligand": "C" * (i + 1)}) for i in range(3)]


def test_more_copies_change_no_earlier_copy(run: Run) -> None:
    few, many = by_request(run, FIVE, 2), by_request(run, FIVE, 5)
    assert {name: rows[:2] for name, rows in many.items()} == few


def test_equal_requests_are_drawn_apart_whatever_their_order(run: Run) -> None:
    twins = [Request(name=name, given={"protein": PROTEIN}, generate={"ligand": 9}) for name in ("a", "b")]
    whole = by_request(run, twins)
    assert whole["a"] != whole["b"] and by_request(run, twins[::-1]) == whole
    again = by_request(run, [twins[0], twins[0]])["a"]
    assert again[:3] == whole["a"] and again[3:] == whole["b"], "a name is no part of what is asked for"


def test_another_seed_gives_other_samples(run: Run) -> None:
    a = [s.texts["ligand"] for s in Generator(run, seed=0, with_likelihood=False).generate([LIGANDS], 4)]
    b = [s.texts["ligand"] for s in Generator(run, seed=1, with_likelihood=False).generate([LIGANDS], 4)]
    assert a != b


def test_everything_can_be_generated_from_nothing(run: Run) -> None:
    for sample in draw(run, Request(name="u", generate={"protein": 9, "ligand": 5})):
        assert len(sample.texts["protein"]) == 9 and sample.texts["ligand"]


def test_forbidden_symbols_are_never_drawn(run: Run) -> None:
    forbidden = {"ligand": tuple(s for s in run.parts.tracks["ligand"].vocabulary.symbols if s not in ("C", "O") and s[0] != "<")}
    for sample in draw(run, LIGANDS, 6, guidance=Guidance(forbidden=forbidden)):
        assert set(sample.texts["ligand"]) <= {"C", "O"}


def test_guidance_weight_one_changes_nothing_and_two_runs(run: Run) -> None:
    assert draw(run, LIGANDS, guidance=Guidance(weight=1.0)) == draw(run, LIGANDS)
    assert len(draw(run, LIGANDS, guidance=Guidance(weight=2.0))) == 4


def test_the_bound_of_a_sample_is_positive_and_does_not_depend_on_the_batch(run: Run) -> None:
    def bounds(size: int) -> list[float | None]:
        generator = Generator(run, sampler=FirstHitting(), batch_size=size)
        return [s.nll_per_token for s in generator.generate([LIGANDS], 4)]

    assert bounds(1) == pytest.approx(bounds(4), rel=1e-4)
    assert all(b is not None and b > 0 for b in bounds(4))


@pytest.mark.parametrize(
    ("request_", "generated"),
    [
        (Request(name="gaps", given={"protein": "MKTA____IAKQRHEAVHWFK", "ligand": "CCO"}), 4),
        (Request(name="gaps in both", given={"protein": "MKTA____IAKQRHEAVHWFK", "ligand": "CC__O"}), 6),
        (Request(name="whole", given={"protein": PROTEIN}, generate={"ligand": 7}), 7),
        (Request(name="two", generate={"ligand": 7, "protein": 12}), 19),
    ],
    ids=lambda x: getattr(x, "name", str(x)),
)
def test_nll_per_token_is_the_bound_over_the_tokens_that_were_generated(
    run: Run, request_: Request, generated: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Neither given letters, begin and end, nor the other tracks count."""
    totals: list[float] = []

    def remembered(*args: Any, **kwargs: Any) -> ExampleBounds:
        found = bound(*args, **kwargs)
        totals.extend(found.total.tolist())
        return found

    monkeypatch.setattr("protlig_dd.runs.generate.bound", remembered)
    samples = list(Generator(run, sampler=FirstHitting()).generate([request_], 3))
    assert len(totals) == 3 and [s.nll_per_token for s in samples] == pytest.approx([total / generated for total in totals], rel=1e-9)


@pytest.mark.parametrize(
    ("request_", "error", "text"),
    [
        (Request(name="r", given={"dna": "ACGT"}), ConfigError, "r: this run has no track 'dna'; it has protein, ligand"),
        (Request(name="r", given={"protein": PROTEIN, "ligand": "CCO"}), ConfigError, "nothing to generate"),
        (Request(name="r", given={"protein": "MK1A__"}), FormatError, "'1' at residue 3 is not an amino acid"),
        (Request(name="r", given={"protein": "A" * 100}, generate={"ligand": None}), FormatError, "sampling never crops"),
        (Request(name="r", generate={"ligand": 500}), FormatError, "expected 1 to 64"),
        (Request(name="r", generate={"ligand": 5}, conditions={"affinity_bin": 1}), ConfigError, "this run knows no conditions"),
    ],
)
def test_a_request_that_cannot_be_served_is_refused_in_words(run: Run, request_: Request, error: type[Exception], text: str) -> None:
    with pytest.raises(error, match=text):
        draw(run, request_)


@pytest.mark.parametrize("size", [0, -5])
def test_a_batch_size_or_a_length_below_one_is_refused_and_not_taken_for_the_default(run: Run, size: int) -> None:
    with pytest.raises(ConfigError, match=f"batch_size: found {size}, expected 1 or more"):
        Generator(run, batch_size=size)
    with pytest.raises(ConfigError, match=f"x: found length {size} for ligand, expected 1 or more, or None"):
        Request(name="x", generate={"ligand": size})
    with pytest.raises(ConfigError, match=f"--length: found {size}, expected 1 or more"):
        SampleOptions(run="x", unconditional=True, length=(9, size))
    for name in ("batch_size", "steps"):
        with pytest.raises(ConfigError, match=f"--{name.replace('_', '-')}: found {size}"):
            SampleOptions(run="x", unconditional=True, **{name: size})


def test_gaps_stand_for_single_tokens_between_the_ends() -> None:
    track = ProteinTrack().build("protein")
    ids, is_open = open_tokens(track, "M__V")
    assert ids == [0, 20, 32, 32, 7, 2] and is_open == [False, False, True, True, False, False]
    plain = LigandTrack(add_ends=False).build("ligand")
    assert open_tokens(plain, "C_")[1] == [False, True]
    with pytest.raises(FormatError, match=r"^protein 'M{40}\.\.\.': '!' at residue 301 is"):
        open_tokens(track, "M" * 300 + "!")


def test_options_from_python_draw_what_the_command_writes(smoke_run: Path, tmp_path: Path) -> None:
    """One way to sample: the same options give the same bytes from Python and from the command line."""
    from protlig_dd.cli.entry import main
    from protlig_dd.runs.output import rank, write_rows
    from protlig_dd.runs.plan import SamplingPlan

    common = ["--protein", "MKTAYIAKQR", "--num", "3", "--seed", "4", "--device", "cpu", "--forbid", "ligand:Br"]
    assert main(["sample", str(smoke_run), *common, "--out", str(tmp_path / "command.csv")]) == 0
    options = SampleOptions(run=str(smoke_run), protein="MKTAYIAKQR", num=3, seed=4, device="cpu", forbid=("ligand:Br",))
    plan = SamplingPlan.of(options, open_run(options.source, device=options.device))
    write_rows(tmp_path / "python.csv", rank([sample.row() for sample in plan.draw()]), plan.settings)
    for ending in ("csv", "csv.json"):
        assert (tmp_path / f"python.{ending}").read_bytes() == (tmp_path / f"command.{ending}").read_bytes()


def test_options_that_contradict_each_other_are_refused_when_they_are_made() -> None:
    with pytest.raises(ConfigError, match="nothing to condition on"):
        SampleOptions(run="x")
    with pytest.raises(ConfigError, match="give one of them"):
        SampleOptions(run="x", model="y", unconditional=True)
    with pytest.raises(ConfigError, match="--length: is of no use with --task folding"):
        SampleOptions(run="x", task="folding", protein="MKT", length=(3,))
