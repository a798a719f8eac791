"""The two folders as one snapshot, read again when something in them has changed."""

import os
import stat
import threading
import time
from collections.abc import Iterator, Mapping
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from types import MappingProxyType

from graph.texts.paths import place_of

_MAX_BYTES = 1_000_000

# An editor that writes in place is in the middle of it for so long.
_SETTLED_S = 0.03
_PATIENCE_S = 0.5
# Where something is written without end, nobody waits again for so long.
_IMPATIENCE_S = 10.0
# A second write within the file system's grain leaves time and size as they were.
_GRAIN_S = 2.0

# When it was modified, in nanoseconds, and whatever else changes with a file. There are a hundred
# of them to each turn.
_Stamp = tuple[int, ...]


@dataclass(frozen=True, slots=True)
class Snapshot:
    """All files at one moment, path to content; `problems` says why a text cannot be used."""

    contents: Mapping[str, str]
    problems: Mapping[str, str]


@dataclass(frozen=True, slots=True)
class _File:
    """A file as it was read; without a stamp it is read again each time."""

    stamp: _Stamp | None
    content: str | None
    problem: str


class Files:
    """The folders of prompts and templates. May be read from several threads at once."""

    def __init__(self, prompts_dir: Path, templates_dir: Path) -> None:
        self._prompts_dir = prompts_dir
        self._templates_dir = templates_dir
        self._lock = threading.Lock()
        self._files: dict[str, _File] = {}
        # All folders and files, if they have not changed for a while.
        self._stamps: dict[str, _Stamp | None] = {}
        self._snapshot = _snapshot({})
        self._impatient_until = 0.0

    def read(self) -> Snapshot:
        """The folders as they stand; the same object as before where no text has changed.

        Blocks. A file that changed this very moment may be half written, and is waited for.
        """
        with self._lock:
            if not self._stamps or list(map(_stamp, self._stamps)) != [*self._stamps.values()]:
                self._read_again()
            return self._snapshot

    def _read_again(self) -> None:
        folders = {place: _stamp(place) for place in self._folders()}
        found = self._settled()
        files = {
            path: self._known(path, stamp) or _read(place, stamp)
            for path, (place, stamp) in found.items()
        }
        if _told(files) != _told(self._files):
            self._snapshot = _snapshot(files)
        self._files = files
        self._stamps = {}
        stamps = folders | dict(found.values())
        if not any(stamp and _is_younger(stamp, _GRAIN_S) for stamp in stamps.values()):
            self._stamps = stamps

    def _settled(self) -> dict[str, tuple[str, _Stamp | None]]:
        until = time.monotonic() + _PATIENCE_S
        while True:
            found = {path: (place, _stamp(place)) for path, place in self._places()}
            changed = [s for path, (_, s) in found.items() if s and not self._known(path, s)]
            is_settled = not any(_is_younger(stamp, _SETTLED_S) for stamp in changed)
            if is_settled or time.monotonic() < self._impatient_until:
                return found
            if time.monotonic() > until:
                self._impatient_until = until + _IMPATIENCE_S
                return found
            time.sleep(_SETTLED_S / 2)

    def _known(self, path: str, stamp: _Stamp | None) -> _File | None:
        file = self._files.get(path)
        return file if file and file.stamp and file.stamp == stamp else None

    def _folders(self) -> Iterator[str]:
        """Where texts are looked for; what comes there or goes changes the folder's stamp."""
        root = self._templates_dir
        yield from (str(self._prompts_dir), str(root))
        for phase in _entries(root, root):
            yield phase.path
            yield from (kind.path for kind in _entries(phase, root))

    def _places(self) -> Iterator[tuple[str, str]]:
        """Each text that is there, and where; symlinks that lead out of their folder are not."""
        for file in _entries(self._prompts_dir, self._prompts_dir):
            if place_of(path := f"prompts/{file.name}"):
                yield path, file.path
        root = self._templates_dir
        for phase in _entries(root, root):
            for kind in _entries(phase, root):
                for file in _entries(kind, root):
                    if place_of(path := f"templates/{phase.name}/{kind.name}/{file.name}"):
                        yield path, file.path


def _entries(folder: Path | os.DirEntry[str], root: Path) -> list[os.DirEntry[str]]:
    """What is in `folder`, by name; nothing where it is no folder."""
    with suppress(OSError), os.scandir(folder) as entries:
        return sorted(
            (one for one in entries if not one.is_symlink() or _is_within(one.path, root)),
            key=lambda one: one.name,
        )
    return []


def _is_within(path: str, root: Path) -> bool:
    return Path(os.path.realpath(path)).is_relative_to(os.path.realpath(root))


def _stamp(place: str) -> _Stamp | None:
    try:
        found = os.stat(place)
    except OSError:
        return None
    return found.st_mtime_ns, found.st_ctime_ns, found.st_size, found.st_ino, found.st_mode


def _is_younger(stamp: _Stamp, seconds: float) -> bool:
    return 0 <= time.time() - stamp[0] / 1e9 < seconds


def _read(place: str, stamp: _Stamp | None) -> _File:
    kept = None if stamp and _is_younger(stamp, _GRAIN_S) else stamp
    try:
        return _File(kept, _content(place), "")
    except OSError as error:
        return _File(kept, None, f"cannot be read ({error.strerror or type(error).__name__})")
    except ValueError as error:
        return _File(kept, None, str(error))


def _content(place: str) -> str:
    if not stat.S_ISREG(os.stat(place).st_mode):
        raise ValueError("is no file")
    with open(place, "rb") as file:
        data = file.read(_MAX_BYTES + 1)
    if len(data) > _MAX_BYTES:
        raise ValueError(f"is larger than {_MAX_BYTES} bytes")
    try:
        text = data.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        line = error.object.count(b"\n", 0, error.start) + 1
        raise ValueError(f"is not UTF-8 in line {line}") from error
    if "\0" in text:
        line = text.count("\n", 0, text.index("\0")) + 1
        raise ValueError(f"holds a NUL character in line {line}")
    if not text.strip():
        raise ValueError("is empty")
    return text


def _told(files: Mapping[str, _File]) -> dict[str, tuple[str | None, str]]:
    return {path: (file.content, file.problem) for path, file in files.items()}


def _snapshot(files: Mapping[str, _File]) -> Snapshot:
    contents = {path: file.content for path, file in files.items() if file.content is not None}
    problems = {path: file.problem for path, file in files.items() if file.content is None}
    return Snapshot(MappingProxyType(contents), MappingProxyType(problems))
