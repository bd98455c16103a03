"""A short soak, and what the figures of a leak look like. Times are left to the long form."""

from __future__ import annotations

import pytest

from torture.soak import Asked, Figures, Limits, Sample, soak

# What is loaded once is most of what a few seconds show, 30 to 60 MB; a kept request has over 15 kB, 150 MB.
SHORT = Limits(megabytes=120, times_slower=1_000, warm_up=0.5)
WORKERS = (1, 2)
MEGABYTE = 2**20


@pytest.mark.torture
@pytest.mark.once
def test_nothing_is_kept_of_a_request() -> None:
    result = soak(1, seconds=10, people=8, rate=20, workers=1, limits=SHORT)
    assert result.is_clean, [result.said, result.notes]
    assert result.acknowledged > 20


def figures(
    *, kept: float = 0, descriptors: float = 0, connections: float = 0, slower: float = 0, said: str = ""
) -> Figures:
    """Of 10,000 requests in 1,000 seconds, each of which leaves so much, and takes so much longer."""
    asked = [Asked(n / 10, "get", 10 + n * slower, said if n == 9_000 else "") for n in range(10_000)]
    samples = [
        Sample(
            float(at),
            dict.fromkeys(WORKERS, round(100 * MEGABYTE + at * 10 * kept)),
            dict.fromkeys(WORKERS, round(30 + at * 10 * descriptors)),
            round(10 + at * 10 * connections),
        )
        for at in range(1_000)
    ]
    return Figures(asked, samples, Limits())


@pytest.mark.once
def test_what_stays_as_it_is_passes() -> None:
    found = figures()
    assert found.problems() == []
    assert found.slopes == pytest.approx([0, 0])


@pytest.mark.once
@pytest.mark.parametrize(
    ("leaking", "said"),
    [
        pytest.param(figures(kept=200), "a worker grows by 1.91 MB in 10,000 requests", id="memory"),
        pytest.param(figures(descriptors=0.01), "more descriptors in a worker", id="descriptors"),
        pytest.param(figures(connections=0.01), "more connections to PostgreSQL", id="connections"),
        pytest.param(figures(slower=0.001), "p99 of the last tenth is 1.", id="slower"),
        pytest.param(figures(said="500 for get"), "1 requests, such as: 500 for get", id="errors"),
    ],
)
def test_a_leak_is_found(leaking: Figures, said: str) -> None:
    (problem,) = leaking.problems()
    assert said in problem


@pytest.mark.once
def test_a_worker_that_was_replaced_is_told() -> None:
    found = figures()
    found.workers.append(3)
    assert "a worker was replaced" in found.problems()
