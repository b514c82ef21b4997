// The TypeScript SDK, first generation: what most clients in the field are built on.

import {
  discoverOAuthServerInfo,
  refreshAuthorization,
  UnauthorizedError,
} from '@modelcontextprotocol/sdk/client/auth.js';
import { Client } from '@modelcontextprotocol/sdk/client/index.js';
import { StreamableHTTPClientTransport } from '@modelcontextprotocol/sdk/client/streamableHttp.js';

import { journey } from './journey.mjs';

await journey('Interop TypeScript 1', {
  authenticatesBy: 'none',
  UnauthorizedError,
  discoverOAuthServerInfo,
  refreshAuthorization,
  connect(url, authProvider) {
    const client = new Client({ name: 'interop', version: '1' });
    const transport = new StreamableHTTPClientTransport(new URL(url), { authProvider });
    return { client, transport, connected: client.connect(transport) };
  },
  finish: (transport, callback) => transport.finishAuth(callback.searchParams.get('code')),
  callTool: (client, { name, arguments: args }, onprogress) =>
    client.callTool({ name, arguments: args }, undefined, { onprogress }),
});
