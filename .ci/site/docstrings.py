"""How the API reference reads what Griffe does not know of: arguments that are passed on, and those with a star."""

from __future__ import annotations

import re
from typing import Any

import griffe

from keras_semimed.parameters import parameters


class Docstrings(griffe.Extension):
    """Reads the package's classes as their docstrings describe them."""

    def on_instance(self, *, obj: griffe.Object, **kwargs: Any) -> None:
        """`name*:`, the mark of what a preset fills in, becomes an argument whose text begins with a star."""
        if obj.docstring:
            obj.docstring.value = re.sub(r"^(\s+\w+)\*: ", r"\1: ★ ", obj.docstring.value, flags=re.M)

    def on_class(self, *, cls: griffe.Class, **kwargs: Any) -> None:
        """An argument that a class describes and passes on as one of `**kwargs` stands in its signature, too."""
        own = cls.members.get("__init__")
        if cls.docstring is None or not isinstance(own, griffe.Function):
            return
        kinds = {each.kind for each in own.parameters}
        if griffe.ParameterKind.var_keyword not in kinds:
            return
        described = set(re.findall(r"^\s+(\w+): ", cls.docstring.value, flags=re.M))
        for name, each in parameters(f"{cls.module.path}:{cls.name}").items():
            if name in described and name not in own.parameters:
                inherited = griffe.Parameter(
                    name,
                    annotation=each.annotation or None,
                    kind=griffe.ParameterKind.keyword_only,
                    default=None if each.required else repr(each.default),
                )
                rest = own.parameters[len(own.parameters) - 1]
                own.parameters = griffe.Parameters(*list(own.parameters)[:-1], inherited, rest)
