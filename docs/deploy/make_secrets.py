"""Creates the passwords for a deployment with docker-compose.yml: `python docs/deploy/make_secrets.py`, once.

Writes into `.secrets` (readable by its owner only, and never part of an image or a commit). Existing files are not changed.
"""

import json
import secrets
import sys
from pathlib import Path

FOLDER = Path(".secrets")
BUCKET = "distillery"


def make(folder: Path) -> None:
    """Write the database's password, the object store's keys, and the settings with both."""
    folder.mkdir(mode=0o700)
    password, access, secret = secrets.token_urlsafe(24), secrets.token_hex(10), secrets.token_urlsafe(30)
    settings = {
        "DISTILL_DATABASE_URL": f"postgresql+psycopg://distillery:{password}@postgres/distillery",
        "DISTILL_BROKER_URL": "redis://redis:6379/0",
        "DISTILL_STORAGE_URL": f"s3://{BUCKET}",
        "DISTILL_STORAGE_ENDPOINT": "http://s3:8333",
        "DISTILL_STORAGE_ACCESS_KEY": access,
        "DISTILL_STORAGE_SECRET_KEY": secret,
    }
    identity = {
        "name": "distillery",
        "credentials": [{"accessKey": access, "secretKey": secret}],
        "actions": [f"{action}:{BUCKET}" for action in ("Read", "Write", "List", "Tagging")],
    }
    files = {
        "postgres_password": password,
        "s3.json": json.dumps({"identities": [identity]}, indent=2),
        "distillery.env": "".join(f"{name}={value}\n" for name, value in settings.items()),
    }
    for name, content in files.items():
        (folder / name).write_text(content)
        (folder / name).chmod(0o644)  # containers read it as another user; the folder's mode excludes other users


if __name__ == "__main__":
    if FOLDER.exists():
        sys.exit(
            f"{FOLDER} exists already. To create new passwords, delete it; data of the old deployment cannot be opened with new passwords"
        )
    make(FOLDER)
