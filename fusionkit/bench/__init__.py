"""Speed against references and limits, as ratios within one run."""
