"""The files of a recording: a folder or a zip of one, read lazily and written whole or not at all.

Edge: files, on any system.  A zip made by hand, with the recording in its one top folder, is read too.  Refused in one
line each: what is no folder or zip, damaged zips, links, pieces of another length or checksum than the manifest's, and
sizes that no recording has.
"""

import hashlib
import os
import stat
import zipfile
import zlib
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from typing import Protocol

from bookinfo_lab.errors import RecordingError
from bookinfo_lab.sources import manifest as manifests
from bookinfo_lab.sources.manifest import Blob

MANIFEST_LIMIT_BYTES = 1 << 24
PIECE_LIMIT_BYTES = 1 << 28
TOTAL_LIMIT_BYTES = 1 << 31
_AGAIN = "get the recording again"
_DAMAGE = (zipfile.BadZipFile, zlib.error, EOFError, OSError, RuntimeError, ValueError)  # what zipfile raises
_DATE = (1980, 1, 1, 0, 0, 0)  # a zip's times say nothing: the manifest has the time of each piece


class Archive(Protocol):
    """Files by name."""

    path: str

    def size(self, name: str) -> int | None:
        """How many bytes the file has; None where there is no such file."""
        ...

    def read(self, name: str, limit_bytes: int) -> bytes:
        """The file, of which no more than ``limit_bytes`` + 1 bytes are read."""
        ...

    def close(self) -> None:
        """Let go of the file."""
        ...


class _Folder:
    def __init__(self, path: str) -> None:
        self.path = path

    def size(self, name: str) -> int | None:
        try:
            found = os.stat(self._file(name), follow_symlinks=False)
        except OSError:
            return None
        return found.st_size if stat.S_ISREG(found.st_mode) else None

    def read(self, name: str, limit_bytes: int) -> bytes:
        root, file = os.path.realpath(self.path), self._file(name)
        if os.path.realpath(file) != os.path.join(root, *name.split("/")):
            raise RecordingError(f"{self.path}: {name} is a link; a recording holds plain files only")
        try:
            with open(file, "rb") as opened:
                return opened.read(limit_bytes + 1)
        except OSError as error:
            raise RecordingError(f"{self.path}: cannot read {name}: {error.strerror}") from None

    def close(self) -> None:
        return

    def _file(self, name: str) -> str:
        return os.path.join(self.path, *name.split("/"))


class _Zip:
    def __init__(self, path: str) -> None:
        self.path = path
        try:
            self._zip = zipfile.ZipFile(path)
        except (zipfile.BadZipFile, EOFError, ValueError, NotImplementedError) as error:
            raise RecordingError(f"{path}: no recording: {_zip_reason(path, error)}") from None
        except OSError as error:
            raise RecordingError(f"{path}: cannot be opened: {error.strerror or error}") from None
        self._infos = {item.filename: item for item in self._zip.infolist()}
        self._prefix = ""
        if manifests.NAME not in self._infos:
            tops = {name.partition("/")[0] for name in self._infos if name.endswith(f"/{manifests.NAME}")}
            only = [top for top in sorted(tops) if f"{top}/{manifests.NAME}" in self._infos]
            self._prefix = f"{only[0]}/" if len(only) == 1 else ""

    def size(self, name: str) -> int | None:
        info = self._infos.get(self._prefix + name)
        return None if info is None else info.file_size

    def read(self, name: str, limit_bytes: int) -> bytes:
        try:
            with self._zip.open(self._infos[self._prefix + name]) as opened:
                return opened.read(limit_bytes + 1)
        except _DAMAGE as error:
            raise RecordingError(f"{self.path}: {name} is damaged ({error}); {_AGAIN}") from None

    def close(self) -> None:
        self._zip.close()


def opened(path: str) -> Archive:
    """The files at ``path``, none of them read yet; RecordingError where it is neither a folder nor a zip."""
    try:
        mode = os.stat(path).st_mode
    except (OSError, ValueError) as error:
        raise RecordingError(
            f"no recording at {path!r}: {_reason(error)}; make one with: bookinfo-lab record DIR"
        ) from None
    if stat.S_ISDIR(mode):
        return _Folder(path)
    if not stat.S_ISREG(mode):
        raise RecordingError(f"{path}: neither a folder nor a zip, so no recording")
    return _Zip(path)


def read_manifest(archive: Archive) -> manifests.Manifest:
    """The manifest, with every file that it names found there at its length."""
    path, size = archive.path, archive.size(manifests.NAME)
    if size is None:
        raise RecordingError(f"{path}: no {manifests.NAME} in it: no recording, or one copied in part")
    if size > MANIFEST_LIMIT_BYTES:
        limit = f"no recording has more than {MANIFEST_LIMIT_BYTES}"
        raise RecordingError(f"{path}: its {manifests.NAME} has {size} bytes; {limit}")
    raw = archive.read(manifests.NAME, size)
    manifest = manifests.decode(raw, path)
    total = 0
    for blob in manifest.blobs:
        held = archive.size(blob.file)
        if held is None:
            raise RecordingError(f"{path}: half a recording: {blob.file} is missing; {_AGAIN}")
        if held != blob.length_bytes:
            raise RecordingError(f"{path}: {blob.file} has {held} bytes instead of {blob.length_bytes}; {_AGAIN}")
        total += held
        if held > PIECE_LIMIT_BYTES or total > TOTAL_LIMIT_BYTES:
            raise RecordingError(f"{path}: {blob.file} makes it larger than any recording; do not use it")
    return manifest


def read(archive: Archive, blob: Blob) -> bytes:
    """A piece's bytes, found to be those that were written."""
    raw = archive.read(blob.file, blob.length_bytes)
    if len(raw) != blob.length_bytes or hashlib.sha256(raw).hexdigest() != blob.sha256:
        raise RecordingError(f"{archive.path}: {blob.file} is damaged: not the bytes that were recorded; {_AGAIN}")
    return raw


@contextmanager
def place(path: str) -> Iterator[str]:
    """A folder beside ``path`` to write into, gone afterwards; RecordingError where nothing can be written there.

    What exists at ``path`` stays as it is and is refused before anything is read or written.
    """
    import shutil  # with what they import these take longer than opening a recording does
    import tempfile

    path = os.path.abspath(path)
    parent = os.path.dirname(path)
    try:
        os.lstat(path)
    except FileNotFoundError:
        pass  # as it should be
    except (OSError, ValueError) as error:
        raise RecordingError(f"cannot write a recording as {path}: {_reason(error)}") from None
    else:
        raise RecordingError(f"{path}: exists already; name a new folder or .zip")
    try:
        made = tempfile.mkdtemp(prefix=f".{os.path.basename(path)[:100]}.", dir=parent)
    except (OSError, ValueError) as error:
        raise RecordingError(f"cannot write a recording into {parent}: {_reason(error)}") from None
    try:
        yield made
    finally:
        shutil.rmtree(made, ignore_errors=True)


def write(folder: str, path: str, files: Mapping[str, bytes]) -> None:
    """``files`` as the new recording ``path``, made in ``folder`` first; the manifest last."""
    path = os.path.abspath(path)
    names = sorted(files, key=lambda name: (name == manifests.NAME, name))
    made = os.path.join(folder, "made")
    try:
        if path.lower().endswith(".zip"):
            _write_zip(made, names, files)
            _put(made, path)
        else:
            for name in names:
                file = os.path.join(made, *name.split("/"))
                os.makedirs(os.path.dirname(file), exist_ok=True)
                with open(file, "xb") as opened:
                    opened.write(files[name])
            os.rename(made, path)
    except OSError as error:
        if os.path.lexists(path):
            raise RecordingError(f"{path}: exists already; name a new folder or .zip") from None
        raise RecordingError(f"cannot write {path}: {error.strerror}; nothing was left there") from None


def _put(made: str, path: str) -> None:
    """Name the finished file; what appeared at ``path`` meanwhile is not replaced where the disk knows hard links."""
    try:
        os.link(made, path)
    except FileExistsError:
        raise
    except OSError:
        os.rename(made, path)


def _write_zip(made: str, names: list[str], files: Mapping[str, bytes]) -> None:
    with zipfile.ZipFile(made, "x", zipfile.ZIP_DEFLATED, compresslevel=9) as opened:
        for name in names:
            info = zipfile.ZipInfo(name, _DATE)
            info.external_attr = 0o644 << 16
            opened.writestr(info, files[name], zipfile.ZIP_DEFLATED, 9)


def _reason(error: Exception) -> str:
    return getattr(error, "strerror", None) or str(error)


def _zip_reason(path: str, error: Exception) -> str:
    try:
        with open(path, "rb") as opened:
            is_zip = opened.read(4) == b"PK\x03\x04"
    except OSError:
        is_zip = False
    return f"the zip is damaged or cut short ({error}); {_AGAIN}" if is_zip else "neither a folder nor a zip"
