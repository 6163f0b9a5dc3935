"""The command ``fusionkit export``: a trained run as one file that runs without fusionkit."""

from __future__ import annotations

from typing import Any

import click

from fusionkit.cli.commands import imported, output_file
from fusionkit.cli.predict import run_dir_argument


@click.command(
    epilog="""\b
Examples:
  fusionkit export first model.onnx
  fusionkit export first model.pt2"""
)
@run_dir_argument
@click.argument("out", metavar="FILE", callback=output_file)
def export(**options: Any) -> None:
    """Write a trained run as one file that runs without fusionkit: FILE ends in .onnx, or in .pt2 for torch.export.

    It takes the raw views as float32, (rows, width) each, and where the run was trained with absent views a bool mask
    (rows, views); it gives probabilities, or the values of a regression in their units.  Its metadata, JSON, say
    which columns, categories and classes these are.  The file is run and compared with the model; ONNX needs the
    extra `onnx`.
    """
    imported("export_run:export")(**options)
