"""The things that the matrix asks for, and what each of them is to each person of the cast (contract 2 and 6)."""

from __future__ import annotations

import re
from typing import NamedTuple

# Alice and bob are members of the shared workspace and carol is its admin; mallory is a member of another, and
# erin its admin. Stan is staff without more, helen holds Django's permissions on users, sam is a superuser.
PEOPLE = ("alice", "bob", "carol", "erin", "mallory", "stan", "helen", "sam")
ABSENT = str(2**63 - 1)
ABSENT_UUID = "01890a5d-ac96-774b-bcce-b302099a8057"


class Thing(NamedTuple):
    """`ref` names it in a path, query or body, {...} is filled in. `to` says what it is to each of PEOPLE; what is
    of another `state` than live is nothing to anybody, unless the right says otherwise. `place` is the workspace
    that it is in."""

    ref: str
    to: str = ""
    state: str = "live"
    place: str = ""

    def to_person(self, person: str) -> str:
        return self.to.split()[PEOPLE.index(person)]


GONE = {"absent": Thing(ABSENT, state="absent"), "malformed": Thing("1x", state="malformed")}
GONE_UUID = {"absent-by-uuid": Thing(ABSENT_UUID, state="absent")}

# People:       alice  bob    carol  erin   mallory stan  helen sam
ALICES = "      owner  other  admin  other  other   other other other"
BOBS = "        other  owner  admin  other  other   other other other"
MALLORYS = "    other  other  other  admin  owner   other other other"
PERSONAL = "    owner  other  other  other  other   other other other"
# Alice made it where she is no member any more.
LEFT = "        other  other  other  admin  other   other other other"

SESSIONS = {
    "alices": Thing("{session_alices}", ALICES, place="shared"),
    "alices-by-uuid": Thing("{uuid_alices}", ALICES, place="shared"),
    "bobs": Thing("{session_bobs}", BOBS, place="shared"),
    "mallorys": Thing("{uuid_mallorys}", MALLORYS, place="elsewhere"),
    "personal": Thing("{session_personal}", PERSONAL, place="alices"),
    "left": Thing("{session_left}", LEFT, place="elsewhere"),
    "deleted": Thing("{session_deleted}", ALICES, "deleted", "shared"),
    "mallorys-deleted": Thing("{uuid_mallorys_deleted}", MALLORYS, "deleted", "elsewhere"),
    **GONE,
    **GONE_UUID,
}
MESSAGES = {
    "alices": Thing("{message_alices}", ALICES, place="shared"),
    "bobs": Thing("{message_bobs}", BOBS, place="shared"),
    "mallorys": Thing("{message_mallorys}", MALLORYS, place="elsewhere"),
    "personal": Thing("{message_personal}", PERSONAL, place="alices"),
    "left": Thing("{message_left}", LEFT, place="elsewhere"),
    "deleted": Thing("{emptied_alices}", ALICES, "deleted", "shared"),
    "of-deleted": Thing("{message_deleted}", ALICES, "deleted", "shared"),
    "mallorys-deleted": Thing("{emptied_mallorys}", MALLORYS, "deleted", "elsewhere"),
    **GONE,
    "session-uuid": Thing("{uuid_alices}", state="malformed"),
}
WORKSPACES = {
    # People:                 alice  bob    carol  erin   mallory stan  helen sam
    "shared": Thing(
        "{workspace_shared}", "   member member admin  other  other   other other other", place="shared"
    ),
    "elsewhere": Thing(
        "{workspace_elsewhere}", "other  other  other  admin  member  other other other", place="elsewhere"
    ),
    "alices": Thing(
        "{workspace_alices}", "   admin  other  other  other  other   other other other", place="alices"
    ),
    "mallorys": Thing(
        "{workspace_mallorys}", " other  other  other  other  admin   other other other", place="mallorys"
    ),
    "absent": Thing(ABSENT_UUID, state="absent"),
    "malformed": Thing("1x", state="malformed"),
}
# Helen may do with most people what she likes (help), and look at those with powers (view).
USERS = {
    # People:                     alice  bob    carol  erin   mallory stan  helen sam
    "alice": Thing("{user_alice}", "   self   other  other  other  other   other help  super"),
    "bob": Thing("{user_bob}", "       other  self   other  other  other   other help  super"),
    "mallory": Thing("{user_mallory}", "other other  other  other  self    other help  super"),
    "dora": Thing("{user_dora}", "     other  other  other  other  other   other help  super", "deactivated"),
    "stan": Thing("{user_stan}", "     other  other  other  other  other   self  view  super"),
    "helen": Thing("{user_helen}", "   other  other  other  other  other   other help  super"),
    "sam": Thing("{user_sam}", "       other  other  other  other  other   other view  super"),
    **GONE,
    "public-id": Thing("{public_id_alice}", state="malformed"),
}
TOKENS = {
    # People:                         alice  bob    carol  erin   mallory stan  helen sam
    "alices": Thing("{token_alices}", "    owner other  other  other  other   other other other"),
    "bobs": Thing("{token_bobs}", "        other owner  other  other  other   other other other"),
    "mallorys": Thing("{token_mallorys}", "other other  other  other  owner   other other other"),
    "revoked": Thing("{token_revoked}", "  owner other  other  other  other   other other other", "revoked"),
    **GONE,
}
# A page of a list or of oneself; for lists of people, whoever holds Django's permissions.
ONE = {"one": Thing("", "self self self self self self help super")}

# The words in each thing that show that it was told: secret[session-alices].
SECRET = re.compile(r"secret\[([\w-]+)\]")
SECRETS = {
    f"{name}-{kind}": thing
    for name, things in (
        ("session", SESSIONS),
        ("message", MESSAGES),
        ("workspace", WORKSPACES),
        ("user", USERS),
        ("token", TOKENS),
    )
    for kind, thing in things.items()
    if thing.to and (name, thing.state) != ("message", "deleted")  # Nobody reads what was deleted.
}


def secret(name: str) -> str:
    return f"secret[{name}]"
