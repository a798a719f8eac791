"""The page's own tests of what it does without a browser, run by Node."""

import subprocess

import pytest

from graph.settings import ROOT

pytestmark = pytest.mark.slow


def test_what_needs_no_browser() -> None:
    node = str(ROOT / ".venv/bin/node")
    tests = sorted(str(path) for path in (ROOT / "web/page/tests").glob("*.test.ts"))
    ran = subprocess.run(
        [node, "--no-warnings", "--test", "--test-reporter=tap", *tests],
        capture_output=True,
        text=True,
        timeout=120,
        check=False,
    )
    assert tests
    assert ran.returncode == 0, ran.stdout
