"""Torch's files are read without running them: programs in a pickle do nothing, damage is one line."""

from __future__ import annotations

import collections
import io
import os
import pickle
import zipfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from hypothesis import example, given
from hypothesis import strategies as st
from torch import Tensor

from protlig_dd.checkpoints.archive import read_tensors
from protlig_dd.errors import CheckpointError

WEIGHTS = {"a": torch.arange(6.0).view(2, 3), "b": torch.ones(4, dtype=torch.bfloat16)}


def saved(path: Path, content: Any) -> Path:
    torch.save(content, path)
    return path


def same(found: dict[str, Tensor], expected: dict[str, Tensor]) -> bool:
    return found.keys() == expected.keys() and all(torch.equal(found[name], expected[name]) for name in expected)


@pytest.mark.parametrize(
    "content",
    [
        WEIGHTS,
        collections.OrderedDict(WEIGHTS),
        {name: torch.nn.Parameter(value) for name, value in WEIGHTS.items()},
        {name: value.t().contiguous().t() if value.ndim == 2 else value for name, value in WEIGHTS.items()},
        {**WEIGHTS, "a": torch.arange(12.0).view(4, 3)[:2], "left out": 3, "named": object},
    ],
)
def test_tensors_come_back(tmp_path: Path, content: Any) -> None:
    assert same(read_tensors(saved(tmp_path / "x.bin", content)), WEIGHTS)


def test_every_type_and_what_is_shared_comes_back(tmp_path: Path) -> None:
    kinds = (torch.float64, torch.float16, torch.int64, torch.int32, torch.int16, torch.int8, torch.uint8, torch.bool)
    content = {str(kind): torch.tensor([1, 0, 1]).to(kind) for kind in kinds} | {"none": torch.zeros(0, 3)}
    content["tied"] = content["torch.float64"]
    found = read_tensors(saved(tmp_path / "x.bin", content))
    assert same(found, content)
    assert found["tied"].data_ptr() == found["torch.float64"].data_ptr()


def test_a_state_dict_keeps_what_torch_hangs_on_it(tmp_path: Path) -> None:
    module = torch.nn.Sequential(torch.nn.Linear(2, 3), torch.nn.LayerNorm(3))
    assert same(read_tensors(saved(tmp_path / "x.bin", module.state_dict())), dict(module.state_dict()))


class Call:
    """Pickles as a call of something, and as a state set on the outcome."""

    def __init__(self, function: Callable[..., Any], *arguments: Any, state: Any = None) -> None:
        self.reduced = (function, arguments) if state is None else (function, arguments, state)

    def __call__(self) -> None:
        """Look like something that can be called, which pickling asks for."""

    def __reduce__(self) -> tuple[Any, ...]:
        return self.reduced


def opcodes(*lines: bytes) -> bytes:
    return b"".join(lines) + b"."


def text(word: str) -> bytes:
    return pickle.SHORT_BINUNICODE + bytes([len(word)]) + word.encode()


def attacks(mark: Path) -> dict[str, Any]:
    """Contents whose loading by pickle would make the file `mark`; bytes are a whole pickle."""
    touch, code = f"touch {mark}", f"__import__('pathlib').Path({str(mark)!r}).touch()"
    inner = b"(cos\nsystem\n(V" + touch.encode() + b"\ntRV0\nV1\nVcpu\nK\1t" + pickle.BINPERSID
    system = text("os") + text("system") + pickle.STACK_GLOBAL
    return {
        "system": Call(os.system, touch),
        "eval": Call(eval, code),
        "exec": Call(exec, code),
        "getattr": Call(getattr, Call(__import__, "os"), "system"),
        "a chain": Call(Call(getattr, Call(__import__, "os"), "system"), touch),
        "torch.load": Call(torch.load, str(mark) + ".bin"),
        "setstate": Call(collections.OrderedDict, state={"items": Call(os.system, touch)}),
        "state of a tensor": Call(torch._utils._rebuild_parameter, WEIGHTS["a"], False, {}, state={"x": Call(eval, code)}),
        "a key": {Call(os.system, touch): 1},
        "stack_global": opcodes(pickle.PROTO + b"\4", system, text(touch), pickle.TUPLE1, pickle.REDUCE),
        "a dotted name": opcodes(
            pickle.PROTO + b"\4", text("os"), text("path.os.system"), pickle.STACK_GLOBAL, text(touch), pickle.TUPLE1 + pickle.REDUCE
        ),
        "global": opcodes(b"cos\nsystem\n", b"(V" + touch.encode() + b"\ntR"),
        "inst": opcodes(b"(V" + touch.encode() + b"\nios\nsystem\n"),
        "obj": opcodes(b"(cos\nsystem\nV" + touch.encode() + b"\no"),
        "newobj": opcodes(b"cos\nsystem\n(V" + touch.encode() + b"\nt" + pickle.NEWOBJ),
        "a persistent id": opcodes(inner),
        "nested persistent ids": opcodes(b"(" + inner + b"V1\nV0\nVcpu\nK\1t" + pickle.BINPERSID),
        "state of a class": opcodes(b"ccollections\nOrderedDict\n(N}(Vupdate\ncos\nsystem\nut" + pickle.BUILD),
        "state of a function": opcodes(b"ctorch._utils\n_rebuild_tensor_v2\n(N}(V__code__\ncos\nsystem\nut" + pickle.BUILD),
    }


def with_pickle(path: Path, program: bytes, *, name: str = "archive/data.pkl", **files: bytes) -> Path:
    """A torch file with a pickle of one's own and the storages of a small one."""
    with zipfile.ZipFile(path, "w") as archive:
        archive.writestr(name, program)
        archive.writestr("archive/data/0", torch.arange(6.0).numpy().tobytes())
        for file, content in files.items():
            archive.writestr(f"archive/{file}", content)
    return path


@pytest.mark.parametrize("name", sorted(attacks(Path("x"))))
def test_nothing_in_a_file_runs(tmp_path: Path, name: str) -> None:
    mark = tmp_path / "ran"
    attack = attacks(mark)[name]
    if isinstance(attack, bytes):
        with pytest.raises(CheckpointError) as caught:
            read_tensors(with_pickle(tmp_path / "x.bin", attack))
        assert "\n" not in str(caught.value) and str(tmp_path / "x.bin") in str(caught.value)
    else:
        found = read_tensors(saved(tmp_path / "x.ckpt", {"state_dict": {**WEIGHTS, "c": attack}, "other": attack}), inside="state_dict")
        assert torch.equal(found["a"], WEIGHTS["a"])
    assert not mark.exists()


def test_the_attacks_would_run_in_pickle(tmp_path: Path) -> None:
    """What the test above proves nothing about, if it does nothing anywhere."""
    ran = 0
    for name, attack in attacks(tmp_path / "ran").items():
        program = attack if isinstance(attack, bytes) else pickle.dumps(attack)
        try:
            pickle.Unpickler(io.BytesIO(program)).load()
        except (TypeError, ValueError, AttributeError, pickle.UnpicklingError, OSError) as error:
            assert name not in ("system", "eval", "stack_global", "global", "inst", "a chain"), error
        ran += (tmp_path / "ran").exists()
        (tmp_path / "ran").unlink(missing_ok=True)
    assert ran >= 8


def tensor_program(*, key: str = "0", offset: int = 0, size: str = "(K\2K\3t", stride: str = "(K\3K\1t", kind: str = "Float") -> bytes:
    """A state dict of one tensor."""
    storage = f"(Vstorage\nctorch\n{kind}Storage\nV{key}\nVcpu\nK\6t".encode() + pickle.BINPERSID
    place = b"J" + offset.to_bytes(4, "little", signed=True)
    arguments = b"(" + storage + place + size.encode("latin-1") + stride.encode("latin-1") + b"I00\n}t"
    return opcodes(b"}Va\nctorch._utils\n_rebuild_tensor_v2\n" + arguments + pickle.REDUCE + b"s")


HUGE = "\x8a\x09" + "\xff" * 8 + "\x00"  # 2**64 - 1


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"offset": 1}, r"a tensor of size \(2, 3\) lies beyond its storage of 6"),
        ({"offset": -1}, r"not made of whole numbers from 0 on"),
        ({"stride": "(K\4K\1t"}, r"lies beyond its storage"),
        ({"stride": "(J\xff\xff\xff\xffK\1t"}, r"not made of whole numbers"),
        ({"size": "(K\2K\x7ft", "stride": "(K\0K\0t"}, r"a tensor of size \(2, 127\) lies beyond its storage of 6"),
        ({"size": f"(K\2{HUGE}t", "stride": "(K\0K\0t"}, r"not made of whole numbers"),
        ({"size": "(K\2K\3K\1t"}, r"zip\(\) argument"),
        ({"size": "(Vx\nK\3t"}, r"not made of whole numbers"),
        ({"size": "N"}, r"not made of whole numbers"),
        ({"key": "../data.pkl"}, r"no item named 'archive/data/../data.pkl'"),
        ({"key": "7"}, r"no item named 'archive/data/7'"),
        ({"kind": "Quantum"}, r"a storage of an unknown type"),
        ({"kind": "Double", "size": "(K\2K\2t", "stride": "(K\2K\1t"}, r"beyond its storage of 3"),
    ],
)
def test_a_tensor_that_does_not_fit_its_storage_is_refused(tmp_path: Path, changes: dict[str, Any], message: str) -> None:
    assert torch.equal(read_tensors(with_pickle(tmp_path / "good.bin", tensor_program()))["a"], WEIGHTS["a"])
    with pytest.raises(CheckpointError, match=rf"bad.bin: damaged \(.*{message}"):
        read_tensors(with_pickle(tmp_path / "bad.bin", tensor_program(**changes)))


def test_files_that_are_not_checkpoints_are_refused(tmp_path: Path) -> None:
    good = saved(tmp_path / "good.bin", WEIGHTS).read_bytes()
    contents = {"empty": b"", "words": b"not a zip", "cut": good[: len(good) // 2], "old": pickle.dumps({"a": 1})}
    for name, content in contents.items():
        (tmp_path / name).write_bytes(content)
        with pytest.raises(CheckpointError, match=f"{name}: not a whole file of torch 1.6 or later"):
            read_tensors(tmp_path / name)
    with pytest.raises(CheckpointError, match="absent: no such file"):
        read_tensors(tmp_path / "absent")
    for content, inside, said in (([1], "", ""), ({"a": 1}, "", ""), ({"a": WEIGHTS}, "b", " under 'b'"), (3, "b", " under 'b'")):
        with pytest.raises(CheckpointError, match=f"found no tensors by name{said}, expected a state dict"):
            read_tensors(saved(tmp_path / "x.bin", content), inside=inside)


def test_archives_of_another_make_are_refused(tmp_path: Path) -> None:
    with pytest.raises(CheckpointError, match=r"x.pt: a TorchScript program"):
        read_tensors(with_pickle(tmp_path / "x.pt", tensor_program(), **{"constants.pkl": b"", "code/model.py": b""}))
    with pytest.raises(CheckpointError, match=r"found 0 data.pkl inside"):
        read_tensors(with_pickle(tmp_path / "y.bin", tensor_program(), name="other"))
    with pytest.warns(UserWarning, match="Duplicate"):
        with_pickle(tmp_path / "z.bin", tensor_program(), **{"data.pkl": tensor_program()})
    with pytest.raises(CheckpointError, match=r"found 2 data.pkl inside"):
        read_tensors(tmp_path / "z.bin")
    with pytest.raises(CheckpointError, match=r"big-endian"):
        read_tensors(with_pickle(tmp_path / "b.bin", tensor_program(), byteorder=b"big"))


def test_nothing_unfolds_to_more_than_the_file(tmp_path: Path) -> None:
    with zipfile.ZipFile(tmp_path / "x.bin", "w", zipfile.ZIP_DEFLATED) as archive:
        archive.writestr("archive/data.pkl", tensor_program())
        archive.writestr("archive/data/0", bytes(10**6))
    with pytest.raises(CheckpointError, match=r"'archive/data.pkl' is compressed"):
        read_tensors(tmp_path / "x.bin")
    slot = b"}" + pickle.LONG_BINPUT + (2**32 - 2).to_bytes(4, "little")
    with pytest.raises(CheckpointError, match=r"memory slot 4294967294 in a pickle of 7 bytes"):
        read_tensors(with_pickle(tmp_path / "y.bin", opcodes(slot)))


WHOLE: list[bytes] = []


def whole_file() -> bytes:
    if not WHOLE:
        stream = io.BytesIO()
        torch.save({"state_dict": WEIGHTS, "settings": Call(print, 1), "betas": {0.9, 0.98}}, stream)
        WHOLE.append(stream.getvalue())
    return WHOLE[0]


@given(st.lists(st.tuples(st.floats(0, 1, exclude_max=True), st.integers(1, 255)), min_size=1, max_size=6), st.booleans())
@example([(0.0, 255)], True)
def test_any_damage_is_one_line_or_none(
    tmp_path_factory: pytest.TempPathFactory, flips: list[tuple[float, int]], program_only: bool
) -> None:
    """Flipped bytes anywhere, or in the pickle with the checksum made right again."""
    path = tmp_path_factory.getbasetemp() / "flipped.ckpt"
    damaged = bytearray(whole_file())
    if program_only:
        with zipfile.ZipFile(io.BytesIO(whole_file())) as archive:
            damaged = bytearray(archive.read("archive/data.pkl"))
    for place, mask in flips:
        damaged[int(place * len(damaged))] ^= mask
    if program_only:
        with_pickle(path, bytes(damaged), **{"data/1": bytes(8)})
    else:
        path.write_bytes(bytes(damaged))
    try:
        found = read_tensors(path, inside="state_dict")
    except CheckpointError as error:
        assert "\n" not in str(error) and str(path) in str(error)
    else:
        assert all(isinstance(value, Tensor) for value in found.values())
