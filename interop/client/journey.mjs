// The journey that every TypeScript client makes, told once. What differs between the SDKs is in
// `sdk`: how to connect, and their own OAuth functions. Everything up to the token, and every
// refresh, is the SDK's work; only the revocation is a request of ours, since the SDKs have none.

import assert from 'node:assert/strict';
import { randomBytes } from 'node:crypto';

import { decide } from '../person.mjs';

/** What to connect to and what to call there; the runner passes it in the environment. */
const { url, passphrase, call, progress, era } = JSON.parse(process.env.JOURNEY);

/** An OAuth client that keeps everything in memory and sends the person's browser to `decide`. */
class MemoryProvider {
  redirectUrl = 'http://127.0.0.1:1/callback';
  visits = [];

  constructor(clientName, authenticatesBy) {
    this.clientMetadata = {
      client_name: clientName,
      redirect_uris: [this.redirectUrl],
      grant_types: ['authorization_code', 'refresh_token'],
      response_types: ['code'],
      token_endpoint_auth_method: authenticatesBy,
    };
  }
  state() {
    return (this.expectedState = randomBytes(16).toString('hex'));
  }
  clientInformation() {
    return this.client;
  }
  saveClientInformation(client) {
    this.client = client;
  }
  tokens() {
    return this.held;
  }
  saveTokens(tokens) {
    this.held = tokens;
  }
  codeVerifier() {
    return this.verifier;
  }
  saveCodeVerifier(verifier) {
    this.verifier = verifier;
  }
  discoveryState() {
    return this.discovered;
  }
  saveDiscoveryState(state) {
    this.discovered = state;
  }
  invalidateCredentials(what) {
    if (what === 'all' || what === 'client') this.client = undefined;
    if (what === 'all' || what === 'tokens') this.held = undefined;
    if (what === 'all' || what === 'discovery') this.discovered = undefined;
  }
  async redirectToAuthorization(authorizationUrl) {
    this.visits.push(authorizationUrl);
  }
}

async function step(name, action) {
  try {
    await action();
    console.log(`ok ${name}`);
  } catch (error) {
    console.log(`not ok ${name}: ${String(error?.message ?? error).replaceAll('\n', ' ')}`);
    process.exit(1);
  }
}

/** What the endpoint itself says to a token, without an SDK between. */
async function statusOf(accessToken) {
  const response = await fetch(url, {
    method: 'POST',
    headers: {
      'content-type': 'application/json',
      accept: 'application/json, text/event-stream',
      ...(accessToken && { authorization: `Bearer ${accessToken}` }),
    },
    body: JSON.stringify({ jsonrpc: '2.0', id: 1, method: 'ping' }),
  });
  await response.body?.cancel();
  return { status: response.status, challenge: response.headers.get('www-authenticate') ?? '' };
}

/**
 * `sdk.connect(url, provider, era)` returns `{ client, transport, connected }`, where `connected` is
 * the promise of the handshake; `sdk.finish(transport, callback)` hands over the callback's URL;
 * `sdk.callTool(client, call, onprogress)` calls.
 */
export async function journey(name, sdk) {
  const provider = new MemoryProvider(name, sdk.authenticatesBy);
  const { UnauthorizedError, discoverOAuthServerInfo, refreshAuthorization } = sdk;
  const open = () => sdk.connect(url, provider, era);
  let client;
  let issuer;

  await step('is challenged without a token', async () => {
    const { status, challenge } = await statusOf();
    assert.equal(status, 401);
    assert.match(challenge, /^Bearer .*resource_metadata="/);
  });

  await step('discovers, registers and asks for consent', async () => {
    const { transport, connected } = open();
    await assert.rejects(connected, UnauthorizedError);
    assert.ok(provider.client?.client_id, 'no client was registered');
    assert.equal(provider.visits.length, 1);
    provider.waiting = transport;
  });

  await step('gets a token after consent', async () => {
    const callback = await decide(provider.visits[0], { passphrase });
    assert.equal(callback.searchParams.get('state'), provider.expectedState);
    assert.equal(callback.searchParams.get('iss'), new URL(url).origin);
    await sdk.finish(provider.waiting, callback);
    assert.ok(provider.held?.access_token && provider.held.refresh_token, 'no pair of tokens');
  });

  await step('connects and lists tools', async () => {
    const connection = open();
    await connection.connected;
    ({ client } = connection);
    if (era) assert.equal(sdk.revision(client), era);
    const { tools } = await client.listTools();
    for (const tool of [call.name, progress.name]) {
      assert.ok(tools.some((it) => it.name === tool), `${tool} is not listed`);
    }
  });

  await step('calls a tool', async () => {
    const { content } = await sdk.callTool(client, call);
    assert.ok(JSON.stringify(content).includes(call.expect), JSON.stringify(content));
  });

  await step('receives progress while a tool runs', async () => {
    const arrivals = [];
    const { isError } = await sdk.callTool(client, progress, () => arrivals.push(performance.now()));
    assert.ok(!isError);
    assert.ok(arrivals.length >= 2, `${arrivals.length} notifications`);
    assert.ok(arrivals.at(-1) - arrivals[0] > 20, 'all notifications came at once: something buffers');
  });

  const before = provider.held;
  await step('refreshes when its token is refused', async () => {
    provider.held = { ...before, access_token: 'an-access-token-of-the-past' };
    const { content } = await sdk.callTool(client, call);
    assert.ok(JSON.stringify(content).includes(call.expect), JSON.stringify(content));
    assert.notEqual(provider.held.access_token, before.access_token);
    assert.notEqual(provider.held.refresh_token, before.refresh_token);
    assert.equal(provider.visits.length, 1, 'the person was asked again');
  });

  await step('gets the same successor when it retries the refresh', async () => {
    const server = await discoverOAuthServerInfo(url);
    issuer = server.authorizationServerMetadata;
    const again = await refreshAuthorization(server.authorizationServerUrl, {
      metadata: issuer,
      clientInformation: provider.client,
      refreshToken: before.refresh_token,
      resource: new URL(server.resourceMetadata.resource),
    });
    assert.equal(again.refresh_token, provider.held.refresh_token);
    assert.notEqual((await statusOf(again.access_token)).status, 401);
  });

  await step('is refused after it revoked its token', async () => {
    const { client_id, client_secret } = provider.client;
    const { refresh_token } = provider.held;
    const response = await fetch(issuer.revocation_endpoint, {
      method: 'POST',
      body: new URLSearchParams({ token: refresh_token, client_id, ...(client_secret && { client_secret }) }),
    });
    assert.equal(response.status, 200);
    for (const { access_token } of [before, provider.held]) {
      const { status, challenge } = await statusOf(access_token);
      assert.equal(status, 401);
      assert.match(challenge, /error="invalid_token"/);
    }
    await assert.rejects(sdk.callTool(client, call), UnauthorizedError);
    assert.equal(provider.visits.length, 2, 'the SDK did not start over');
  });

  await client.close();
}
