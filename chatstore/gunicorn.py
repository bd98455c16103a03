"""How gunicorn serves this project: `gunicorn -c python:chatstore.gunicorn chatstore.wsgi`."""

from __future__ import annotations

from chatstore.environment import Environment

environment = Environment()

bind = f"{environment.host}:{environment.port}"
worker_class = "gthread"
workers = environment.web_workers
threads = environment.web_threads
# No preload: a connection pool opened before the fork would be shared by processes and break.
preload_app = False
keepalive = 5
graceful_timeout = 30
control_socket_disable = True
# Each request is one line of our own log.
accesslog = None
