"""The vector of k-mers: counts against a plain count, what it may depend on, and the model that it conditions."""

from __future__ import annotations

from collections import Counter
from dataclasses import replace

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from protlig_dd.errors import ConfigError
from protlig_dd.models.dit import DiT, DiTSettings
from protlig_dd.models.transfer import initialise_from
from protlig_dd.nn.kmers import KmerVector
from protlig_dd.runs.experiment import load_experiment
from protlig_dd.tokens.settings import LigandTrack, ProteinTrack
from protlig_dd.tokens.tracks import TrackBatch, pack

PROTEIN = ProteinTrack(max_length=5000, unknown="X").build("protein")
TRACKS = {"protein": PROTEIN, "ligand": LigandTrack().build("ligand")}
LETTERS = sorted(PROTEIN.vocabulary.symbols[i] for i in PROTEIN.vocabulary.emittable_ids)
SMALL = DiTSettings(given_kmers={"protein": 2}, hidden_size=16, num_heads=2, num_blocks=1, conditioning_size=6, dropout=0.0)
GIVEN = ["train.init_from=", "data.path=x", "model={kind: dit, given_kmers: {protein: 3}}"]


def batch_of(*pairs: tuple[str, str]) -> TrackBatch:
    return pack([{name: TRACKS[name].encode(text) for name, text in zip(TRACKS, pair, strict=True) if text} for pair in pairs], TRACKS)


def model_of(settings: DiTSettings = SMALL) -> DiT:
    torch.manual_seed(0)
    return settings.build(TRACKS, "bucketed").eval()


def perturbed() -> DiT:
    model = model_of()
    for parameter in model.parameters():
        parameter.data += 0.3 * torch.randn(parameter.shape, generator=torch.Generator().manual_seed(parameter.numel()))
    return model


@given(st.lists(st.text(alphabet="ACDWXY", max_size=12), min_size=1, max_size=5), st.integers(1, 3))
def test_counts_are_those_of_a_plain_count(proteins: list[str], k: int) -> None:
    found = KmerVector(PROTEIN, k, 4, 4).counts(batch_of(*((p, "C") for p in proteins)).tracks["protein"])
    for row, protein in zip(found, proteins, strict=True):
        expected = Counter(protein[i : i + k] for i in range(len(protein) - k + 1))
        for kmer in [kmer for kmer in expected if set(kmer) - set(LETTERS)]:
            del expected[kmer]
        assert row.sum() == expected.total()
        for kmer, count in expected.items():
            place = 0
            for letter in kmer:
                place = place * len(LETTERS) + LETTERS.index(letter)
            assert row[place] == count, kmer


def test_masked_residues_are_not_counted() -> None:
    track = batch_of(("ACDW", "C")).tracks["protein"]
    masked = track.tokens.clone()
    masked[track.tokens == PROTEIN.vocabulary.ids["D"]] = PROTEIN.vocabulary.mask_id
    reader = KmerVector(PROTEIN, 2, 4, 4)
    assert reader.counts(track).sum() == 3
    assert reader.counts(replace(track, tokens=masked)).sum() == 1


def test_the_vector_does_not_depend_on_the_batch_and_an_absent_protein_has_its_own() -> None:
    model = perturbed()
    (reader,) = model.given.values()
    together = reader(batch_of(("MKTLLVAC", "C"), ("", "CC"), ("MKTLLVAC", "CO")).tracks["protein"])
    alone = reader(batch_of(("MKTLLVAC", "C")).tracks["protein"])
    torch.testing.assert_close(together[0], alone[0])
    assert torch.equal(together[0], together[2])
    assert torch.equal(together[1], reader.absent)
    assert not torch.allclose(together[0], together[1])


def test_a_new_model_ignores_its_protein_and_a_trained_one_reads_all_of_it() -> None:
    sigma = {name: torch.ones(2) for name in TRACKS}
    long = "MKTAYIAKQR" * 400
    batches = [batch_of((p, "CCO"), (p, "CN")) for p in (long, long[:-3] + "WWW")]

    def logits(model: DiT, batch: TrackBatch) -> torch.Tensor:
        return model(batch, sigma)["ligand"]

    fresh = model_of()
    fresh.head.linear.weight.data.normal_()  # the head starts at zero, which would hide everything
    assert torch.equal(logits(fresh, batches[0]), logits(fresh, batches[1]))
    assert not torch.equal(logits(perturbed(), batches[0]), logits(perturbed(), batches[1]))


def test_the_given_track_has_logits_of_its_own_shape_and_no_gradient_is_lost() -> None:
    model, batch = perturbed(), batch_of(("MKTAY", "CCO"))
    sigma = {name: torch.ones(1) for name in TRACKS}
    whole = model(batch, sigma)
    assert whole["protein"].shape == (7, PROTEIN.vocabulary.num_rows)
    none = torch.zeros(0, dtype=torch.int64)
    assert model(batch, sigma, at={"protein": none, "ligand": torch.tensor([1])})["protein"].shape == (0, PROTEIN.vocabulary.num_rows)
    whole["ligand"].sum().backward()
    assert all(p.grad is not None and p.grad.abs().sum() > 0 for name, p in model.named_parameters() if "layers" in name)


def test_weights_of_a_ligand_model_start_one_with_a_protein() -> None:
    tracks = {"ligand": TRACKS["ligand"]}
    torch.manual_seed(3)
    source = replace(SMALL, given_kmers=None).build(tracks, "bucketed")
    source.head.linear.weight.data.normal_()
    model = model_of()
    initialise_from(model, TRACKS, source.state_dict(), tracks, "ligands")
    batch = batch_of(("MKTAY", "CCO"))
    expected = source.eval()(replace(batch, tracks={"ligand": batch.tracks["ligand"]}), {"ligand": torch.ones(1)})["ligand"]
    torch.testing.assert_close(model(batch, {name: torch.ones(1) for name in TRACKS})["ligand"], expected)
    other = model_of(replace(SMALL, given_kmers={"protein": 1}))
    told = initialise_from(other, TRACKS, perturbed().state_dict(), TRACKS, "pairs")
    assert "given.protein.layers.0.weight" in told[-1]
    assert torch.equal(other.embedding.weight, perturbed().embedding.weight)
    again = model_of()
    initialise_from(again, TRACKS, perturbed().state_dict(), TRACKS, "pairs")
    assert torch.equal(again.embedding.weight, perturbed().embedding.weight)


def test_what_cannot_be_built_is_refused() -> None:
    with pytest.raises(ConfigError, match=r"given_kmers.protein: found 9, .* use 3"):
        KmerVector(PROTEIN, 9, 4, 4)
    with pytest.raises(ConfigError, match="model.given_kmers: found track 'dna'"):
        replace(SMALL, given_kmers={"dna": 3}).build(TRACKS, "bucketed")
    with pytest.raises(ConfigError, match="takes one track beside those of model.given_kmers"):
        replace(SMALL, given_kmers={"protein": 1, "ligand": 1}).build(TRACKS, "bucketed")
    with pytest.raises(ConfigError, match="generates the track 'protein', which model.given_kmers only reads"):
        load_experiment("recipe/pairs", GIVEN)
