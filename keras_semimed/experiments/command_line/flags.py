"""Flags from signatures: a parameter is `--name`, its annotation says how a word is read, its text is the help.

The words are taken apart by argparse. Libraries that make command lines out of signatures (jsonargparse, tyro,
cyclopts, typer) inspect imported objects, so that help and typing errors would wait seconds for Keras and a backend;
and most of what is done here would still be left to write: defaults that come from presets, data sets and demos or grow
with `--steps`, and the nearest name among the flags of all methods.
"""

from __future__ import annotations

import argparse
from collections.abc import Callable, Collection, Mapping, Sequence
from typing import Any, NamedTuple, NoReturn

from keras_semimed.experiments.command_line.bundles import VARIANTS
from keras_semimed.experiments.command_line.settings import FLAG_NAMES, GROUPS, SEVERAL, Settings
from keras_semimed.experiments.command_line.words import choices, kinds, read_word
from keras_semimed.experiments.console import RecipeError, did_you_mean
from keras_semimed.parameters import Parameter, parameters
from keras_semimed.source import constant, members, names_in

VIEWS = "keras_semimed.layers.views:WeakStrongViews"
OPTIMIZERS = {
    "branch": "keras_semimed.optimizers:branch_optimizer",
    "encoder": "keras_semimed.optimizers:encoder_optimizer",
}
SHARED = ("image_size", "seed", "total_steps", "views")
"""Arguments of methods, views and optimizers that every run has: `total_steps` as `--steps`, `views` one by one."""
NETWORK = (
    *("tasks", "network", "encoder", "weights", "decoder_filters", "output_stride", "train_encoder"),
    *("num_classes", "num_labels"),
)
"""Arguments of methods that stand in the help's section on the network."""
MOST_USED = (
    *(
        "data",
        "method",
        "control",
        "manual_dir",
        "labeled",
        "test",
        "split",
        "seed",
        "image_size",
        "validate",
        "preset",
        "rung",
    ),
    *("steps", "batch_size", "learning_rate", "tasks", "network", "encoder", "weights", "start_from"),
    *("output", "resume", "demo"),
)
"""What `--help` shows; `--help-all` shows everything."""
CONTROL, ORACLE = "control", "oracle"
"""Values of `--method` of the commands that have a method of their own: its control, and it with the true labels."""
ROWS = {CONTROL: "--control", ORACLE: "--pseudo-labels-from truth"}
"""What says the same beside any method."""


class Flag(NamedTuple):
    """A parameter and the flag that sets it."""

    name: str
    """With underscores; also its key in config.json."""
    parameter: Parameter
    of: str
    """What takes it: `"run"`, `"method"`, `"views"`, `"optimizer"` or `"variant"`."""
    group: str
    """Title of its section of the help."""

    @property
    def word(self) -> str:
        """As it is typed."""
        return "--" + self.name.replace("_", "-")

    @property
    def counts_steps(self) -> bool:
        """Whether it says at which step, or over how many, something of the method happens."""
        whole = "int" in kinds(self.parameter.annotation)
        return self.of == "method" and whole and self.name.endswith(("_start", "_ramp", "_delay"))


def methods() -> dict[str, str]:
    """The methods' classes, as `parameters` takes them, by the methods' names."""
    return members("keras_semimed.models:METHODS")


def method_class(method: str | None) -> str:
    """The class of a method; for None, that of what all methods have."""
    return "keras_semimed.models:SemiSupervisedModel" if method is None else methods()[method]


def default_groups(method: str | None, network: str | None = None) -> str:
    """The key in `OPTIMIZERS` of what a method's `default_optimizer` makes, for that network or its default one."""
    source = method_class(method)
    names = names_in(f"{source}.default_optimizer")
    own = [key for key, factory in OPTIMIZERS.items() if factory.partition(":")[2] in names]
    if len(own) == 1:
        return own[0]
    network = constant(f"{source}.default_network") if network is None else network
    return "encoder" if network == "deeplab" else "branch"


def flags_of(method: str | None) -> dict[str, Flag]:
    """All flags of a method's runs; for None, those that all methods have.

    Raises:
        ValueError: If two of them have one name.
    """
    run = parameters(Settings)
    found = [Flag(name, run[name], "run", group) for group, names in GROUPS.items() for name in names]
    for name, each in parameters(method_class(method)).items():
        found.append(Flag(name, each, "method", "network" if name in NETWORK else method or "method"))
    if method in VARIANTS:
        name, text, default, variants = VARIANTS[method]
        parameter = Parameter(name, default, f"Literal{list(variants)}", text)
        found.append(Flag(name, parameter, "variant", "training"))
    found += [Flag(name, each, "views", "views") for name, each in parameters(VIEWS).items()]
    for source in (OPTIMIZERS[default_groups(method)], *OPTIMIZERS.values()):
        taken = {flag.name for flag in found if flag.of == "optimizer"}
        rest = {name: each for name, each in parameters(source).items() if name not in taken}
        found += [Flag(name, each, "optimizer", "optimizer") for name, each in rest.items()]
    flags: dict[str, Flag] = {}
    for flag in found:
        if flag.of != "run":
            if flag.name in SHARED:
                continue
            flag = flag._replace(name=FLAG_NAMES.get(flag.name, flag.name))
        if flag.name in flags:
            raise ValueError(f"{flag.word} is of {flag.of} and of {flags[flag.name].of}: give one a name in FLAG_NAMES")
        flags[flag.name] = flag
    # What is written and where stands last in the help.
    return dict(sorted(flags.items(), key=lambda item: item[1].group == "output"))


class _Parser(argparse.ArgumentParser):
    """Ends with one sentence instead of a usage of a hundred flags."""

    def error(self, message: str) -> NoReturn:
        raise RecipeError(message.removeprefix("argument "))


class _Several(argparse.Action):
    """Gathers the words of a flag, and those of the same flag given again; numbers may have commas between."""

    def __init__(self, annotation: str, **options: Any):
        super().__init__(nargs="+", **options)
        self.inner = kinds(annotation)[0].removeprefix("tuple[").partition(",")[0]

    def __call__(self, parser: Any, namespace: Any, values: Any, option_string: str | None = None) -> None:
        words = values if self.inner == "str" else [part for word in values for part in word.split(",")]
        try:
            read = [read_word(self.inner, word) for word in words]
        except argparse.ArgumentTypeError as error:
            raise argparse.ArgumentError(self, str(error)) from error
        setattr(namespace, self.dest, (*getattr(namespace, self.dest, ()), *read))


def make_parser(
    flags: Mapping[str, Flag],
    usage: str,
    positional: Collection[str] = (),
    text: Callable[[Flag], str | None] = lambda flag: None,
    description: str | None = None,
    ending: str | None = None,
) -> argparse.ArgumentParser:
    """An argparse parser whose namespace holds what was given, and nothing else.

    Args:
        flags: What it takes, in the order of the help.
        usage: First line of the help.
        positional: Names that are no flags but stand by themselves, and may be left out.
        text: What the help says about a flag; None: nothing.
        description: Head of the help.
        ending: Foot of the help.
    """
    parser = _Parser(
        usage=usage,
        description=description,
        epilog=ending,
        formatter_class=argparse.RawDescriptionHelpFormatter,
        argument_default=argparse.SUPPRESS,
        allow_abbrev=False,
        add_help=False,
    )
    sections: dict[str, Any] = {}
    for flag in flags.values():
        if flag.group not in sections:
            sections[flag.group] = parser.add_argument_group(flag.group)
        said = text(flag)
        said = argparse.SUPPRESS if said is None else said.replace("%", "%%")
        _add(sections[flag.group], flag, said, flag.name in positional)
    helps = sections["output"].add_argument
    helps(
        "--config", metavar="FILE", help="read flags from a file such as a run's config.yaml; those given count first"
    )
    helps("--help", "-h", action="help", help="show what most runs need, and leave")
    helps("--help-all", action="help", help="show every flag, and leave")
    return parser


def _add(section: Any, flag: Flag, text: str, positional: bool) -> None:
    annotation = flag.parameter.annotation
    if "bool" in kinds(annotation):
        action = "store_true" if flag.of == "run" else argparse.BooleanOptionalAction
        section.add_argument(flag.word, action=action, help=text)
        return
    if flag.name in SEVERAL:
        section.add_argument(flag.word, action=_Several, annotation=annotation, metavar=flag.name.upper(), help=text)
        return
    known = choices(annotation)
    only = known and all(kind == "None" or kind.startswith("Literal[") for kind in kinds(annotation))
    options: dict[str, Any] = {
        "type": lambda word: read_word(annotation, word),
        "metavar": "{" + ",".join(known) + "}" if only else flag.name.upper(),
        "help": text,
    }
    if positional:
        section.add_argument(flag.name, nargs="?", **options)
    else:
        section.add_argument(flag.word, **options)


def read_flags(parser: argparse.ArgumentParser, words: Sequence[str], method: str | None) -> dict[str, Any]:
    """What was given, by name.

    Raises:
        RecipeError: If a word does not fit or a flag is unknown; the message offers the nearest, or says whose it is.
    """
    given, rest = parser.parse_known_args(words)
    if not rest:
        return vars(given)
    word = rest[0].partition("=")[0]
    if not word.startswith("--"):
        raise RecipeError(f"{rest[0]!r} is one word too many, or belongs to no flag")
    owners = {name: {flag.word for flag in flags_of(name).values()} for name in methods()}
    having = [name for name, own in owners.items() if word in own]
    if having:
        raise RecipeError(f"{word} is no flag of {method or 'all methods'}, but of {', '.join(having)}; see --method")
    known = {action for each in parser._actions for action in each.option_strings}
    raise RecipeError(f"there is no flag {word}{did_you_mean(word, known) or '; --help-all lists all'}")


def word_of(value: Any) -> str:
    """A value as it would be typed."""
    if isinstance(value, tuple | list):
        return ",".join(map(word_of, value))
    if isinstance(value, float):
        return f"{value:g}"
    return "none" if value is None else str(value)
