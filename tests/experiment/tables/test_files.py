from __future__ import annotations

import gzip
import hashlib
import os
from pathlib import Path

import pandas as pd
import pytest

from fusionkit.errors import ConfigError, FusionError
from fusionkit.experiment.tables.files import TableFile, open_table
from tests.experiment.tables.conftest import Tables
from tests.messages import like


def opened(tables: Tables, text: str | bytes, name: str = "t.csv", separator: str | None = None) -> TableFile:
    return open_table(tables.write(text, name), separator)


def refused(path: Path | str, sentence: str) -> None:
    with pytest.raises(FusionError, match=like(sentence.replace("{path}", str(path)))):
        open_table(path).frame(())


@pytest.mark.parametrize("separator", [",", ";", "\t", "|"])
def test_separator_from_the_header(tables: Tables, separator: str) -> None:
    table = opened(tables, f"a{separator}b{separator}c\n1{separator}2{separator}3\n")
    assert table.separator == separator
    assert table.names == ["a", "b", "c"]
    assert table.frame(()).to_numpy().tolist() == [[1, 2, 3]]


def test_separators_in_quotes_do_not_count(tables: Tables) -> None:
    table = opened(tables, '"a,b,c,d";e;"f ""g"";"\n"1;2";2;3\n')
    assert table.names == ["a,b,c,d", "e", 'f "g";']
    assert table.frame(()).to_numpy().tolist() == [["1;2", 2, 3]]


def test_equal_counts(tables: Tables) -> None:
    assert opened(tables, "a,b\tc\n").separator == ","
    assert opened(tables, "a,b\tc\n", "t.tsv").separator == "\t"
    assert opened(tables, "a\n").separator == ","


def test_given_separator(tables: Tables) -> None:
    assert opened(tables, "a,b c,d\n", separator=" ").names == ["a,b", "c,d"]


def test_the_decimal_point_is_no_separator(tables: Tables) -> None:
    assert open_table(tables.write("a,b\n"), None, ",").names == ["a,b"]
    with pytest.raises(ConfigError, match=like("data.separator and data.decimal … found ','")):
        open_table(tables.write("a,b\n"), ",", ",")


@pytest.mark.parametrize(
    "content",
    [
        b"a,b\n1,2\n3,4\n",
        b"\xef\xbb\xbfa,b\n1,2\n3,4\n",
        b'\xef\xbb\xbf"a",b\n1,2\n3,4\n',
        b"a,b\r\n1,2\r\n3,4\r\n",
        b"a,b\r1,2\r3,4",
        b"\n\n  a , b\t\n\n1,2\n\n3, 4\n\n\n",
        b'"a","b"\n"1","2"\n"3"," 4 "\n',
    ],
    ids=["plain", "mark", "mark and quotes", "CRLF", "CR", "blanks", "quotes"],
)
def test_forms_of_one_table(tables: Tables, content: bytes) -> None:
    table = opened(tables, content)
    assert table.names == ["a", "b"]
    assert table.frame(()).to_numpy().tolist() == [[1, 2], [3, 4]]
    assert [frame.to_numpy().tolist() for frame, _ in table.chunks(["a", "b"], [], [], 1)] == [[[1, 2]], [[3, 4]]]


def test_line_break_in_a_name(tables: Tables) -> None:
    table = opened(tables, '"a\nb,c",d\n1,2\n')
    assert table.names == ["a\nb,c", "d"]
    assert table.frame(()).to_numpy().tolist() == [[1, 2]]


def test_packed_and_parquet_files_have_the_same_rows(tables: Tables) -> None:
    frame = pd.DataFrame({" a": [1.5, None], "b": ["x", None], "c": [True, False]})
    packed = tables.write(gzip.compress(frame.to_csv(index=False).encode()), "t.csv.gz")
    parquet = tables.folder / "t.PARQUET"
    frame.to_parquet(parquet)
    for path in (packed, str(parquet)):
        table = open_table(path)
        assert table.names == ["a", "b", "c"]
        found = table.frame(())
        assert found["a"].tolist()[0] == 1.5
        assert found.isna().to_numpy().tolist() == frame.isna().to_numpy().tolist()
        assert sum(len(part) for part, _ in table.chunks(["a"], ["b", "c"], [], 1)) == 2


def test_index_of_pandas(tables: Tables) -> None:
    frame = pd.DataFrame({"a": [1, 2]}, index=[5, 6])
    assert opened(tables, frame.to_csv()).unnamed
    frame.to_parquet(tables.folder / "t.parquet")
    table = open_table(tables.folder / "t.parquet")
    assert table.names == ["a"]
    frame.rename_axis("patient").to_parquet(tables.folder / "t.parquet")
    assert open_table(tables.folder / "t.parquet").names == ["a", "patient"]


def test_digest_is_that_of_the_content(tables: Tables) -> None:
    assert opened(tables, "a\n1\n").digest() == hashlib.sha256(b"a\n1\n").hexdigest()


def test_text_as_it_stands(tables: Tables) -> None:
    frame = opened(tables, 'id,a\n007,NA\nNA,\n"",1\n').frame({"id"})
    assert frame["id"].tolist() == ["007", "NA", ""]
    assert frame["a"].isna().tolist() == [True, True, False]


@pytest.mark.parametrize("rows", [1, 2, 3, 7, 100])
def test_chunks_are_the_file(tables: Tables, rows: int) -> None:
    table = opened(tables, "a,b,c\n" + "".join(f"{i},x{i},{i}\n" for i in range(7)))
    parts = list(table.chunks(["a"], ["b"], [], rows))
    assert [len(frame) for frame, _ in parts] == [rows] * (7 // rows) + [7 % rows] * bool(7 % rows)
    whole = pd.concat([frame for frame, _ in parts])
    assert whole["a"].tolist() == list(map(float, range(7)))
    assert whole["b"].tolist() == [f"x{i}" for i in range(7)]
    shares = [share for _, share in parts]
    assert shares == sorted(shares)
    assert shares[-1] == 1.0


def test_a_chunk_with_a_word_is_text(tables: Tables) -> None:
    table = opened(tables, "a\n" + "1\n" * 5 + "  NA\n" + "2\n" * 3)
    whole = [value for frame, _ in table.chunks(["a"], [], [], 2) for value in frame["a"]]
    assert whole == [1, 1, 1, 1, "1", "  NA", 2, 2, 2]


# -- bad input ---------------------------------------------------------------------------------------------------------


def test_missing_file(tmp_path: Path) -> None:
    refused(tmp_path / "t.csv", "The data file … found {path}: No such file or directory.")
    refused(tmp_path / "t.parquet", "The data file … found {path}: No such file or directory.")


def test_file_in_place_of_a_directory(tables: Tables) -> None:
    refused(tables.write("a\n1\n") + "/t.csv", "The data file … found {path}: Not a directory.")


def test_directory(tmp_path: Path) -> None:
    refused(tmp_path, "The data file … found {path}: Is a directory.")


def test_pipe(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "t.csv")
    refused(tmp_path / "t.csv", "The data file … found {path}: a pipe or a device.")


def test_another_ending(tables: Tables) -> None:
    refused(tables.write("", "t.xlsx"), "The data file … .csv, .tsv, .csv.gz, .parquet; found {path}.")


@pytest.mark.parametrize("text", ["", "\n\n", ",\n1,2\n"], ids=["empty", "blank lines", "no name"])
def test_no_header(tables: Tables, text: str) -> None:
    with pytest.raises(FusionError, match=like(f"{tables.folder}/t.csv should … found none")):
        opened(tables, text)


def test_header_alone(tables: Tables) -> None:
    refused(tables.write("a,b\n"), "{path} … rows below its header; found none.")


def test_doubled_name(tables: Tables) -> None:
    refused(tables.write("a,b, a\n1,2,3\n"), "{path} … found 'a' 2 times.")


def test_column_without_a_name(tables: Tables) -> None:
    refused(tables.write("a,,b\n1,2,3\n"), "{path} … found none for column 1")


def test_another_encoding(tables: Tables) -> None:
    refused(tables.write("a,größe\n1,2\n".encode("latin-1")), "{path} … UTF-8; found the byte 0xf6")
    refused(tables.write("a,b\n1,größe\n".encode("latin-1")), "{path} … UTF-8; found the byte 0xf6")


@pytest.mark.parametrize(
    ("text", "row"), [("a,b\n1,2,3\n", 0), ("a,b\n1,2\n\n1,2\n1,2,3,4\n", 2), ('a,b\n"1\n1",2\n1,2,3\n', 1)]
)
def test_too_many_cells(tables: Tables, text: str, row: int) -> None:
    path = tables.write(text)
    refused(path, f"{{path}} should have 2 cells … in row {row}.  data.separator=',' and data.decimal='.'")
    with pytest.raises(FusionError, match=like(f"{path} should have 2 cells … in row {row}.")):
        list(open_table(path).chunks(["a", "b"], [], [], 10))


def test_open_quote(tables: Tables) -> None:
    refused(tables.write('a,b\n1,"2\n'), "{path} … found it damaged (")


def test_damaged_files(tables: Tables) -> None:
    packed = gzip.compress(b"a,b\n" + os.urandom(5000).hex().encode())
    refused(tables.write(packed[:3000], "t.csv.gz"), "{path} … found it damaged (")
    refused(tables.write(b"a,b\n1,2\n", "u.csv.gz"), "{path} … found it damaged (")
    refused(tables.write(b"PAR1, or not", "t.parquet"), "{path} … found it damaged (")
    pd.DataFrame({"a": range(1000)}).to_parquet(tables.folder / "u.parquet")
    content = (tables.folder / "u.parquet").read_bytes()
    refused(tables.write(content[:-100], "u.parquet"), "{path} … found it damaged (")
