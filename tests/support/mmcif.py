"""The head of a small mmCIF file."""

from __future__ import annotations

CIF_HEAD = "data_x\nloop_\n" + "\n".join(
    f"_atom_site.{field}"
    for field in (
        *("group_PDB", "id", "type_symbol", "label_atom_id", "label_alt_id", "label_comp_id", "label_asym_id"),
        *("label_entity_id", "label_seq_id", "pdbx_PDB_ins_code", "Cartn_x", "Cartn_y", "Cartn_z", "occupancy"),
        *("B_iso_or_equiv", "auth_seq_id", "auth_asym_id", "pdbx_PDB_model_num"),
    )
)
