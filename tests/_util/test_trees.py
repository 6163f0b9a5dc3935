"""Walks over nested mappings and lists."""

from __future__ import annotations

from fusionkit._util.trees import flatten, leaves, mapped, to_json

TREE = {"a": {"b": 1, "c": {}}, "d": [2, {"e": 3}], 4: None}


def test_flatten() -> None:
    assert list(flatten(TREE)) == [(("a", "b"), 1), (("a", "c"), {}), (("d",), [2, {"e": 3}]), (("4",), None)]


def test_flatten_keeps_what_is_whole() -> None:
    assert (("a",), {"b": 1, "c": {}}) in flatten(TREE, whole=lambda path: path == ("a",))


def test_leaves() -> None:
    assert list(leaves(TREE)) == [("a.b", 1), ("d[0]", 2), ("d[1].e", 3), ("4", None)]


def test_to_json() -> None:
    assert to_json({"x": (1.5, float("inf"), True), 2: {3}}) == {"x": [1.5, None, True], "2": "{3}"}


def test_mapped() -> None:
    assert mapped({"a": ["b", {"c": ("d", 1)}]}, str, str.upper) == {"A": ["b", {"C": ["d", "1"]}]}
