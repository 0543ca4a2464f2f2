"""From the words of a command line to the settings of a run."""

from __future__ import annotations

import dataclasses
import sys
from collections.abc import Mapping, Sequence
from typing import Any

from keras_semimed.experiments.command_line import config_file
from keras_semimed.experiments.command_line.bundles import (
    COMMANDS,
    DATA_SETS,
    OF_DATA_SETS,
    OF_FOLDERS,
    OF_READING,
    SPLITTING,
    Command,
    is_folder,
)
from keras_semimed.experiments.command_line.defaults import DECIDING, check_steps, control_of, from_preset, values_of
from keras_semimed.experiments.command_line.flags import (
    CONTROL,
    MOST_USED,
    OPTIMIZERS,
    ORACLE,
    ROWS,
    Flag,
    flags_of,
    make_parser,
    method_class,
    methods,
    read_flags,
    word_of,
)
from keras_semimed.experiments.command_line.settings import FLAG_NAMES, Settings, check
from keras_semimed.experiments.command_line.stages import Stage, rates, read_stages
from keras_semimed.experiments.console import RESUME, RecipeError, did_you_mean, run_main
from keras_semimed.parameters import parameters
from keras_semimed.source import constant, documentation

OUTPUT = """\
The environment variable KERAS_BACKEND chooses tensorflow, jax or torch.

Output folder: config.json (configuration, versions, split, result), split.txt, metrics.csv (a row an epoch), images.csv
(a row an image of the scored part, for the last weights and, where there is one, for the teacher's, masks compared at
the network's size), images_own_size.csv (the same at the size of the images' files, where that is known), model.keras,
overlays/, report.html (all of it on one page) and what it is made of, cases.npz, embeddings.npz and pseudo_labels.*. No
epoch is picked: the last weights count.
"""
HELP = {"-h", "--help", "--help-all"}
FOLLOWING = ("steps", "optimizer_groups")
"""Deciding flags whose defaults others decide about."""


def main(name: str, arguments: Sequence[str] | None, description: str | None, prog: str | None = None) -> int:
    """Runs a command and returns the exit code: 0, 2 for bad input, 130 when interrupted.

    Args:
        name: A key of `COMMANDS`.
        arguments: The words behind the command; None: the process' own.
        description: Head of the help.
        prog: How the command was called; None: `python -m recipes.NAME`.
    """

    def read_and_run() -> None:
        settings = read_settings(name, sys.argv[1:] if arguments is None else arguments, description, prog)
        if is_folder(settings.data):
            # NumPy comes with it, and no backend: what is wrong with a folder is said before one starts.
            from keras_semimed.experiments.inputs.folder_checks import check_folder

            check_folder(settings)
        # Imported late: Keras starts its backend, for which help and typing errors should not wait.
        from keras_semimed.experiments.runs.experiment import run

        run(settings)

    return run_main(read_and_run, RESUME)


def read_settings(name: str, words: Sequence[str], description: str | None = None, prog: str | None = None) -> Settings:
    """The settings of a run, checked, or the help.

    Args:
        name: A key of `COMMANDS`.
        words: The words behind the command.
        description: Head of the help.
        prog: How the command was called; None: `python -m recipes.NAME`.

    Raises:
        RecipeError: If a word does not fit; the message names the flag and what would.
        SystemExit: With 0, after the help.
    """
    command = COMMANDS[name]
    read = config_file.Read([], list(words), None)
    if any(word.partition("=")[0] == config_file.FLAG for word in words):
        of_all = {key: flag for each in methods() for key, flag in flags_of(each).items()}
        read = config_file.read_files(words, of_all, command.method, () if command.method else ("data",))
        words = [*read.of_files, *read.typed]
    method, kind = _method(command, words)
    flags = flags_of(method)
    # A command takes the flags of its own method with any other, too: a sweep over methods gives them to all its rows.
    taken = flags if command.method is None else {**flags_of(command.method), **flags}
    unused = tuple(key for key in taken if key not in flags)
    usage = f"{prog or f'python -m recipes.{name}'} " + (
        "[flags]" if command.method else "DATA --method METHOD [flags]"
    )
    positional = () if command.method else ("data",)
    parser = make_parser(taken, usage, positional)
    if HELP & set(words):
        values = values_of(command, method, flags, _deciding(parser, words))
        shown = flags if "--help-all" in words else MOST_USED

        def text(flag: Flag) -> str | None:
            described = flag.name in shown and flag.name in flags
            return _described(flag, _default(flag, values, method)) if described else None

        head = f"{description or ''}\n{OUTPUT}"
        make_parser(taken, usage, positional, text, head, _ending(command, flags)).print_help()
        raise SystemExit(0)
    given = _given(command, parser, read, method)
    if ignored := [taken[key].word for key in given if key in unused]:
        print(f"no part of {method}: {', '.join(ignored)}", flush=True)
    given = {key: value for key, value in given.items() if key in flags and (key, value) != ("optimizer_groups", None)}
    if command.method and _is_of(command.method, given) and not _is_of(method, given):
        print(f"no part of {method}: --preset {given.pop('preset')}", flush=True)
    if given.get("demo") and given.get("data") in DATA_SETS and command.phantom is None:
        given["data"] = DATA_SETS[given["data"]].phantom
    assert method is not None  # only help does without
    if not given.get("stages"):
        return _settings(name, method, kind, given, unused)
    *before, last = read_stages(given["stages"], methods())
    if last.method != method:
        raise RecipeError(f"--stages {given['stages']} ends with {last.method}, --method is {method}; give one of them")
    if "steps" in given:
        raise RecipeError("--steps: the steps of a run in stages are those of --stages; leave it out")
    settings = _settings(name, method, kind, {**given, "steps": last.steps}, unused)
    earlier = [_earlier(name, stage, given, settings.batch_size, first=not index) for index, stage in enumerate(before)]
    return dataclasses.replace(
        settings,
        given=given,
        optimizer=rates(settings.optimizer, last.factor),
        earlier=tuple(earlier),
        start_from=None if earlier else settings.start_from,
    )


def _given(command: Command, parser: Any, read: config_file.Read, method: str | None) -> dict[str, Any]:
    """What was given by files and by hand.

    A flag that decides about defaults and is given by hand takes those of the files with it.
    """
    typed = read_flags(parser, read.typed, method)
    if not read.of_files:
        return typed
    found = read_flags(parser, read.of_files, method)
    if "data" in typed and "data" in found:
        config_file.make_room_for_data(found, found["data"], typed["data"])
    deciding = {key: typed[key] for key in DECIDING if key in typed}
    if read.method is None or not deciding:
        return {**found, **typed}
    if not _is_of(read.method, deciding):
        del deciding["preset"]  # which is of another method
    before = {key: found[key] for key in DECIDING if key in found}
    usual = _usual(command, read.method, {key: before[key] for key in before if key not in FOLLOWING})
    before = {key: value for key, value in before.items() if key not in FOLLOWING or value != usual[key]}
    was, now = (_usual(command, read.method, each) for each in (before, {**before, **deciding}))
    moved = {key for key in was if was[key] != now[key]}
    of_optimizer = {key for key, flag in flags_of(read.method).items() if flag.of == "optimizer"}
    kept = {key: value for key, value in found.items() if key not in moved or value != was[key]}
    config_file.drop(kept, of_optimizer - _rates(now).keys(), f"beside --optimizer-groups {now['optimizer_groups']}")
    return {**kept, **typed}


def _usual(command: Command, method: str, given: Mapping[str, Any]) -> dict[str, Any]:
    """The values of a run by the names of flags; what the method's preset has stands in the place of None."""
    flags = flags_of(method)
    values = values_of(command, method, flags, given)
    names = {key: flag.parameter.name for key, flag in flags.items() if flag.of == "method"}
    arguments = from_preset(method, {name: values[key] for key, name in names.items()})
    return {**values, **{key: arguments[name] for key, name in names.items()}}


def _earlier(name: str, stage: Stage, given: Mapping[str, Any], batch_size: int, first: bool) -> Settings:
    """The settings of a stage before the last one: the flags that its method has, too."""
    flags = flags_of(stage.method)
    left_out = {"stages", "control", "method", "pseudo_labels_from", *(() if first else ("start_from",))}
    own = {key: value for key, value in given.items() if key in flags and key not in left_out}
    if not _is_of(stage.method, own):
        del own["preset"]
    if stage.method == "supervised":
        own.setdefault("labeled_batch_size", 2 * batch_size)
    settings = _settings(name, stage.method, None, {**own, "steps": stage.steps}, ())
    return dataclasses.replace(settings, optimizer=rates(settings.optimizer, stage.factor))


def _settings(name: str, method: str, kind: str | None, given: Mapping[str, Any], unused: tuple[str, ...]) -> Settings:
    """The settings of one training, checked, from what was given by the names of flags."""
    command, flags = COMMANDS[name], flags_of(method)
    values = _usual(command, method, given)
    _check(command, flags, given, values)

    def those(of: str, names: Mapping[str, Any] = flags) -> dict[str, Any]:
        """Values by the names of the arguments."""
        return {flags[key].parameter.name: values[key] for key in flags if flags[key].of == of and key in names}

    arguments = those("method")
    control = kind == CONTROL or values["control"]
    if kind == ORACLE:
        arguments["pseudo_labels"] = "truth"
    fixed = control_of(method, arguments) if control else {}
    if moot := [f"{flags[name].word} {value:g}" for name, value in fixed.items() if given.get(name, value) != value]:
        print(f"a control takes {', '.join(moot)}", flush=True)
    settings = Settings(
        **{
            **those("run"),
            "recipe": name,
            "method": method,
            "control": control,
            "mixed_precision": values["mixed_precision"] or "float32",
            "arguments": arguments | fixed,
            "views": those("views"),
            "optimizer": those("optimizer", _rates(values)),
            "variants": those("variant"),
            "unused": unused,
        }
    )
    check(settings)
    return settings


def _is_of(method: str | None, given: Mapping[str, Any]) -> bool:
    """Whether a method has the preset that was given; so it has where none was."""
    return given.get("preset") in (None, *constant(f"{method_class(method)}.presets"))


def _method(command: Command, words: Sequence[str]) -> tuple[str | None, str | None]:
    """The method that is asked for, and whether as its control or oracle; None where it is left out in a help."""
    chosen = command.method
    for place, word in enumerate(words):
        flag, equals, value = word.partition("=")
        value = value if equals else "".join(words[place + 1 : place + 2])
        if flag == "--method":
            chosen = value
        elif flag == "--stages" and "--method" not in " ".join(words) and not HELP & set(words):
            chosen = read_stages(value, methods())[-1].method
    known = tuple(methods())
    if command.method is not None:
        known = tuple(dict.fromkeys((command.method, "supervised", *ROWS, *known)))
    if chosen is None and HELP & set(words):
        return None, None
    if chosen is None:
        raise RecipeError(f"--method is missing: one of {', '.join(known)}")
    if chosen in ROWS and chosen not in known:
        raise RecipeError(f"--method: {chosen!r} is a method with {ROWS[chosen]}, as in --method hermes {ROWS[chosen]}")
    if chosen not in known:
        raise RecipeError(f"--method: {chosen!r} is none of {', '.join(known)}{did_you_mean(chosen, known)}")
    return (command.method, chosen) if chosen in ROWS else (chosen, None)


def _check(command: Command, flags: Mapping[str, Flag], given: Mapping[str, Any], values: Mapping[str, Any]) -> None:
    """Refuses data that are unknown, and what was given and cannot count in this run."""
    data = values["data"]
    known = (*DATA_SETS, *(("phantom",) if command.phantom else ()))
    if data is None:
        raise RecipeError(f"DATA is missing: one of {', '.join(known)}")
    if data not in known and not is_folder(data):
        raise RecipeError(f"data: {data!r} is none of {', '.join(known)}, and no folder{did_you_mean(data, known)}")
    if is_folder(data) and (moot := [flags[key].word for key in given if key in ("split", "intersect", *OF_DATA_SETS)]):
        raise RecipeError(f"data: {data} is a folder of your own, which has no {', '.join(moot)}; leave it out")
    if not is_folder(data) and (moot := [flags[key].word for key in given if key in OF_FOLDERS]):
        raise RecipeError(f"data: {', '.join(moot)} parts a folder of one's own; {data} has --split; leave it out")
    if not is_folder(data) and (moot := [flags[key].word for key in given if key in OF_READING]):
        raise RecipeError(f"data: {', '.join(moot)} is for the files of a folder of one's own; {data} needs none")
    check_steps(flags, given, values)
    if "split_file" in given and (moot := [flags[key].word for key in given if key in SPLITTING]):
        raise RecipeError(f"--split-file is the split itself; leave out {', '.join(moot)}")
    for key in given:
        if flags[key].of == "optimizer" and key not in _rates(values):
            groups = values["optimizer_groups"]
            raise RecipeError(f"{flags[key].word} is no part of --optimizer-groups {groups}, which this run has")


def _rates(values: Mapping[str, Any]) -> dict[str, Any]:
    """What the optimizer takes, by the names of flags."""
    return {FLAG_NAMES.get(name, name): None for name in parameters(OPTIMIZERS[values["optimizer_groups"]])}


def _deciding(parser: Any, words: Sequence[str]) -> dict[str, Any]:
    """What was given beside a wish for help, as far as it changes the defaults that the help shows."""
    try:
        given, _ = parser.parse_known_args([word for word in words if word not in HELP])
    except RecipeError:
        return {}
    return {key: value for key, value in vars(given).items() if key in DECIDING}


def _described(flag: Flag, default: str) -> str:
    text = flag.parameter.text.replace("`", "").removesuffix(".")
    return text + (f" (default: {default})" if default else "")


def _default(flag: Flag, values: Mapping[str, Any], method: str | None) -> str:
    """What the help says about a default."""
    value, name, source = values[flag.name], flag.parameter.name, method_class(method)
    if name in ("num_classes", "num_labels") or name in ("labeled", "split") and values["data"] is None:
        return "the data set's"
    if name == "method":
        return method or ""
    if value is None and name in ("network", "mask_loss"):
        return constant(f"{source}.default_{name}")
    if value is None and name == "max_period":
        return "half a pass"
    if value is None and flag.of == "method":
        presets = constant(f"{source}.presets")
        return ", ".join(f"{key} {word_of(preset[name])}" for key, preset in presets.items() if name in preset)
    if value is None or isinstance(value, bool):
        return "on" if value else ""
    return word_of(value)


def _ending(command: Command, flags: Mapping[str, Flag]) -> str:
    lines = [
        f"--help-all shows all {len(flags)} flags{'' if command.method else ', with --method its own among them'}."
    ]
    lines += ["", "methods:"]
    lines += [f"  {name:<14}{documentation(source).splitlines()[0]}" for name, source in methods().items()]
    return "\n".join(lines)
