"""Encrypts what nobody may read in the database: the keys of model providers."""

import base64
import os
import secrets
import tempfile
from collections.abc import Sequence
from contextlib import suppress
from pathlib import Path

from cryptography.fernet import Fernet, InvalidToken, MultiFernet
from cryptography.hazmat.primitives.hashes import SHA256
from cryptography.hazmat.primitives.kdf.hkdf import HKDF
from pydantic import SecretStr

from graph.settings import PipelineSettings

_PURPOSE = b"archwright: keys of model providers"
_FILE = "secret.key"


class UnreadableSecret(ValueError):
    """None of the keys decrypts it."""


class Secrets:
    """Encrypts with the first of `keys`, any texts; decrypts with each of them."""

    def __init__(self, keys: Sequence[SecretStr]) -> None:
        fernets = [_fernet(key) for key in keys]
        self._first = fernets[0]
        self._all = MultiFernet(fernets)

    def encrypt(self, secret: SecretStr) -> bytes:
        """What to store in place of `secret`."""
        return self._all.encrypt(secret.get_secret_value().encode())

    def decrypt(self, stored: bytes) -> SecretStr:
        """What was encrypted.

        Raises:
            UnreadableSecret: it was encrypted with another key.
        """
        try:
            return SecretStr(self._all.decrypt(stored).decode())
        except InvalidToken:
            raise UnreadableSecret("It was encrypted with another SECRET_KEY.") from None

    def rotated(self, stored: bytes) -> bytes | None:
        """The same encrypted with the first key; null where it is so already.

        Raises:
            UnreadableSecret: it was encrypted with another key.
        """
        with suppress(InvalidToken):
            self._first.decrypt(stored)
            return None
        return self.encrypt(self.decrypt(stored))


def open_secrets(settings: PipelineSettings) -> Secrets:
    """The keys of SECRET_KEY, and after them the one in the data folder.

    That one is made where neither is there, and still decrypts when SECRET_KEY is set later.
    """
    keys = settings.secret_keys
    file = settings.data_dir / _FILE
    kept = [SecretStr(file.read_text())] if file.exists() else []
    return Secrets([*keys, *kept] or [_made(file)])


def _fernet(key: SecretStr) -> Fernet:
    derive = HKDF(SHA256(), length=32, salt=None, info=_PURPOSE).derive
    return Fernet(base64.urlsafe_b64encode(derive(key.get_secret_value().encode())))


def _made(file: Path) -> SecretStr:
    """A new key in `file`, or the one that another process put there first."""
    file.parent.mkdir(parents=True, exist_ok=True)
    # For its owner alone, and whole before it has the name under which it is read.
    handle, draft = tempfile.mkstemp(dir=file.parent, prefix=f".{_FILE}.")
    try:
        with os.fdopen(handle, "w") as opened:
            opened.write(secrets.token_urlsafe(32))
            opened.flush()
            os.fsync(opened.fileno())
        with suppress(FileExistsError):
            os.link(draft, file)
    finally:
        os.unlink(draft)
    return SecretStr(file.read_text())
