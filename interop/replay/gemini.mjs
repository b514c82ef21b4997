// Gemini CLI, made of the TypeScript SDK: compares the resource to the letter, asks for all scopes
// that there are, and again at each refresh, which comes before the end of the token.

import { initialize, inOneSession, nodeFetch } from './actor.mjs';

const clientInfo = { name: 'gemini-cli-mcp-client', version: '0.0.1' };

export default {
  ...inOneSession,
  title: 'Gemini CLI',
  seen: [
    // packages/core/src/mcp/oauth-provider.ts and oauth-utils.ts
    'google-gemini/gemini-cli#20017', // the resource to the letter
  ],
  signIn: {
    headers: nodeFetch(),
    probes: [{ headers: { Accept: 'application/json, text/event-stream' }, body: initialize(0, '2025-06-18', clientInfo) }],
    registration: {
      client_name: 'Gemini CLI MCP Client',
      redirect_uris: ['http://localhost:7777/oauth/callback'],
      grant_types: ['authorization_code', 'refresh_token'],
      response_types: ['code'],
      token_endpoint_auth_method: 'none',
      scope: '',
    },
    redirectUri: 'http://localhost:40001/oauth/callback',
    scope: ({ metadata }) => metadata.scopes_supported?.join(' '),
    tokenHeaders: { Accept: 'application/json, application/x-www-form-urlencoded' },
  },
  refresh: {
    early: 5,
    form: (it) => ({ scope: it.found.metadata.scopes_supported?.join(' ') ?? '', resource: it.server.url }),
  },
  calls: {
    headers: nodeFetch(),
    version: '2025-06-18',
    clientInfo,
    capabilities: { roots: { listChanged: true } },
    answers: { 'roots/list': { roots: [] } },
  },

  stumbles: {
    does: 'refreshes when its token is refused',
    async script(it) {
      it.access = 'a-token-of-another-time';
      await this.works(it);
    },
  },
  ends: (it) => it.lists('tools'),
};
