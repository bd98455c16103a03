"""What staff see of people, workspaces and tokens: imported here, it is registered."""

from accounts.admin import people, tokens, workspaces

__all__ = ["people", "tokens", "workspaces"]
