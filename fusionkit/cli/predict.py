"""The commands ``fusionkit predict`` and ``fusionkit evaluate``: a trained run on new data."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from functools import partial
from pathlib import Path
from typing import Any

import click
from hydra.core.override_parser.overrides_parser import OverridesParser
from hydra.errors import OverrideParseException

from fusionkit._util.files import write_atomic
from fusionkit._util.progress import ProgressBar
from fusionkit._util.tables import print_table
from fusionkit._util.text import count_of
from fusionkit.cli.commands import json_option, output_file, print_json, wrong_usage
from fusionkit.errors import ConfigError, nearest
from fusionkit.experiment.prediction import BATCH, Predictor, columns
from fusionkit.experiment.prediction_files import WRITERS

_run_dir = click.argument("run_dir", metavar="RUN_DIR", type=click.Path(path_type=Path))
_overrides = click.argument("overrides", metavar="data.path=FILE", nargs=-1)
_device = click.option("--device", default="cpu", show_default=True, help="Where to compute: cpu, cuda, cuda:1, ...")


@click.command(
    epilog="""\b
Examples:
  fusionkit run data=table data.path=patients.csv data.label=outcome data.id=patient hydra.run.dir=first
  fusionkit predict first data.path=new.csv --out predictions.csv
  fusionkit predict first 'data.path={rna: rna.csv, scan: scan.csv}' --out predictions.parquet"""
)
@_run_dir
@_overrides
@click.option("--out", required=True, callback=output_file, metavar="FILE", help="A .csv, .npz or .parquet file.")
@_device
@click.option(
    "--batch-size", type=click.IntRange(1), default=BATCH, show_default=True, help="Rows to predict at a time."
)
def predict(run_dir: Path, overrides: tuple[str, ...], out: Path, device: str, batch_size: int) -> None:
    """Predict with a trained run on new data of the same form, which need no label.

    The columns of the file are the id, or row from 0, then prediction and probability_CLASS; for several targets
    prediction_TARGET; for several labels prediction_LABEL and probability_LABEL.  Rows keep their order.
    """
    if out.suffix not in WRITERS:
        raise click.BadParameter(f"should end in one of {', '.join(WRITERS)}; found {out.name!r}.", param_hint="--out")
    with wrong_usage():
        path = data_path(overrides)
    predictor = Predictor(run_dir, path, device)
    with ProgressBar(1.0) as bar:
        batches = _shown(predictor, batch_size, bar)
        write_atomic(out, partial(WRITERS[out.suffix], batches))
    for line in _notes(predictor):
        print(f"warning: {line}", file=sys.stderr)
    print(f"{count_of(predictor.rows, 'row')} predicted, in {out}")


@click.command(
    epilog="""\b
Examples:
  fusionkit evaluate first data.path=labelled.csv
  fusionkit evaluate first data.path=labelled.csv --json"""
)
@_run_dir
@_overrides
@_device
@json_option
def evaluate(run_dir: Path, overrides: tuple[str, ...], device: str, as_json: bool) -> None:
    """Measure a trained run on labelled data of the same form."""
    with wrong_usage():
        path = data_path(overrides)
    predictor = Predictor(run_dir, path, device)
    rows, metrics = predictor.evaluate()
    if as_json:
        print_json({"task": predictor.model.task.name, "rows": rows, "metrics": metrics})
        return
    print_table(
        ("metric", f"on {count_of(rows, 'row')}"),
        [(name, "undefined" if value is None else f"{value:.6g}") for name, value in metrics.items()],
    )


def data_path(overrides: tuple[str, ...]) -> str | dict[str, str]:
    """Return the file, or the file per view, that the one override ``data.path=...`` names.

    Raises:
        ConfigError: another override, or none.
    """
    found: Any = None
    for text in overrides:
        key, equals, _ = text.partition("=")
        if key != "data.path" or not equals:
            hint = nearest(key, ["data.path"])
            raise ConfigError(f"Only data.path=FILE may be given, the rest comes from the run; found {text!r}.{hint}")
        try:
            found = OverridesParser.create().parse_overrides([text])[0].value()
        except OverrideParseException:  # A path need not follow Hydra's grammar.
            found = text.partition("=")[2]
    if found is None:
        raise ConfigError("The data should be given, as in data.path=new.csv; found nothing.")
    return {str(key): str(value) for key, value in found.items()} if isinstance(found, dict) else str(found)


def _shown(predictor: Predictor, rows: int, bar: ProgressBar) -> Iterator[dict[str, Any]]:
    """Yield the columns of the predictions, batch by batch, and show the progress."""
    for batch, predicted in predictor.batches(rows):
        yield columns(predictor, batch, predicted)
        bar.update(batch.fraction, f"row {batch.start + len(predicted)}")


def _notes(predictor: Predictor) -> Iterator[str]:
    if predictor.unseen:
        counts = ", ".join(f"{count} in {column!r}" for column, count in predictor.unseen.items())
        yield f"categories that the training part does not have count as missing: {counts}."
    if predictor.absent:
        yield f"{count_of(predictor.absent, 'row')} without any view."
