"""Data sets of fusionkit that other packages ship; this one ships none."""
