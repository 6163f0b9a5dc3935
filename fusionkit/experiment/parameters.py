"""Parameters of Python that are options of a run: what an operator may be, and their names in errors."""

from __future__ import annotations

import re
from collections.abc import Collection, Iterator, Mapping
from contextlib import contextmanager
from typing import Any

from fusionkit._util.trees import to_python
from fusionkit.errors import ConfigError, FusionError


@contextmanager
def own_names(parameters: Collection[str]) -> Iterator[None]:
    """Give errors the names of parameters in place of the keys of a config: ``epochs`` for ``train.epochs``."""

    def own(key: re.Match[str]) -> str:
        return key[1] if key[1] in parameters else key[0]

    try:
        yield
    except (ConfigError, FusionError) as error:
        text = re.sub(r"\b(?:data|model|train)\.(\w+)", own, str(error))
        text = re.sub(r"(?<!')\bnull\b(?!')", "None", text)
        if text == str(error):
            raise
        raise type(error)(text) from error


def named(value: Any, key: str) -> dict[str, Any]:
    """Return the name and the options of an operator, from its name alone or from a dict of both."""
    value = to_python(value)
    if isinstance(value, str):
        return {"name": value}
    if isinstance(value, Mapping) and isinstance(value.get("name"), str):
        return dict(value)
    raise ConfigError(f"{key} should be a name, or a dict with a name and options; found {value!r}.")
