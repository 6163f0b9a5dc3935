"""The fusions of the core: one operator per file; the folder is the catalogue."""
