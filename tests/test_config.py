"""Configs: unions by kind, suggestions, overrides, extends, and one clear line for everything that can be wrong."""

from __future__ import annotations

import dataclasses
import json
from pathlib import Path
from typing import Any, Literal

import pytest
import yaml
from hypothesis import given
from hypothesis import strategies as st

from protlig_dd.checkpoints.run_folder import read_config_file
from protlig_dd.config import build, kind_of, settings, to_mapping
from protlig_dd.config_files import config_folder, find_config, list_configs, read_config
from protlig_dd.errors import ConfigError


@settings
class Circle:
    kind: Literal["circle"] = "circle"
    radius: float = 1.0

    def __post_init__(self) -> None:
        if self.radius < 0:
            raise ValueError(f"radius: found {self.radius}, expected 0 or more; give its length")


@settings
class Square:
    kind: Literal["square"] = "square"
    side: int = 1
    name: str = "box"


Shape = Circle | Square


@settings
class Nested:
    shape: Shape = Circle()
    spare: Circle | None = None
    tuple_of: tuple[Shape, ...] = ()
    named: dict[str, Shape] = dataclasses.field(default_factory=dict)
    weights: dict[str, float | Circle] = dataclasses.field(default_factory=dict)
    maybe: dict[str, Shape] | None = None
    pair: tuple[int, int] = (1, 2)
    folder: Path | None = None


@settings
class Switch:
    mode: Literal["auto", "on", "off"] = "auto"
    flag: bool = True


@settings
class Root:
    nested: Nested = Nested()
    steps: int
    mode: Literal["fast", "slow"] = "fast"
    verbose: bool = False


def message(values: Any, where: str = "", cls: Any = Root) -> str:
    with pytest.raises(ConfigError) as caught:
        build(cls, values, where)
    return str(caught.value)


def nested(**values: Any) -> dict[str, Any]:
    return {"steps": 1, "nested": values}


def test_a_union_is_built_by_its_kind() -> None:
    assert build(Shape, {"kind": "square", "side": 3}) == Square(side=3)
    assert build(Root, nested(shape={"kind": "square"})).nested.shape == Square()
    assert build(Root, nested(spare={"radius": 2})).nested.spare == Circle(radius=2.0)
    assert build(Root, nested(tuple_of=[{"kind": "circle"}, {"kind": "square"}])).nested.tuple_of == (Circle(), Square())
    assert build(Root, nested(named={"x": {"kind": "square"}})).nested.named == {"x": Square()}
    assert build(Root, nested(maybe={"x": {"kind": "square"}})).nested.maybe == {"x": Square()}
    assert build(Root, nested(weights={"x": 2, "y": {"radius": 3.0}})).nested.weights == {"x": 2.0, "y": Circle(radius=3.0)}
    assert build(Root, nested(shape=Square(side=2))).nested.shape == Square(side=2), "built parts are taken as they are"
    assert kind_of(Circle) == "circle" and kind_of(Root) is None


def test_a_mapping_without_a_kind_means_the_default_class_and_nothing_an_empty_text() -> None:
    assert build(Root, {"steps": 1, "nested": {"shape": {"radius": 3}}}).nested.shape == Circle(radius=3)
    assert "nested.shape.side: unknown" in message({"steps": 1, "nested": {"shape": {"side": 3}}})
    assert build(Square, {"name": None}).name == ""


@pytest.mark.parametrize("word", ["on", "off", "auto"])
def test_on_and_off_without_quotes_are_words_where_words_are_asked_for(word: str) -> None:
    value = yaml.safe_load(word)
    assert isinstance(value, bool) or word == "auto"
    assert build(Switch, {"mode": value}).mode == word
    if isinstance(value, bool):
        assert build(Switch, {"flag": value}).flag is value


def test_another_kind_replaces_a_part_but_the_kinds_of_optim_share_their_fields() -> None:
    """An optimiser was once set to another kind, and lost the learning rate of its config."""
    before, after = (read_config("recipe/ligand", overrides) for overrides in ([], ["train.optim.kind=adamw", "model.kind=encoder"]))
    assert after["train"]["optim"] == before["train"]["optim"] | {"kind": "adamw"}
    assert after["model"] == {"kind": "encoder"}


def test_null_takes_an_entry_of_a_mapping_away() -> None:
    assert build(Root, nested(named={"x": None, "y": {"kind": "circle"}})).nested.named == {"y": Circle()}


WRONG = [
    ({"steps": 1, "stps": 2}, "stps: unknown setting (did you mean 'steps'?); valid ones are: mode, nested, steps, verbose"),
    ({"steps": 1, "qqq": 2}, "qqq: unknown setting; valid ones are: mode, nested, steps, verbose"),
    ({}, "steps: required, found nothing; set steps=..."),
    ({"steps": "many"}, "steps: found 'many', expected a valid integer, unable to parse string as an integer"),
    ({"steps": 2.5}, "steps: found 2.5, expected a valid integer, got a number with a fractional part"),
    ({"steps": float("nan")}, "steps: found nan, expected a finite number"),
    ({"steps": 1, "mode": "fats"}, "mode: found 'fats', expected 'fast' or 'slow'"),
    ({"steps": 1, "verbose": "maybe"}, "verbose: found 'maybe', expected a valid boolean, unable to interpret input"),
    ({"steps": 1, "nested": []}, "nested: found [], expected a mapping of settings"),
    (nested(shape={"kind": "circel"}), "nested.shape.kind: found 'circel', expected one of circle, square (did you mean 'circle'?)"),
    (nested(named={"a": {"radius": 1}}), "nested.named.a.kind: found none, expected one of circle, square"),
    (nested(shape={"kind": ["circle"]}), "nested.shape.kind: found '['circle']', expected one of circle, square (did you mean 'circle'?)"),
    (nested(shape="square"), "nested.shape: found 'square', expected a mapping with a kind, one of circle, square"),
    (nested(shape=None), "nested.shape: found None, expected a mapping with a kind, one of circle, square"),
    (
        nested(shape={"kind": "circle", "radios": 1}),
        "nested.shape.radios: unknown setting (did you mean 'radius'?); valid ones are: kind, radius",
    ),
    (nested(shape={"kind": "circle", "radius": -1}), "nested.shape.radius: found -1.0, expected 0 or more; give its length"),
    (nested(spare={"kind": "square"}), "nested.spare.kind: found 'square', expected 'circle'"),
    (nested(tuple_of=[{"kind": "circle"}, {"kind": "x"}]), "nested.tuple_of.1.kind: found 'x', expected one of circle, square"),
    (
        nested(named={"a": {"kind": "square", "sied": 1}}),
        "nested.named.a.sied: unknown setting (did you mean 'side'?); valid ones are: kind, name, side",
    ),
    (nested(maybe={"a": {"kind": "x"}}), "nested.maybe.a.kind: found 'x', expected one of circle, square"),
    (
        nested(weights={"a": {"radios": 1}}),
        "nested.weights.a.radios: unknown setting (did you mean 'radius'?); valid ones are: kind, radius",
    ),
    (nested(pair=[1, "x"]), "nested.pair.1: found 'x', expected a valid integer, unable to parse string as an integer"),
    ([1], "config: found [1], expected a mapping of settings"),
    (None, "config: found None, expected a mapping of settings"),
]


@pytest.mark.parametrize(("values", "words"), WRONG, ids=[words[:40] for _, words in WRONG])
def test_one_line_says_what_is_wrong(values: Any, words: str) -> None:
    assert message(values) == words


def test_every_wrong_thing_has_its_line_and_its_place() -> None:
    lines = message({"stps": 1, "nested": {"pair": ["x", 2]}}, "run").splitlines()
    assert len(lines) == 3
    assert all(line.startswith("run.") for line in lines)


@given(
    st.recursive(
        st.none() | st.booleans() | st.floats() | st.text(max_size=5),
        lambda x: (
            st.lists(x, max_size=3)
            | st.dictionaries(st.sampled_from(["kind", "steps", "nested", "shape", "named", "radius", "x"]), x, max_size=4)
        ),
        max_leaves=8,
    )
)
def test_whatever_is_given_is_built_or_refused_in_words(values: Any) -> None:
    for cls in (Root, Shape, Nested):
        try:
            build(cls, values)
        except ConfigError as error:
            assert str(error)


def test_settings_are_frozen_and_by_keyword() -> None:
    with pytest.raises(dataclasses.FrozenInstanceError):
        Circle().radius = 2.0  # type: ignore[misc]
    with pytest.raises(TypeError):
        Circle("circle")  # type: ignore[misc]


def test_settings_survive_the_way_to_json_and_back() -> None:
    root = build(Root, {**nested(shape={"kind": "square", "side": 4}, named={"x": {"kind": "circle"}}, folder="a/b"), "mode": "slow"})
    assert root.nested.folder == Path("a/b")
    assert build(Root, json.loads(json.dumps(to_mapping(root)))) == root
    assert to_mapping({"p": Path("x"), 3: (1, None)}) == {"p": "x", "3": [1, None]}


def write(folder: Path, name: str, text: str | bytes) -> Path:
    path = folder / f"{name}.yaml"
    path.write_bytes(text if isinstance(text, bytes) else text.encode())
    return path


BASE = "steps: 3\nnested:\n  shape: {kind: circle, radius: 2.0}\n  pair: [1, 2]\n"


@pytest.mark.parametrize(
    ("override", "path", "value"),
    [
        ("steps=5", "steps", 5),
        ("nested.pair=[3,4]", "nested.pair", [3, 4]),
        ("nested.shape.radius=1e-4", "nested.shape.radius", 1e-4),
        ("nested.shape={radius: 9}", "nested.shape", {"kind": "circle", "radius": 9}),
        ("nested.shape.kind=square", "nested.shape", {"kind": "square"}),
        ("nested.shape={kind: square, side: 2}", "nested.shape", {"kind": "square", "side": 2}),
        ("new.deep.key=a=b", "new.deep.key", "a=b"),
        ("nested.shape=null", "nested.shape", None),
        ("mode='slow'", "mode", "slow"),
        ("verbose=true", "verbose", True),
    ],
)
def test_overrides_merge_mappings_and_replace_the_rest(tmp_path: Path, override: str, path: str, value: Any) -> None:
    """Another kind replaces the whole, since its fields are others."""
    found: Any = read_config(write(tmp_path, "base", BASE), [override])
    for key in path.split("."):
        found = found[key]
    assert found == value


def test_later_overrides_win_and_the_rest_stays(tmp_path: Path) -> None:
    plain = read_config(write(tmp_path, "base", BASE), ["steps=4", "steps=6"])
    assert plain == {"steps": 6, "nested": {"shape": {"kind": "circle", "radius": 2.0}, "pair": [1, 2]}}


@pytest.mark.parametrize(
    ("override", "words"),
    [
        ("steps", "override 'steps': expected key.sub=value, for instance"),
        ("=3", "override '=3': expected key.sub=value"),
        ("a..b=3", "override 'a..b=3': expected key.sub=value"),
        ("a.=3", "override 'a.=3': expected key.sub=value"),
        ("steps=[1", "override 'steps=[1': the value is not YAML"),
        (f"steps={'[' * 3000}", "the value is not YAML"),
        (f"steps={'9' * 5000}", "the value is not YAML"),
        ("steps=${nothing}", "a reference does not resolve: Interpolation key 'nothing' not found"),
    ],
)
def test_an_override_that_is_none_is_refused(tmp_path: Path, override: str, words: str) -> None:
    with pytest.raises(ConfigError) as caught:
        read_config(write(tmp_path, "base", BASE), [override])
    assert words in str(caught.value)


def test_a_config_extends_another_beside_it(tmp_path: Path) -> None:
    write(tmp_path, "base", BASE)
    write(tmp_path, "middle", "extends: base\nsteps: 4\nnested: {shape: {radius: 5}}\n")
    top = write(tmp_path, "top", "extends: middle\nnested: {shape: {kind: square}, pair: [9]}\n")
    assert read_config(tmp_path / "middle.yaml")["nested"] == {"shape": {"kind": "circle", "radius": 5}, "pair": [1, 2]}
    assert read_config(top) == {"steps": 4, "nested": {"shape": {"kind": "square"}, "pair": [9]}}


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("a: [1\n", "wrong.yaml: not readable as YAML: while parsing a flow sequence"),
        ("a: 1\na: 2\n", "found duplicate key a"),
        ("a:\n\tb: 1\n", "not readable as YAML"),
        (b"\xff\xfe\x00\x01", "wrong.yaml: not readable as YAML: 'utf-8' codec"),
        (b"\x00\x01\x02", "wrong.yaml: not readable as YAML"),
        ("- 1\n- 2\n", "wrong.yaml: expected a mapping of settings, found list"),
        ("5\n", "wrong.yaml: not readable as YAML"),
        ("extends: wrong\n", "wrong.yaml: 'extends' goes in a circle: wrong -> wrong"),
        ("extends: other\n", "'extends' goes in a circle: wrong -> other -> wrong"),
        ("extends: nothing\n", "wrong.yaml: extends: found 'nothing', which is neither a file in its folder nor a packaged config"),
        ("extends: [other]\n", "wrong.yaml: extends: found ['other'], expected the name of one config"),
        ("a: ${b}\n", "a reference does not resolve: Interpolation key 'b' not found"),
    ],
)
def test_a_broken_file_is_named(tmp_path: Path, text: str | bytes, words: str) -> None:
    write(tmp_path, "other", "extends: wrong\n")
    with pytest.raises(ConfigError) as caught:
        read_config(write(tmp_path, "wrong", text))
    assert words in str(caught.value)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize("name", ["../secret", "{outside}", "link", "../secret.yaml"])
def test_a_config_extends_no_file_outside_its_folder_and_quotes_none(tmp_path: Path, name: str) -> None:
    inside = tmp_path / "shared"
    inside.mkdir()
    outside = write(tmp_path, "secret", "root:x:0:0:root:/root:/bin/bash\ndaemon:x:1:1\n")
    (inside / "link").symlink_to(outside)
    with pytest.raises(ConfigError, match="wrong.yaml: extends: found .*, expected a packaged config, or a file in the folder") as caught:
        read_config(write(inside, "wrong", f"extends: {name.format(outside=outside)}\n"))
    assert "root" not in str(caught.value).replace(str(tmp_path), "") and "\n" not in str(caught.value)


def test_a_file_that_is_no_config_is_not_quoted(tmp_path: Path) -> None:
    with pytest.raises(ConfigError) as caught:
        read_config(write(tmp_path, "passwd", "root:x:0:0:root:/root:/bin/bash\ndaemon:x:1:1\n"))
    assert str(caught.value).endswith(
        "passwd.yaml: not readable as YAML: found a single text or number, expected a mapping of settings (line 1)"
    )


def test_a_config_extends_a_file_below_it(tmp_path: Path) -> None:
    (tmp_path / "bases").mkdir()
    write(tmp_path / "bases", "small", BASE)
    assert read_config(write(tmp_path, "top", "extends: bases/small\n"))["steps"] == 3
    assert read_config(write(tmp_path, "other", "extends: bases/small.yaml\n"))["steps"] == 3


@pytest.mark.parametrize(
    "value", ["${oc.env:SECRET}", "x_${oc.env:SECRET,none}", "${oc.${kind}:SECRET}", "${oc.decode:'${oc.env:SECRET}'}"]
)
def test_the_environment_is_read_for_the_command_line_only(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, value: str) -> None:
    monkeypatch.setenv("SECRET", "hunter2")
    base = write(tmp_path, "base", f'kind: env\nnested: {{name: "{value}"}}\n')
    for path in (base, write(tmp_path, "top", "extends: base\n")):
        with pytest.raises(ConfigError) as caught:
            read_config(path, ["other=${oc.env:SECRET}"])
        assert "base.yaml: nested.name: found '" in str(caught.value) and "hunter2" not in str(caught.value)
        assert f"on the command line: 'nested.name={value}'" in str(caught.value)
    assert read_config(write(tmp_path, "own", "steps: 1\nurl: s3://x/${steps}\n"), ["name=${oc.env:SECRET}"]) == {
        "steps": 1, "url": "s3://x/1", "name": "hunter2",
    }  # fmt: skip


BOMB = "a0: &a0 [x, x]\n" + "".join(f"a{i}: &a{i} [{', '.join([f'*a{i - 1}'] * 9)}]\n" for i in range(1, 12))


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("a: " + "[" * 3000 + "]" * 3000, "nested deeper than 100 levels (line 1)"),
        ("".join(" " * i + "a:\n" for i in range(3000)), "nested deeper than 100 levels (line 100)"),
        (BOMB, "more than 100,000 values with its aliases written out (line "),
        ("a: " + "9" * 5000, "not readable as YAML: "),
        ("a: 1\nb: [1\nc: 2", "while parsing a flow sequence, expected ',' or ']', but got ':' (line 3)"),
        ("a: !!python/object/apply:os.system [true]", "could not determine a constructor for the tag"),
        ("? [1]\n: 2", "not readable as YAML: "),
    ],
    ids=["brackets", "indents", "aliases", "digits", "broken", "tag", "key"],
)
def test_a_hostile_document_is_refused_in_one_line_in_configs_and_run_folders(tmp_path: Path, text: str, words: str) -> None:
    path = write(tmp_path, "config", text)
    for read in (read_config, read_config_file):
        with pytest.raises(ConfigError) as caught:
            read(path)
        assert words in str(caught.value) and "\n" not in str(caught.value) and len(str(caught.value)) < 400


def test_windows_line_ends_and_empty_files_are_read(tmp_path: Path) -> None:
    assert read_config(write(tmp_path, "crlf", "a: 1\r\nb:\r\n  c: x\r\n")) == {"a": 1, "b": {"c": "x"}}
    assert read_config(write(tmp_path, "empty", "")) == {}


def test_references_are_resolved_after_overrides(tmp_path: Path) -> None:
    assert read_config(write(tmp_path, "ref", "a: 1\nb: ${a}\n"), ["a=2"])["b"] == 2


def test_packaged_configs_are_found_by_name_and_suggested() -> None:
    names = list_configs()
    assert "dual_track/demo" in names
    assert find_config("dual_track/demo") == config_folder() / "dual_track" / "demo.yaml"
    with pytest.raises(ConfigError, match=r"config 'dual_track/dmo': found neither .*did you mean 'dual_track/demo'"):
        find_config("dual_track/dmo")
    with pytest.raises(ConfigError, match="found neither a file"):
        find_config("M" * 5000)


@pytest.mark.parametrize("name", list_configs())
def test_every_packaged_config_is_a_mapping_that_opens_with_a_comment(name: str) -> None:
    assert find_config(name).read_text().startswith("#")
    assert read_config(name)


def test_run_names_follow_configs() -> None:
    """A run's folder is runs/NAME: it says which config made it, and two configs never share one."""
    names = {config: read_config(config)["name"] for config in list_configs()}
    assert names == {config: config.replace("/", "_") for config in names}
    assert len(set(names.values())) == len(names)
