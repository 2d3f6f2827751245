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

from protlig_dd import config
from protlig_dd.config import build, find_config, kind_of, list_configs, read_config, settings, to_mapping
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
        ("extends: nothing\n", "config 'nothing': found neither a file nor a packaged config of that name"),
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


def test_windows_line_ends_and_empty_files_are_read(tmp_path: Path) -> None:
    assert read_config(write(tmp_path, "crlf", "a: 1\r\nb:\r\n  c: x\r\n")) == {"a": 1, "b": {"c": "x"}}
    assert read_config(write(tmp_path, "empty", "")) == {}


def test_references_are_resolved_after_overrides(tmp_path: Path) -> None:
    assert read_config(write(tmp_path, "ref", "a: 1\nb: ${a}\n"), ["a=2"])["b"] == 2


def test_packaged_configs_are_found_by_name_and_suggested() -> None:
    names = list_configs()
    assert "dual_track/demo" in names
    assert find_config("dual_track/demo") == config.config_folder() / "dual_track" / "demo.yaml"
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
