from __future__ import annotations

from conftest import Caller


def test_it_works(alice: Caller) -> None:
    made = alice.post("/api/sessions/", {"title": "Welcome Chat"})
    assert made.status_code == 201
    assert alice.get(f"/api/sessions/{made.json()['id']}/").json() == made.json()
