// Cursor, made of the TypeScript SDK: registers a page, a program and an app at once, returns to its
// app, and needs 405 or a stream when it wants to listen. A lost session is begun again by hand.

import { initialize, inOneSession, nodeFetch } from './actor.mjs';

const clientInfo = { name: 'cursor-vscode', version: '1.0.0' };
const app = 'cursor://anysphere.cursor-mcp/oauth/callback';

export default {
  ...inOneSession,
  title: 'Cursor',
  seen: [
    'elie222/inbox-zero#3780', // its registration
    'punkpeye/mcp-proxy#62', // anything but 405 or a stream is an error, and it asks again
    'render-oss/render-mcp-server#26', // takes its stream up again with the same session
    'cursor/cursor#3640', // does not begin again by itself
  ],
  signIn: {
    headers: nodeFetch('Cursor/3.1.0 (linux x64)'),
    metadataHeaders: { 'MCP-Protocol-Version': '2025-11-25' },
    probes: [{ headers: { Accept: 'application/json, text/event-stream' }, body: initialize(0, '2025-11-25', clientInfo) }],
    registration: {
      client_name: 'Cursor',
      redirect_uris: [app, 'https://www.cursor.com/agents/mcp/oauth/callback', 'http://localhost:8787/callback'],
      application_type: 'web',
      grant_types: ['authorization_code', 'refresh_token'],
      response_types: ['code'],
      token_endpoint_auth_method: 'none',
    },
    redirectUri: app,
    scope: ({ metadata }) => metadata.scopes_supported?.join(' '),
  },
  calls: {
    headers: nodeFetch('Cursor/3.1.0 (linux x64)'),
    version: '2025-11-25',
    clientInfo,
    capabilities: { roots: { listChanged: false }, elicitation: {} },
    answers: { 'roots/list': { roots: [] } },
  },

  stumbles: {
    does: 'takes its stream up again with the same session',
    async script(it) {
      await it.listens();
      await it.callsTool();
    },
  },
};
