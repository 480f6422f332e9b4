"""How one function's values become bytes and come back as what they were: never as something like it.

Which way is taken follows from the return annotation. With one, msgspec writes MessagePack that is typed by
it; pydantic writes JSON where a class in it is pydantic's, or where msgspec does not know one. Every value is
read again before it is sent, and compared part by part: what the types do not say (a tuple under `list`, an
int under `float`, a subclass, a time zone) is an error that names the part, and never a silent change.

Without an annotation (or with `Any`) only what MessagePack has is written: None, bool, int, float, str,
bytes, and lists and dicts with str keys of them. There is no pickle. An object given as `serializer=` is
taken at its word: nothing is compared.
"""

from __future__ import annotations

from collections.abc import Callable
from contextlib import suppress
from typing import Any, Protocol, runtime_checkable

from ..common.messages import kind_of, shown
from .annotations import returned
from .envelopes import Kind
from .fingerprints import fingerprint, shape
from .refusals import UnportableValue, Unreadable
from .roundtrips import difference

__all__ = ["Codec", "Serializer", "checked_serializer"]


@runtime_checkable
class Serializer(Protocol):
    """What `serializer=` takes.

    `name` says what it writes, with its version ("orders/2"): bytes of another name are not read. `loads` may
    raise any Exception for bytes that it cannot read; they count as if there were none. Both are called from
    any thread, and on an event loop's thread they hold it up.
    """

    name: str

    def dumps(self, value: Any, /) -> bytes:
        """Return a value as bytes."""
        ...

    def loads(self, data: bytes, /) -> Any:
        """Return the value that some bytes are."""
        ...


def checked_serializer(serializer: object) -> Serializer | None:
    """Return the object given as `serializer=`, or raise `TypeError` naming the option."""
    if serializer is None:
        return None
    if isinstance(serializer, type) or not isinstance(serializer, Serializer):
        raise TypeError(f"serializer: expected an object with name, dumps and loads, got {shown(serializer)}")
    if not isinstance(serializer.name, str) or not serializer.name:
        raise TypeError(f"serializer: expected a text as its name, got {shown(serializer.name)}")
    return serializer


class Codec:
    """Writes and reads the values of one function; safe to use from any thread.

    Args:
        function: the function, whose return annotation decides.
        serializer: an object of the user's that decides instead, or None.

    Making one raises `UnportableValue` if no serialiser knows the annotation. If it names what is not defined
    yet, the first use asks again.
    """

    __slots__ = ("_annotation", "_function", "_name", "_serializer")

    def __init__(self, function: Any, serializer: Serializer | None = None) -> None:
        self._function, self._serializer = function, serializer
        self._name: str = getattr(function, "__qualname__", type(function).__qualname__)
        self._annotation: Any = None
        if serializer is None:
            with suppress(NameError, AttributeError):  # a class, or a module's, that is defined further down
                self._settle()

    def fingerprint(self, version: str | int | None = None) -> bytes:
        """Return the eight bytes that tell what its payloads are; `version` is the user's."""
        serializer = self._settled()
        return fingerprint(serializer.name, self._annotation, version)

    def enclose(self, value: Any) -> tuple[Kind, bytes]:
        """Return the kind and payload of an envelope for a value, or raise `UnportableValue`.

        None has a kind of its own, whatever the function is annotated with.
        """
        if value is None:
            return "none", b""
        serializer = self._settled()
        try:
            data = serializer.dumps(value)
        except UnportableValue as refusal:
            raise UnportableValue(f"{self._name}: {refusal}") from None
        except Exception as error:
            raise UnportableValue(
                f"{self._name}: {serializer.name} cannot write {shown(value)}: {shown(error)}"
            ) from error
        if type(data) is not bytes:
            raise UnportableValue(f"{self._name}: {serializer.name} wrote {kind_of(data)} instead of bytes")
        return "value", data

    def open(self, kind: Kind, payload: bytes) -> Any:
        """Return the value of an envelope, or raise `Unreadable`."""
        if kind == "none":
            return None
        serializer = self._settled()
        try:
            return serializer.loads(payload)
        except Exception:
            raise Unreadable("payload") from None

    def _settled(self) -> Serializer:
        try:
            return self._serializer or self._settle()
        except (NameError, AttributeError) as error:
            raise UnportableValue(
                f"{self._name}: its return annotation cannot be looked up ({error}); define the type in the "
                f"function's module, or pass serializer="
            ) from error

    def _settle(self) -> Serializer:
        """Two threads at once make the same twice."""
        annotation = returned(self._function)
        try:
            shape(annotation)  # raises `NameError` if a field's type is not defined yet
            serializer = _chosen(annotation)
        except UnportableValue as refusal:
            raise UnportableValue(f"{self._name}: {refusal}") from None
        self._annotation = annotation
        self._serializer = serializer
        return serializer


class _Plain:
    """Values that need no annotation, since MessagePack tells their types itself."""

    name = "plain/1"

    def __init__(self) -> None:
        msgpack = _msgspec().msgpack
        self._encode, self._decode = msgpack.Encoder().encode, msgpack.Decoder().decode

    def dumps(self, value: Any) -> bytes:
        _check_plain(value, "value")
        data: bytes = self._encode(value)
        return data

    def loads(self, data: bytes) -> Any:
        value = self._decode(data)
        _check_plain(value, "value")  # bytes of somebody else's may be anything that MessagePack has
        return value


class _Typed:
    """Values of one type, each of them read again before it is sent."""

    def __init__(self, name: str, write: Callable[[Any], bytes], read: Callable[[bytes], Any]) -> None:
        self.name, self._write, self.loads = name, write, read

    def dumps(self, value: Any) -> bytes:
        data = self._write(value)
        try:
            changed = difference(value, self.loads(data))
        except Exception as error:
            raise UnportableValue(f"{shown(value)} does not fit the return annotation: {error}") from error
        if changed is not None:
            raise UnportableValue(
                f"{changed}; make the return annotation say what it is, or pass serializer="
            )
        return data


def _check_plain(value: Any, where: str) -> None:
    """Raise `UnportableValue` for what MessagePack would turn into something else."""
    kind = type(value)
    if kind in (type(None), bool, int, float, str, bytes):
        return
    if kind is list:
        for place, item in enumerate(value):
            _check_plain(item, f"{where}[{place}]")
    elif kind is dict:
        for name, item in value.items():
            if type(name) is not str:
                raise _untyped(f"{where}, the key {shown(name)}", name)
            _check_plain(item, f"{where}[{shown(name)}]")
    else:
        raise _untyped(where, value)


def _untyped(where: str, value: Any) -> UnportableValue:
    return UnportableValue(
        f"{where}: {kind_of(value)} comes back as one only if its type is known; annotate the return type, "
        f"or pass serializer="
    )


def _chosen(annotation: Any) -> Serializer:
    """The serialiser for a type, all of whose names are defined."""
    if annotation is Any:
        return _Plain()
    msgspec = _msgspec()
    try:
        if _all_known(msgspec.inspect.type_info(annotation)):
            msgpack = msgspec.msgpack
            return _Typed("msgspec/1", msgpack.Encoder().encode, msgpack.Decoder(annotation).decode)
        unknown = "it has a class that msgspec does not know"
    except Exception as error:  # a type that it does not support: the message says which
        unknown = str(error)
    try:
        from pydantic import TypeAdapter
    except ImportError:
        more = "; pydantic may know it, but is not installed"
    else:
        try:
            adapter: Any = TypeAdapter(annotation)
        except Exception as error:
            more = f"; nor does pydantic: {str(error).partition(chr(10))[0]}"
        else:

            def write(value: Any) -> bytes:
                written: bytes = adapter.dump_json(value, by_alias=True, round_trip=True, warnings="error")
                return written

            return _Typed("pydantic/2", write, adapter.validate_json)
    raise UnportableValue(f"its return annotation cannot be shared: {unknown}{more}; or pass serializer=")


def _all_known(info: Any, seen: set[int] | None = None) -> bool:
    """Return True if msgspec's description of a type has no class that it does not know, or pydantic's."""
    seen = set() if seen is None else seen
    if id(info) in seen:
        return True
    seen.add(id(info))
    if isinstance(info, tuple):
        return all(_all_known(part, seen) for part in info)
    if not hasattr(info, "__struct_fields__"):
        return True
    if type(info).__name__ == "CustomType" or hasattr(getattr(info, "cls", None), "__pydantic_validator__"):
        return False
    parts = [getattr(info, name) for name in info.__struct_fields__ if name not in ("default", "cls")]
    return all(_all_known(part, seen) for part in parts)


def _msgspec() -> Any:
    try:
        import msgspec
        import msgspec.inspect
    except ImportError as error:
        raise UnportableValue(
            "values are shared by msgspec, which is not installed: pip install 'singleflight-kit[redis]', or "
            "pass serializer="
        ) from error
    return msgspec
