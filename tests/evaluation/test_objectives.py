"""Properties by name: their values, their sums over letters, and unknown names."""

from __future__ import annotations

import math
from pathlib import Path

import numpy as np
import pytest
import torch

from protlig_dd.errors import ConfigError
from protlig_dd.evaluation.objectives import PROTEIN_PROPERTIES, property_from
from protlig_dd.evaluation.proteins import hydropathy, net_charge
from protlig_dd.sampling.tilting import letter_effects
from protlig_dd.tokens.settings import ProteinTrack
from protlig_dd.tokens.tracks import pack

PROTEINS = ["MKTAYIAKQRHEAVHWFDEE", "ACDEFGHIKLMNPQRSTVWY", "RRRRKKKKKK", "C"]


def test_charge_and_hydropathy_are_those_of_the_evaluation() -> None:
    charge, gravy = (property_from(name, ("protein",)) for name in ("charge", "hydropathy"))
    np.testing.assert_allclose(charge(PROTEINS), [net_charge(x) for x in PROTEINS])
    np.testing.assert_allclose(gravy(PROTEINS), [hydropathy(x) for x in PROTEINS])
    assert property_from("aromaticity", ("protein",))(["FWYA"])[0] == 0.75


@pytest.mark.parametrize("name", PROTEIN_PROPERTIES)
def test_a_sum_over_letters_is_what_its_letters_say(name: str) -> None:
    """What guidance adds up letter by letter is the property of the whole text, ends and specials not counted."""
    prop, track = property_from(name, ("protein",)), ProteinTrack().build("protein")
    values = prop(PROTEINS)
    assert np.isfinite(values).all() and len(values) == 4
    if prop.letters is None:
        return
    batch = pack([{"protein": track.encode(text)} for text in PROTEINS], {"protein": track})
    one = batch.tracks["protein"]
    each = letter_effects(prop, track, batch).gather(-1, one.tokens[:, None])[:, 0].double()
    sums = torch.zeros(4, dtype=torch.float64).index_add(0, one.layout.segment, each)
    np.testing.assert_allclose(sums.numpy(), values, atol=1e-5)


def test_a_molecule_that_cannot_be_read_is_excluded() -> None:
    pytest.importorskip("rdkit")
    prop = property_from("qed", ("ligand",))
    assert prop.track == "ligand"
    values = prop(["CC(=O)Oc1ccccc1C(=O)O", "c1cc"])
    assert values[0] == pytest.approx(0.55, abs=0.01) and values[1] == -math.inf


def test_a_function_of_the_user_sees_proteins_where_they_are_generated(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "my_property.py").write_text("value = 3\ndef lysines(texts):\n    return [t.count('K') for t in texts]\n")
    monkeypatch.chdir(tmp_path)
    monkeypatch.syspath_prepend(str(tmp_path))
    prop = property_from("my_property:lysines", ("ligand", "protein"))
    assert prop.track == "protein" and prop(["KAK", "A"]).tolist() == [2, 0]
    assert property_from("my_property:lysines", ("ligand",)).track == "ligand"
    with pytest.raises(ConfigError, match="'my_property:value': found int, expected a function"):
        property_from("my_property:value", ("protein",))


@pytest.mark.parametrize(
    "name,message",
    [
        ("charg", r"--property 'charg': expected one of charge, .* \(did you mean 'charge'\?\)"),
        ("nowhere:f", "--property 'nowhere:f': No module named 'nowhere'; expected module:function"),
        (":f", "--property ':f': Empty module name"),
        ("math:no", "module 'math' has no attribute 'no'"),
    ],
)
def test_unknown_names_are_refused(name: str, message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        property_from(name, ("protein",))


def test_a_named_property_is_no_probability() -> None:
    with pytest.raises(ConfigError, match="'charge': is no probability"):
        property_from("charge", ("protein",), is_probability=True)
