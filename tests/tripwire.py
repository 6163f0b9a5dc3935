"""What a hostile config tries to reach.  It leaves a mark in ``fired`` and in the file named by ``MARK``."""

from __future__ import annotations

import logging
import os
from pathlib import Path
from typing import Any

fired: list[str] = []


def mark(who: str) -> None:
    fired.append(who)
    if "TRIPWIRE" in os.environ:
        Path(os.environ["TRIPWIRE"]).write_text(who)


def fire(*args: Any, **kwargs: Any) -> Any:
    mark("fire")
    return None


class Fire:
    def __init__(self, *args: Any, **kwargs: Any) -> None:
        mark("Fire")

    @classmethod
    def make(cls, *args: Any, **kwargs: Any) -> Fire:
        return cls()

    def on_run_start(self, *args: Any, **kwargs: Any) -> None:
        mark("on_run_start")


class FireHandler(logging.Handler):
    def __init__(self, *args: Any, **kwargs: Any) -> None:
        mark("FireHandler")
        super().__init__()


class FireFormatter(logging.Formatter):
    def __init__(self, *args: Any, **kwargs: Any) -> None:
        mark("FireFormatter")
        super().__init__()
