"""Tests of structure measures on made-up chains whose answers are known, and of ESMFold on a tiny model with random weights."""

from __future__ import annotations

import os
from pathlib import Path

import numpy as np
import pytest

from protlig_dd.errors import CheckpointError, DownloadError
from protlig_dd.evaluation.esmfold import esmfold, find_fold
from protlig_dd.evaluation.structures import (
    cluster,
    consistency_scores,
    diversity_scores,
    mean_plddt,
    motif_rmsd,
    motif_scores,
    nearest_tm,
    novelty_scores,
    pairwise_tm,
    self_consistency,
    structure_section,
)
from protlig_dd.structures.scaffolds import read_motif
from protlig_dd.structures.structure_io import Chain, Structure
from tests.support.chains import helix, moved, strand, walk

LETTERS = "ACDEFGHIKLMNPQRSTVWY"


def chain(ca: np.ndarray, sequence: str = "", *, plddt: float = 50.0) -> Chain:
    """A chain with N, CA and C in one rigid piece a residue, so that whatever moves C-alphas moves all."""
    letters = sequence or (LETTERS * 10)[: len(ca)]
    atoms = np.stack([ca + [-0.5, -1.3, 0.2], ca, ca + [1.2, 0.4, -0.8]], axis=1)
    return Chain.of_coordinates(letters, atoms.astype(np.float32), b_factors=np.full(len(ca), plddt, np.float32))


def turned(original: Chain, seed: int = 0) -> Chain:
    atoms = moved(original.backbone.reshape(-1, 3).astype(np.float64), seed).reshape(-1, 3, 3)
    return Chain.of_coordinates(original.sequence, atoms.astype(np.float32), b_factors=original.b_factors)


def stand_in_fold(sequence: str) -> Structure:
    """Alanine-rich sequences become a confident helix, all others a random walk of low confidence."""
    if sequence.count("A") > len(sequence) / 2:
        made = chain(helix(len(sequence)), sequence, plddt=90)
    else:
        made = chain(walk(len(sequence), sum(map(ord, sequence)) % 97), sequence, plddt=40)
    return Structure(source="stand-in", chains=(turned(made),))


def test_a_moved_copy_is_consistent_and_a_bent_one_is_not() -> None:
    backbone = chain(walk(60, 1))
    same = self_consistency(backbone, turned(backbone))
    assert (same.tm, same.rmsd, same.lddt) == pytest.approx((1, 0, 1), abs=1e-4)
    ca = walk(60, 1)
    ca[30:] = ca[30:] @ np.diag([1, -1, -1])  # half a turn about the x axis
    bent = self_consistency(backbone, chain(ca))
    assert bent.tm < 0.9
    assert bent.rmsd > 2
    with pytest.raises(ValueError, match="found chains of 60 and 59 residues"):
        self_consistency(backbone, chain(walk(59, 1)))


def test_a_backbone_of_c_alphas_is_measured_by_them() -> None:
    ca = walk(30, 2)
    only = Chain.of_coordinates("A" * 30, ca[:, None].astype(np.float32))
    assert self_consistency(only, turned(chain(ca))).rmsd == pytest.approx(0, abs=1e-4)


def test_all_residues_enter_the_score_not_a_third_of_them() -> None:
    """Only the first third is as designed."""
    ca = walk(90, 3)
    other = walk(90, 30)
    ca[30:] = other[30:] - other[30] + ca[30]
    assert self_consistency(chain(walk(90, 3)), chain(ca)).tm < 0.6


def test_the_null_of_consistency_is_another_samples_fold() -> None:
    designed = [chain(walk(40 + 5 * i, i)) for i in range(5)]
    scores = {s.name: s for s in consistency_scores(designed, [turned(c, i) for i, c in enumerate(designed)])}
    assert scores["scTM"].value.value == pytest.approx(1, abs=1e-4)
    assert scores["scRMSD (A)"].value.value == pytest.approx(0, abs=1e-3)
    null = scores["scTM"].null
    assert null is not None
    assert null.high < 0.5
    assert scores["scTM at least 0.5"].value.value == 1


def test_the_motif_is_found_at_its_places() -> None:
    source = chain(walk(50, 4))
    motif = read_motif("3-9,A5-15,2-6,A30-40,3-9", Structure(source="x", chains=(source,)))
    templates = [motif.template(i) for i in range(6)]
    folded = []
    for i, template in enumerate(templates):
        ca = walk(len(template.text), 60 + i)
        made = chain(ca)
        made.coords_angstrom[list(template.positions)] = motif.coords_angstrom
        folded.append(turned(made, i))
    assert all(motif_rmsd(f, t, motif) < 1e-3 for f, t in zip(folded, templates, strict=True))
    assert motif_rmsd(folded[0], templates[0], motif, backbone=True) < 1e-3
    value, kept = motif_scores(folded, templates, motif)
    assert value.null is not None
    assert value.value.high < 1e-3 < 3 < value.null.low
    assert (kept.value.value, kept.null.value) == (1, 0)  # type: ignore[union-attr]
    with pytest.raises(ValueError, match="expected .* as in the template"):
        motif_rmsd(chain(walk(10, 0)), templates[0], motif)


def test_pairs_exclude_self_and_clusters_are_counted() -> None:
    folds = [walk(40, 5), walk(40, 6)]
    group = [turned(chain(folds[i // 3] + np.random.default_rng(i).normal(size=(40, 3)) * 0.3), i) for i in range(6)]
    table = pairwise_tm(group)
    assert (np.diag(table) == 1).all()
    assert table[0, 1] > 0.85
    assert table[0, 4] < 0.5
    assert cluster(table).tolist() == [0, 0, 0, 1, 1, 1]
    scores = {s.name: s for s in diversity_scores(group, group[:2])}
    off = table[~np.eye(6, dtype=bool)]
    assert scores["pairwise TM"].value.value == pytest.approx(off.mean())
    assert scores["pairwise identity"].value.value == pytest.approx(1), "all six have one sequence"
    assert scores["clusters at TM 0.5 per chain"].value.value == pytest.approx(2 / 6)
    assert "2 clusters" in scores["clusters at TM 0.5 per chain"].note
    assert scores["pairwise TM"].null is not None
    assert diversity_scores(group[:1]) == []


def test_a_chain_in_a_row_of_neighbours_joins_the_centre_not_everyone() -> None:
    """0-1-2 in a row: 1 is the centre; 3 is alone."""
    tm = np.array([[1, 0.6, 0.3, 0.1], [0.6, 1, 0.6, 0.1], [0.3, 0.6, 1, 0.1], [0.1, 0.1, 0.1, 1]])
    assert cluster(tm).tolist() == [0, 0, 0, 1]
    assert cluster(tm, threshold=0.7).tolist() == [0, 1, 2, 3]


def test_novelty_is_relative_to_the_references_among_themselves() -> None:
    references = [chain(walk(45, i)) for i in range(3)]
    copies = [turned(references[2]), chain(walk(45, 9))]
    nearest = nearest_tm(copies, references)
    assert nearest[0] == pytest.approx(1, abs=1e-4)
    assert nearest[1] < 0.5
    (score,) = novelty_scores(copies[:1], references)
    assert score.null is not None
    assert score.null.high < 0.6 < score.value.value
    assert novelty_scores(copies, []) == []


def test_the_section_folds_valid_samples_and_goes_on_without_a_fold() -> None:
    samples = ["A" * 30, "AAAAAX", "", "A" * 20 + LETTERS[:10], "MKTAYIAKQRWWPLLNTYSD", LETTERS]
    section = structure_section(samples, stand_in_fold, references=[chain(helix(30)), chain(strand(25))], seed=1)
    scores = {s.name: s for s in section.scores}
    assert scores["pLDDT"].value.value == pytest.approx((90 + 90 + 40 + 40) / 4)
    assert scores["pLDDT"].null is not None
    assert scores["pLDDT above 70"].value.value == pytest.approx(0.5)
    assert {"pairwise TM", "TM to the nearest reference"} <= set(scores)
    assert "4 of 6 samples were folded." in section.lines
    assert any("2 of 6 left out" in line for line in section.lines)
    absent = structure_section(samples, None, reason="no weights; fetch them")
    assert (absent.scores, absent.lines) == ((), ("no weights; fetch them",))
    assert structure_section(["", "X"], stand_in_fold).lines[0].startswith("Nothing was folded: 2 of 2 left out")


def test_absent_weights_are_one_line_and_no_end(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    pytest.importorskip("transformers")
    fold, reason = find_fold(str(tmp_path / "none"), local_only=True)
    assert fold is None
    assert "the folding weights are not at hand" in reason
    assert "hf download facebook/esmfold_v1" in reason
    assert "\n" not in reason
    assert structure_section(["MKT"], fold, reason=reason).lines == (reason,)
    with pytest.raises(DownloadError, match="not at hand"):
        esmfold("facebook/esmfold_v1", local_only=True)


@pytest.fixture(scope="module")
def tiny_folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folding model of 59 thousand random weights, saved in the Hub's layout."""
    transformers = pytest.importorskip("transformers")
    import torch

    torch.manual_seed(0)
    structure_module = {
        "sequence_dim": 32,
        "pairwise_dim": 16,
        "ipa_dim": 4,
        "resnet_dim": 8,
        "num_heads_ipa": 2,
        "num_qk_points": 2,
        "num_v_points": 2,
        "num_blocks": 1,
        "num_resnet_blocks": 1,
    }
    trunk = {
        "num_blocks": 1,
        "sequence_state_dim": 32,
        "pairwise_state_dim": 16,
        "sequence_head_width": 16,
        "pairwise_head_width": 8,
        "position_bins": 4,
        "max_recycles": 1,
        "chunk_size": None,
    }
    vocabulary = ["<cls>", "<pad>", "<eos>", "<unk>", *"LAGVSERTIDPKQNFYMHWCXBUZO.-", "<null_1>", "<mask>"]
    shape = {"hidden_size": 16, "num_hidden_layers": 1, "num_attention_heads": 2, "intermediate_size": 16}
    config = transformers.EsmConfig(
        vocab_size=33,
        vocab_list=vocabulary,
        pad_token_id=1,
        mask_token_id=32,
        position_embedding_type="rotary",
        is_folding_model=True,
        esmfold_config={"fp16_esm": False, "lddt_head_hid_dim": 8, "trunk": {**trunk, "structure_module": structure_module}},
        **shape,
    )
    folder = tmp_path_factory.mktemp("esmfold")
    os.environ.setdefault("HF_HUB_DISABLE_PROGRESS_BARS", "1")
    transformers.EsmForProteinFolding(config).save_pretrained(folder / "fold")
    transformers.EsmForMaskedLM(transformers.EsmConfig(vocab_size=33, pad_token_id=1, mask_token_id=32, **shape)).save_pretrained(folder / "mlm")  # fmt: skip
    return folder


@pytest.mark.filterwarnings("ignore")
def test_esmfold_gives_backbone_and_confidence(tiny_folder: Path) -> None:
    fold = esmfold(str(tiny_folder / "fold"), local_only=True)
    folded = fold("MKTGYI").chains[0]
    assert folded.sequence == "MKTGYI"
    assert np.isfinite(folded.backbone).all()
    assert np.isnan(folded.coords_angstrom[3, 4]).all(), "glycine has no C-beta"
    bond = np.linalg.norm(folded.backbone[:, 1] - folded.backbone[:, 0], axis=-1)
    np.testing.assert_allclose(bond, 1.459, atol=0.02)  # N to CA of an ideal residue
    assert 1 < mean_plddt(folded) < 100
    np.testing.assert_array_equal(fold("MKTGYI").chains[0].ca, folded.ca)


@pytest.mark.filterwarnings("ignore")
def test_a_model_that_does_not_fold_is_refused(tiny_folder: Path) -> None:
    with pytest.raises(CheckpointError, match="found a 'esm' without folding head, expected ESMFold"):
        esmfold(str(tiny_folder / "mlm"), local_only=True)
