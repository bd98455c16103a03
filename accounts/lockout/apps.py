from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from axes.apps import AppConfig


class Axes(AppConfig):
    """django-axes, of which only the counting in the cache is wanted: as if it had no models, so that there is
    no table of addresses and browsers, nor permissions for one. (`MIGRATION_MODULES` leaves its migrations out.)
    """

    def get_models(self, include_auto_created: bool = False, include_swapped: bool = False) -> Iterator[Any]:
        return iter(())
