"""The command ``fusionkit bench``."""

from __future__ import annotations

from typing import Any

import click

from fusionkit.cli.commands import imported, output_file

EPILOG = """\b
Ratios of the time of the operator to that of:
  limit         one product with views that are already concatenated;
                for elementwise fusions: the sum of the views
  cat+linear    torch.cat, then F.linear
  addmm         addmm_ view by view (for the dense product only)
  bound         1.15 times the better of these two, with gradients 1.2;
                for more than 100 views 1.35 and 1.4; plus the call:
                4 (6) calls of nn.Linear(1, 1), and 1 us per view
  built         W built, then the product with it;
                for elementwise fusions: torch.stack, then a reduction
  product       the fabrication's own product, without W, where W was built
  tinybig       the reference library, if it is installed
  compiled      the operator compiled by torch.compile (--compile)

\b
Examples:
  fusionkit bench --json bench.json --plot bench.png
  fusionkit bench --quick
  fusionkit bench lowrank monarch
  fusionkit bench kronecker p=8 q=8 m=256 dims=[1024,1024] n=512"""


@click.command(epilog=EPILOG)
@click.argument("names", nargs=-1, metavar="[NAME | KEY=VALUE]...")
@click.option("--quick", is_flag=True, help="Fewer sizes and less time for each: about a minute.")
@click.option("--compile", "compiled", is_flag=True, help="Also time the operator compiled by torch.compile.")
@click.option("--mask", type=click.FloatRange(0, 1), help="Call with a mask, with this share of absent views.")
@click.option("--device", "device_name", default="cpu", show_default=True, help="Where to measure, such as cuda.")
@click.option("--json", "json_file", callback=output_file, metavar="FILE", help="Write the rows as JSON.")
@click.option("--plot", "plot_file", callback=output_file, metavar="FILE", help="Draw time against m to a PNG file.")
@click.option("--threads", type=click.IntRange(1), default=2, show_default=True, help="Number of threads of torch.")
@click.option("--processor-time", is_flag=True, help="Measure processor time, on a busy machine; with --threads 1.")
@click.option("--seconds", type=click.FloatRange(0), help="Approximate time per row (default: 0.6; with --quick 0.2).")
def bench(**options: Any) -> None:
    """Measure speed and memory.

    NAME is a fabrication or a fusion (default: all those of fusionkit itself).  KEY=VALUE is an option of it, or a
    value of m, dims, n or dtype instead of those of the grid; m may have several values: m=16,256,4096.

    Each operator is timed in turn with its references, so that the ratios are reliable on a noisy machine too; if a
    ratio is below 1, the operator is faster.  A fabrication is measured as part of parameterized_concatenation; the
    column "way" shows whether that used the fabrication's own product or built W.  "ms" is the median of the
    repetitions; a ratio compares lower quartiles, which depend less on other work on the machine.  "extra MB" is the
    peak memory of the tensors made during the call, the result included.  With --mask the columns compare with the
    operator on views that hold zeros where they are absent ("zeros"), and with 1.15 times that plus 1.5 times copying
    the views ("bound").
    """
    imported("bench_run:run_benchmarks")(**options)
