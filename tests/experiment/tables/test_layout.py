from __future__ import annotations

from typing import Any

import pytest

from fusionkit.config.options import TableOptions, validate_group
from fusionkit.errors import FusionError
from fusionkit.experiment.tables.layout import Layout, lay_out, special
from tests.messages import like


def options(**given: Any) -> TableOptions:
    return validate_group(TableOptions, {"name": "table", "path": "t.csv", "label": "y", **given}, "data")


def laid(names: str, **given: Any) -> Layout:
    return lay_out(names.split(), options(**given), "t.csv")


def special_columns(names: str, **given: Any) -> tuple[list[str], dict[str, str]]:
    return special(names.split(), options(**given), "t.csv")


def refused(names: str, sentence: str, **given: Any) -> None:
    with pytest.raises(FusionError, match=like(sentence)):
        laid(names, **given)


def test_one_view_and_how_to_name_several() -> None:
    layout = laid("y a b")
    assert layout.views == {"table": ["a", "b"]}
    (note,) = layout.notes
    assert "All columns" in note
    assert "a__age" in note
    assert "data.views" in note


def test_prefixes_in_the_order_of_first_appearance() -> None:
    layout = laid("b__x a__x y b__y__z a__y")
    assert list(layout.views.items()) == [("b", ["b__x", "b__y__z"]), ("a", ["a__x", "a__y"])]
    assert layout.notes == []


def test_no_prefix() -> None:
    assert laid("__x y x__").views == {"table": ["__x", "x__"]}


def test_given_views_in_their_order() -> None:
    views = {"b": "scan_*", "a": ["sex", "age?"]}
    layout = laid("age1 scan_2 y scan_1 sex age2", views=views)
    assert list(layout.views.items()) == [("b", ["scan_2", "scan_1"]), ("a", ["sex", "age1", "age2"])]


def test_a_name_comes_before_a_pattern() -> None:
    assert laid("a* ab y [x]", views={"v": "a*", "w": ["ab", "[x]"]}).views == {"v": ["a*"], "w": ["ab", "[x]"]}


def test_brackets_are_no_pattern() -> None:
    assert laid("x[1]_a x1_b y", views={"v": "x[1]*", "w": "x1*"}).views == {"v": ["x[1]_a"], "w": ["x1_b"]}


def test_patterns_leave_label_and_roles_alone() -> None:
    assert laid("a b y p", views={"v": "*"}, group="p").views == {"v": ["a", "b"]}


def test_roles_come_from_keys_alone() -> None:
    names = "id group split folds weight y"
    assert laid(names).views == {"table": names.split()[:-1]}
    roles = {"id": "p", "group": "g", "split": "s", "folds": "f", "weight": "w"}
    assert special_columns("p g s f w y a", **roles) == (["y"], roles)
    assert laid("p g s f w y a", **roles).views == {"table": ["a"]}


def test_one_column_with_two_roles() -> None:
    assert special_columns("p y a", id="p", group="p")[1] == {"id": "p", "group": "p"}


def test_several_labels() -> None:
    assert special_columns("t1 a t2", label=["t2", "t1"]) == (["t2", "t1"], {})
    assert laid("t1 a t2", label=["t2", "t1"]).views == {"table": ["a"]}


def test_drop() -> None:
    layout = laid("a b1 b2 y", drop=["b*"])
    assert layout.views == {"table": ["a"]}
    assert layout.notes[0] == "Left out by data.drop: b1, b2."
    assert laid("a b y", drop="b", views={"v": "*"}).views == {"v": ["a"]}


def test_drop_leaves_label_and_roles() -> None:
    assert laid("x_a x_y b", label="x_y", drop="x_*").views == {"table": ["b"]}


def test_categorical() -> None:
    assert laid("c1 c2 d y", categorical=["c*"]).categorical == {"c1", "c2"}


def test_names_of_any_letters() -> None:
    assert laid("größe 体重 y").views == {"table": ["größe", "体重"]}


# -- bad input ---------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("key", ["label", "id", "group", "split", "folds", "weight"])
def test_unknown_column(key: str) -> None:
    refused("y age", f"data.{key} … t.csv; found 'agee'. Did you mean 'age'?", **{key: "agee"})


@pytest.mark.parametrize("key", ["drop", "categorical"])
@pytest.mark.parametrize("pattern", ["sexx", "sexx*"])
def test_pattern_without_a_match(key: str, pattern: str) -> None:
    refused("y sex age", f"data.{key} … found '{pattern}'. Did you mean 'sex'?", **{key: [pattern]})


def test_view_without_a_match() -> None:
    refused("y sex", "data.views.a … found 'sexx'. Did you mean 'sex'?", views={"a": "sexx"})


def test_label_in_a_view() -> None:
    refused("y sex", "data.views.a … found 'y'.", views={"a": ["sex", "y"]})


def test_empty_view() -> None:
    refused("y sex age", "data.views.a … found none.", views={"a": "age", "b": "sex"}, drop="age")


def test_column_in_no_view() -> None:
    refused("y a b", "Column 'b' of t.csv … data.views; found it in none.  data.drop=b ", views={"v": "a"})
    refused("y v__a größe", "Column 'größe' … view__column; found it in none.  data.drop='\"größe\"' ")


def test_column_in_two_views() -> None:
    refused("y a", "Column 'a' of t.csv … found it in 'v' and in 'w'.  data.drop=a ", views={"v": "a", "w": "*"})


def test_label_twice_or_never() -> None:
    refused("y a", "data.label should name different columns; found ['y', 'y'].", label=["y", "y"])
    refused("y a", "data.label should name different columns; found [].", label=[])


def test_nothing_but_the_label() -> None:
    refused("y", "t.csv … found none.")
    refused("y a", "t.csv … found none.", drop="a")
