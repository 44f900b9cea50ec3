"""Messages to and from JSON values.

The functions for a dataclass are built once, from its annotations, the first time it is met. Closures rather than
generated source: compiling source costs more than a container's whole first exchange.
"""

from __future__ import annotations

import dataclasses
import enum
import math
import typing
from typing import Any, Callable, NamedTuple, Optional, TypeVar

from .errors import WireError

Message = TypeVar("Message")
Convert = Callable[[Any], Any]

_REQUIRED = object()  # equal to no value, so a field without a default is always encoded
_INT_LIMIT = 2**63  # what SQL stores hold


class _Field(NamedTuple):
    name: str
    encode: Optional[Convert]  # None: the value is JSON already
    decode: Convert
    default: Any  # _REQUIRED: none; for a default_factory, a sample to compare with
    make_default: Callable[[], Any]


class _Codec(NamedTuple):
    encode: Convert
    decode: Convert


_codecs: dict[type, _Codec] = {}


def encode(message: Any) -> dict[str, Any]:
    """Turn a message dataclass into a dict of JSON values, leaving out fields that have their default."""
    codec = _codecs.get(type(message))
    if codec is None:
        codec = _build(type(message))
    result: dict[str, Any] = codec.encode(message)
    return result


def decode(cls: type[Message], obj: Any) -> Message:
    """Make a `cls` from JSON values.

    Fields that `cls` does not have are ignored, so that an older side understands a newer one; omitted fields take
    their default.

    Raises:
        WireError: a value has the wrong type, a field without default is missing, or an enum value is unknown.
    """
    codec = _codecs.get(cls)
    if codec is None:
        codec = _build(cls)
    message: Message = codec.decode(obj)
    return message


def _build(cls: type) -> _Codec:
    if not dataclasses.is_dataclass(cls):
        raise TypeError(f"{cls!r} is not a message: messages are dataclasses")
    hints = typing.get_type_hints(cls)
    fields = []
    for field in dataclasses.fields(cls):
        default: Any = _REQUIRED
        make_default = _constant(_REQUIRED)
        if field.default is not dataclasses.MISSING:
            default = field.default
            make_default = _constant(default)
        elif field.default_factory is not dataclasses.MISSING:
            make_default = field.default_factory
            default = make_default()
        encode_field, decode_field = _converters(hints[field.name])
        fields.append(_Field(field.name, encode_field, decode_field, default, make_default))
    codec = _Codec(_message_encoder(tuple(fields)), _message_decoder(cls, tuple(fields)))
    _codecs[cls] = codec
    return codec


def _constant(value: Any) -> Callable[[], Any]:
    return lambda: value


def _message_encoder(fields: tuple[_Field, ...]) -> Convert:
    plan = [(field.name, field.encode, field.default) for field in fields]

    def encode_message(message: Any) -> dict[str, Any]:
        result = {}
        for name, convert, default in plan:
            value = getattr(message, name)
            if value is default or value == default:
                continue
            result[name] = value if convert is None else convert(value)
        return result

    return encode_message


def _message_decoder(cls: type, fields: tuple[_Field, ...]) -> Convert:
    plan = [(field.name, field.decode, field.make_default) for field in fields]
    # A frozen dataclass's __init__ calls object.__setattr__ for every field; filling the dict is several times faster.
    fill_dict = not hasattr(cls, "__post_init__") and not any("__slots__" in vars(base) for base in cls.__mro__[:-1])

    def decode_message(obj: Any) -> Any:
        if type(obj) is not dict:
            raise WireError(f"{cls.__name__}: expected an object, got {_kind(obj)}")
        values = {}
        name = ""
        try:
            for name, convert, make_default in plan:
                if name in obj:
                    values[name] = convert(obj[name])
                else:
                    value = values[name] = make_default()
                    if value is _REQUIRED:
                        raise WireError("is missing")
        except WireError as error:
            raise WireError(f"{cls.__name__}.{name}: {error}") from None
        if not fill_dict:
            return cls(**values)
        message: Any = object.__new__(cls)
        message.__dict__.update(values)
        return message

    return decode_message


def _converters(hint: Any) -> tuple[Optional[Convert], Convert]:
    """Return the encoder (None: identity) and the decoder of one annotated type."""
    if hint in _SCALARS:
        return None, _SCALARS[hint]
    if hint is Any:
        return None, _decode_any
    origin, args = typing.get_origin(hint), typing.get_args(hint)
    if origin is typing.Union and len(args) == 2 and type(None) in args:
        return _optional(*_converters(args[0] if args[1] is type(None) else args[1]))
    if origin is list:
        return _list(*_converters(args[0]))
    if origin is dict and args[0] is str:
        return _dict(*_converters(args[1]))
    if isinstance(hint, type) and issubclass(hint, enum.Enum):
        return _enum(hint)
    if isinstance(hint, type) and dataclasses.is_dataclass(hint):
        return _codecs.get(hint) or _build(hint)
    raise TypeError(f"messages cannot have fields of type {hint!r}")


def _optional(encode_one: Optional[Convert], decode_one: Convert) -> tuple[Optional[Convert], Convert]:
    def decode_optional(value: Any) -> Any:
        return None if value is None else decode_one(value)

    if encode_one is None:
        return None, decode_optional
    convert = encode_one
    return (lambda value: None if value is None else convert(value)), decode_optional


def _list(encode_one: Optional[Convert], decode_one: Convert) -> tuple[Optional[Convert], Convert]:
    def decode_list(value: Any) -> list[Any]:
        if type(value) is not list:
            raise WireError(f"expected a list, got {_kind(value)}")
        return [decode_one(one) for one in value]

    if encode_one is None:
        return None, decode_list
    convert = encode_one
    return (lambda value: [convert(one) for one in value]), decode_list


def _dict(encode_one: Optional[Convert], decode_one: Convert) -> tuple[Optional[Convert], Convert]:
    def decode_dict(value: Any) -> dict[str, Any]:
        if type(value) is not dict:
            raise WireError(f"expected an object, got {_kind(value)}")
        return {key: decode_one(one) for key, one in value.items()}

    if encode_one is None:
        return None, decode_dict
    convert = encode_one
    return (lambda value: {key: convert(one) for key, one in value.items()}), decode_dict


def _enum(cls: type[enum.Enum]) -> tuple[Convert, Convert]:
    members = {member.value: member for member in cls}

    def decode_enum(value: Any) -> enum.Enum:
        member = members.get(value) if isinstance(value, (str, int)) and type(value) is not bool else None
        if member is None:
            raise WireError(f"{_shown(value)} is not a {cls.__name__}")
        return member

    return (lambda member: member.value), decode_enum


def _decode_str(value: Any) -> str:
    if type(value) is not str:
        raise WireError(f"expected text, got {_kind(value)}")
    return value


def _decode_bool(value: Any) -> bool:
    if type(value) is not bool:
        raise WireError(f"expected true or false, got {_kind(value)}")
    return value


def _decode_int(value: Any) -> int:
    if type(value) is not int:
        raise WireError(f"expected an integer, got {_kind(value)}")
    if not -_INT_LIMIT <= value < _INT_LIMIT:
        raise WireError("the integer does not fit in 64 bits")
    return value


def _decode_float(value: Any) -> float:
    if type(value) is float:
        if not math.isfinite(value):
            raise WireError("the number is not finite")
        return value
    if type(value) is not int:
        raise WireError(f"expected a number, got {_kind(value)}")
    return float(_decode_int(value))


def _decode_any(value: Any) -> Any:
    return value


_SCALARS: dict[Any, Convert] = {str: _decode_str, bool: _decode_bool, int: _decode_int, float: _decode_float}

_KINDS = {type(None): "null", dict: "an object", list: "a list", str: "text", bool: "a boolean"}


def _kind(value: Any) -> str:
    return _KINDS.get(type(value), "a number")


def _shown(value: Any) -> str:
    """Show a hostile value in a message, cut to a harmless length."""
    return repr(value)[:40] if isinstance(value, (str, int)) else _kind(value)
