"""The peer of the benchmark: the same routes on the same tables, with FastAPI and SQLAlchemy's asynchronous ORM.

    DATABASE_URL=postgresql://... .venv-bench/bin/uvicorn --workers 2 benchmarks.peer:app

Runs in an environment of its own (benchmarks/requirements.txt) and imports nothing of the product. With PEER_SQL,
a file that `benchmarks.data` writes, it sends the SQL of the product in place of the ORM's: what is left then is
what the frameworks cost.
"""

from __future__ import annotations

import base64
import hashlib
import json
import os
import uuid
from collections.abc import AsyncIterator
from datetime import UTC, datetime
from pathlib import Path
from typing import Annotated, Any, Literal

from fastapi import Depends, FastAPI, HTTPException, Query, Request, Response
from fastapi.middleware.cors import CORSMiddleware
from fastapi.security import HTTPAuthorizationCredentials, HTTPBearer
from pydantic import BaseModel, ConfigDict, Field
from sqlalchemy import (
    BigInteger,
    Boolean,
    DateTime,
    ForeignKey,
    String,
    Text,
    Uuid,
    and_,
    bindparam,
    func,
    or_,
    select,
    text,
    tuple_,
    update,
)
from sqlalchemy.dialects.postgresql import JSONB
from sqlalchemy.ext.asyncio import AsyncConnection, AsyncSession, async_sessionmaker, create_async_engine
from sqlalchemy.orm import DeclarativeBase, Mapped, mapped_column

POOL = int(os.environ.get("PEER_POOL", "5"))
OVERFLOW = int(os.environ.get("PEER_OVERFLOW", "10"))
URL = "postgresql+asyncpg://" + os.environ["DATABASE_URL"].partition("://")[2]
PRODUCTS_SQL = json.loads(Path(os.environ["PEER_SQL"]).read_text()) if os.environ.get("PEER_SQL") else None

engine = create_async_engine(
    URL,
    pool_size=POOL,
    max_overflow=OVERFLOW,
    pool_recycle=3600,
    pool_pre_ping=os.environ.get("PEER_PRE_PING", "1") == "1",
    connect_args={"server_settings": {"jit": "off"}},
)
read_engine = engine.execution_options(isolation_level="AUTOCOMMIT")
new_database_session = async_sessionmaker(engine, expire_on_commit=False)
app = FastAPI()
app.add_middleware(
    CORSMiddleware, allow_origins=["http://localhost:5173"], allow_methods=["*"], allow_headers=["*"]
)
bearer = HTTPBearer(auto_error=False)


# Tables


def now() -> datetime:
    return datetime.now(UTC)


class Base(DeclarativeBase):
    type_annotation_map = {int: BigInteger, datetime: DateTime(timezone=True), dict[str, Any]: JSONB}


class User(Base):
    __tablename__ = "accounts_user"
    id: Mapped[int] = mapped_column(primary_key=True)
    public_id: Mapped[uuid.UUID]
    is_active: Mapped[bool]


class ApiToken(Base):
    __tablename__ = "accounts_apitoken"
    id: Mapped[int] = mapped_column(primary_key=True)
    user_id: Mapped[int] = mapped_column(ForeignKey("accounts_user.id"))
    digest: Mapped[str]
    expires_at: Mapped[datetime | None]
    revoked_at: Mapped[datetime | None]


class Workspace(Base):
    __tablename__ = "accounts_workspace"
    id: Mapped[int] = mapped_column(primary_key=True)
    public_id: Mapped[uuid.UUID]
    personal_of_id: Mapped[int | None]


class Membership(Base):
    __tablename__ = "accounts_membership"
    id: Mapped[int] = mapped_column(primary_key=True)
    user_id: Mapped[int]
    workspace_id: Mapped[uuid.UUID]
    role: Mapped[str]


class Session(Base):
    __tablename__ = "conversations_session"
    id: Mapped[int] = mapped_column(primary_key=True)
    session_id: Mapped[uuid.UUID] = mapped_column(default=uuid.uuid4)
    user_id: Mapped[int] = mapped_column("owner_id")
    owner: Mapped[uuid.UUID] = mapped_column("owner_public_id")
    workspace: Mapped[uuid.UUID] = mapped_column("workspace_id")
    title: Mapped[str]
    titled: Mapped[bool]
    pocket: Mapped[str | None]
    group: Mapped[str | None]
    agent: Mapped[str | None]
    meta: Mapped[dict[str, Any] | None] = mapped_column("metadata", JSONB(none_as_null=True))
    last_position: Mapped[int] = mapped_column(default=0)
    message_count: Mapped[int] = mapped_column(default=0)
    tokens: Mapped[int] = mapped_column(default=0)
    version: Mapped[int] = mapped_column(default=1)
    last_activity: Mapped[datetime]
    created_at: Mapped[datetime]
    updated_at: Mapped[datetime]
    deleted_at: Mapped[datetime | None]


class Message(Base):
    __tablename__ = "conversations_message"
    id: Mapped[int] = mapped_column(primary_key=True)
    session_id: Mapped[int] = mapped_column(ForeignKey("conversations_session.id"))
    position: Mapped[int]
    role: Mapped[str]
    content: Mapped[str] = mapped_column(Text)
    tool_name: Mapped[str | None]
    trace_id: Mapped[str | None]
    span_id: Mapped[str | None]
    tokens: Mapped[int] = mapped_column(default=0)
    meta: Mapped[dict[str, Any] | None] = mapped_column("metadata", JSONB(none_as_null=True))
    status: Mapped[str] = mapped_column(default="complete")
    version: Mapped[int]
    created_at: Mapped[datetime]
    updated_at: Mapped[datetime]
    deleted_at: Mapped[datetime | None]
    idempotency_index: Mapped[int] = mapped_column(default=0)

    def of(self, session: uuid.UUID) -> Message:
        """With the session's UUID, which the JSON shows."""
        self.session = session
        return self


# JSON

Link = Annotated[str | None, Field(max_length=255)]


class SessionIn(BaseModel):
    model_config = ConfigDict(extra="forbid")
    workspace_id: uuid.UUID | None = None
    title: Annotated[str, Field(min_length=1, max_length=500)] | None = None
    pocket_id: Link = None
    group_id: Link = None
    agent_id: Link = None
    metadata: dict[str, Any] | None = None


class SessionOut(BaseModel):
    model_config = ConfigDict(from_attributes=True, validate_by_name=True)
    id: int
    session_id: uuid.UUID
    user_id: int
    owner: uuid.UUID
    workspace: uuid.UUID
    title: str
    pocket: str | None
    group: str | None
    agent: str | None
    metadata: dict[str, Any] | None = Field(validation_alias="meta")
    message_count: int
    tokens: int
    version: int
    last_activity: datetime
    created_at: datetime
    updated_at: datetime
    deleted_at: datetime | None


class MessageIn(BaseModel):
    model_config = ConfigDict(extra="forbid")
    role: Literal["user", "assistant", "system", "tool_call", "tool"]
    content: Annotated[str, Field(min_length=1, max_length=1024 * 1024)]
    tool_name: Link = None
    trace_id: Link = None
    span_id: Link = None
    tokens: Annotated[int, Field(ge=0, lt=2**31)] = 0
    metadata: dict[str, Any] | None = None


class MessageOut(BaseModel):
    model_config = ConfigDict(from_attributes=True, validate_by_name=True)
    id: int
    session_id: int
    session: uuid.UUID
    position: int
    role: str
    content: str
    tool_name: str | None
    trace_id: str | None
    span_id: str | None
    tokens: int
    metadata: dict[str, Any] | None = Field(validation_alias="meta")
    status: str
    version: int
    created_at: datetime
    updated_at: datetime


class Page(BaseModel):
    """The query parameters of a list."""

    limit: Annotated[int | None, Field(ge=1, le=500)] = None
    skip: Annotated[int, Field(ge=0)] = 0
    cursor: str | None = None

    @property
    def after(self) -> list[Any] | None:
        """The key of the row before this page."""
        return json.loads(base64.urlsafe_b64decode(self.cursor)) if self.cursor else None


def link_to_next(request: Request, response: Response, rows: list[Any], limit: int, *keys: str) -> list[Any]:
    """The rows of the page; where one more was found, with a link to the next."""
    if len(rows) > limit:
        values = [value_of(rows[limit - 1], key) for key in keys]
        plain = [value.isoformat() if isinstance(value, datetime) else value for value in values]
        cursor = base64.urlsafe_b64encode(json.dumps(plain).encode()).decode()
        url = request.url.remove_query_params("skip").include_query_params(cursor=cursor)
        response.headers["Link"] = f'<{url}>; rel="next"'
    return rows[:limit]


def value_of(row: Any, key: str) -> Any:
    return row[key] if isinstance(row, dict) else getattr(row, key)


# Who is calling

NOT_KNOWN = HTTPException(401, "The token is unknown, revoked or expired.", {"WWW-Authenticate": "Bearer"})
NO_SESSION = HTTPException(404, "There is no such session.")
NOT_YOURS = HTTPException(403, "You may not use this session.")


def digest_of(credentials: HTTPAuthorizationCredentials | None) -> str:
    if credentials is None:
        raise HTTPException(401, "A token is needed.", {"WWW-Authenticate": "Bearer"})
    return hashlib.sha256(credentials.credentials.encode()).hexdigest()


Bearer = Annotated[HTTPAuthorizationCredentials | None, Depends(bearer)]


async def database_session() -> AsyncIterator[AsyncSession]:
    async with new_database_session() as session:
        yield session


Database = Annotated[AsyncSession, Depends(database_session)]


async def caller_of(database: Database, credentials: Bearer) -> User:
    found = await database.scalar(
        select(User)
        .join(ApiToken, ApiToken.user_id == User.id)
        .where(
            ApiToken.digest == digest_of(credentials),
            ApiToken.revoked_at.is_(None),
            or_(ApiToken.expires_at.is_(None), ApiToken.expires_at > now()),
            User.is_active,
        )
    )
    if found is None:
        raise NOT_KNOWN
    return found


Caller = Annotated[User, Depends(caller_of)]


def may_read(user_id: int, owner_id: int, role: str | None) -> bool:
    return (owner_id == user_id and role is not None) or role == "admin"


async def session_named(database: AsyncSession, caller: User, ref: str, *, to_write: bool = False) -> Session:
    """The session that `ref` names by either id: 404 where it is not, 403 where it is not for the caller."""
    named = Session.id == int(ref) if ref.isdecimal() else Session.session_id == uuid_of(ref)
    membership = and_(Membership.workspace_id == Session.workspace, Membership.user_id == caller.id)
    row = (
        await database.execute(
            select(Session, Membership.role)
            .outerjoin(Membership, membership)
            .where(named, Session.deleted_at.is_(None))
        )
    ).first()
    if row is None:
        raise NO_SESSION
    session, role = row
    if not may_read(caller.id, session.user_id, role) or (to_write and session.user_id != caller.id):
        raise NOT_YOURS
    return session


def uuid_of(ref: str) -> uuid.UUID:
    try:
        return uuid.UUID(ref)
    except ValueError:
        raise NO_SESSION from None


# Routes, with the ORM


async def list_sessions(
    request: Request, response: Response, database: Database, caller: Caller, page: Annotated[Page, Query()]
) -> Any:
    limit = page.limit or 50
    query = (
        select(Session)
        .join(Membership, and_(Membership.workspace_id == Session.workspace, Membership.user_id == caller.id))
        .where(Session.user_id == caller.id, Session.deleted_at.is_(None))
        .order_by(Session.updated_at.desc(), Session.id.desc())
        .offset(page.skip or None)
        .limit(limit + 1)
    )
    if after := page.after:
        query = query.where(
            tuple_(Session.updated_at, Session.id) < tuple_(datetime.fromisoformat(after[0]), after[1])
        )
    rows = list((await database.scalars(query)).all())
    return link_to_next(request, response, rows, limit, "updated_at", "id")


async def create_session(database: Database, caller: Caller, body: SessionIn) -> Any:
    query = select(Membership.workspace_id).where(Membership.user_id == caller.id)
    if body.workspace_id:
        query = query.where(Membership.workspace_id == body.workspace_id)
    else:
        joined = Workspace.public_id == Membership.workspace_id
        query = query.join(Workspace, joined).where(Workspace.personal_of_id == caller.id)
    workspace = await database.scalar(query)
    if workspace is None:
        raise HTTPException(422, "You are not a member of such a workspace.")
    moment = now()
    session = Session(
        user_id=caller.id,
        owner=caller.public_id,
        workspace=workspace,
        title=body.title or "New Chat",
        titled=body.title is not None,
        pocket=body.pocket_id,
        group=body.group_id,
        agent=body.agent_id,
        meta=body.metadata,
        last_activity=moment,
        created_at=moment,
        updated_at=moment,
    )
    database.add(session)
    await database.commit()
    return session


async def read_session(database: Database, caller: Caller, ref: str) -> Any:
    return await session_named(database, caller, ref)


async def list_messages(
    request: Request,
    response: Response,
    database: Database,
    caller: Caller,
    ref: str,
    page: Annotated[Page, Query()],
    order: Literal["asc", "desc"] = "asc",
) -> Any:
    session = await session_named(database, caller, ref)
    limit = page.limit or 100
    descending = order == "desc"
    query = (
        select(Message)
        .where(Message.session_id == session.id, Message.deleted_at.is_(None))
        .order_by(Message.position.desc() if descending else Message.position)
        .offset(page.skip or None)
        .limit(limit + 1)
    )
    if after := page.after:
        query = query.where(Message.position < after[0] if descending else Message.position > after[0])
    rows = [message.of(session.session_id) for message in await database.scalars(query)]
    return link_to_next(request, response, rows, limit, "position")


async def append_message(database: Database, caller: Caller, ref: str, body: MessageIn) -> Any:
    session = await session_named(database, caller, ref, to_write=True)
    moment = now()
    counted = (
        await database.execute(
            update(Session)
            .where(Session.id == session.id, Session.deleted_at.is_(None))
            .values(
                last_position=Session.last_position + 1,
                message_count=Session.message_count + 1,
                tokens=Session.tokens + body.tokens,
                version=Session.version + 1,
                last_activity=func.greatest(Session.last_activity, moment),
                updated_at=func.greatest(Session.updated_at, moment),
            )
            .returning(Session.last_position, Session.version)
            .execution_options(synchronize_session=False)
        )
    ).first()
    if counted is None:
        raise NO_SESSION
    message = Message(
        session_id=session.id,
        position=counted.last_position,
        version=counted.version,
        role=body.role,
        content=body.content,
        tool_name=body.tool_name,
        trace_id=body.trace_id,
        span_id=body.span_id,
        tokens=body.tokens,
        meta=body.metadata,
        created_at=moment,
        updated_at=moment,
    )
    database.add(message)
    await database.commit()
    return message.of(session.session_id)


async def find_messages(
    request: Request,
    response: Response,
    database: Database,
    caller: Caller,
    trace_id: str,
    page: Annotated[Page, Query()],
) -> Any:
    limit = page.limit or 100
    query = (
        select(Message, Session.session_id)
        .join(Session, Session.id == Message.session_id)
        .join(Membership, and_(Membership.workspace_id == Session.workspace, Membership.user_id == caller.id))
        .where(
            Message.trace_id == trace_id,
            Message.deleted_at.is_(None),
            Session.deleted_at.is_(None),
            or_(Session.user_id == caller.id, Membership.role == "admin"),
        )
        .order_by(Message.id)
        .offset(page.skip or None)
        .limit(limit + 1)
    )
    if after := page.after:
        query = query.where(Message.id > after[0])
    rows = [message.of(session) for message, session in await database.execute(query)]
    return link_to_next(request, response, rows, limit, "id")


# Routes, with the SQL of the product: statements as they were seen, their parameters by name

TYPES = {
    "int": BigInteger(),
    "str": String(),
    "bool": Boolean(),
    "uuid": Uuid(),
    "time": DateTime(timezone=True),
    "json": JSONB(),
}
READING_ROUTES = {"GET"}


class Statement:
    """One statement: `parameters` are named by what the request gives, or "N.column" of what statement N found."""

    def __init__(self, seen: dict[str, Any]) -> None:
        self.columns: list[str] = seen["columns"]
        self.names: dict[str, str] = {
            f"p{place}": parameter["name"]
            for place, parameter in enumerate(seen["parameters"])
            if "name" in parameter
        }
        self.constants = {
            f"p{place}": constant_of(parameter)
            for place, parameter in enumerate(seen["parameters"])
            if "name" not in parameter
        }
        binds = [
            bindparam(f"p{place}", type_=TYPES[parameter["type"]])
            for place, parameter in enumerate(seen["parameters"])
        ]
        self.clause = text(seen["sql"]).bindparams(*binds)

    async def run(self, database: AsyncConnection, given: dict[str, Any]) -> list[dict[str, Any]]:
        values = self.constants | {place: given[name] for place, name in self.names.items()}
        result = await database.execute(self.clause, values)
        if not self.columns:
            return []
        return [dict(zip(self.columns, row, strict=True)) for row in result.fetchall()]


def constant_of(parameter: dict[str, Any]) -> Any:
    value = parameter["value"]
    if parameter["type"] == "uuid":
        return uuid.UUID(value)
    return datetime.fromisoformat(value) if parameter["type"] == "time" else value


SEEN = {
    operation: [Statement(statement) for statement in statements]
    for operation, statements in (PRODUCTS_SQL or {}).items()
}


async def connection(request: Request) -> AsyncIterator[AsyncConnection]:
    """As the product has it: each read for itself, a write in a transaction."""
    async with (read_engine if request.method in READING_ROUTES else engine).connect() as found:
        yield found


Connection = Annotated[AsyncConnection, Depends(connection)]


class Asking:
    """What a request has given and found, for the statements that follow."""

    def __init__(self, database: AsyncConnection, given: dict[str, Any]) -> None:
        self.database, self.given = database, given

    async def run(self, operation: str, first: int, last: int | None = None) -> list[list[dict[str, Any]]]:
        """The rows of each of these statements of an operation."""
        found = []
        statements = SEEN[operation]
        for number in range(first, len(statements) if last is None else last):
            rows = await statements[number].run(self.database, self.given)
            self.given |= {f"{number}.{name}": value for name, value in rows[0].items()} if rows else {}
            found.append(rows)
        return found


async def known_caller(database: Connection, credentials: Bearer) -> Asking:
    asked = Asking(database, {"digest": digest_of(credentials), "now": now()})
    [rows] = await asked.run("get", 0, 1)
    if not rows:
        raise NOT_KNOWN
    asked.given["user"] = asked.given["0.user_id"]
    return asked


Asked = Annotated[Asking, Depends(known_caller)]


async def session_row(asked: Asking, operation: str, ref: str, *, to_write: bool = False) -> dict[str, Any]:
    asked.given["session"] = int(ref)
    [rows] = await asked.run(operation, 1, 2)
    if not rows:
        raise NO_SESSION
    row, user_id = rows[0], asked.given["0.user_id"]
    if not may_read(user_id, row["owner_id"], row["role_of_caller"]) or (to_write and row["owner_id"] != user_id):
        raise NOT_YOURS
    return row


def session_out(row: dict[str, Any]) -> dict[str, Any]:
    return row | {
        "user_id": row["owner_id"],
        "owner": row["owner_public_id"],
        "workspace": row["workspace_id"],
        "metadata": json_of(row["metadata"]),
    }


def json_of(value: Any) -> Any:
    """A statement's text has no types of columns, so JSON comes as text."""
    return json.loads(value) if isinstance(value, str) else value


async def list_sessions_by_sql(request: Request, response: Response, asked: Asked) -> Any:
    rows = (await asked.run("list", 1))[-1]
    return [session_out(row) for row in link_to_next(request, response, rows, 50, "updated_at", "id")]


async def create_session_by_sql(asked: Asked, body: SessionIn) -> Any:
    asked.given |= {"title": body.title, "new_uuid": uuid.uuid4()}
    given = asked.given
    found = (await asked.run("create", 1))[-1]
    await asked.database.commit()
    moment = given["now"]
    return {
        "id": found[0]["id"],
        "session_id": given["new_uuid"],
        "user_id": given["0.user_id"],
        "owner": given["0.user__public_id"],
        "workspace": given["1.public_id"],
        "title": body.title,
        "pocket": body.pocket_id,
        "group": body.group_id,
        "agent": body.agent_id,
        "metadata": body.metadata,
        "message_count": 0,
        "tokens": 0,
        "version": 1,
        "last_activity": moment,
        "created_at": moment,
        "updated_at": moment,
        "deleted_at": None,
    }


async def read_session_by_sql(asked: Asked, ref: str) -> Any:
    return session_out(await session_row(asked, "get", ref))


async def list_messages_by_sql(
    request: Request, response: Response, asked: Asked, ref: str, page: Annotated[Page, Query()]
) -> Any:
    operation = "last page" if page.cursor else "page"
    if after := page.after:
        asked.given["after"] = after[0]
    session = await session_row(asked, operation, ref)
    rows = link_to_next(request, response, (await asked.run(operation, 2))[-1], 100, "position")
    return [row | {"session": session["session_id"], "metadata": json_of(row["metadata"])} for row in rows]


async def append_message_by_sql(asked: Asked, ref: str, body: MessageIn) -> Any:
    session = await session_row(asked, "append", ref, to_write=True)
    asked.given |= {"content": body.content, "trace": body.trace_id, "tokens": body.tokens}
    given = asked.given
    [found] = (await asked.run("append", 2))[-1]
    await asked.database.commit()
    return {
        **body.model_dump(),
        **found,
        "session_id": session["id"],
        "session": session["session_id"],
        "status": "complete",
        "created_at": given["now"],
        "updated_at": given["now"],
    }


async def find_messages_by_sql(request: Request, response: Response, asked: Asked, trace_id: str) -> Any:
    asked.given["trace"] = trace_id
    rows = link_to_next(request, response, (await asked.run("trace", 1))[-1], 100, "id")
    return [row | {"session": row["session__session_id"], "metadata": json_of(row["metadata"])} for row in rows]


ROUTES: list[tuple[str, str, Any, Any, Any]] = [
    ("GET", "/api/sessions/", list[SessionOut], list_sessions, list_sessions_by_sql),
    ("POST", "/api/sessions/", SessionOut, create_session, create_session_by_sql),
    ("GET", "/api/sessions/{ref}/", SessionOut, read_session, read_session_by_sql),
    ("GET", "/api/sessions/{ref}/messages/", list[MessageOut], list_messages, list_messages_by_sql),
    ("POST", "/api/sessions/{ref}/messages/", MessageOut, append_message, append_message_by_sql),
    ("GET", "/api/messages/", list[MessageOut], find_messages, find_messages_by_sql),
]
for method, path, model, with_orm, with_sql in ROUTES:
    app.add_api_route(
        path,
        with_sql if PRODUCTS_SQL else with_orm,
        methods=[method],
        response_model=model,
        status_code=201 if method == "POST" else 200,
    )


@app.get("/health")
async def health() -> dict[str, str]:
    return {"status": "healthy"}
