"""Signatures and docstrings, read from objects and from source files."""

from __future__ import annotations

import subprocess
import sys
import textwrap

import pytest

import keras_semimed.layers.views
import keras_semimed.models
import keras_semimed.optimizers
from keras_semimed.parameters import Parameter, argument_texts, parameters
from keras_semimed.source import constant, documentation, members

BASE = '''
    """A base."""
    import keras

    SIZE = 2**5
    BOTH = {"fast": {"rate": 0.5}, "slow": {**{"rate": 0.1}}}


    class Base(keras.layers.Layer):
        """Has arguments.

        Args:
            size: side, in pixels; of the views: as
                they are cropped.
            rate*: learning rate (Eq. 1).
            **kwargs: of Keras.

        Raises:
            ValueError: never.
        """

        supports = ("this", "that")
        presets = BOTH

        def __init__(self, size: int = SIZE, rate: float | None = None, widths=(8, -4), **kwargs):
            super().__init__(**kwargs)
'''
DERIVED = '''
    """Derived ones."""
    from __future__ import annotations

    from typing import Literal

    from made_package import Base
    from . import base
    from .base import SIZE as DEFAULT

    Kind = Literal["a", "b"]


    class Between(Base):
        """Passes everything on."""


    class Derived(Between):
        """Overrides a default.

        Args:
            kind: which one.
            size: side of this one.
        """

        supports: tuple[str, ...] = ("that",)

        def __init__(self, kind: Kind | None = "a", *, share: float = 1 / 80, size: int = 2 * DEFAULT, **kwargs):
            super().__init__(size, **kwargs)


    class Closed(Derived):
        """Takes one argument."""

        def __init__(self, name: str):
            """Makes one.

            Args:
                name: what it is called.
            """
            super().__init__()


    class Mixed(Closed, base.Base):
        """Two bases."""


    def function(first, second: str | None = None):
        """Does nothing.

        Args:
            first (int): the first.
            second: the
                second.
        """


    def broken(when=Base()):
        """Has a default that is made."""


    ALL = {"derived": Derived, "base": base.Base, "other": 3}
'''


@pytest.fixture
def package(tmp_path, monkeypatch):
    """A package whose name is new in each test, and how to name its members."""
    folder = tmp_path / "made_package"
    folder.mkdir()
    for name, text in (("__init__", "from .base import Base\n"), ("base", BASE), ("derived", DERIVED)):
        (folder / f"{name}.py").write_text(textwrap.dedent(text))
    monkeypatch.syspath_prepend(tmp_path)
    yield "made_package"
    for name in [name for name in sys.modules if name.startswith("made_package")]:
        del sys.modules[name]


def test_names_defaults_types_and_texts_of_a_class_and_its_bases(package):
    found = parameters(f"{package}.derived:Derived")
    assert list(found) == ["kind", "share", "size", "rate", "widths"]
    assert found["kind"] == Parameter("kind", "a", "Literal['a', 'b'] | None", "which one.")
    assert found["share"] == Parameter("share", 1 / 80, "float")
    assert found["size"] == Parameter("size", 64, "int", "side of this one.")
    assert found["rate"] == Parameter("rate", None, "float | None", "learning rate (Eq. 1).", starred=True)
    assert found["widths"] == Parameter("widths", (8, -4), "")
    assert parameters(f"{package}:Base")["size"].text == "side, in pixels; of the views: as they are cropped."
    assert package not in sys.modules and f"{package}.derived" not in sys.modules


def test_a_class_without_keyword_arguments_ends_the_walk(package):
    assert parameters(f"{package}.derived:Closed") == {
        "name": Parameter("name", None, "str", "what it is called.", required=True)
    }


def test_functions_have_parameters_too(package):
    assert parameters(f"{package}.derived:function") == {
        "first": Parameter("first", None, "", "the first.", required=True),
        "second": Parameter("second", None, "str | None", "the second."),
    }


@pytest.mark.parametrize("name", ["Base", "Between", "Derived", "Closed", "Mixed", "function"])
def test_source_files_say_the_same_as_objects(package, name):
    from_source = parameters(f"{package}.derived:{name}")
    module = __import__(f"{package}.derived", fromlist=[name])
    assert parameters(getattr(module, name)) == from_source


@pytest.mark.parametrize("name", sorted(keras_semimed.models.__all__))
def test_every_argument_of_a_model_is_documented_and_read_the_same_from_both(name):
    model = getattr(keras_semimed.models, name)
    if not isinstance(model, type):
        return
    found = parameters(f"keras_semimed.models:{name}")
    assert found == parameters(model) and list(found) == list(parameters(model))
    assert [parameter.name for parameter in found.values() if not parameter.text] == []


@pytest.mark.parametrize(
    "source", ["optimizers:branch_optimizer", "optimizers:encoder_optimizer", "layers.views:WeakStrongViews"]
)
def test_optimizers_and_views_are_read_the_same_from_both(source):
    module, name = source.split(":")
    found = parameters(f"keras_semimed.{source}")
    assert found == parameters(getattr(sys.modules[f"keras_semimed.{module}"], name))
    assert all(parameter.text for parameter in found.values())


def test_values_of_variables_and_members_of_dicts(package):
    assert constant(f"{package}.derived:Derived.supports") == ("that",)
    assert constant(f"{package}.derived:Closed.presets") == {"fast": {"rate": 0.5}, "slow": {"rate": 0.1}}
    assert constant(f"{package}.derived:DEFAULT") == 32
    assert documentation(f"{package}.derived:Between") == "Passes everything on."
    assert members(f"{package}.derived:ALL") == {
        "derived": f"{package}.derived:Derived",
        "base": f"{package}.base:Base",
        "other": "",
    }


@pytest.mark.parametrize(
    ("read", "source", "message"),
    [
        (parameters, "derived:broken", "`when` in made_package.derived is Base.*write it as a literal"),
        (parameters, "derived:Nothing", "there is no 'made_package.derived:Nothing'"),
        (parameters, "nowhere:Base", "there is no"),
        (parameters, "derived:DEFAULT", "neither a class nor a function"),
        (constant, "derived:Derived.heads", "no variable"),
        (constant, "derived:Derived", "no variable"),
        (members, "base:SIZE", "written out as a dict"),
    ],
)
def test_what_cannot_be_read_is_named(package, read, source, message):
    with pytest.raises(ValueError, match=message):
        read(f"{package}.{source}")


def test_a_docstring_s_section_ends_with_its_indentation():
    docstring = """Head.

    Args:
        a: one
            more: not an entry.

        b (int, optional): two.
    Returns:
        c: none.
    """
    assert argument_texts(docstring) == {"a": ("one more: not an entry.", False), "b": ("two.", False)}
    assert argument_texts(None) == argument_texts("No arguments.") == {}


def test_names_are_read_at_once_and_without_keras():
    program = """
        import sys, time
        start = time.process_time()
        from keras_semimed.parameters import parameters
        assert "alpha" in parameters("keras_semimed.models:Hermes")
        assert time.process_time() - start < 0.3
        assert not {"keras", "numpy", "keras_semimed.models"} & set(sys.modules)
    """
    subprocess.run([sys.executable, "-c", textwrap.dedent(program)], check=True)
