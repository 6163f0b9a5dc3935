"""The fusion `gram` for fusionkit."""
