"""``fusionkit study``: accuracy against the number of parameters."""

#: The data sets.
DATA = ("mfeat", "digits", "breast_cancer")
