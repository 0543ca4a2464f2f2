"""`config.yaml`: every flag of a run with its value, written by the run and read by `--config`."""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from pathlib import Path
from typing import Any

from keras_semimed.experiments.command_line.bundles import (
    DATA_SETS,
    OF_DATA_SETS,
    OF_FOLDERS,
    OF_READING,
    SPLITTING,
    is_folder,
)
from keras_semimed.experiments.command_line.flags import Flag, flags_of, methods, word_of
from keras_semimed.experiments.command_line.settings import SEVERAL, Settings
from keras_semimed.experiments.command_line.stages import read_stages
from keras_semimed.experiments.command_line.words import kinds
from keras_semimed.experiments.console import RecipeError, did_you_mean

NAME = "config.yaml"
FLAG = "--config"
METHOD = "--method"
NOT_WRITTEN = ("output", "resume", "num_labels")
"""What another run is to have its own of, what a run has said by other flags, and what the data say."""
OF_THE_LAST = ("method", "stages", "control", "start_from", "pseudo_labels_from", "demo")
"""What a run in stages is told once, and does not hand to its stages before the last."""
HEAD = """\
# Every flag of a run; a flag that is given beside --config counts before it.
#   semimed train --config {name} --output runs/another
"""


def words_from(words: Sequence[str], all_flags: Mapping[str, Flag], positional: Collection[str] = ()) -> list[str]:
    """Puts what the files of `--config` say before the other words, which therefore count before it.

    Args:
        words: The words of a command line.
        all_flags: The flags of all methods, by name.
        positional: Names that are no flags but stand by themselves.

    Raises:
        RecipeError: If a file cannot be read or is no table of flags; the message names it.
    """
    rest: list[str] = []
    found: dict[str, list[str]] = {}
    given = iter(words)
    for word in given:
        name, equals, value = word.partition("=")
        if name != FLAG:
            rest.append(word)
            continue
        value = value if equals else next(given, "")
        if not value:
            raise RecipeError(f"{FLAG} needs a file")
        found |= _words(Path(value), all_flags, positional)
    _leave_out(found, rest)
    # What is given several times adds up, so that of a file and the command line only one may come through.
    given_words = {word.partition("=")[0] for word in rest}
    again = {name for name in SEVERAL if name in found and all_flags[name].word in given_words}
    if rest and not rest[0].startswith("-"):  # DATA stands first
        again |= set(positional)
        _leave_out_of_data(found, rest[0])
    return [word for name, words in found.items() if name not in again for word in words] + rest


def _leave_out(found: dict[str, list[str]], rest: Sequence[str]) -> None:
    """Takes out what a file says of the arguments of its own method, where another method is given beside it."""
    chosen = ""
    for word, following in zip(rest, [*rest[1:], ""], strict=False):
        name, equals, value = word.partition("=")
        if name == METHOD:
            chosen = value if equals else following
    if chosen not in methods() or found.get("method") in (None, [f"{METHOD}={chosen}"]):
        return
    shared = flags_of("supervised").keys() & flags_of(chosen).keys()
    _drop(found, [name for name in found if name not in shared], chosen)


def _leave_out_of_data(found: dict[str, list[str]], data: str) -> None:
    """Takes out what a file says of a data set where a folder is given beside it, and the other way round."""
    before = found.get("data", [data])[0]
    if is_folder(data) and before in DATA_SETS:
        _drop(found, [name for name in (*SPLITTING, *OF_DATA_SETS) if name in found], data)
    elif data in DATA_SETS and before not in DATA_SETS:
        _drop(found, [name for name in ("test", *OF_FOLDERS, *OF_READING) if name in found], data)


def _drop(found: dict[str, list[str]], names: Sequence[str], new: str) -> None:
    if names:
        print(f"{FLAG}: no part of {new}: {', '.join('--' + name.replace('_', '-') for name in names)}", flush=True)
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

    values: dict[str, dict[str, Any]] = {}
    for name, flag in flags_of(settings.method).items():
        value = _value(settings, flag)
        if name not in NOT_WRITTEN and _is_written(settings, flag, value) and _is_agreed(settings, flag, value):
            values.setdefault(flag.group, {})[name] = value
    text = HEAD.format(name=NAME)
    for group, entries in values.items():
        text += f"\n# {group}\n" + yaml.safe_dump(entries, sort_keys=False, allow_unicode=True, width=200)
    return text


def _factors(settings: Settings) -> list[float]:
    """What the learning rates of the stages are multiplied by."""
    return [stage.factor for stage in read_stages(settings.stages, methods())] if settings.stages else [1.0]


def _value(settings: Settings, flag: Flag, factor: float | None = None) -> Any:
    """The value of a flag in a run or in a stage with a factor, as YAML has it."""
    if flag.of == "run":
        value = settings.data_set if flag.name == "data" else getattr(settings, flag.name)
    else:
        kept: Mapping[str, Mapping[str, Any]] = {
            "method": settings.arguments,
            "views": settings.views,
            "optimizer": settings.optimizer,
            "variant": settings.variants,
        }
        value = kept[flag.of].get(flag.parameter.name)
        if flag.name == "learning_rate":  # that of a stage with the factor 1, as it was typed
            value = float(f"{settings.optimizer[flag.parameter.name] / (factor or _factors(settings)[-1]):.15g}")
    if flag.name == "start_from" and settings.earlier:
        value = settings.earlier[0].start_from
    if isinstance(value, Path):
        return str(value)
    return list(value) if isinstance(value, tuple) else value


def _is_agreed(settings: Settings, flag: Flag, value: Any) -> bool:
    """Whether all stages have it; where they differ it was not given, and each has its own default."""
    if flag.name in OF_THE_LAST:
        return True
    stages = zip(settings.earlier, _factors(settings), strict=False)
    return all(_value(stage, flag, by) == value for stage, by in stages if flag.name in flags_of(stage.method))


def _is_written(settings: Settings, flag: Flag, value: Any) -> bool:
    """Whether a value says something: not of another optimizer, nor what the data or other flags say."""
    if value is None:  # where one of the stages has another default
        takes = (flags_of(stage.method).get(flag.name) for stage in (*settings.earlier, settings))
        defaults = [each.parameter.default for each in takes if each is not None]
        may_be = flag.of == "method" and "None" in kinds(flag.parameter.annotation)
        return flag.name == "weights" or may_be and any(default is not None for default in defaults)
    if flag.name in ("steps", "demo"):  # the stages say their own steps, and keep a demo's other defaults
        return (settings.stages is None) == (flag.name == "steps") and bool(value)
    if flag.name == "mixed_precision" and value == "float32":
        return False
    if settings.split_file is not None and flag.name in ("split", "labeled", "test"):
        return False
    if is_folder(settings.data) and flag.name in ("split", "labeled"):
        return value not in ("folder", 1.0)
    return value is not False or flag.of != "run"
