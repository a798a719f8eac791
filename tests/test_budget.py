"""Prompts fit their window by a real tokenizer, the weightiest first, and name what they cut."""

import base64
import json
import random
import string
from collections.abc import Callable, Iterator
from importlib.util import find_spec
from pathlib import Path

import httpx
import pytest
import tokenizers

from graph.local_model import LocalModel
from graph.settings import ROOT
from graph.tokens import byte_count, most_tokens

dice = random.Random(4)


def some(alphabet: str, length: int = 3000) -> str:
    return "".join(dice.choices(alphabet, k=length))


def words(alphabet: str, longest: int, number: int = 800) -> str:
    return " ".join(some(alphabet, dice.randint(1, longest)) for _ in range(number))


def of_files(*patterns: str) -> str:
    paths = [path for pattern in patterns for path in sorted(ROOT.glob(pattern))]
    return "\n".join(path.read_text(encoding="utf-8") for path in paths)[:40_000]


STORIES = [
    {"id": f"{dice.getrandbits(128):032x}", "title": f"Story {n}", "points": n, "done": n % 3 == 0}
    for n in range(60)
]
PROSE = {
    "the samples": of_files("samples/*.md", "samples/*.txt"),
    "templates and examples": of_files("templates/*/*/*.md"),
    "the documentation": of_files("docs/*.md"),
}
GERMAN = (
    "Die Fachsprache des Projekts legt fest, wie die Begriffe der Domäne gebraucht werden. Jede "
    "Änderung muss in allen Dokumenten nachgezogen werden, weil sonst Widersprüche entstehen. "
)
TEXTS = {
    **PROSE,
    "Python": of_files("graph/*.py"),
    "SQL and YAML": of_files("api/database/versions/*.py", "compose.yaml", "pyproject.toml"),
    "JSON, indented": json.dumps(STORIES, indent=2),
    "JSON, compact": json.dumps(STORIES, separators=(",", ":")),
    "a table": "".join(
        f"| {'sensor' + str(n):<30} | {n / 7:>12.2f} |\n|{'-' * 32}|{'=' * 14}|\n"
        for n in range(60)
    ),
    "rules": "".join(f"{one * n}\n| {one * n} |" for n in range(80) for one in "-=*#"),
    "digits": some(string.digits),
    "numbers": words(string.digits, 9),
    "dates": "\n".join(f"2026-01-{n % 28 + 1:02}T10:{n % 60:02}:00Z,{n / 7}" for n in range(99)),
    "base64": base64.encodebytes(dice.randbytes(2000)).decode(),
    "hexadecimal": dice.randbytes(2000).hex(),
    "letters": some(string.ascii_letters),
    "rare letters": some("qxzjkvw"),
    "alternating case": "".join(some("bcdfgk", 1) + some("AEIOU", 1) for _ in range(1000)),
    "one letter each": words(string.ascii_lowercase, 1),
    "short nonsense": words(string.ascii_lowercase, 4),
    "long nonsense": words(string.ascii_lowercase, 9),
    "nearly English": words("eeeettttaaaoooinnsshrrdlu", 7),
    "letters and digits": "".join(some("ab", 1) + some("01", 1) for _ in range(1000)),
    "punctuation": some(string.punctuation),
    "punctuation between spaces": words(string.punctuation, 1),
    "punctuation and letters": "".join(
        some(string.punctuation, 1) + some("abc", 1) for _ in range(1000)
    ),
    "printable": some(string.printable),
    "control characters": some("\x00\x01\x02\x1b\x7f ab"),
    **{f"only {one!r}": one * 2000 for one in "-=*_.#~^&%$/;\\ \n\taAZ0é"},
    "indented": "".join(" " * dice.randint(1, 40) + "x\n" for _ in range(200)),
    "tabs": "".join("\t" * dice.randint(1, 8) + "x\n" for _ in range(200)),
    "white space": some(" \t\n"),
    "line ends and spaces": " \n" * 500 + "\n " * 500,
    "German": GERMAN * 10,
    "German in ASCII": GERMAN.encode("ascii", "ignore").decode() * 10,
    "French": "L'équipe règle le seuil d'alerte à chaque écluse, où l'eau monte très vite. " * 20,
    "Finnish": "Järjestelmä varoittaa asukkaita, kun vedenkorkeus nousee turvarajan yli. " * 20,
    "Greek": "Το σύστημα προειδοποιεί τους κατοίκους όταν η στάθμη ανεβαίνει. " * 20,
    "Russian": "Система предупреждает жителей, когда уровень воды поднимается. " * 20,
    "Chinese": "当水位超过安全限值时，系统会向居民发出警告，并记录每一次测量的时间。" * 20,
    "Korean": "수위가 안전 한계를 초과하면 시스템이 주민에게 경고합니다. " * 20,
    "Arabic": "يحذر النظام السكان عندما يرتفع منسوب المياه. " * 20,
    "Hindi": "जब जल स्तर बढ़ता है तो प्रणाली चेतावनी देती है। " * 20,
    "rare characters": "".join(chr(dice.randrange(0x3400, 0x4DBF)) for _ in range(500)),
    "rare characters, spaced": " ".join(chr(dice.randrange(0x3400, 0x4DBF)) for _ in range(500)),
    "emoji": some("😀🎉🚀🌊⚠️✅🏳️‍🌈🇩🇪👩‍💻", 800),
    "combining marks": "".join(some("aeiou", 1) + "\u0301\u0308" for _ in range(500)),
    "invisible": "\u200b\u2060\ufeff\u00ad" * 200,
    "drawn": "│ ├── └── ─── ═══ → ⇒ • … “x” ‘y’ — " * 30,
    "hostile": "".join(
        dice.choice([some(string.printable, 1), chr(dice.randrange(0x100, 0x3000)), "7", " \n"])
        for _ in range(2000)
    ),
    "chat marks": "<|im_start|>system<|im_end|><|endoftext|><s></s>[INST]<unk>" * 40,
    "": "",
}
Tokenizer = Callable[[str], int]


@pytest.fixture(scope="module")
def llama(tmp_path_factory: pytest.TempPathFactory) -> Iterator[httpx.Client]:
    """llama.cpp with SmolLM2."""
    log = tmp_path_factory.mktemp("log") / "model.log"
    with LocalModel(log_path=log) as model:
        key = {"Authorization": f"Bearer {model.api_key}"}
        url = model.base_url.removesuffix("/v1")
        with httpx.Client(base_url=url, headers=key, timeout=30, trust_env=False) as client:
            yield client


@pytest.fixture(scope="module")
def smollm2(llama: httpx.Client) -> Tokenizer:
    def count(text: str) -> int:
        return len(llama.post("/tokenize", json={"content": text}).json()["tokens"])

    return count


@pytest.fixture(scope="module")
def llama2() -> Tokenizer:
    package = find_spec("wordllama")
    assert package is not None
    folder = Path(str(package.origin)).parent / "tokenizers"
    vocabulary = tokenizers.Tokenizer.from_file(str(folder / "l2_supercat_tokenizer_config.json"))
    vocabulary.no_truncation()
    vocabulary.no_padding()
    return lambda text: len(vocabulary.encode(text, add_special_tokens=False))


@pytest.mark.parametrize("name", TEXTS)
def test_no_tokenizer_finds_more_tokens_than_are_counted(
    smollm2: Tokenizer, llama2: Tokenizer, name: str
) -> None:
    text = TEXTS[name]
    found = max(smollm2(text), llama2(text))
    assert found <= most_tokens(text) <= byte_count(text)


@pytest.mark.parametrize("name", PROSE)
def test_little_room_is_given_away_for_prose(smollm2: Tokenizer, name: str) -> None:
    assert most_tokens(PROSE[name]) < 1.25 * smollm2(PROSE[name])
