"""What ``fusionkit predict`` and ``fusionkit evaluate`` do, apart from their options: it imports torch."""

from __future__ import annotations

import sys
from collections.abc import Iterator, Sequence
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
from fusionkit.cli.commands import print_json, wrong_usage
from fusionkit.errors import ConfigError, nearest
from fusionkit.experiment.metrics import numeral
from fusionkit.experiment.prediction import Predictor, columns
from fusionkit.experiment.prediction_files import WRITERS
from fusionkit.experiment.tables.format import unseen_text


def predict(run_dir: Path, overrides: Sequence[str], out: Path, device: str, batch_size: int) -> None:
    """Write the predictions of a run on new data to ``out``."""
    write = WRITERS.get(out.suffix.lower())
    if write is None:
        raise click.BadParameter(f"should end in one of {', '.join(WRITERS)}; found {out.name!r}.", param_hint="--out")
    predictor = _predictor(run_dir, overrides, device)
    with ProgressBar(1.0) as bar:
        batches = _shown(predictor, batch_size, bar)
        write_atomic(out, partial(write, batches))
    _warn(predictor)
    print(f"{count_of(predictor.rows, 'row')} predicted, in {out}")


def evaluate(run_dir: Path, overrides: Sequence[str], device: str, as_json: bool) -> None:
    """Print the metrics of a run on labelled data."""
    predictor = _predictor(run_dir, overrides, device)
    metrics, rows = predictor.evaluate(), predictor.rows
    _warn(predictor)
    if as_json:
        print_json({"task": predictor.model.task.name, "rows": rows, "metrics": metrics})
        return
    print_table(
        ("metric", f"on {count_of(rows, 'row')}"), [(name, numeral(name, value)) for name, value in metrics.items()]
    )


def _predictor(run_dir: Path, overrides: Sequence[str], device: str) -> Predictor:
    with wrong_usage():
        path = data_path(overrides)
    return Predictor(run_dir, path, device)


def data_path(overrides: Sequence[str]) -> str | dict[str, str]:
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


def _warn(predictor: Predictor) -> None:
    lines = [f"note: {note}" for note in predictor.notes]
    if predictor.unseen:
        lines.append(f"warning: {unseen_text(predictor.unseen)}")
    if predictor.absent:
        lines.append(f"warning: {count_of(predictor.absent, 'row')} without any view.")
    for line in lines:
        print(line, file=sys.stderr)
