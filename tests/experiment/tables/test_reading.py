from __future__ import annotations

import gzip
from typing import Any

import numpy as np
import pandas as pd
import pytest

from fusionkit.errors import FusionError
from fusionkit.experiment.tables.reading import read_chunks, read_table
from tests.experiment.tables.conftest import Tables, equal
from tests.messages import like

NAN = float("nan")
PATIENTS = """patient;scan__ok;clinical__age;clinical__sex;outcome;fold;scan__dose;w
007;true;61,5;f;yes;0;1,5;1
NA;FALSE;48;m;no;1;2;0
7;True; 50 ;;no;1;-3e-1;2,5
x;;;;yes;0;;1
"""
OPTIONS: dict[str, Any] = {"label": "outcome", "id": "patient", "folds": "fold", "weight": "w", "decimal": ","}


def test_a_table(tables: Tables) -> None:
    source = tables.read(PATIENTS, **OPTIONS)
    assert list(source.views) == ["scan", "clinical"]
    equal(source.views["scan"], [[1, 1.5], [0, 2], [1, -0.3], [NAN, NAN]])
    equal(source.views["clinical"], [[61.5, 1, 0], [48, 0, 1], [50, 0, 0], [NAN] * 3])
    assert source.labels.values.tolist() == ["yes", "no", "no", "yes"]
    assert source.labels.names == ["outcome"]
    roles = {key: value.tolist() for key, value in source.roles.items()}
    assert roles == {"id": ["007", "NA", "7", "x"], "folds": [0, 1, 1, 0], "weight": [1.0, 0.0, 2.5, 1.0]}
    assert source.notes == ["Missing text counts as no category: 1 in 'clinical__sex'."]
    assert (source.mask, source.path.name) == (None, "t.csv")
    assert source.table is not None
    assert source.table.dims == [2, 3]


@pytest.mark.parametrize("ending", ["csv", "tsv", "csv.gz", "parquet"])
def test_every_ending(tables: Tables, ending: str) -> None:
    frame = pd.DataFrame({
        "id": ["007", "NA", "3"],
        "a__x": [1.5, None, 3.0],
        "a__flag": [True, None, False],
        "b__c": ["u", None, "v"],
        "y": [3, 1, 2],
    })  # fmt: skip
    path = tables.folder / f"t.{ending}"
    if ending == "parquet":
        frame.to_parquet(path)
    else:
        frame.to_csv(path, index=False, sep="\t" if ending == "tsv" else ",")
    source = read_table(tables.options(str(path), id="id"))
    equal(source.views["a"], [[1.5, 1], [NAN, NAN], [3, 0]])
    equal(source.views["b"], [[1, 0], [NAN, NAN], [0, 1]])
    assert source.labels.values.tolist() == [3, 1, 2]
    assert source.labels.values.dtype == np.int64
    assert source.roles["id"].tolist() == ["007", "NA", "3"]
    assert source.table is not None
    chunks = list(read_chunks(source.table, str(path), 2))
    for name, arrays in zip("ab", zip(*(chunk.views for chunk in chunks), strict=True), strict=True):
        equal(np.concatenate(arrays), source.views[name])
    assert [chunk.ids.tolist() for chunk in chunks if chunk.ids is not None] == [["007", "NA"], ["3"]]
    assert [chunk.start for chunk in chunks] == [0, 2]
    assert chunks[-1].fraction == 1.0


@pytest.mark.parametrize("rows", [1, 2, 3, 13, 101])
@pytest.mark.parametrize("columns", [1, 2, 7])
def test_numbers_are_those_of_pandas(tables: Tables, rows: int, columns: int) -> None:
    frame = pd.DataFrame(np.random.default_rng(0).standard_normal((rows, columns))).rename(columns="x{}".format)
    text = frame.assign(y=0).to_csv(index=False)
    source = tables.read(text)
    expected = pd.read_csv(tables.folder / "t.csv")[list(frame)].to_numpy()
    equal(source.views["table"], expected)
    for step in (1, 5, rows):
        chunks = tables.chunks(source, text, step)
        equal(np.concatenate([chunk.views[0] for chunk in chunks]), expected)
        assert [chunk.start for chunk in chunks] == list(range(0, rows, step))
        assert all(chunk.ids is None for chunk in chunks)


def test_many_columns(tables: Tables) -> None:
    names = [f"v{i % 3}__{i}" for i in range(2003)]
    source = tables.read(",".join([*names, "y"]) + "\n" + "\n".join(",".join(["1"] * 2004) for _ in range(3)))
    assert [view.shape for view in source.views.values()] == [(3, 668), (3, 668), (3, 667)]


def test_index_of_pandas_is_left_out(tables: Tables) -> None:
    frame = pd.DataFrame({"a": [1, 2], "y": [0, 1]}, index=[5, 6])
    source = tables.read(frame.to_csv())
    equal(source.views["table"], [[1], [2]])
    assert any("without a name" in note for note in source.notes)
    assert tables.read(frame.to_csv(index=False)).notes == source.notes[1:]


def test_names_of_any_letters(tables: Tables) -> None:
    source = tables.read("Größe__体重, Größe__b c ,y\n1,2,0\n")
    assert source.table is not None
    assert source.table.names() == {"Größe": ["Größe__体重", "Größe__b c"]}


def test_columns_that_were_dropped_are_not_looked_at(tables: Tables) -> None:
    source = tables.read("a,b,y\n1,,0\n2,,1\n", drop="b")
    equal(source.views["table"], [[1], [2]])
    assert "b" in source.notes[0]


def test_several_labels_and_tags(tables: Tables) -> None:
    assert tables.read("a,u,v\n1,1,0.5\n", label=["v", "u"]).labels.values.tolist() == [[0.5, 1.0]]
    source = tables.read("a,y\n1,x;NA\n2,NA\n", label_separator=";")
    assert source.labels.values.tolist() == ["x;NA", "NA"]


def test_constant_columns_are_fine(tables: Tables) -> None:
    equal(tables.read("a,b,y\n1,x,0\n1,x,1\n").views["table"], [[1, 1], [1, 1]])


def test_impute(tables: Tables) -> None:
    source = tables.read("a,b,y\n1,,0\n2,4,1\n", impute="mean")
    equal(source.views["table"], [[1, NAN], [2, 4]])
    assert source.table is not None
    assert source.table.impute == "mean"
    (chunk,) = tables.chunks(source, "a,b\n,3\n")
    equal(chunk.views[0], [[NAN, 3]])


def test_categories_that_look_like_numbers(tables: Tables) -> None:
    source = tables.read("zip,y\n01,0\n2.0,1\n1,1\n", categorical="zip")
    equal(source.views["table"], [[1, 0], [0, 1], [1, 0]])
    (chunk,) = tables.chunks(source, "zip\n1.0\n3\n")
    equal(chunk.views[0], [[1, 0], [0, 0]])
    assert chunk.unseen == {"zip": 1}


def test_test_part_in_a_file_of_its_own(tables: Tables) -> None:
    source = tables.read("c,b__x,y,id\nq,1,u,1\np,2,v,2\n", views={"v": "*"}, id="id")
    path = tables.write("id,more,y,b__x,c\n9,?,w,3,p\n8,?,u,4,r\n", "test.csv")
    test = read_table(tables.options(path, id="id"), known=source.table)
    assert test.table == source.table
    equal(test.views["v"], [[1, 0, 3], [0, 0, 4]])
    assert test.labels.values.tolist() == ["w", "u"]
    assert test.roles["id"].tolist() == ["9", "8"]
    (note,) = test.notes
    assert "1 in 'c'" in note


def test_known_tables_need_no_role_but_the_id(tables: Tables) -> None:
    text = "id,f,g,a,b,y\n1,0,u,1,2,p\n2,1,u,3,4,q\n"
    options: dict[str, Any] = {"id": "id", "folds": "f", "group": "g", "drop": "b"}
    source = tables.read(text, **options)
    test = read_table(tables.options(tables.write("y,a,g,id\np,5,v,3\n"), **options), known=source.table)
    assert {role: values.tolist() for role, values in test.roles.items()} == {"id": ["3"], "group": ["v"]}
    equal(test.views["table"], [[5]])
    with pytest.raises(FusionError, match=like("…/t.csv … found 2 missing: a, id.")):
        read_table(tables.options(tables.write("y,f\np,5\n"), **options), known=source.table)
    found = "data.label should name a column of …/t.csv; found 'y'.  Its columns are 'a', 'id'."
    with pytest.raises(FusionError, match=like(found)):
        read_table(tables.options(tables.write("a,id\n1,5\n"), **options), known=source.table)


def test_digest_is_that_of_the_content(tables: Tables) -> None:
    first = tables.read("a,y\n1,2\n").digest
    assert tables.read("a,y\n1,2\n", "other.csv").digest == first
    assert tables.read("a,y\n1,3\n").digest != first


# -- chunks ------------------------------------------------------------------------------------------------------------


def test_new_columns_are_ignored_and_order_does_not_count(tables: Tables) -> None:
    source = tables.read("a,b,y\n1,x,0\n2,z,1\n")
    (chunk,) = tables.chunks(source, "more,b,a\n?,z,5\n,x,6\n")
    equal(chunk.views[0], [[5, 0, 1], [6, 1, 0]])


def test_packed_chunks_count_bytes_of_the_file(tables: Tables) -> None:
    text = "a\n" + "".join(f"{i}\n" for i in range(2000))
    source = tables.read("a,y\n1,0\n")
    chunks = tables.chunks(source, gzip.compress(text.encode()), 500, "new.csv.gz")
    assert len(chunks) == 4
    assert chunks[-1].fraction == 1.0


def test_blocks_are_read_one_after_another(tables: Tables, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("fusionkit.experiment.tables.reading._CELLS", 9)
    source = tables.read("a,c,y\n1,p,0\n2,q,1\n")
    new = "a,c\n" + "".join(f"{i},{'pqr'[i % 3]}\n" for i in range(10))
    chunks = tables.chunks(source, new, 2)
    assert [len(chunk.views[0]) for chunk in chunks] == [2, 1, 2, 1, 2, 1, 1]
    assert [chunk.start for chunk in chunks] == [0, 2, 3, 5, 6, 8, 9]
    equal(np.concatenate([chunk.views[0] for chunk in chunks])[:, 0], range(10))
    assert sum(chunk.unseen.get("c", 0) for chunk in chunks) == 3
    assert chunks[0].fraction <= chunks[-1].fraction == 1.0


@pytest.mark.parametrize("cells", [1, 6, 1000])
def test_words_are_named_with_their_row(tables: Tables, cells: int, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("fusionkit.experiment.tables.reading._CELLS", cells)
    source = tables.read("a,b,y\n1,1,0\n2,1,1\n")
    new = "a,b\n" + "1,1\n" * 7 + "1,x\n"
    with pytest.raises(FusionError, match=like("Column 'b' of …/new.csv … found 1 word, the first is 'x' in row 7.")):
        tables.chunks(source, new, 3)


@pytest.mark.parametrize("cells", [1, 6, 1000])
def test_missing_words_with_many_blanks(tables: Tables, cells: int, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("fusionkit.experiment.tables.reading._CELLS", cells)
    source = tables.read("a,b,y\n1,1,0\n2,1,1\n", impute="mean")
    chunks = tables.chunks(source, "a,b\n" + "1,2\n" * 5 + "1,   NA\n3,4\n", 3)
    equal(np.concatenate([chunk.views[0] for chunk in chunks]), [[1, 2]] * 5 + [[1, NAN], [3, 4]])


def test_missing_columns_are_named(tables: Tables) -> None:
    source = tables.read("age,b,id,y\n1,1,0,1\n", id="id")
    with pytest.raises(FusionError, match=like("…/new.csv … found 2 missing: age, id. Did you mean 'ages'?")):
        tables.chunks(source, "ages,b\n1,2\n")


def test_rows_without_an_id(tables: Tables) -> None:
    source = tables.read("a,id,y\n1,0,1\n", id="id")
    with pytest.raises(FusionError, match=like("Column 'id' …/new.csv … found 1 row without, the first is row 1.")):
        tables.chunks(source, "id,a\n1,2\n,3\n", 1)
    assert len(tables.chunks(source, "id,a\n1,2\n1,3\n", 1)) == 2


def test_missing_numbers_of_new_rows(tables: Tables) -> None:
    source = tables.read("a,b,y\n1,1,0\n2,1,1\n")
    with pytest.raises(FusionError, match=like("Column 'b' of …/new.csv … found 1, the first in row 4.")):
        tables.chunks(source, "a,b\n" + "1,1\n" * 4 + "1,\n", 2)


def test_no_new_rows(tables: Tables) -> None:
    source = tables.read("a,y\n1,0\n")
    with pytest.raises(FusionError, match=like("…/new.csv … rows below its header; found none.")):
        tables.chunks(source, "a,y\n")


def test_several_files_in_place_of_one(tables: Tables) -> None:
    source = tables.read("a,y\n1,0\n")
    assert source.table is not None
    with pytest.raises(FusionError, match=like("data.path should be a single file, … found {'v': 'new.csv'}.")):
        list(read_chunks(source.table, {"v": "new.csv"}, 2))


# -- bad input ---------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("text", "sentence"),
    [
        ("a,y\n1,0\n,\n", "Column 'y' of {t} … found 1 row without, the first is row 1."),
        (
            "a,b,y\n1,2,0\n1,,0\n",
            "Column 'b' of {t} … view 'table'; found 1, the first in row 1.  A run with data.impute=mean",
        ),
        ("a,y\n1,0\ninf,0\n", "Column 'a' of {t} … found 1 infinite, the first in row 1."),
        ("a,y\n1,0\n1e999,0\n", "Column 'a' of {t} … found 1 infinite, the first in row 1."),
        ("a,b,y\n1,,0\n2,NA,0\n", "Column 'b' of {t} … found none.  data.drop=b "),
        ("a,y\n1,0\n2,0\nx,0\n", "Column 'a' of {t} … the first is 'x' in row 2.  data.categorical=a "),
        ("a;y\n1,5;0\n2,5;0\n", "Column 'a' of {t} … the first is '1,5' in row 0.  data.decimal=','?"),
        ("a\n1\n", "data.label … {t}; found 'y'."),
        ("y\n1\n", "{t} … found none."),
        ("a,y,a\n1,2,3\n", "{t} … found 'a' 2 times."),
    ],
)
def test_bad_tables(tables: Tables, text: str, sentence: str) -> None:
    tables.refused(text, sentence)


def test_free_text(tables: Tables) -> None:
    text = "a,who,y\n" + "".join(f"1,name {i},0\n" for i in range(101))
    tables.refused(text, "Column 'who' of {t} … found 101, such as 'name 0'.  data.drop=who ")
    assert tables.read(text, max_categories=101).views["table"].shape == (101, 102)


def test_doubled_id(tables: Tables) -> None:
    tables.refused("id,a,y\n1,1,1\n1,1,1\n", "Column 'id' of {t} … '1' in row 0 and again in row 1.", id="id")


def test_blanks_around_text_do_not_count(tables: Tables) -> None:
    source = tables.read("id , kind, part, y\n a, u, train, p\nb,u ,train,p \nc,v,test,q\n", id="id", split="part")
    equal(source.views["table"], [[1, 0], [1, 0], [0, 1]])
    assert source.labels.values.tolist() == ["p", "p", "q"]
    assert source.roles["split"].tolist() == ["train", "train", "test"]
    assert source.roles["id"].tolist() == [" a", "b", "c"]
