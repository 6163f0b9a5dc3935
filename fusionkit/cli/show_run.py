"""``fusionkit show RUN_DIR``: the summary of a run, and its pictures."""

from __future__ import annotations

from pathlib import Path

from fusionkit.cli.commands import print_json
from fusionkit.errors import FusionError
from fusionkit.experiment.pictures import draw_absent
from fusionkit.experiment.results import RESULT, Result, read_result
from fusionkit.experiment.summary import print_summary


def show_run(run_dir: Path, as_json: bool) -> None:
    """Print the summary of a completed run, after drawing its pictures where it lacks any; or print its record.

    Raises:
        FusionError, ConfigError, RegistryError: it failed, or cannot be read, or its pictures cannot be drawn.
    """
    found = read_result(run_dir / RESULT)
    if as_json:
        print_json(found)
        return
    if found["status"] != "completed":
        raise FusionError(f"{run_dir} should be the directory of a completed run; found a failed one: {found['error']}")
    result = {**{name: field.default for name, field in Result.model_fields.items()}, **found}
    try:
        draw_absent(result, run_dir)
    except OSError as error:
        raise FusionError(f"{run_dir} should be writable, for the pictures; found: {error.strerror}.") from error
    print_summary(result, run_dir)
