"""``fusionkit bench``: speed against references, as ratios within one run."""
