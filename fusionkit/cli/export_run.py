"""What ``fusionkit export`` does, apart from its options: it imports torch."""

from __future__ import annotations

import sys
from pathlib import Path

import click

from fusionkit._util.distribution import install_command
from fusionkit._util.tables import print_table
from fusionkit._util.text import listed, value_text
from fusionkit.experiment.export import CHECKED_ROWS, Exported
from fusionkit.experiment.export import export as export_run
from fusionkit.experiment.export_formats import FORMATS


def export(run_dir: Path, out: Path) -> None:
    """Write the model of a run to ``out``, and print what the file has."""
    if out.suffix.lower() not in FORMATS:
        raise click.BadParameter(f"should end in one of {', '.join(FORMATS)}; found {out.name!r}.", param_hint="FILE")
    exported = export_run(run_dir, out)
    for note in exported.notes:
        print(f"note: {note}", file=sys.stderr)
    _print(exported, out)


def _print(exported: Exported, out: Path) -> None:
    about = exported.description
    rows = []
    for one in about["inputs"]:
        view = f"the view {one['view']!r}" if one["name"] != one["view"] else ""
        rows.append(("input", one["name"], f"float32 (rows, {one['width']})", view))
    if about["mask"] is not None:
        rows.append(("input", about["mask"], f"bool (rows, {len(rows)})", "True where a view is present"))
    names = [value_text(one) for one in about["classes"] or about["targets"]]
    rows.append(("output", about["output"], f"float32 (rows, {len(names)})", listed(names, 5)))
    print_table(("", "name", "type", "of"), rows)
    if exported.checked is None:
        print(f"not checked: {install_command('onnx')} installs onnxruntime, which can run it")
    else:
        few, many = CHECKED_ROWS
        on = f"in {exported.checked}, on {few} and {many} rows"
        unit = " of the targets' standard deviations" if about["targets"] else ""
        print(f"checked {on}: differs from the model by at most {exported.difference:.1e}{unit}")
    print(f"exported to {out}")
