"""The registry: which fusions and fabrications there are, which plugin each comes from, and what every name means."""

from fusionkit.registry.catalogue import Record
from fusionkit.registry.loading import Kind
from fusionkit.registry.lookup import (
    DeprecatedNameWarning,
    checks,
    conf_paths,
    fabrications,
    find,
    fusions,
    isolated,
    key_of,
    load,
    names,
    plugins,
    quarantined,
    records,
    refresh,
    register,
    resolve,
    run_finished,
    verify,
)

__all__ = [
    "DeprecatedNameWarning",
    "Kind",
    "Record",
    "checks",
    "conf_paths",
    "fabrications",
    "find",
    "fusions",
    "isolated",
    "key_of",
    "load",
    "names",
    "plugins",
    "quarantined",
    "records",
    "refresh",
    "register",
    "resolve",
    "run_finished",
    "verify",
]
