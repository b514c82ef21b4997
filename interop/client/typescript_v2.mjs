// The TypeScript SDK, second generation: the handshake by default, or one modern revision exactly.

import {
  Client,
  discoverOAuthServerInfo,
  refreshAuthorization,
  StreamableHTTPClientTransport,
  UnauthorizedError,
} from '@modelcontextprotocol/client';

import { journey } from './journey.mjs';

await journey('Interop TypeScript 2', {
  authenticatesBy: 'client_secret_post',
  UnauthorizedError,
  discoverOAuthServerInfo,
  refreshAuthorization,
  connect(url, authProvider, era) {
    const client = new Client(
      { name: 'interop', version: '1' },
      era && { versionNegotiation: { mode: { pin: era } } },
    );
    const transport = new StreamableHTTPClientTransport(new URL(url), { authProvider });
    return { client, transport, connected: client.connect(transport) };
  },
  finish: (transport, callback) => transport.finishAuth(callback.searchParams),
  revision: (client) => client.getNegotiatedProtocolVersion(),
  callTool: (client, { name, arguments: args }, onprogress) =>
    client.callTool({ name, arguments: args }, { onprogress }),
});
