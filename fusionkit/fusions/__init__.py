"""The fusions of the core: one operator per file; the folder is the catalogue."""

from fusionkit.registry.listing import make_callable

make_callable(__name__)
