"""Names of a package that are imported when they are asked for, so that what needs no Keras does not wait for it."""

from __future__ import annotations

import importlib
import sys
from collections.abc import Callable, Mapping
from typing import Any


def lazy(package: str, places: Mapping[str, str]) -> Callable[[str], Any]:
    """Returns the `__getattr__` of a package.

    Args:
        package: Its name.
        places: The module below it, by each name that it offers; `""` where the name is the module itself.
    """

    def get(name: str) -> Any:
        if name not in places:
            raise AttributeError(f"module {package!r} has no attribute {name!r}")
        module = importlib.import_module(f"{package}.{places[name] or name}")
        value = module if places[name] == "" else getattr(module, name)
        setattr(sys.modules[package], name, value)
        return value

    return get
