"""What the machine offers to this process."""

from __future__ import annotations

import os


def cpu_count() -> int:
    """Return the number of CPUs that this process may use."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


def launched_rank() -> int | None:
    """Return the number of this process among those that torchrun or srun started; None: neither started it."""
    # The script of sbatch has SLURM_PROCID too, but only srun starts a step.
    for launcher, rank in (("TORCHELASTIC_RUN_ID", "RANK"), ("SLURM_STEP_ID", "SLURM_PROCID")):
        if launcher in os.environ:
            return int(os.environ[rank])
    return None
