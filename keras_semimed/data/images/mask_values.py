"""Which class a value or colour of a mask file stands for, declared or found."""

from __future__ import annotations

import numbers
import re
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from typing import Any, NamedTuple

import numpy as np

from keras_semimed.data.argument_checks import check_num_classes
from keras_semimed.data.array_checks import IGNORE
from keras_semimed.data.images.levels import NEAR, area_levels
from keras_semimed.data.images.pixels import Picture
from keras_semimed.text import shortened

Key = int | range | tuple[int, int, int]
MAX_VALUES = 4096
_NUMBER = "([0-9]{1,9})"
_KEY = rf"{_NUMBER}(?:\.\.{_NUMBER}|,{_NUMBER},{_NUMBER})?={_NUMBER}"
_COLOUR = 1 << 24  # a colour is this plus its 24 bits; grey values lie below


class FoundValues(NamedTuple):
    """What one mask file holds."""

    file: str
    codes: frozenset[int]
    lossy: bool
    palette: tuple[tuple[int, int, int], ...] = ()
    """The colours of the indices that a palette image holds."""
    levels: frozenset[int] = frozenset()
    """Of a lossy grey mask: the grey values of its areas."""


def found_values(mask: Picture, file: str) -> FoundValues:
    """Returns the distinct values of a decoded mask.

    Raises:
        ValueError: If there are so many that it is no mask; the message begins with `file`.
    """
    codes = _distinct(codes_of(mask.pixels))
    if len(codes) > MAX_VALUES and not mask.lossy:
        raise ValueError(f"{file}: holds {len(codes)} different values, so it is a picture and no mask; replace it")
    levels = area_levels(mask.pixels) if mask.lossy and mask.pixels.ndim == 2 else []
    return FoundValues(file, frozenset(codes[-MAX_VALUES:].tolist()), mask.lossy, mask.palette, frozenset(levels))


class MaskValues:
    """Turns the values of mask files into class indices.

    Args:
        classes: Class index, or 255 = ignore, by grey value, by range of grey values or by `(red, green, blue)`.
            None takes the values for class indices; with two classes 0 and 255 (or 65535) alone are background and
            lesion, and the halves of the grey scale are in a lossy file.
        num_classes: Number of classes, background included.

    Raises:
        ValueError: If a key is no value of a mask or a class is none.
    """

    def __init__(self, classes: Mapping[Key, int] | None, num_classes: int):
        check_num_classes(num_classes)
        self.declared = classes
        self.num_classes = num_classes
        self._by_code = {} if classes is None else _by_code(classes, num_classes)
        self.palette_colours = any(isinstance(key, tuple) for key in classes or ())

    def __str__(self) -> str:
        if self.declared is not None:
            return ", ".join(f"{_key_name(key)} -> {value}" for key, value in self.declared.items())
        both = ", or 0 and 255 alone" if self.num_classes == 2 else ""
        return f"class indices 0..{self.num_classes - 1}{both}, 255 = ignore"

    def classes(self, mask: Picture, file: str) -> np.ndarray:
        """Turns a decoded mask into `(H, W)` uint8 class indices and 255 = ignore.

        Raises:
            ValueError: If it holds a value that stands for no class; the message begins with `file`.
        """
        codes = codes_of(mask.pixels)
        values = _distinct(codes)
        found = self.classes_of(values, found_values(mask, file))
        if values[-1] < _COLOUR:  # grey values: a table is faster than a search
            table = np.zeros(values[-1] + 1, "uint8")
            table[values] = found
            return table[codes]
        return found[np.searchsorted(values, codes)]

    def classes_of(self, codes: np.ndarray, mask: FoundValues) -> np.ndarray:
        """Returns the uint8 class of each of the distinct codes of one mask; errors as `classes`."""
        file = mask.file
        if self.declared is None:
            if mask.palette and mask.palette[0] != (0, 0, 0):
                raise ValueError(
                    f"{file}: is a palette image whose index 0 is {mask.palette[0]}, not black, so that it may be the "
                    "lesion; say which class a colour is, as in "
                    f"mask_values={{{', '.join(f'{c}: {i}' for i, c in enumerate(sorted(set(mask.palette))[:2]))}}}"
                )
            return self._found_classes(codes, mask)
        if mask.lossy:
            from scipy.spatial import cKDTree

            declared = _colours(np.array(list(self._by_code)))
            for level in sorted(mask.levels):
                if np.abs(declared - level).max(axis=1).min() > NEAR:
                    raise ValueError(
                        f"{file}: holds an area of grey value {level}, which mask_values does not declare; it declares "
                        f"{self}"
                    )
            _, nearest = cKDTree(declared).query(_colours(codes))
            return np.array(list(self._by_code.values()), "uint8")[nearest]
        unknown = [code for code in codes.tolist() if code not in self._by_code]
        if unknown:
            raise ValueError(
                f"{file}: holds {_listed(unknown)}, which mask_values does not declare; it declares {self}"
            )
        return np.array([self._by_code[code] for code in codes.tolist()], "uint8")

    def _found_classes(self, codes: np.ndarray, mask: FoundValues) -> np.ndarray:
        largest, file = int(codes.max()), mask.file
        if largest >= _COLOUR:
            raise ValueError(
                f"{file}: holds {_listed(codes.tolist())}; say which class a colour is, as in "
                f"mask_values={{(0, 0, 0): 0, {_example(codes)}: 1}}"
            )
        if mask.lossy:
            stray = [level for level in sorted(mask.levels) if min(level, 255 - level) > NEAR]
            if self.num_classes > 2 or 0 < largest < 128 or stray:
                what = f"an area of grey value {stray[0]}" if stray else f"values up to {largest}"
                raise ValueError(
                    f"{file}: holds {what} and is lossy, as JPEG is, so that class indices get "
                    "lost; save it as PNG, or say which value is which class with mask_values"
                )
            return (codes > 127).astype("uint8")
        if self.num_classes == 2 and set(codes.tolist()) in _TWO_VALUED:
            return (codes > 0).astype("uint8")
        unknown = codes[(codes >= self.num_classes) & (codes != IGNORE)].tolist()
        if unknown:
            advice = "say which value is which class with mask_values"
            if self.num_classes == 2 and len(codes) > 2 and largest <= 255:
                advice += "; {range(128): 0, range(128, 256): 1} takes soft edges to the nearer side"
            raise ValueError(
                f"{file}: holds {_listed(unknown)}; expected classes 0..{self.num_classes - 1} or {IGNORE} (ignore): "
                f"{advice}"
            )
        return codes.astype("uint8")


_TWO_VALUED = ({0}, {0, 255}, {255}, {0, 65535}, {65535})


def settled(declared: Mapping[Key, int] | None, num_classes: int | None, found: Sequence[FoundValues]) -> MaskValues:
    """Returns the rule for all masks of a folder: the declared one, or the one that their values tell.

    Args:
        declared: As `classes` of `MaskValues`. None looks at `found`.
        num_classes: Number of classes. None means as many as `declared` has, and two without.
        found: What every mask holds.

    Raises:
        ValueError: If the values have two meanings; the message names a file.
    """
    if declared is not None:
        _check_declared(declared)
    if num_classes is None:
        named = [value for value in (declared or {}).values() if value != IGNORE]
        num_classes = max([1, *named]) + 1
    if declared is not None:
        return MaskValues(declared, num_classes)
    _check_palettes(found)
    colours = sorted({code for mask in found for code in mask.codes if code >= _COLOUR})
    if colours and len(colours) == num_classes - 1 and not any(mask.lossy for mask in found):
        if {code for mask in found for code in mask.codes} - set(colours) <= {0}:
            keys: list[Key] = [(0, 0, 0), *(_key(code) for code in colours)]
            return MaskValues({key: index for index, key in enumerate(keys)}, num_classes)
    if num_classes == 2:
        exact = [mask for mask in found if not mask.lossy and 255 in mask.codes]
        ignoring = [mask for mask in exact if 1 in mask.codes]
        lesions = [mask for mask in exact if mask.codes <= {0, 255}]
        everywhere = [mask for mask in lesions if mask.codes == {255}]
        indices = [mask for mask in found if not mask.lossy and mask.codes <= {0, 1} and 1 in mask.codes]
        if everywhere and indices and len(everywhere) == len([mask for mask in lesions if mask.codes != {0}]):
            raise ValueError(
                f"{everywhere[0].file}: is 255 everywhere, and {indices[0].file} holds 0 and 1, so that 255 may be the "
                "lesion or what is to be ignored; say so by mask_values={0: 0, 1: 1, 255: 255} or {…, 255: 1}"
            )
        if ignoring and lesions:
            raise ValueError(
                f"{lesions[0].file}: holds 0 and 255 alone, and {ignoring[0].file} 1 and 255, so that 255 may be the "
                "lesion or what is to be ignored; say so by mask_values={0: 0, 1: 1, 255: 255} or {…, 255: 1}"
            )
    return MaskValues(None, num_classes)


def in_words(rule: MaskValues, found: Sequence[FoundValues], names: Sequence[str]) -> str:
    """What the values of mask files stand for, and in how many files: `0 -> background (40 files), ...`.

    Args:
        rule: That of the files.
        found: What every mask holds; empty: the rule is all that is known.
        names: Of the classes; empty: they are numbers.

    Raises:
        ValueError: If a value stands for no class; the message begins with the file.
    """
    titles = {
        **{index: f"class {index}" for index in range(rule.num_classes)},
        **dict(enumerate(names)),
        IGNORE: "ignored",
    }
    if not found:
        return f"{rule} ({', '.join(f'{index} {titles[index]}' for index in range(rule.num_classes))})"
    counted: Counter[tuple[str, int]] = Counter()
    for mask in found:
        codes = sorted(mask.codes)
        classes = rule.classes_of(np.array(codes), mask).tolist()
        if mask.lossy:
            counted.update({("a lossy file's nearest", index) for index in classes})
        else:
            counted.update((code_name(code), index) for code, index in zip(codes, classes, strict=True))
    lines = sorted(counted.items(), key=lambda item: (item[0][1], item[0][0]))
    return ", ".join(f"{value} -> {titles[index]} ({number} files)" for (value, index), number in lines)


def _check_palettes(found: Sequence[FoundValues]) -> None:
    """Indices are classes only where one index has one colour in all masks."""
    first: dict[int, tuple[tuple[int, int, int], str]] = {}
    for mask in found:
        for index in sorted(mask.codes) if mask.palette else ():
            colour, file = first.setdefault(index, (mask.palette[index], mask.file))
            if colour != mask.palette[index]:
                raise ValueError(
                    f"{mask.file}: index {index} of its palette is {mask.palette[index]}, and {colour} in {file}; say "
                    f"which class a colour is, as in mask_values={{(0, 0, 0): 0, {colour}: 1}}"
                )


def codes_of(pixels: np.ndarray) -> np.ndarray:
    """Turns grey values `(H, W)` or colours `(H, W, 3)` into one int32 code a pixel; grey values are their own."""
    if pixels.ndim == 2:
        return pixels.astype("int32")
    red, green, blue = np.moveaxis(pixels.astype("int32"), -1, 0)
    grey = (red == green) & (green == blue)
    return np.where(grey, red, _COLOUR + (red << 16) + (green << 8) + blue)


def _distinct(codes: np.ndarray) -> np.ndarray:
    """The codes that occur, sorted; of grey values without sorting them all."""
    return np.unique(codes) if codes.max() >= _COLOUR else np.flatnonzero(np.bincount(codes.ravel()))


def code_name(code: int) -> str:
    """Returns how a code is written: `255` or `(255, 0, 0)`."""
    return str(_key(code))


def parse_key(text: str) -> tuple[Key, int]:
    """Reads `255=1`, `128..255=1` or `255,0,0=1`: what stands for a class, and the class.

    Raises:
        ValueError: If the text is none of them.
    """
    match = re.fullmatch(_KEY, text.replace(" ", ""))
    if match is None:
        raise ValueError(f"{shortened(text)} is no mask value; expected 255=1, 128..255=1 or 255,0,0=1")
    first, last, green, blue, index = (None if part is None else int(part) for part in match.groups())
    assert first is not None and index is not None  # the pattern has them
    if last is not None:
        return range(first, last + 1), index
    return (first, green, blue) if green is not None and blue is not None else first, index


def parse_keys(texts: Iterable[str]) -> dict[Key, int]:
    """Reads several of what `parse_key` reads.

    Raises:
        ValueError: If a text is none of them, or two give one value another class.
    """
    found: dict[Key, int] = {}
    for text in texts:
        key, index = parse_key(text)
        if found.setdefault(key, index) != index:
            raise ValueError(f"mask_values: {_key_name(key)} is class {found[key]} and {index}; give one class")
    return found


def _key(code: int) -> int | tuple[int, int, int]:
    return code if code < _COLOUR else ((code >> 16) & 255, (code >> 8) & 255, code & 255)


def _key_name(key: Key) -> str:
    return f"{key.start}..{key.stop - 1}" if isinstance(key, range) else str(key)


def _check_declared(classes: Any) -> None:
    """Raises ValueError unless this is a mapping to classes."""
    if not isinstance(classes, Mapping):
        raise ValueError(f"`mask_values` must be a dict such as {{0: 0, 255: 1}}, found {shortened(classes)}")
    for key, index in classes.items():
        if not _is_whole(index) or not 0 <= index <= IGNORE:
            name = _key_name(key)
            raise ValueError(f"mask_values: {name} is class {shortened(index)}; expected 0..254 or {IGNORE} (ignore)")


def _is_whole(value: Any) -> bool:
    return isinstance(value, numbers.Integral) and not isinstance(value, bool)


def _by_code(classes: Mapping[Key, int], num_classes: int) -> dict[int, int]:
    by_code: dict[int, int] = {}
    for key, index in classes.items():
        if not (0 <= index < num_classes or index == IGNORE):
            raise ValueError(
                f"mask_values: {_key_name(key)} is class {index}; expected 0..{num_classes - 1} or {IGNORE} (ignore)"
            )
        if isinstance(key, tuple):
            if len(key) != 3 or not all(_is_whole(part) and 0 <= part <= 255 for part in key):
                raise ValueError(f"mask_values: {key} is no colour; expected (red, green, blue) in 0..255")
            codes = [int(codes_of(np.array(key).reshape(1, 1, 3))[0, 0])]
        else:
            values = key if isinstance(key, range) else (key,)
            if not values or not all(_is_whole(end) and 0 <= end <= 65535 for end in (values[0], values[-1])):
                raise ValueError(f"mask_values: {_key_name(key)} is no grey value; expected 0..65535")
            codes = list(map(int, values))
        for code in codes:
            if by_code.setdefault(code, index) != index:
                raise ValueError(f"mask_values: {code_name(code)} is class {by_code[code]} and {index}; give one class")
    if not by_code:
        raise ValueError("mask_values is empty; give the class of every value, such as {0: 0, 255: 1}")
    return by_code


def _colours(codes: np.ndarray) -> np.ndarray:
    """`(N, 3)` red, green and blue of codes."""
    colours = np.stack([(codes >> 16) & 255, (codes >> 8) & 255, codes & 255], -1)
    return np.where((codes < _COLOUR)[:, None], codes[:, None], colours)


def _listed(codes: Sequence[int]) -> str:
    names = ", ".join(code_name(code) for code in list(codes)[:5])
    return f"[{names}{', …' if len(codes) > 5 else ''}]"


def _example(codes: np.ndarray) -> str:
    return code_name(int(codes.max()))
