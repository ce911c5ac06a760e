import json
from typing import Any

from typer.testing import CliRunner

from distillery_client.command_line import app
from tests.client.scripted import Response, Scripted

KEY: dict[str, Any] = {
    "id": "key_1",
    "name": "ci",
    "scopes": ["jobs:read"],
    "limits": {"running_jobs": 2},
    "created_at": "2026-11-21T09:00:00Z",
    "revoked_at": None,
}


def call(server: Scripted, *arguments: str) -> Any:
    return CliRunner().invoke(
        app, ["--url", server.url, "--key", "dsk_test", "keys", *arguments], env={"COLUMNS": "200"}
    )


def test_a_key_is_created_with_scopes_and_limits_and_its_secret_is_shown(server: Scripted) -> None:
    server.respond_with(Response(201, json.dumps(KEY | {"key": "dsk_secret"}).encode()))
    options = ("--scopes", "jobs:read,jobs:write", "--expires-days", "90", "--limit", "running_jobs=2")
    result = call(server, "create", "--name", "ci", *options)
    assert result.exit_code == 0 and "dsk_secret" in result.stdout
    [request] = server.requests
    assert (request.method, request.path) == ("POST", "/v1/keys")
    wanted = {"name": "ci", "scopes": ["jobs:read", "jobs:write"], "expires_days": 90, "limits": {"running_jobs": 2}}
    assert json.loads(request.body) == wanted
    assert call(server, "create", "--name", "ci", "--scopes", "admin", "--limit", "much").exit_code == 2


def test_requests_for_secrets_are_not_retried(server: Scripted) -> None:
    server.respond_with(Response(503))
    assert call(server, "create", "--name", "ci", "--scopes", "jobs:read").exit_code == 1
    assert call(server, "rotate", "key_1", "--grace-seconds", "60").exit_code == 1
    assert [json.loads(request.body).get("grace_seconds") for request in server.requests] == [None, 60]


def test_keys_are_listed_shown_and_revoked(server: Scripted) -> None:
    server.script = lambda request: Response(
        body=json.dumps({"data": [KEY], "next_cursor": None} if request.path == "/v1/keys" else KEY).encode()
    )
    assert "key_1" in call(server, "list").stdout
    for arguments in (("me",), ("show", "key_1"), ("revoke", "key_1")):
        assert "key_1" in call(server, *arguments).stdout
    assert [request.path for request in server.requests][1:] == [
        "/v1/keys/me",
        "/v1/keys/key_1",
        "/v1/keys/key_1/revoke",
    ]
