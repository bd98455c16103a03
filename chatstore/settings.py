"""
Django settings. What an operator may change is typed and described in `environment.py`;
this file says what follows from it.

https://docs.djangoproject.com/en/5.2/ref/settings/
"""

from __future__ import annotations

import logging
from datetime import timedelta
from typing import Any

import structlog
from csp.constants import NONE, SELF
from django.core.exceptions import ImproperlyConfigured
from pydantic import ValidationError

from chatstore.environment import BASE_DIR, DEVELOPMENT_SECRET_KEY, Environment, databases
from chatstore.http.logs import LOG_PROCESSORS, EventFormatter, exception_without_values, without_tokens

try:
    ENVIRONMENT = Environment()
except ValidationError as error:
    problems = "\n".join(f"  {'.'.join(map(str, e['loc'])).upper()}: {e['msg']}" for e in error.errors())
    raise ImproperlyConfigured(f"The environment cannot be used:\n{problems}") from None

SECRET_KEY = ENVIRONMENT.secret_key.get_secret_value() if ENVIRONMENT.secret_key else DEVELOPMENT_SECRET_KEY
DEBUG = ENVIRONMENT.debug
ALLOWED_HOSTS = list(ENVIRONMENT.allowed_hosts)
CSRF_TRUSTED_ORIGINS = list(ENVIRONMENT.csrf_trusted_origins)

INSTALLED_APPS = [
    "django.contrib.admin",
    "django.contrib.auth",
    "django.contrib.contenttypes",
    "django.contrib.sessions",
    "django.contrib.messages",
    "django.contrib.staticfiles",
    "corsheaders",
    "csp",
    "django_filters",
    "rest_framework",
    "drf_spectacular",
    "drf_spectacular_sidecar",
    "accounts.lockout.apps.Axes",
    "chatstore",
    "accounts",
    "conversations",
]

MIDDLEWARE = [
    "chatstore.http.requests.RequestLogMiddleware",
    "django.middleware.security.SecurityMiddleware",
    "whitenoise.middleware.WhiteNoiseMiddleware",
    "chatstore.http.cors.CorsMiddleware",
    "chatstore.http.pages.PolicyOfPages",
    "chatstore.http.conditional.ConditionalGetMiddleware",
    "chatstore.http.pages.SessionsOfPages",
    "chatstore.http.health.HostCheckMiddleware",
    "chatstore.http.pages.FormsOfPages",
    "chatstore.http.pages.LoginsOfPages",
    "chatstore.http.pages.MessagesOfPages",
    "chatstore.http.pages.FramesOfPages",
    "chatstore.http.pages.LockoutOfPages",
]

# These look for the middleware of forms, frames and lock-out by name, and ours are subclasses.
SILENCED_SYSTEM_CHECKS = ["security.W002", "security.W003", "axes.W002"]

ROOT_URLCONF = "chatstore.urls"
WSGI_APPLICATION = "chatstore.wsgi.application"
APPEND_SLASH = False

TEMPLATES = [
    {
        "BACKEND": "django.template.backends.django.DjangoTemplates",
        "DIRS": [BASE_DIR / "templates"],
        "APP_DIRS": True,
        "OPTIONS": {
            "context_processors": [
                "django.template.context_processors.request",
                "django.contrib.auth.context_processors.auth",
                "django.contrib.messages.context_processors.messages",
            ],
        },
    },
]

DATABASES = databases(ENVIRONMENT)
# What is counted for throttling and for failed logins, and nothing else.
CACHES: dict[str, dict[str, Any]] = {
    "default": {"BACKEND": "django.core.cache.backends.locmem.LocMemCache", "OPTIONS": {"MAX_ENTRIES": 100_000}}
}
if ENVIRONMENT.cache_url:
    CACHES["default"] = {
        "BACKEND": "django.core.cache.backends.redis.RedisCache",
        "LOCATION": ENVIRONMENT.cache_url.get_secret_value(),
        "KEY_PREFIX": "chatstore",
        "OPTIONS": {"socket_connect_timeout": 0.5, "socket_timeout": 0.5},
    }

DEFAULT_AUTO_FIELD = "django.db.models.BigAutoField"

AUTH_USER_MODEL = "accounts.User"
AUTH_PASSWORD_VALIDATORS = [
    {"NAME": f"django.contrib.auth.password_validation.{name}"}
    for name in (
        "UserAttributeSimilarityValidator",
        "MinimumLengthValidator",
        "CommonPasswordValidator",
        "NumericPasswordValidator",
    )
]

# The admin's login: ten failures with one user name from one address, and that address waits. Bearer tokens know
# nothing of it. The counts are in the cache alone, by a digest; the log never holds what was typed.
AUTHENTICATION_BACKENDS = ["accounts.lockout.logins.Backend", "django.contrib.auth.backends.ModelBackend"]
MIGRATION_MODULES = {"axes": None}
AXES_HANDLER = "accounts.lockout.logins.Counter"
AXES_CLIENT_IP_CALLABLE = "accounts.lockout.logins.address_of"
AXES_LOCKOUT_CALLABLE = "accounts.lockout.logins.locked_out"
AXES_LOCKOUT_PARAMETERS = [["username", "ip_address"]]
AXES_FAILURE_LIMIT = 10
AXES_COOLOFF_TIME = timedelta(minutes=15)
AXES_RESET_ON_SUCCESS = True
AXES_RESET_COOL_OFF_ON_FAILURE_DURING_LOCKOUT = False
AXES_SENSITIVE_PARAMETERS = ["username"]
AXES_VERBOSE = False
AXES_ENABLE_ADMIN = False

TIME_ZONE = "UTC"
USE_I18N = False
FORMAT_MODULE_PATH = "chatstore.formats"

# WhiteNoise serves what the apps ship, found at start: no collectstatic step to forget.
STATIC_URL = "/static/"
WHITENOISE_USE_FINDERS = True

# A batch may be twice as large as any other body (contract 1, limits); the API checks each route's own limit.
MAX_BODY_BYTES = 8 * 1024 * 1024
MAX_BATCH_BODY_BYTES = 16 * 1024 * 1024
DATA_UPLOAD_MAX_MEMORY_SIZE = MAX_BATCH_BODY_BYTES

REST_FRAMEWORK = {
    "DEFAULT_AUTHENTICATION_CLASSES": ["accounts.authentication.bearer.BearerAuthentication"],
    "DEFAULT_PERMISSION_CLASSES": ["accounts.permissions.WithinScope"],
    "DEFAULT_THROTTLE_CLASSES": ["chatstore.http.throttling.CredentialThrottle"],
    "NUM_PROXIES": ENVIRONMENT.num_proxies,
    "DEFAULT_PARSER_CLASSES": ["chatstore.http.bodies.StrictJSONParser"],
    "DEFAULT_RENDERER_CLASSES": ["chatstore.http.rendering.JSONRenderer"],
    "DEFAULT_CONTENT_NEGOTIATION_CLASS": "chatstore.http.negotiation.AlwaysJSON",
    "DEFAULT_SCHEMA_CLASS": "drf_spectacular.openapi.AutoSchema",
    "DEFAULT_METADATA_CLASS": None,
    "EXCEPTION_HANDLER": "chatstore.http.problems.exception_handler",
    "UNAUTHENTICATED_USER": None,
    "NON_FIELD_ERRORS_KEY": "",
}

SPECTACULAR_SETTINGS = {
    "TITLE": ENVIRONMENT.api_title,
    "VERSION": ENVIRONMENT.api_version,
    "DESCRIPTION": "Stores the conversations of AI agents: users, sessions and messages, found again by trace.",
    "OAS_VERSION": "3.1.0",
    "SERVE_INCLUDE_SCHEMA": False,
    "SERVE_PUBLIC": True,
    "SERVE_AUTHENTICATION": [],
    "SERVE_PERMISSIONS": ["rest_framework.permissions.AllowAny"],
    "COMPONENT_SPLIT_REQUEST": True,
    "SCHEMA_PATH_PREFIX": "/api",
    "SCHEMA_COERCE_PATH_PK_SUFFIX": False,
    "POSTPROCESSING_HOOKS": [
        "drf_spectacular.hooks.postprocess_schema_enums",
        "chatstore.http.openapi.add_problems",
    ],
    "SWAGGER_UI_DIST": "SIDECAR",
    "SWAGGER_UI_FAVICON_HREF": "SIDECAR",
    "REDOC_DIST": "SIDECAR",
    "SWAGGER_UI_SETTINGS": {"deepLinking": True, "persistAuthorization": False, "validatorUrl": None},
    "ENUM_NAME_OVERRIDES": {
        "RoleEnum": "conversations.models.Message.Role",
        "StatusEnum": "conversations.models.Message.Status",
        "WorkspaceRoleEnum": "accounts.models.Membership.Role",
    },
}

CORS_ALLOW_ALL_ORIGINS = "*" in ENVIRONMENT.cors_origins
CORS_ALLOWED_ORIGINS = [] if CORS_ALLOW_ALL_ORIGINS else list(ENVIRONMENT.cors_origins)
CORS_ALLOW_CREDENTIALS = ENVIRONMENT.cors_allow_credentials
CORS_URLS_REGEX = r"^/(api|auth|health|openapi\.json)"
CORS_ALLOW_METHODS = ("GET", "POST", "PATCH", "DELETE", "OPTIONS")
CORS_ALLOW_HEADERS = (
    "authorization",
    "content-type",
    "idempotency-key",
    "x-request-id",
    "x-on-behalf-of",
    "x-timezone",
    "last-event-id",
    "if-none-match",
)
CORS_EXPOSE_HEADERS = ("Link", "X-Request-ID", "Idempotency-Replayed", "ETag", "Retry-After", "Search-Partial")

CONTENT_SECURITY_POLICY = {
    "DIRECTIVES": {
        "default-src": [SELF],
        "img-src": [SELF, "data:"],
        "object-src": [NONE],
        "base-uri": [NONE],
        "form-action": [SELF],
        "frame-ancestors": [NONE],
    },
}
if ENVIRONMENT.behind_tls_proxy:
    SECURE_PROXY_SSL_HEADER = ("HTTP_X_FORWARDED_PROTO", "https")
    SECURE_SSL_REDIRECT = True
    SECURE_REDIRECT_EXEMPT = [r"^health"]
    SECURE_HSTS_SECONDS = 365 * 24 * 3600
    SECURE_HSTS_INCLUDE_SUBDOMAINS = True
    SECURE_HSTS_PRELOAD = True
    SESSION_COOKIE_SECURE = True
    CSRF_COOKIE_SECURE = True

LOGGING = {
    "version": 1,
    "disable_existing_loggers": False,
    "formatters": {
        "structured": {
            "()": EventFormatter,
            "foreign_pre_chain": LOG_PROCESSORS,
            "processors": [
                structlog.stdlib.ProcessorFormatter.remove_processors_meta,
                exception_without_values,
                without_tokens,
                structlog.dev.ConsoleRenderer(colors=False)
                if ENVIRONMENT.is_development
                else structlog.processors.JSONRenderer(),
            ],
        },
    },
    "handlers": {"stderr": {"class": "logging.StreamHandler", "formatter": "structured"}},
    "root": {"handlers": ["stderr"], "level": ENVIRONMENT.log_level},
    "loggers": {
        "django": {"handlers": [], "propagate": True},
        # A line for each request stands in our own log; Django's would repeat every 4xx.
        "django.request": {"level": "ERROR"},
        "django.server": {"handlers": [], "propagate": True},
        # Never at DEBUG: it writes the parameters, and they are people's messages. LOG_SQL is ours.
        "django.db.backends": {"level": "INFO"},
    },
}
# Nothing that we log names a line of code or a thread, to find out for each line. gunicorn's lines name processes.
logging.logThreads = logging.logMultiprocessing = False
logging._srcfile = None

structlog.configure(
    processors=[*LOG_PROCESSORS, structlog.stdlib.ProcessorFormatter.wrap_for_formatter],
    logger_factory=structlog.stdlib.LoggerFactory(),
    wrapper_class=structlog.stdlib.BoundLogger,
    cache_logger_on_first_use=True,
)
