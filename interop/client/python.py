"""The Python SDK's client, with its own OAuth provider. The journey is that of `journey.mjs`."""

import asyncio
import json
import os
import time
from contextlib import AsyncExitStack, contextmanager
from urllib.parse import parse_qs, urlparse

import httpx2
from mcp import Client
from mcp.client.auth import OAuthClientProvider, OAuthFlowError
from mcp.client.streamable_http import streamable_http_client
from mcp.shared.auth import AuthorizationCodeResult, OAuthClientMetadata

JOURNEY = json.loads(os.environ["JOURNEY"])
URL = JOURNEY["url"]
PERSON = os.path.join(os.path.dirname(os.path.abspath(__file__)), "..", "person.mjs")


class MemoryStorage:
    """Keeps what the SDK obtains."""

    tokens = None
    client = None

    async def get_tokens(self):
        return self.tokens

    async def set_tokens(self, tokens):
        self.tokens = tokens

    async def get_client_info(self):
        return self.client

    async def set_client_info(self, client):
        self.client = client


class Person:
    """Approves at the consent page while `willing`."""

    willing = True
    visits = 0
    callback = None

    async def visit(self, authorization_url):
        self.visits += 1
        if not self.willing:
            raise OAuthFlowError("the person is not there")
        environment = {**os.environ, "PASSPHRASE": JOURNEY["passphrase"]}
        process = await asyncio.create_subprocess_exec(
            os.environ["NODE"], PERSON, authorization_url, env=environment, stdout=asyncio.subprocess.PIPE
        )
        printed, _ = await process.communicate()
        assert process.returncode == 0, "the person did not get through the consent page"
        self.callback = {name: values[0] for name, values in parse_qs(urlparse(printed.decode().strip()).query).items()}

    async def come_back(self):
        return AuthorizationCodeResult(**self.callback)


@contextmanager
def step(name):
    try:
        yield
    except BaseException as error:
        while isinstance(error, BaseExceptionGroup) and len(error.exceptions) == 1:
            error = error.exceptions[0]
        print(f"not ok {name}: {type(error).__name__} {error}".replace("\n", " "), flush=True)
        os._exit(1)
    print(f"ok {name}", flush=True)


async def status_of(access_token=None):
    """What the endpoint itself says to a token, without the SDK between."""
    headers = {"accept": "application/json, text/event-stream"}
    if access_token:
        headers["authorization"] = f"Bearer {access_token}"
    async with httpx2.AsyncClient() as http:
        response = await http.post(URL, headers=headers, json={"jsonrpc": "2.0", "id": 1, "method": "ping"})
        return response.status_code, response.headers.get("www-authenticate", "")


async def call(client, which="call", **options):
    wanted = JOURNEY[which]
    result = await client.call_tool(wanted["name"], wanted["arguments"], **options)
    text = " ".join(getattr(item, "text", "") for item in result.content)
    assert not result.is_error and wanted.get("expect", "") in text, text


async def journey(stack):
    storage, person = MemoryStorage(), Person()
    metadata = OAuthClientMetadata(
        client_name="Interop Python",
        redirect_uris=["http://localhost:1/callback"],
        grant_types=["authorization_code", "refresh_token"],
        token_endpoint_auth_method="client_secret_basic",
    )
    provider = OAuthClientProvider(URL, metadata, storage, person.visit, person.come_back)

    with step("is challenged without a token"):
        status, challenge = await status_of()
        assert status == 401 and challenge.startswith("Bearer ") and 'resource_metadata="' in challenge, challenge

    with step("discovers, registers and gets a token after consent"):
        http = await stack.enter_async_context(httpx2.AsyncClient(auth=provider, timeout=30))
        client = await stack.enter_async_context(Client(streamable_http_client(URL, http_client=http)))
        assert person.visits == 1 and storage.client.client_id
        assert storage.tokens.access_token and storage.tokens.refresh_token
        assert person.callback["iss"] == URL[: URL.index("/", 8)], "the callback carries another iss"

    with step("lists tools"):
        names = [tool.name for tool in (await client.list_tools()).tools]
        assert JOURNEY["call"]["name"] in names and JOURNEY["progress"]["name"] in names, names

    with step("calls a tool"):
        await call(client)

    with step("receives progress while a tool runs"):
        arrivals = []

        async def on_progress(_progress, _total, _message):
            arrivals.append(time.monotonic())

        await call(client, "progress", progress_callback=on_progress)
        assert len(arrivals) >= 2, f"{len(arrivals)} notifications"
        assert arrivals[-1] - arrivals[0] > 0.02, "all notifications came at once: something buffers"

    with step("refreshes when its token has expired"):
        before = storage.tokens
        provider.context.token_expiry_time = 1
        await call(client)
        after = storage.tokens
        assert after.access_token != before.access_token and after.refresh_token != before.refresh_token
        assert person.visits == 1, "the person was asked again"

    with step("gets the same successor when it retries the refresh"):
        provider.context.current_tokens = before
        provider.context.token_expiry_time = 1
        await call(client)
        assert storage.tokens.refresh_token == after.refresh_token

    with step("is refused after it revoked its token"):
        person.willing = False
        form = {"token": after.refresh_token, "client_id": storage.client.client_id}
        if storage.client.client_secret:
            form["client_secret"] = storage.client.client_secret
        async with httpx2.AsyncClient() as plain:
            endpoint = str(provider.context.oauth_metadata.revocation_endpoint)
            assert (await plain.post(endpoint, data=form)).status_code == 200
        for tokens in (before, after, storage.tokens):
            status, challenge = await status_of(tokens.access_token)
            assert status == 401 and 'error="invalid_token"' in challenge, (status, challenge)
        try:
            await call(client)
        except (Exception, asyncio.CancelledError):  # the SDK takes its tasks down with it
            assert person.visits == 2, "the SDK did not start over"
        else:
            raise AssertionError("a call went through")


async def main():
    async with asyncio.timeout(120):
        stack = AsyncExitStack()
        await journey(stack)
        # Ending the session in good order needs a token, and that is gone; the process just ends.
        os._exit(0)


asyncio.run(main())
