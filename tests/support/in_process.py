"""The HTTP side asked within the test's own process, as a client of any address."""

import asyncio
from collections.abc import Mapping
from typing import Any

import httpx

from app.relation import app


def ask(
    path: str,
    method: str = "GET",
    *,
    client: str = "127.0.0.1",
    headers: Mapping[str, str] | None = None,
    host: str = "127.0.0.1:8000",
    params: Mapping[str, Any] | None = None,
) -> httpx.Response:
    """What the app answers to a client of this address."""

    async def send() -> httpx.Response:
        transport = httpx.ASGITransport(app=app, client=(client, 50_000), raise_app_exceptions=False)
        async with httpx.AsyncClient(transport=transport, base_url=f"http://{host}") as session:
            return await session.request(method, path, headers=dict(headers or {}), params=params)

    return asyncio.run(send())
