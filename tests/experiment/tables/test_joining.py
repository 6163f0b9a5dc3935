from __future__ import annotations

import pytest

from fusionkit.errors import ConfigError, FusionError
from fusionkit.experiment.source import Source
from fusionkit.experiment.tables.reading import read_chunks, read_table
from tests.experiment.tables.conftest import Tables, equal
from tests.messages import like

NAN = float("nan")
FILES = {
    "rna": "id,x,z\n3,3,30\n1,1,10\n2,2,20\n9,9,90\n",
    "labels": "y,id,who\nb,2,p\na,1,q\na,04,p\n",
    "scan": "s,id\n0.5,04\n0.25,1\n",
}


def refused(tables: Tables, texts: dict[str, str], sentence: str, **options: object) -> None:
    for name in texts:
        sentence = sentence.replace("{" + name + "}", str(tables.folder / f"{name}.csv"))
    with pytest.raises(FusionError, match=like(sentence)):
        tables.join(texts, **options)


def test_outer(tables: Tables) -> None:
    source = tables.join(FILES, group="who")
    assert list(source.views) == ["rna", "scan"]
    equal(source.views["rna"], [[2, 20], [1, 10], [NAN, NAN]])
    equal(source.views["scan"], [[NAN], [0.25], [0.5]])
    assert source.labels.values.tolist() == ["b", "a", "a"]
    assert {key: value.tolist() for key, value in source.roles.items()} == {
        "id": ["2", "1", "04"],
        "group": ["p", "q", "p"],
    }
    assert source.path.name == "labels.csv"
    assert source.mask is None


def test_what_was_left_out_is_counted(tables: Tables) -> None:
    source = tables.join({**FILES, "scan": FILES["scan"] + "0,9\n"}, group="who")
    assert source.unlabelled == 2  # 3 and 9; the latter is in two files.
    assert source.notes == [
        "rna.csv: 2 ids without a label, left out.",
        "rna.csv: the view 'rna' is absent from 1 of 3 rows.",
        "scan.csv: 1 id without a label, left out.",
        "scan.csv: the view 'scan' is absent from 1 of 3 rows.",
    ]


def test_inner(tables: Tables) -> None:
    source = tables.join(FILES, group="who", join="inner")
    equal(source.views["rna"], [[1, 10]])
    equal(source.views["scan"], [[0.25]])
    assert source.labels.values.tolist() == ["a"]
    assert source.roles["id"].tolist() == ["1"]
    assert source.roles["group"].tolist() == ["q"]
    assert source.notes[-1] == "2 rows without all views, left out by data.join=inner."


def test_ids_may_be_groups(tables: Tables) -> None:
    source = tables.join(FILES, group="id", drop="who")
    assert source.roles["group"].tolist() == source.roles["id"].tolist() == ["2", "1", "04"]


def test_complete_files_need_no_note(tables: Tables) -> None:
    source = tables.join({"a": "id,y,x\n1,0,5\n2,1,6\n", "b": "id,w\n2,7\n1,8\n"})
    assert list(source.views) == ["a", "b"]
    equal(source.views["b"], [[8], [7]])
    assert source.notes == []


def test_one_name_in_two_views(tables: Tables) -> None:
    source = tables.join({"a": "id,y,age\n1,0,5\n2,1,6\n", "b": "id,age\n2,m\n1,f\n"})
    equal(source.views["a"], [[5], [6]])
    equal(source.views["b"], [[1, 0], [0, 1]])


def test_columns_are_described_by_the_rows_that_are_used(tables: Tables) -> None:
    source = tables.join({"a": "id,y,x\n1,0,5\n2,1,6\n", "b": "id,w,n\n7,q,\n1,p,1\n2,r,2\n"})
    assert source.table is not None
    assert source.table.names() == {"a": ["x"], "b": ["w=p", "w=r", "n"]}


def test_drop_and_categorical_are_for_all_files(tables: Tables) -> None:
    source = tables.join(FILES, group="who", drop=["z"], categorical=["x"])
    assert source.table is not None
    assert source.table.names() == {"rna": ["x=1", "x=2"], "scan": ["s"]}
    assert "Left out by data.drop: z." in source.notes


def test_digest_depends_on_every_file(tables: Tables) -> None:
    first = tables.join(FILES, group="who").digest
    assert tables.join(FILES, group="who").digest == first
    assert tables.join({**FILES, "scan": "s,id\n0.5,04\n0.75,1\n"}, group="who").digest != first


# -- new rows ----------------------------------------------------------------------------------------------------------


@pytest.fixture
def trained(tables: Tables) -> Source:
    return tables.join(FILES, group="who")


def test_new_rows_need_no_label(tables: Tables, trained: Source) -> None:
    assert trained.table is not None
    files = tables.files(scan="id,s\n8,1\n7,2\n", rna="id,z,x,more\n7,1,2,3\n6,4,5,6\n")
    chunks = list(read_chunks(trained.table, files, 2))
    assert [chunk.start for chunk in chunks] == [0, 2]
    assert [chunk.fraction for chunk in chunks] == [2 / 3, 1.0]
    assert [chunk.ids.tolist() for chunk in chunks if chunk.ids is not None] == [["7", "6"], ["8"]]
    equal(chunks[0].views[0], [[2, 1], [5, 4]])
    equal(chunks[0].views[1], [[2], [NAN]])
    equal(chunks[1].views[0], [[NAN, NAN]])
    equal(chunks[1].views[1], [[1]])


def test_labelled_rows_need_no_other_role(tables: Tables) -> None:
    trained = tables.join(FILES, group="who", drop="z")
    files = tables.files(rna="id,x\n1,2\n", scan="id,s\n1,3\n", labels="id,y\n1,c\n")
    source = read_table(tables.options(files, id="id", group="who", drop="z"), known=trained.table)
    assert list(source.roles) == ["id"]
    equal(source.views["rna"], [[2]])


def test_labelled_rows_in_the_format_of_the_run(tables: Tables, trained: Source) -> None:
    files = tables.files(rna="z,id,x\n1,7,2\n", scan="id,s\n7,3\n", labels="id,who,y\n7,p,c\n5,q,a\n")
    source = read_table(tables.options(files, id="id", group="who"), known=trained.table)
    assert source.table == trained.table
    equal(source.views["rna"], [[2, 1], [NAN, NAN]])
    assert source.labels.values.tolist() == ["c", "a"]


def test_text_that_looks_like_numbers_in_new_rows(tables: Tables) -> None:
    trained = tables.join({"a": "id,y,c\n1,0,1.0\n2,0,x\n3,1,y\n", "b": "id,d\n1,1\n2,2\n3,2\n"}, categorical="d")
    assert trained.table is not None
    files = tables.files(a="id,c\n1,1.0\n2,1\n", b="id,d\n1,2.0\n2,1\n")
    (chunk,) = read_chunks(trained.table, files, 9)
    equal(chunk.views[0], [[1, 0, 0], [0, 0, 0]])
    equal(chunk.views[1], [[0, 1], [1, 0]])
    assert chunk.unseen == {"c": 1}


@pytest.mark.parametrize(
    ("names", "found"),
    [
        (["rna"], "'scan'; found files for ['rna']"),
        (["rna", "scan", "scans"], "['rna', 'labels', 'scan']; found 'scans'. Did you mean 'scan'?"),
    ],
)
def test_other_files(tables: Tables, trained: Source, names: list[str], found: str) -> None:
    assert trained.table is not None
    files = tables.files(**dict.fromkeys(names, "id,x\n1,2\n"))
    with pytest.raises(FusionError, match=like(f"data.path … {found}")):
        list(read_chunks(trained.table, files, 2))


def test_one_file_in_place_of_several(tables: Tables, trained: Source) -> None:
    assert trained.table is not None
    with pytest.raises(FusionError, match=like("data.path … ['rna', 'scan'], … the single file new.csv.")):
        list(read_chunks(trained.table, "new.csv", 2))


# -- bad input ---------------------------------------------------------------------------------------------------------


def test_id_is_required(tables: Tables) -> None:
    with pytest.raises(ConfigError, match=like("data.id … found null.")):
        tables.join(FILES, id=None)


def test_views_are_the_files(tables: Tables) -> None:
    with pytest.raises(ConfigError, match=like("data.views should be null")):
        tables.join(FILES, views={"a": "x"})


def test_file_without_the_id(tables: Tables) -> None:
    refused(tables, {**FILES, "scan": "ids,s\n1,2\n"}, "{scan} … 'id', … found none. Did you mean 'ids'?")


@pytest.mark.parametrize(
    ("scan", "found"),
    [("id,s\n1,2\n,3\n", "1 row without, the first is row 1"), ("id,s\n1,2\n1,3\n", "'1' in row 0 and again in row 1")],
)
def test_empty_and_doubled_ids(tables: Tables, scan: str, found: str) -> None:
    refused(tables, {**FILES, "scan": scan}, f"Column 'id' of {{scan}} … found {found}.")


def test_label_in_no_file(tables: Tables) -> None:
    refused(tables, FILES, "data.label … found 'out' in none.", label="out")
    refused(tables, FILES, "data.group … found 'whom' in none. Did you mean 'who'?", group="whom")


def test_label_in_two_files(tables: Tables) -> None:
    refused(tables, {**FILES, "scan": "id,s,y\n1,2,3\n"}, "data.label … found it in {labels} and in {scan}.")


def test_role_beside_another_file(tables: Tables) -> None:
    texts = {**FILES, "scan": "id,s,g\n1,2,3\n"}
    refused(tables, texts, "The column 'g' (data.group) … {labels}, as 'y' does; found it in {scan}.", group="g")


def test_no_common_id(tables: Tables) -> None:
    refused(tables, {**FILES, "scan": "id,s\n07,2\n"}, "{scan} … such as '2'; found others, such as '07'.")


def test_no_row_in_all_files(tables: Tables) -> None:
    texts = {"a": "id,y,x\n1,0,1\n2,0,2\n", "b": "id,v\n1,1\n", "c": "id,w\n2,2\n"}
    refused(tables, texts, "data.join=inner … found none.", join="inner")


def test_no_view(tables: Tables) -> None:
    refused(tables, {"a": "id,y\n1,0\n"}, "data.path … found none.")


def test_rows_of_the_file_are_named(tables: Tables) -> None:
    texts = {**FILES, "rna": "id,x,z\n9,,\n1,1,1\n2,,2\n"}
    refused(tables, texts, "Column 'x' of {rna} … view 'rna'; found 1, the first in row 2.")
