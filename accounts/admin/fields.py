from __future__ import annotations

from typing import Any

from django.contrib.admin.widgets import AutocompleteSelect

from chatstore.ids import uuid_of


class WorkspaceSelect(AutocompleteSelect):
    """Shows a form again that named a workspace by what is no UUID, at which Django's own fails."""

    def optgroups(self, name: str, value: Any, attrs: Any = None) -> Any:
        return super().optgroups(name, [key for key in value if uuid_of(str(key))], attrs)
