"""Helpers without knowledge of fusion: text, files, trees, tables, progress."""
