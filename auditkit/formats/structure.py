"""Records to and from plain JSON values, by their declared types.

Rules that it keeps:

* nothing is coerced: ``True`` is no integer, ``"3"`` is no integer, ``3.0`` is no integer. The
  two exceptions are JSON's own: an integer may stand for a float, and an integer of 2**53 or
  more is written as a decimal string (other readers would round it) and read back from one;
* unknown fields are refused, not dropped; missing fields take the record's default if it has one;
* a field is written whatever it holds, but for one that is declared to be left out where it has its
  default (``LEFT_OUT_IF_DEFAULT``);
* the input is never changed, and equal records give equal values (a float field holding ``1``
  gives ``1.0``).

In a union of ``str`` and ``int`` the decimal string of a large integer is read as the integer.
Bytes and text are the business of :mod:`auditkit.formats.canonical`.
"""

from __future__ import annotations

import dataclasses
import functools
import math
import re
from collections.abc import Callable, Iterable, Mapping, Sequence
from types import NoneType, UnionType
from typing import Any, Literal, TypeVar, Union, get_args, get_origin

from cattrs import Converter, IterableValidationNote, transform_error
from cattrs.errors import BaseValidationError, ForbiddenExtraKeysError, IterableValidationError
from cattrs.gen import make_dict_structure_fn, make_dict_unstructure_fn, override

from auditkit.errors import AuditError, SchemaError
from auditkit.formats.quote import brief, json_type
from auditkit.records.plan import LEFT_OUT_IF_DEFAULT

T = TypeVar("T")

#: Integers of this size and more are written as decimal strings: readers that keep numbers as
#: doubles (jq, JavaScript, protobuf) would round them.
EXACT_LIMIT = 2**53

#: Longest number that is read or written, in characters: the least to which Python's own limit
#: (`sys.set_int_max_str_digits`) can be set, so that a large integer never raises ValueError.
MAX_NUMBER_CHARS = 640

#: Longest error message about a field, in characters; what is quoted comes from the file.
_MAX_MESSAGE = 300

_DECIMAL = re.compile(r"-?[1-9][0-9]{15,}", re.ASCII)
_SEQUENCES = (tuple, list, Sequence)
_MAPPINGS = (dict, Mapping)
_UNIONS = (Union, UnionType)

Hook = Callable[[Any, Any], Any]


class _MismatchError(Exception):
    """A value that is not of the declared type; carries the whole message."""


def to_dict(record: object) -> dict[str, Any]:
    """Turn a record into plain dicts, lists, strings and numbers.

    Args:
        record: A frozen dataclass.

    Returns:
        A new dict; nothing in it is shared with the record but immutable values.
    """
    plain = _plain(_converter().unstructure(record))
    assert isinstance(plain, dict), "a record is a dataclass"  # noqa: S101 (narrows the type)
    return plain


def from_dict(cls: type[T], data: object, *, what: str) -> T:
    """Turn plain JSON values into a record.

    Args:
        cls: The record's class.
        data: What :func:`to_dict` gave, perhaps by way of JSON. It is not changed.
        what: What is being read, for the error message.

    Returns:
        The record.

    Raises:
        SchemaError: When a field is missing, unknown or of another type, or when the record's
            own constructor refuses the values. The message names the path.
    """
    try:
        return _converter().structure(data, cls)
    except (BaseValidationError, _MismatchError, AuditError) as error:
        first, *others = transform_error(error, format_exception=_describe)
    message, _, path = first.rpartition(" @ ")
    text = f"{_clip(path)}: {_clip(message)}"
    if others:
        text += f" (and {len(others)} more)"
    raise SchemaError(text, where=what)


def prepare(*, read: Iterable[type] = (), written: Iterable[type] = ()) -> None:
    """Make what reads and writes records now: that takes milliseconds where it is first done.

    Args:
        read: Classes that :func:`from_dict` will be asked for, here or in a fork of this process.
        written: Those of records that :func:`to_dict` will be given.
    """
    for cls in read:
        _converter().get_structure_hook(cls)
    for cls in written:
        _converter().get_unstructure_hook(cls)


def _clip(text: str) -> str:
    printable = "".join(c if c.isprintable() else ascii(c)[1:-1] for c in text)
    return printable if len(printable) <= _MAX_MESSAGE else printable[:_MAX_MESSAGE] + "..."


def _describe(error: BaseException, _: type | None) -> str:
    if isinstance(error, KeyError):
        return "the field is missing"
    if isinstance(error, ForbiddenExtraKeysError):
        return "unknown field " + ", ".join(brief(name) for name in sorted(error.extra_fields))
    return str(error)


def _plain(value: object) -> object:
    """Tuples as lists and any mapping as a dict, at every depth."""
    if isinstance(value, Mapping):
        return {key: _plain(item) for key, item in value.items()}
    if isinstance(value, (tuple, list)):
        return [_plain(item) for item in value]
    return value


def _mismatch(expected: str, value: object) -> _MismatchError:
    prefix = f"{json_type(value)} " if isinstance(value, (str, float)) else ""
    return _MismatchError(f"expected {expected}, found {prefix}{brief(value)}")


def is_large_decimal(value: object) -> bool:
    """Whether a value is the decimal string of an integer that JSON numbers would round."""
    return (
        isinstance(value, str)
        and len(value) <= MAX_NUMBER_CHARS
        and _DECIMAL.fullmatch(value) is not None
        and abs(int(value)) >= EXACT_LIMIT
    )


def _integer(value: object, _: object) -> int:
    if isinstance(value, int) and not isinstance(value, bool):
        return value
    if isinstance(value, str) and is_large_decimal(value):
        return int(value)
    raise _mismatch("an integer", value)


def _float(value: object, _: object) -> float:
    if isinstance(value, (int, float)) and not isinstance(value, bool):
        try:
            number = float(value)
        except OverflowError:
            number = math.inf
        if math.isfinite(number):
            return number
    raise _mismatch("a finite number", value)


def _exactly(kind: type, name: str) -> Hook:
    def check(value: object, _: object) -> object:
        if isinstance(value, kind):
            return value
        raise _mismatch(name, value)

    return check


def _literal(value: object, annotation: object) -> object:
    choices = get_args(annotation)
    for choice in choices:
        if type(value) is type(choice) and value == choice:
            return choice
    raise _mismatch(" or ".join(map(repr, choices)), value)


def _fits(value: object, annotation: object) -> bool:
    """Whether a JSON value is of the kind that a member of a union has."""
    origin = get_origin(annotation) or annotation
    if origin is Literal:
        return value in [choice for choice in get_args(annotation) if type(choice) is type(value)]
    if origin is int:
        return type(value) is int or is_large_decimal(value)
    if origin is float:
        return type(value) in (int, float)
    if origin in _SEQUENCES:
        return isinstance(value, (list, tuple))
    if dataclasses.is_dataclass(origin) or origin in _MAPPINGS:
        return isinstance(value, Mapping)
    return isinstance(origin, type) and type(value) is origin


def _union_hook(annotation: object, converter: Converter) -> Hook:
    # int before str and float: the most exact reading of a value wins
    members = sorted(get_args(annotation), key=lambda member: member is not int)
    hooks = [(member, converter.get_structure_hook(member)) for member in members]

    def structure(value: object, _: object) -> object:
        for member, hook in hooks:
            if _fits(value, member):
                return hook(value, member)
        names = [json_type(get_origin(member) or member) for member, _ in hooks]
        raise _mismatch(" or ".join(names), value)

    return structure


def _collect(items: list[tuple[int | str, Callable[[], object]]]) -> list[object]:
    """Structure all items, so that one message can say how many are wrong."""
    structured: list[object] = []
    errors: list[Exception] = []
    for index, structure in items:
        try:
            structured.append(structure())
        except (BaseValidationError, _MismatchError, AuditError) as error:
            note = IterableValidationNote(f"item {index!r}", index, object)
            error.__notes__ = [*getattr(error, "__notes__", []), note]
            errors.append(error)
    if errors:
        raise IterableValidationError("items", errors, list)
    return structured


def _sequence_hook(annotation: object, converter: Converter) -> Hook:
    arguments = get_args(annotation) or (Any, ...)
    origin = get_origin(annotation) or annotation
    build = list if origin is list else tuple
    fixed = origin is tuple and arguments[-1] is not ...
    hooks = [converter.get_structure_hook(item) for item in arguments if item is not ...]

    def structure(value: object, _: object) -> object:
        if not isinstance(value, (list, tuple)):
            raise _mismatch("an array", value)
        if fixed and len(value) != len(hooks):
            raise _MismatchError(f"expected an array of {len(hooks)}, found one of {len(value)}")
        calls: list[tuple[int | str, Callable[[], object]]] = [
            (index, functools.partial(hooks[index * fixed], item, arguments[index * fixed]))
            for index, item in enumerate(value)
        ]
        return build(_collect(calls))

    return structure


def _mapping_hook(annotation: object, converter: Converter) -> Hook:
    key_type, item_type = get_args(annotation) or (str, Any)
    if key_type is not str:
        raise TypeError(f"JSON keys are strings; {annotation} has no JSON form")
    hook = converter.get_structure_hook(item_type)

    def structure(value: object, _: object) -> object:
        if not isinstance(value, Mapping):
            raise _mismatch("an object", value)
        if not all(isinstance(key, str) for key in value):
            raise _MismatchError("expected only strings as keys")
        calls: list[tuple[int | str, Callable[[], object]]] = [
            (key, functools.partial(hook, item, item_type)) for key, item in value.items()
        ]
        return dict(zip(value, _collect(calls), strict=True))

    return structure


def _record_hook(cls: Any, converter: Converter) -> Hook:
    build = make_dict_structure_fn(
        cls,
        converter,
        _cattrs_forbid_extra_keys=True,
        _cattrs_detailed_validation=True,
    )

    def structure(value: object, _: object) -> object:
        if not isinstance(value, Mapping):
            raise _mismatch("an object", value)
        return build(value, cls)

    return structure


def _has_fields_left_out(cls: Any) -> bool:
    return dataclasses.is_dataclass(cls) and bool(_left_out(cls))


def _left_out(cls: Any) -> list[str]:
    """Fields that are not written where they have their default."""
    return [item.name for item in dataclasses.fields(cls) if item.metadata == LEFT_OUT_IF_DEFAULT]


def _short_record_hook(cls: Any, converter: Converter) -> Callable[[Any], dict[str, Any]]:
    settings: dict[str, Any] = {name: override(omit_if_default=True) for name in _left_out(cls)}
    return make_dict_unstructure_fn(cls, converter, **settings)


@functools.cache
def _converter() -> Converter:
    converter = Converter(forbid_extra_keys=True, detailed_validation=True)
    converter.register_structure_hook(int, _integer)
    converter.register_structure_hook(float, _float)
    converter.register_structure_hook(str, _exactly(str, "a string"))
    converter.register_structure_hook(bool, _exactly(bool, "true or false"))
    converter.register_structure_hook(NoneType, _exactly(NoneType, "null"))
    converter.register_unstructure_hook(float, float)  # 1 and 1.0 must give the same bytes
    factories: list[tuple[Callable[[Any], bool], Any]] = [
        (lambda kind: kind is object, lambda _, __: lambda value, _: value),  # any JSON value
        (lambda kind: get_origin(kind) is Literal, lambda kind, _: _literal),
        (lambda kind: get_origin(kind) in _UNIONS, _union_hook),
        (lambda kind: (get_origin(kind) or kind) in _SEQUENCES, _sequence_hook),
        (lambda kind: (get_origin(kind) or kind) in _MAPPINGS, _mapping_hook),
        (dataclasses.is_dataclass, _record_hook),
    ]
    for applies, factory in factories:
        converter.register_structure_hook_factory(applies, factory)
    converter.register_unstructure_hook_factory(_has_fields_left_out, _short_record_hook)
    return converter
