"""The fabrications of the core: one strategy per file; the folder is the catalogue."""
