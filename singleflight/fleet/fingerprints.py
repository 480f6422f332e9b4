"""Which version of a function's values some bytes are: what they are made of, in eight bytes.

Old and new code run side by side while a fleet is deployed. Their values differ in a field, a type or a
default, so their fingerprints do, and neither reads what the other has stored. It is the same in every
process, under every version of Python. What a *body* does is not in it: that is what `version=` is for.
"""

from __future__ import annotations

import re
import sys
from dataclasses import MISSING, fields, is_dataclass
from enum import Enum
from hashlib import blake2b
from types import NoneType, UnionType
from typing import Annotated, Any, Literal, TypeVar, Union, get_args, get_origin, get_type_hints, is_typeddict

__all__ = ["fingerprint", "shape"]

_OF_A_MODEL = ("default", "default_factory", "alias", "validation_alias", "serialization_alias", "exclude")
_LAYOUT = 1  # of what is hashed; of the envelope, its format byte tells


def fingerprint(serializer: str, annotation: Any, version: str | int | None = None) -> bytes:
    """Return the eight bytes that tell one version of a function's values from another.

    Args:
        serializer: its name, with its version.
        annotation: the type of the values, as `returned` found it.
        version: what the user gave as `version=`.

    Raises `NameError` if the annotation names what is not defined yet.

    >>> fingerprint("msgspec/1", dict[str, int]) == fingerprint("msgspec/1", dict[str, float])
    False
    """
    parts = [str(_LAYOUT), serializer, f"{type(version).__name__} {version}", shape(annotation)]
    whole = b"".join(b"%d:%b" % (len(data), data) for data in (_encoded(part) for part in parts))
    return blake2b(whole, digest_size=8, person=b"singleflight").digest()


def shape(annotation: Any) -> str:
    """Return a type as text: its name, and a line for each class in it, with its fields and their defaults.

    >>> shape(list[int] | None)
    'None | list[int]'
    """
    shapes = _Shapes()
    name = shapes.of(annotation)
    return "\n".join([name, *(f"{each}: {line}" for each, line in sorted(shapes.lines.items()))])


class _Shapes:
    """The classes met so far, each defined once: so types may contain themselves."""

    def __init__(self) -> None:
        self.lines: dict[str, str] = {}

    def of(self, hint: Any) -> str:
        """The name of a type, as it is written in any version."""
        if hint is None or hint is NoneType:
            return "None"
        if isinstance(hint, TypeVar):
            return f"~{self.of(hint.__bound__)}"
        if hasattr(hint, "__supertype__"):  # a `NewType`
            return self.of(hint.__supertype__)
        origin = get_origin(hint)
        if origin is Annotated:
            return f"{self.of(hint.__origin__)} {' '.join(map(_described, hint.__metadata__))}"
        if origin is Literal:
            return f"Literal[{', '.join(map(_described, get_args(hint)))}]"
        if origin in (Union, UnionType):
            return " | ".join(sorted(map(self.of, get_args(hint))))
        if origin is not None:
            return f"{self.of(origin)}[{', '.join(map(self.of, get_args(hint)))}]"
        if hasattr(hint, "__value__"):  # what a `type` statement defines; it may contain itself
            return self.defined(hint, lambda: self.of(hint.__value__))
        if isinstance(hint, type):
            return self.of_class(hint)
        return str(hint)  # `Any`, `...` and other special forms

    def of_class(self, kind: Any) -> str:
        if issubclass(kind, Enum):
            members = (f"{name} {_described(each.value)}" for name, each in kind.__members__.items())
            return self.defined(kind, lambda: "; ".join(members))
        described = _fields_of(kind)
        if described is None:
            return _name_of(kind)

        def line() -> str:
            hints = _types_of(kind)
            return "; ".join(
                f"{name} {self.of(hints.get(name, Any))} {more}" for name, more in described.items()
            ) + _config_of(kind)

        return self.defined(kind, line)

    def defined(self, kind: Any, line: Any) -> str:
        name = _name_of(kind)
        if name not in self.lines:
            self.lines[name] = ""
            self.lines[name] = line()
        return name


def _fields_of(kind: Any) -> dict[str, str] | None:
    """The fields of a class with what is told of each beside its type; None for a class without fields."""
    if hasattr(kind, "__struct_fields__"):  # msgspec
        names, encoded = kind.__struct_fields__, kind.__struct_encode_fields__
        told = dict(zip(names, encoded, strict=True))
        for name, default in zip(reversed(names), reversed(kind.__struct_defaults__), strict=False):
            told[name] += f" {_described(default)}"
        return told
    if hasattr(kind, "model_fields"):  # pydantic
        return {
            name: " ".join(_described(getattr(field, each)) for each in ("metadata", *_OF_A_MODEL))
            for name, field in kind.model_fields.items()
        }
    if is_dataclass(kind):
        return {
            field.name: f"{_described(field.default)} {_described(field.default_factory)} {field.init}"
            for field in fields(kind)
        }
    if hasattr(kind, "__attrs_attrs__"):
        return {field.name: f"{_described(field.default)} {field.init}" for field in kind.__attrs_attrs__}
    if hasattr(kind, "_field_defaults"):  # a named tuple
        return {name: _described(kind._field_defaults.get(name, MISSING)) for name in kind._fields}
    if is_typeddict(kind):
        return {name: str(name in kind.__required_keys__) for name in sorted(kind.__annotations__)}
    return None


def _types_of(kind: Any) -> dict[str, Any]:
    """The types of its fields; raises `NameError` if one is not defined yet."""
    if not hasattr(kind, "model_fields"):
        return get_type_hints(kind, include_extras=True)
    if not kind.__pydantic_complete__:
        kind.model_rebuild()
    return {name: field.annotation for name, field in kind.model_fields.items()}


def _config_of(kind: Any) -> str:
    """What else decides how it is written."""
    struct = getattr(kind, "__struct_config__", None)
    if struct is not None:
        what = ("tag", "tag_field", "array_like", "omit_defaults", "forbid_unknown_fields")
        return " " + _described([getattr(struct, name) for name in what])
    config = getattr(kind, "model_config", None)
    return f" {_described(config)}" if config else ""


def _described(value: Any) -> str:
    """A default, a member or a constraint as text that is the same in every process."""
    kind = type(value)
    if value is MISSING:
        return "-"
    if kind in (list, tuple):
        return f"{kind.__name__}({', '.join(map(_described, value))})"
    if kind in (set, frozenset):
        return f"{kind.__name__}({', '.join(sorted(map(_described, value)))})"
    if kind is dict:
        return f"dict({', '.join(f'{_described(name)}: {_described(each)}' for name, each in value.items())})"
    if isinstance(value, Enum):
        return f"{_name_of(kind)}.{value.name}"
    if hasattr(value, "__qualname__"):  # a class or a function, as a default factory
        return _name_of(value)
    if hasattr(value, "factory"):
        return f"{_name_of(kind)}({_described(value.factory)})"
    try:
        return f"{_name_of(kind)} " + re.sub(r" at 0x[0-9A-Fa-f]+", "", repr(value))
    except Exception:
        return _name_of(kind)


def _name_of(kind: Any) -> str:
    """A class or a function with its module, in the standard library without the private ones."""
    module = getattr(kind, "__module__", None) or ""
    if module.partition(".")[0] in sys.stdlib_module_names:  # `pathlib._local.Path`, in some versions
        module = ".".join(part for part in module.split(".") if not part.startswith("_"))
    name = str(getattr(kind, "__qualname__", None) or getattr(kind, "__name__", kind))
    return name if module == "builtins" else f"{module}.{name}"


def _encoded(text: str) -> bytes:
    return text.encode("utf-8", "surrogatepass")
