"""Clients that are logged in to the admin, each as a member of one group."""

from __future__ import annotations

import pytest
from django.apps import apps
from django.test import Client

from conversations.tests.colleagues import HERE, of_group, staff_groups


@pytest.fixture
def groups(db: None) -> None:
    """A test that empties the tables takes the groups of the migration along."""
    staff_groups.give(apps, HERE)


@pytest.fixture
def support(groups: None) -> Client:
    return of_group("Support")


@pytest.fixture
def operations(groups: None) -> Client:
    return of_group("Operations")


@pytest.fixture
def administrator(groups: None) -> Client:
    return of_group("Administrators")
