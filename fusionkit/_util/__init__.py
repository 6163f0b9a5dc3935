"""Helpers without knowledge of fusion: text, files, tables."""
