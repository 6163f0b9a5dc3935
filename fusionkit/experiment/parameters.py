"""Parameters of Python that are options of a run: what an operator may be, and their names in errors."""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from typing import Any

from fusionkit._util.trees import to_python
from fusionkit.errors import ConfigError, FusionError


@contextmanager
def own_names(*groups: str) -> Iterator[None]:
    """Give errors the names of parameters in place of the keys of a config: ``epochs`` for ``train.epochs``."""
    try:
        yield
    except (ConfigError, FusionError) as error:
        own = re.sub(rf"\b(?:{'|'.join(groups)})\.(?=\w)", "", str(error))
        if own == str(error):
            raise
        raise type(error)(re.sub(r"\bnull\b", "None", own)) from error


def named(value: Any, key: str) -> dict[str, Any]:
    """Return the name and the options of an operator, from its name alone or from a dict of both."""
    value = to_python(value)
    if isinstance(value, str):
        return {"name": value}
    if isinstance(value, Mapping) and isinstance(value.get("name"), str):
        return dict(value)
    raise ConfigError(f"{key} should be a name, or a dict with a name and options; found {value!r}.")
