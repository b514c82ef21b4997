// A client by hand, for the parts that are about something else: a browser, a restart, a suite
// that knows nothing of tokens.

import { createHash, randomBytes } from 'node:crypto';

import { check } from '../lib.mjs';
import { decide } from '../person.mjs';

export async function register(issuer, redirectUri, more = {}) {
  const response = await fetch(`${issuer}/register`, {
    method: 'POST',
    headers: { 'content-type': 'application/json' },
    body: JSON.stringify({ redirect_uris: [redirectUri], token_endpoint_auth_method: 'none', ...more }),
  });
  check(response.status === 201, `/register answered ${response.status}: ${await response.clone().text()}`);
  return response.json();
}

/** An authorization request: where the browser goes, and what redeems its code. */
export function request(issuer, { clientId, redirectUri, resource }) {
  const verifier = randomBytes(32).toString('base64url');
  const url = new URL(`${issuer}/authorize`);
  const state = randomBytes(8).toString('hex');
  url.search = new URLSearchParams({
    response_type: 'code',
    client_id: clientId,
    redirect_uri: redirectUri,
    state,
    code_challenge: createHash('sha256').update(verifier).digest('base64url'),
    code_challenge_method: 'S256',
    ...(resource && { resource }),
  });
  return {
    url: url.href,
    state,
    redeem: (code) =>
      fetch(`${issuer}/token`, {
        method: 'POST',
        body: new URLSearchParams({
          grant_type: 'authorization_code',
          client_id: clientId,
          redirect_uri: redirectUri,
          code,
          code_verifier: verifier,
        }),
      }),
  };
}

/** The whole way to the tokens for one resource. */
export async function obtainTokens(issuer, { resource, passphrase }) {
  const redirectUri = 'http://127.0.0.1:1/callback';
  const { client_id: clientId } = await register(issuer, redirectUri, { client_name: 'Interop' });
  const asked = request(issuer, { clientId, redirectUri, resource });
  const callback = await decide(asked.url, { passphrase });
  const response = await asked.redeem(callback.searchParams.get('code'));
  check(response.status === 200, `/token answered ${response.status}: ${await response.clone().text()}`);
  return { clientId, ...(await response.json()) };
}

const REVISION = '2026-07-28';

/** Calls a tool in the modern era: one request, no session. Returns the response as it streams. */
export function callTool(resource, accessToken, name, args, meta = {}) {
  return fetch(resource, {
    method: 'POST',
    headers: {
      authorization: `Bearer ${accessToken}`,
      'content-type': 'application/json',
      accept: 'application/json, text/event-stream',
      'mcp-protocol-version': REVISION,
      'mcp-method': 'tools/call',
      'mcp-name': name,
    },
    body: JSON.stringify({
      jsonrpc: '2.0',
      id: 1,
      method: 'tools/call',
      params: {
        name,
        arguments: args,
        _meta: {
          'io.modelcontextprotocol/protocolVersion': REVISION,
          'io.modelcontextprotocol/clientInfo': { name: 'interop', version: '1' },
          'io.modelcontextprotocol/clientCapabilities': {},
          ...meta,
        },
      },
    }),
  });
}
