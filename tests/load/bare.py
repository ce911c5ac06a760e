"""Bare counterparts: what the same server does without database, key, middleware or checks."""

import asyncio
import hashlib
import json
import tempfile
import time
from collections.abc import AsyncIterator
from typing import Any

from fastapi import FastAPI, Request
from fastapi.responses import StreamingResponse

WRITES_A_SECOND, EVENTS_A_WRITE = 4, 3

app = FastAPI()


@app.get("/jobs/{identifier}")
async def show(identifier: str) -> dict[str, str]:
    """For a poll."""
    return {"id": identifier}


@app.post("/jobs", status_code=202)
async def submit(body: dict[str, Any]) -> dict[str, Any]:
    """For a submission: parses JSON and answers with it."""
    return body


@app.put("/content")
async def receive(request: Request) -> dict[str, str]:
    """For an upload: writes a file and its SHA-256."""
    digest = hashlib.sha256()
    with tempfile.TemporaryFile() as file:
        async for chunk in request.stream():
            await asyncio.to_thread(file.write, chunk)
            digest.update(chunk)
    return {"sha256": digest.hexdigest()}


@app.get("/v1/jobs/{identifier}/events")
async def events(identifier: str, seconds: int = 10) -> StreamingResponse:
    """For an event stream: the same events at the same rate."""

    async def lines() -> AsyncIterator[str]:
        number, began = 0, time.monotonic()
        for write in range(seconds * WRITES_A_SECOND):
            await asyncio.sleep(max(0.0, began + write / WRITES_A_SECOND - time.monotonic()))
            sent = time.time()
            for _ in range(EVENTS_A_WRITE):
                number += 1
                yield f"event: log\nid: {number}\ndata: {json.dumps({'data': {'sent': sent}})}\n\n"

    return StreamingResponse(lines(), media_type="text/event-stream")
