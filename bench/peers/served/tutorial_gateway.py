"""A caching gateway as tutorials have it: the body's digest as the key, Redis first, then the model server."""

import hashlib
import os
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

import httpx
import redis.asyncio
from fastapi import FastAPI, Request, Response

SECONDS_TO_LIVE = 300
cache = redis.asyncio.from_url(os.environ["REDIS_URL"])
backend = httpx.AsyncClient(timeout=30)


@asynccontextmanager
async def lifespan(app: FastAPI) -> AsyncIterator[None]:
    """Closes both clients in the end."""
    yield
    await backend.aclose()
    await cache.aclose()


app = FastAPI(lifespan=lifespan)


@app.post("/v2/models/{model}/infer")
async def infer(model: str, request: Request) -> Response:
    """The answer from Redis, else from the model server."""
    body = await request.body()
    key = f"{model}:{hashlib.sha256(body).hexdigest()}"
    answer = await cache.get(key)
    if answer is None:
        url = os.environ["BACKEND_URL"].format(model=model)
        response = await backend.post(url, content=body, headers={"content-type": "application/json"})
        if response.is_error:
            return Response(response.content, response.status_code, media_type="application/json")
        answer = response.content
        await cache.set(key, answer, ex=SECONDS_TO_LIVE)
    return Response(answer, media_type="application/json")
