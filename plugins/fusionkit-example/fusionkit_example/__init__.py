"""A fusion, a fabrication and a check for fusionkit."""
