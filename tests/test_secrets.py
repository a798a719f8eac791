"""Keys of providers are encrypted, and stay readable while SECRET_KEY changes."""

import stat
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import pytest
from pydantic import SecretStr, ValidationError

from graph.secrets import Secrets, UnreadableSecret, open_secrets
from graph.settings import PipelineSettings

OLD, NEW, OTHER = (f"{name}-{'0123456789' * 2}" for name in ("old", "new", "other"))
CANARY = SecretStr("sk-canary-of-a-provider")


def secrets(*keys: str) -> Secrets:
    return Secrets([SecretStr(key) for key in keys])


def settings(folder: Path, **given: Any) -> PipelineSettings:
    return PipelineSettings(_env_file=None, data_dir=folder, **given)


@pytest.fixture(autouse=True)
def _no_key_in_the_environment(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("SECRET_KEY", raising=False)


def test_what_is_stored_does_not_show_the_secret_and_differs_each_time() -> None:
    stored = [secrets(OLD).encrypt(CANARY) for _ in range(2)]
    assert [secrets(OLD).decrypt(one) for one in stored] == [CANARY, CANARY]
    assert stored[0] != stored[1]
    assert b"canary" not in stored[0] + stored[1]
    assert "canary" not in f"{secrets(OLD)!r}{secrets(OLD).decrypt(stored[0])!r}"


def test_the_first_key_encrypts_and_all_decrypt() -> None:
    stored = secrets(OLD).encrypt(CANARY)
    rotated = secrets(NEW, OLD).rotated(stored)
    assert rotated is not None
    assert secrets(NEW).decrypt(rotated) == CANARY
    assert secrets(NEW, OLD).decrypt(stored) == CANARY
    assert secrets(NEW, OLD).rotated(rotated) is None
    with pytest.raises(UnreadableSecret):
        secrets(OLD).decrypt(rotated)


@pytest.mark.parametrize("stored", [b"", b"sk-plain", secrets(OTHER).encrypt(CANARY)])
def test_what_no_key_decrypts_is_told_without_its_words(stored: bytes) -> None:
    for attempt in (secrets(NEW, OLD).decrypt, secrets(NEW, OLD).rotated):
        with pytest.raises(UnreadableSecret, match=r"^It was encrypted with another SECRET_KEY\.$"):
            attempt(stored)


def test_a_key_is_made_for_its_owner_alone_by_all_who_start_at_once(tmp_path: Path) -> None:
    folder = tmp_path / "data"
    with ThreadPoolExecutor(8) as threads:
        opened = list(threads.map(open_secrets, [settings(folder)] * 8))
    stored = [one.encrypt(CANARY) for one in opened]
    assert [opened[0].decrypt(one) for one in stored] == [CANARY] * 8
    [file] = folder.iterdir()
    assert (file.name, stat.S_IMODE(file.stat().st_mode)) == ("secret.key", 0o600)


def test_the_key_of_the_folder_still_decrypts_when_a_setting_comes(tmp_path: Path) -> None:
    stored = open_secrets(settings(tmp_path)).encrypt(CANARY)
    set_now = open_secrets(settings(tmp_path, secret_key=f"{NEW}, {OLD}"))
    rotated = set_now.rotated(stored)
    assert set_now.decrypt(stored) == secrets(NEW).decrypt(rotated or b"") == CANARY


def test_a_setting_leaves_nothing_in_the_folder(tmp_path: Path) -> None:
    open_secrets(settings(tmp_path, secret_key=OLD))
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("given", ["short-canary", f"{OLD},short-canary", f"{OLD},", ","])
def test_a_short_key_is_refused_and_not_shown(given: str) -> None:
    with pytest.raises(ValidationError, match="each key must have at least 16 characters") as error:
        PipelineSettings(_env_file=None, secret_key=given)
    assert "canary" not in str(error.value)
