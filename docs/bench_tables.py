"""Remakes the tables and the pictures of ``bench.md`` and ``bench_gpu.md`` from the JSON files beside them.

``fusionkit bench --json`` writes these.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import fields
from pathlib import Path
from typing import Any

from fusionkit.bench.measure import Row
from fusionkit.bench.plot import draw

PAGES = [Path(__file__).with_name(name) for name in ("bench.md", "bench_gpu.md")]
BEGIN, END = "<!-- tables: made by docs/bench_tables.py -->\n", "<!-- end of tables -->\n"

COLUMNS = {
    "limit": "limit",
    "cat_linear": "cat + linear",
    "addmm": "addmm",
    "of_bound": "of the bound",
    "built": "built",
    "product": "own product",
    "library": "tinybig",
}


def tables(content: Mapping[str, Any]) -> str:
    """Return the machine and one table each of the dense product, the fabrications and the other fusions."""
    machine, rows = content["machine"], content["rows"]
    dense = [row for row in rows if row["name"] in ("dense", "parameterized_concatenation")]
    rest = [row for row in rows if row not in dense]
    threads = f"threads: {machine['threads']}, " if machine["device"] == "cpu" else ""
    threads += "processor time, " if machine["clock"] == "processor" else ""
    sections = {
        "Dense": dense,
        "Fabrications": [row for row in rest if row["kind"] == "fabrication"],
        "Other fusions": [row for row in rest if row["kind"] == "fusion"],
    }
    return "\n".join(
        [
            f"{machine['processor']}, {machine['cores']} cores, {threads}torch {machine['torch']}, {machine['date']}.",
            "",
            *(_index(title, found) for title, found in sections.items()),
            "",
            *(_section(title, found) for title, found in sections.items()),
        ]
    )


def updated(page: str, content: Mapping[str, Any]) -> str:
    """Return the text of the page with the tables made anew."""
    before, begin, rest = page.partition(BEGIN)
    _, end, after = rest.partition(END)
    if not begin or not end:
        raise ValueError(f"The page should contain {BEGIN.strip()} and {END.strip()}; found one of them missing.")
    return f"{before}{begin}\n{tables(content)}\n{end}{after}"


def row(record: Mapping[str, Any]) -> Row:
    """Return the row that ``Row.to_dict`` wrote."""
    own = {field.name for field in fields(Row)} - {"ratios"}
    ratios = {name: value for name, value in record.items() if name not in own}
    return Row(**{name: record[name] for name in own}, ratios=ratios)


def _index(title: str, rows: Sequence[Mapping[str, Any]]) -> str:
    names = dict.fromkeys(row["name"] for row in rows)
    link = title.lower().replace(" ", "-")
    links = (f'<a href="#of-{name}">{name}</a>' for name in names)
    return f"- [{title}](#{link}): {', '.join(links)}"


def _section(title: str, rows: Sequence[Mapping[str, Any]]) -> str:
    shown = [field for field in COLUMNS if any(row.get(field) is not None for row in rows)]
    head = [
        "operator",
        "m",
        "dims",
        "n",
        "",
        "ms",
        *(COLUMNS[field] for field in shown),
        "way",
        "extra MB",
        "rms error",
    ]
    first = {row["name"]: i for i, row in reversed(list(enumerate(rows)))}
    body = [
        [
            (f'<a id="of-{row["name"]}"></a>' if first[row["name"]] == i else "")
            + " ".join([row["name"], *(f"{key}={value}" for key, value in row["options"].items())]),
            str(row["m"]),
            _widths(row["dims"]),
            str(row["n"]),
            _remarks(row),
            f"{row['milliseconds']:.3g}",
            *("" if row.get(field) is None else f"{row[field]:.2f}" for field in shown),
            {None: "", True: "own", False: "W"}[row["skips_materialization"]],
            f"{row['extra_bytes'] / 1e6:.3g}",
            "" if row["error"] is None else f"{row['error']:.0e}",
        ]
        for i, row in enumerate(rows)
    ]
    return "\n".join([f"### {title}\n", _line(head), _line("---" for _ in head), *map(_line, body), ""])


def _remarks(row: Mapping[str, Any]) -> str:
    parts = ["+ backward"] * (row["mode"] != "forward") + [row["dtype"]] * (row["dtype"] != "float32")
    return ", ".join(parts + ["all positive"] * row["positive"])


def _widths(dims: Sequence[int]) -> str:
    return f"{len(dims)}x{dims[0]}" if len(dims) > 1 and len(set(dims)) == 1 else ",".join(map(str, dims))


def _line(cells: Iterable[str]) -> str:
    return f"| {' | '.join(cells)} |"


if __name__ == "__main__":
    for page in PAGES:
        found = json.loads(page.with_suffix(".json").read_text(encoding="utf-8"))
        page.write_text(updated(page.read_text(encoding="utf-8"), found), encoding="utf-8")
        draw([row(record) for record in found["rows"]], page.parent / f"images/{page.stem}.png")
