"""A FastMCP server that demands one static bearer token: FASTMCP_TOKEN, on 127.0.0.1:PORT.

With QUIET its streams have no comments between events, as with many servers."""

import asyncio
import os

from fastmcp import Context, FastMCP
from fastmcp.server.auth import StaticTokenVerifier
from sse_starlette import EventSourceResponse

if "QUIET" in os.environ:
    EventSourceResponse.DEFAULT_PING_INTERVAL = 24 * 60 * 60

server = FastMCP(
    "interop",
    auth=StaticTokenVerifier(tokens={os.environ["FASTMCP_TOKEN"]: {"client_id": "proxy", "scopes": []}}),
)


@server.tool
def add(a: int, b: int) -> int:
    """Adds two numbers."""
    return a + b


@server.tool
def session(ctx: Context) -> str:
    """Says in which session it is called."""
    return ctx.session_id


@server.tool
async def rest(seconds: float) -> str:
    """Says nothing for a while."""
    await asyncio.sleep(seconds)
    return f"rested {seconds} s"


@server.tool
async def climb(steps: int, ctx: Context) -> str:
    """Climbs, and reports every step."""
    for done in range(1, steps + 1):
        await asyncio.sleep(0.05)
        await ctx.report_progress(done, steps)
    return f"climbed {steps} steps"


server.run(transport="http", host="127.0.0.1", port=int(os.environ["PORT"]), show_banner=False)
