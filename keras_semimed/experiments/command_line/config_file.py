"""`config.yaml`: every flag of a run with its value, written by the run and read by `--config`."""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

from keras_semimed.experiments.command_line.bundles import (
    DATA_SETS,
    DEMO_OF_DATA,
    OF_CLASSES,
    OF_DATA_SETS,
    OF_FOLDERS,
    OF_READING,
    SPLITTING,
    is_folder,
)
from keras_semimed.experiments.command_line.flags import ROWS, Flag, flags_of, methods, word_of
from keras_semimed.experiments.command_line.settings import SEVERAL, Settings
from keras_semimed.experiments.command_line.stages import read_stages
from keras_semimed.experiments.command_line.words import kinds
from keras_semimed.experiments.console import RecipeError, did_you_mean

NAME = "config.yaml"
FLAG = "--config"
METHOD, STAGES, DATA = "--method", "--stages", "--data"
NOT_WRITTEN = ("output", "resume", "num_labels")
"""What another run is to have its own of, and what the data say."""
EXCLUSIVE = {
    "method": ("control", "pseudo_labels_from", "stages"),
    "split_file": SPLITTING,
    **dict.fromkeys(SPLITTING, ("split_file",)),
    "test": ("split_file", "folds", "fold"),
    "folds": ("test",),
}
"""What a flag that stands beside a file takes out of it."""
OF_ONE = ("steps", "method", "epoch_steps", "labeled_batch_size")
"""What stages take the place of in the file of a run in one."""
HEAD = """\
# {what}; a flag that is given beside --config counts before it.
#   {command} --config {name} --output runs/another
"""
WHOLE = "Every flag of a run"
STAGED = "What was given to a run in stages, each with the defaults of its method, which config.json has"


class Read(NamedTuple):
    """A command line whose files have been read."""

    of_files: list[str]
    """The words that the files of `--config` stand for."""
    typed: list[str]
    """The other words, which count before them."""
    method: str | None
    """The method whose defaults stand in the files; None where none do, as in those of runs in stages."""


def read_files(
    words: Sequence[str], all_flags: Mapping[str, Flag], own: str | None = None, positional: Collection[str] = ()
) -> Read:
    """Reads the files of `--config`, and leaves out of them what cannot go with later files and the other words.

    Args:
        words: The words of a command line.
        all_flags: The flags of all methods, by name.
        own: The command's own method, of which `control` and `oracle` are rows.
        positional: Names that are no flags but stand by themselves.

    Raises:
        RecipeError: If a file cannot be read or is no table of flags; the message names it.
    """
    typed: list[str] = []
    found: dict[str, list[str]] = {}
    given = iter(words)
    for word in given:
        name, equals, value = word.partition("=")
        if name != FLAG:
            typed.append(word)
            continue
        value = value if equals else next(given, "")
        if not value:
            raise RecipeError(f"{FLAG} needs a file")
        content = _words(Path(value), all_flags, positional)
        _make_room(found, _flat(content), own)
        if "data" in content and "data" in found:
            before, after = (each["data"][0].removeprefix(f"{DATA}=") for each in (found, content))
            make_room_for_data(found, before, after)
        found |= content
    method = None if "stages" in found else _method_of(_flat(found), own)
    _make_room(found, typed, own)
    return Read(_flat(found), typed, method)


def _flat(found: Mapping[str, Sequence[str]]) -> list[str]:
    return [word for words in found.values() for word in words]


def _make_room(found: dict[str, list[str]], words: Sequence[str], own: str | None) -> None:
    """Takes out what files say and other words, which count before them, exclude."""
    before = _method_of(_flat(found), own)
    for flag in [word.partition("=")[0] for word in words if word.startswith("--")]:
        drop(found, EXCLUSIVE.get(flag.removeprefix("--").replace("-", "_"), ()), f"beside {flag}")
        if flag == STAGES and "stages" not in found:
            drop(found, OF_ONE, f"beside {flag}")
    after = _method_of(words, own)
    if after is not None and before not in (None, after):
        shared = flags_of("supervised").keys() & flags_of(after).keys()
        drop(found, [name for name in found if name not in shared], f"of {after}")


def make_room_for_data(found: dict[str, Any], before: str, after: str) -> None:
    """Takes out what files say of a data set where a folder is given beside them, and the other way round.

    Args:
        found: What files say, by the names of flags.
        before: The data of the files.
        after: The data that are given.
    """
    published = (*DATA_SETS, "phantom")
    if is_folder(after) and before in published:
        drop(found, (*SPLITTING, *OF_DATA_SETS, *OF_CLASSES), f"of {after}")
    elif after in published and before not in published:
        drop(found, ("test", "classes", *OF_FOLDERS, *OF_READING), f"of {after}")


def _method_of(words: Sequence[str], own: str | None) -> str | None:
    """The method that words ask for, by its name or that of a row, or as the last stage."""
    chosen, stages = _after(words, METHOD), _after(words, STAGES)
    if chosen is None and stages is not None:
        chosen = read_stages(stages, methods())[-1].method
    chosen = own if chosen in ROWS else chosen
    return chosen if chosen in methods() else None


def _after(words: Sequence[str], flag: str) -> str | None:
    """The last value of a flag among words."""
    value = None
    for word, following in zip(words, [*words[1:], ""], strict=False):
        name, equals, rest = word.partition("=")
        if name == flag:
            value = rest if equals else following
    return value


def drop(found: dict[str, Any], names: Collection[str], why: str) -> None:
    """Takes out of what files say some names, where they are there, with a line."""
    names = [name for name in names if name in found]
    if names:
        print(f"{FLAG}: no part {why}: {', '.join('--' + name.replace('_', '-') for name in names)}", flush=True)
    for name in names:
        del found[name]


def _words(file: Path, flags: Mapping[str, Flag], positional: Collection[str]) -> dict[str, list[str]]:
    """The words that a file stands for, by the name of the flag."""
    import yaml

    try:
        content = yaml.safe_load(file.read_text(encoding="utf-8-sig"))
    except OSError as error:
        raise RecipeError(f"{FLAG} {file} cannot be read: {error.strerror}") from error
    except (UnicodeDecodeError, yaml.YAMLError) as error:
        raise RecipeError(f"{FLAG} {file} is no YAML: {' '.join(str(error).split())}") from error
    if not isinstance(content, dict):
        raise RecipeError(f"{FLAG} {file} is no table of flags; write lines such as 'steps: 3000'")
    words = {}
    for key, value in content.items():
        name = str(key).replace("-", "_")
        if name not in flags:
            raise RecipeError(f"{FLAG} {file}: there is no flag {key}{did_you_mean(name, flags)}")
        words[name] = [_exact(value)] if name in positional else _word(flags[name], value, file)
    return words


def _word(flag: Flag, value: Any, file: Path) -> list[str]:
    """A flag as it would be typed."""
    if "bool" in kinds(flag.parameter.annotation):
        if not isinstance(value, bool):
            raise RecipeError(f"{FLAG} {file}: {flag.name} must be true or false, found {value!r}")
        off = [] if flag.of == "run" else [f"--no-{flag.word.removeprefix('--')}"]
        return [flag.word] if value else off
    if flag.name in SEVERAL and isinstance(value, list):
        return [f"{flag.word}={_exact(each)}" for each in value]
    if isinstance(value, dict):
        import json

        return [f"{flag.word}={json.dumps(value)}"]
    return [f"{flag.word}={_exact(value)}"]


def _exact(value: Any) -> str:
    """As `word_of`, with every digit."""
    if isinstance(value, list | tuple):
        return ",".join(map(_exact, value))
    return repr(value) if isinstance(value, float) else word_of(value)


def as_yaml(settings: Settings) -> str:
    """The content of a run's `config.yaml`."""
    import yaml

    staged, flags = settings.stages is not None, flags_of(settings.method)
    command = f"python -m recipes.{settings.recipe}" if staged and settings.recipe != "train" else "semimed train"
    text = HEAD.format(what=STAGED if staged else WHOLE, command=command, name=NAME)
    values: dict[str, dict[str, Any]] = {}
    for name, value in (_of_stages(settings) if staged else _of_one(settings, flags)).items():
        if isinstance(value, tuple):
            value = list(value)
        values.setdefault(flags[name].group, {})[name] = str(value) if isinstance(value, Path) else value
    for group, entries in values.items():
        text += f"\n# {group}\n" + yaml.safe_dump(entries, sort_keys=False, allow_unicode=True, width=200)
    return text


def _of_stages(settings: Settings) -> dict[str, Any]:
    """What was given: a value of one stage may be another's default."""
    kept = {name: value for name, value in settings.given.items() if name not in ("output", "resume")}
    return {"data": settings.data_set, **kept}


def _of_one(settings: Settings, flags: Mapping[str, Flag]) -> dict[str, Any]:
    values = {name: _value(settings, flag) for name, flag in flags.items() if name not in NOT_WRITTEN}
    return {name: value for name, value in values.items() if _is_written(settings, flags[name], value)}


def _value(settings: Settings, flag: Flag) -> Any:
    if flag.of == "run":
        return settings.data_set if flag.name == "data" else getattr(settings, flag.name)
    kept: Mapping[str, Mapping[str, Any]] = {
        "method": settings.arguments,
        "views": settings.views,
        "optimizer": settings.optimizer,
        "variant": settings.variants,
    }
    return kept[flag.of].get(flag.parameter.name)


def _is_written(settings: Settings, flag: Flag, value: Any) -> bool:
    """Whether a value says something: not of another optimizer, nor what the data or other flags say."""
    if settings.split_file is not None and flag.name in ("split", "labeled", "test"):
        return False
    if value is None:  # where the default is another one
        if flag.of == "run":
            return settings.demo and any(flag.name in defaults for defaults in DEMO_OF_DATA.values())
        may_be = flag.of == "method" and "None" in kinds(flag.parameter.annotation)
        return flag.name == "weights" or may_be and (settings.demo or flag.parameter.default is not None)
    if flag.name == "mixed_precision" and value == "float32":
        return False
    if is_folder(settings.data) and flag.name in ("split", "labeled"):
        return flag.name == "labeled" and value != 1.0
    return value is not False or flag.of != "run"
