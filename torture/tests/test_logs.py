"""What may be in no log is found there, as the product writes it."""

from __future__ import annotations

from pathlib import Path

import psutil
import pytest

from torture.product import KEY_MARK, MARK, Product

pytestmark = pytest.mark.once
# As chatstore.http.logs renders an error: frames, and no headline.
FRAMES = (
    '2026-01-01T00:00:00Z [error    ] failed [django.request]\n  File "/a.py", line 1, in f\n    g()\n    ^^^\n'
)


@pytest.mark.parametrize(
    ("written", "said"),
    [
        ("2026-01-01T00:00:00Z [info     ] request [chatstore.request] path=/api/", []),
        (f"{FRAMES}DisallowedHost: Invalid HTTP_HOST header", []),
        (f"{FRAMES}ValueError: x", ["a traceback of ValueError"]),
        ("Traceback (most recent call last):", ["a traceback"]),
        (f"sent={MARK} 1", ["a message's words"]),
        (f"constraint key=({KEY_MARK} 1)", ["a key"]),
        ("path=/?token=cst_mine", ["a token"]),
    ],
)
def test_it_is_found(tmp_path: Path, written: str, said: list[str]) -> None:
    log = tmp_path / "log"
    log.write_text(f"a line\n{written}\nanother\n")
    assert Product(0, "", psutil.Process(), log, ["cst_mine"]).log_problems() == said
