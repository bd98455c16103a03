"""Three groups for staff, each with what the one before has (docs/admin.md)."""

from django.db import migrations

SUPPORT = {
    ("conversations", "session"): {"view_session": "Can view session"},
    ("conversations", "message"): {"view_message": "Can view message"},
}
OPERATIONS = {
    ("conversations", "session"): {
        "restore_session": "Can restore session",
        "trash_session": "Can move session to trash",
        "export_session": "Can export session",
    },
    ("conversations", "turn"): {"settle_turn": "Can settle turn"},
}
# What the admin of accounts asks for. It leaves powers, groups and service tokens to superusers.
ADMINISTRATORS = {
    ("accounts", "user"): {
        "view_user": "Can view user", "add_user": "Can add user", "change_user": "Can change user",
    },
    ("accounts", "identity"): {"view_identity": "Can view identity"},
    ("accounts", "apitoken"): {
        "view_apitoken": "Can view API token",
        "add_apitoken": "Can add API token",
        "change_apitoken": "Can change API token",
    },
    ("accounts", "servicetoken"): {"view_servicetoken": "Can view service token"},
    ("accounts", "workspace"): {
        "view_workspace": "Can view workspace",
        "add_workspace": "Can add workspace",
        "change_workspace": "Can change workspace",
        "delete_workspace": "Can delete workspace",
    },
    ("accounts", "membership"): {
        "view_membership": "Can view membership",
        "add_membership": "Can add membership",
        "change_membership": "Can change membership",
        "delete_membership": "Can delete membership",
    },
    ("conversations", "accessrecord"): {"view_accessrecord": "Can view access record"},
}
GROUPS = {
    "Support": [SUPPORT],
    "Operations": [SUPPORT, OPERATIONS],
    "Administrators": [SUPPORT, OPERATIONS, ADMINISTRATORS],
}


def permissions_of(apps, database, powers):
    """The permissions themselves. post_migrate makes them, but only after the last migration, and takes those that
    are there already."""
    ContentType = apps.get_model("contenttypes", "ContentType").objects.using(database)
    Permission = apps.get_model("auth", "Permission").objects.using(database)
    found = []
    for power in powers:
        for (app_label, model), names in power.items():
            kind, _ = ContentType.get_or_create(app_label=app_label, model=model)
            for codename, name in names.items():
                known = {"content_type_id": kind.pk, "codename": codename}
                found.append(Permission.get_or_create(**known, defaults={"name": name})[0])
    return found


def give(apps, schema_editor):
    """Adds to a group that is there already, and takes nothing from it."""
    database = schema_editor.connection.alias
    Group = apps.get_model("auth", "Group").objects.using(database)
    for name, powers in GROUPS.items():
        group, _ = Group.get_or_create(name=name)
        group.permissions.add(*permissions_of(apps, database, powers))


def take_back(apps, schema_editor):
    """A group goes where it is as it was made and empty. One with members, or changed, is the operator's."""
    database = schema_editor.connection.alias
    members = apps.get_model("accounts", "User").groups.through.objects.using(database)
    for name, powers in GROUPS.items():
        given = {permission.pk for permission in permissions_of(apps, database, powers)}
        for group in apps.get_model("auth", "Group").objects.using(database).filter(name=name):
            untouched = given == set(group.permissions.values_list("pk", flat=True))
            if untouched and not members.filter(group_id=group.pk).exists():
                group.delete()


class Migration(migrations.Migration):

    dependencies = [
        ("conversations", "0003_access_records"),
        ("accounts", "0002_service_tokens"),
        ("auth", "0012_alter_user_first_name_max_length"),
        ("contenttypes", "0002_remove_content_type_name"),
    ]

    operations = [migrations.RunPython(give, take_back)]
