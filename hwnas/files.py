"""Reading and writing files: validated on the way in, complete or absent on the way out."""

from __future__ import annotations

import dataclasses
import hashlib
import json
import math
import os
import re
import tomllib
from collections.abc import Iterator
from contextlib import contextmanager
from functools import cache, lru_cache
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar

from hwnas.errors import InputError, RunDirectoryError
from hwnas.temporary import file_beside

if TYPE_CHECKING:
    from pydantic import TypeAdapter

LFS_POINTER = b"version https://git-lfs.github.com/spec/"
"""How a file begins that Git LFS keeps elsewhere, where it was never fetched."""

LEFT_OUT = {"left_out": True}
"""Metadata of a field that is not written where it has its default: older records keep their hash."""

T = TypeVar("T")


def hwnas_home() -> Path:
    """Where the user's locks and history live: `$HWNAS_HOME`, or the platform's place for user data."""
    import platformdirs

    return Path(os.environ.get("HWNAS_HOME") or platformdirs.user_data_dir("hwnas", appauthor=False))


def hwnas_config() -> Path:
    """Where the user's own device profiles live: `$HWNAS_CONFIG`, or the platform's place for settings."""
    import platformdirs

    return Path(os.environ.get("HWNAS_CONFIG") or platformdirs.user_config_dir("hwnas", appauthor=False))


def hwnas_cache() -> Path:
    """Where downloads, decoded images and programs are kept: `$HWNAS_CACHE`, or the platform's place."""
    import platformdirs

    return Path(os.environ.get("HWNAS_CACHE") or platformdirs.user_cache_dir("hwnas", appauthor=False))


def decode(cls: type[T], data: Any, source: str | os.PathLike[str]) -> T:
    """Validate plain data (of JSON or TOML) as the dataclass `cls`: types strict, unknown keys refused.

    Numbers must be finite: hwnas writes no others, and could not write them again.

    Raises:
        InputError: names the source and the offending key.
    """
    from pydantic import ValidationError

    try:
        key: Any = cls
        validator: TypeAdapter[T] = _validator(key)
        return validator.validate_json(json.dumps(data, default=str, allow_nan=False), strict=True)
    except ValidationError as error:
        first = error.errors(include_url=False, include_context=False, include_input=False)[0]
        key = ".".join(str(step) for step in first["loc"]) or "the whole document"
        raise InputError(f"{source}: {key}: {first['msg']}", f"correct {key} in {source}") from None
    except ValueError:  # of json
        key = _not_finite(data)
        raise InputError(f"{source}: {key}: is no finite number", f"correct {key} in {source}") from None
    except (TypeError, RecursionError) as error:
        raise InputError(f"{source}: not plain data: {error}", f"correct {source}") from None


@cache
def _validator(cls: Any) -> TypeAdapter[Any]:
    """Building one takes milliseconds, a hundred times as long as using it."""
    from pydantic import TypeAdapter

    return TypeAdapter(cls)


def _not_finite(data: Any) -> str:
    """The key of a number in plain data that is NaN or infinite."""
    left = [("", data)]
    while left:
        key, value = left.pop()
        if isinstance(value, float) and not math.isfinite(value):
            return key.removeprefix(".") or "the whole document"
        if isinstance(value, dict | list | tuple):
            inner = value.items() if isinstance(value, dict) else enumerate(value)
            left += [(f"{key}.{name}", each) for name, each in inner]
    return "the whole document"


def encode(value: Any) -> Any:
    """A dataclass as plain data that `decode` reads back.

    As `dataclasses.asdict`, which copies each number by itself and takes five times as long.
    """
    if isinstance(value, str | int | float | None):
        return value
    if isinstance(value, dict):
        return {key: encode(each) for key, each in value.items()}
    if isinstance(value, list | tuple):
        return type(value)([encode(each) for each in value])
    if dataclasses.is_dataclass(value):
        kind: Any = type(value)
        plain = {name: encode(getattr(value, name)) for name in _field_names(kind)}
        for name, default in _left_out(kind).items():
            if getattr(value, name) == default:
                del plain[name]
        return plain
    return value


@cache
def _field_names(cls: Any) -> tuple[str, ...]:
    return tuple(field.name for field in dataclasses.fields(cls))


@cache
def _left_out(cls: Any) -> dict[str, Any]:
    return {field.name: field.default for field in dataclasses.fields(cls) if field.metadata == LEFT_OUT}


def read_toml(path: Path) -> dict[str, Any]:
    """Parse a TOML file. Raises InputError where it cannot be read or parsed."""
    try:
        return tomllib.loads(read_bytes(path).decode())
    except (ValueError, RecursionError) as error:
        raise InputError(f"{path} is not valid TOML: {error}", f"correct {path}") from None


def read_json(path: Path) -> Any:
    """Parse a JSON file. Raises InputError where it cannot be read or parsed."""
    try:
        return json.loads(read_bytes(path))
    except (ValueError, RecursionError) as error:
        raise InputError(f"{path} is not valid JSON: {error}", f"restore {path} or make it again") from None


def read_bytes(path: Path) -> bytes:
    """The content of a file. Raises InputError where it cannot be read."""
    try:
        return path.read_bytes()
    except OSError as error:
        raise InputError(
            f"cannot read {path}: {error.strerror}", "check the path and its permissions"
        ) from None


def check_schema(data: Any, expected: str, source: str | os.PathLike[str]) -> dict[str, Any]:
    """Strip and check the `schema` key of a versioned document, such as `hwnas.measurement/1`.

    Raises:
        InputError: another kind of document, or a newer version of this one.
    """
    found = data.get("schema") if isinstance(data, dict) else None
    if found != expected:
        raise InputError(
            f"{source}: schema is {found!r}, this version of hwnas reads {expected!r}",
            "use the hwnas version that wrote it, or make it again",
        )
    return {key: value for key, value in data.items() if key != "schema"}


def signed(data: dict[str, Any]) -> dict[str, Any]:
    """Plain data with its own SHA-256 under the key `sha256`."""
    return {**data, "sha256": sha256_of_plain(json.loads(json.dumps(data)))}


def write_signed(path: Path, data: dict[str, Any]) -> None:
    """Write a versioned document with its own SHA-256 as JSON, whole or not at all."""
    plain = {key: value for key, value in data.items() if key != "schema"}
    write_json(path, {"schema": data["schema"], **signed(plain)})


def read_signed(path: Path, schema: str) -> dict[str, Any]:
    """What `write_signed` wrote, without schema and hash.

    Raises:
        InputError: it cannot be read, is of another schema, or is not what was written.
    """
    return check_signature(check_schema(read_json(path), schema, path), path)


def check_signature(data: dict[str, Any], source: str | os.PathLike[str]) -> dict[str, Any]:
    """Strip and check what `signed` added.

    Raises:
        InputError: the data are not those that were written.
    """
    plain = {key: value for key, value in data.items() if key != "sha256"}
    if sha256_of_plain(plain) != data.get("sha256"):
        raise InputError(
            f"{source} is damaged or was changed by hand: sha256 is not that of its content",
            f"restore {source} or make it again",
        )
    return plain


@contextmanager
def replacing(path: Path) -> Iterator[Path]:
    """Give a temporary path beside `path`; when the block ends well it is synced and renamed to `path`.

    Raises:
        RunDirectoryError: the disk is full, or the place cannot be written to.
    """
    try:
        with file_beside(path) as temporary:
            yield temporary
            temporary.chmod(0o666 & ~_umask())
            _sync(temporary)
            temporary.replace(path)
            _sync(path.parent)
    except OSError as error:
        raise RunDirectoryError(
            f"cannot write {path}: {error.strerror}",
            "check free space and permissions, then give the same command again: what was stored is kept",
        ) from error


def write_bytes(path: Path, content: bytes) -> None:
    """Write a file so that after a crash it is the old one or the new one, never a part."""
    with replacing(path) as temporary:
        temporary.write_bytes(content)


def write_json(path: Path, data: Any) -> None:
    """Write plain data as indented JSON, whole or not at all."""
    write_bytes(path, (json.dumps(data, indent=2, allow_nan=False) + "\n").encode())


def write_toml(path: Path, data: dict[str, Any]) -> None:
    """Write plain data as TOML, whole or not at all."""
    import tomli_w

    write_bytes(path, tomli_w.dumps(data).encode())


def safe_name(text: str) -> str:
    """Any text as the name of one file or folder: readable, and never a path of its own."""
    return re.sub(r"[^A-Za-z0-9._-]", "_", text).lstrip(".")[:80] or "_"


def is_one_name(text: str) -> bool:
    """Whether a text names one visible file or folder, and leads nowhere else."""
    return not text.startswith(".") and not set(text) & set("/\\\0") and len(os.fsencode(text)) <= 255


def sha256(content: bytes) -> str:
    """The hexadecimal SHA-256 of some bytes."""
    return hashlib.sha256(content).hexdigest()


def sha256_of_file(path: Path) -> str:
    """The hexadecimal SHA-256 of a file of any size. Raises InputError where it cannot be read."""
    try:
        with path.open("rb") as file:
            return hashlib.file_digest(file, "sha256").hexdigest()
    except OSError as error:
        raise InputError(
            f"cannot read {path}: {error.strerror}", "check the path and its permissions"
        ) from None


def sha256_of_unchanged(path: Path) -> str:
    """`sha256_of_file`, which this process computes again only where the file was changed since."""
    try:
        at = path.stat()
    except OSError as error:
        raise InputError(
            f"cannot read {path}: {error.strerror}", "check the path and its permissions"
        ) from None
    return _sha256_of(path, (at.st_dev, at.st_ino, at.st_size, at.st_mtime_ns, at.st_ctime_ns))


@lru_cache(maxsize=4096)
def _sha256_of(path: Path, state: tuple[int, ...]) -> str:
    return sha256_of_file(path)


def sha256_of_plain(data: Any) -> str:
    """The hexadecimal SHA-256 of plain data in canonical JSON."""
    return sha256(json.dumps(data, sort_keys=True, separators=(",", ":")).encode())


def _sync(path: Path) -> None:
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def _umask() -> int:
    umask = os.umask(0)
    os.umask(umask)
    return umask
