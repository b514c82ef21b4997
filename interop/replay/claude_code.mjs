// Claude Code, made of the TypeScript SDK: asks the server what it speaks, shakes hands whatever the
// answer is, and from then on sends the version twice in one header. Several processes of it share
// one refresh token.

import { byTheBook, initialize, inOneSession, MODERN, modernMeta, nodeFetch } from './actor.mjs';

const clientInfo = { name: 'claude-code', version: '2.1.280' };
const AGENT = nodeFetch('claude-code/2.1.280 (cli)');

export default {
  ...inOneSession,
  title: 'Claude Code',
  seen: [
    'lowdefy/lowdefy#2345', // the version header twice
    'anthropics/claude-code#96183', // `initialize` after a good discover
    'anthropics/claude-code#85236', // several processes, one refresh token
    'anthropics/claude-code#37747', // any free port of localhost
    'anthropics/claude-code#37767', // its document
  ],
  signIn: {
    headers: AGENT,
    metadataHeaders: { 'MCP-Protocol-Version': '2025-11-25' },
    probes: [{ headers: { Accept: 'application/json, text/event-stream' }, body: initialize(0, '2025-11-25', clientInfo) }],
    document: 'https://claude.ai/oauth/claude-code-client-metadata',
    redirectUri: 'http://localhost:51234/callback',
    scope: ({ scope, metadata }) =>
      [scope, metadata.scopes_supported?.includes('offline_access') && 'offline_access'].filter(Boolean).join(' '),
  },
  calls: {
    headers: AGENT,
    version: '2025-11-25',
    clientInfo,
    capabilities: { roots: {}, elicitation: {} },
    answers: { 'roots/list': { roots: [{ uri: 'file:///home/me/project' }] } },
    meta: { progressToken: 7, 'claudecode/toolUseId': 'toolu_01' },
    headersOf: (it, message, { isProbe }) => ({
      ...byTheBook(it, message),
      'MCP-Protocol-Version': isProbe ? MODERN : it.negotiated ? `${it.negotiated}, ${it.negotiated}` : '2025-11-25',
      ...(isProbe && { 'Mcp-Method': message.method }),
    }),
  },

  async handshake(it) {
    await it.request('server/discover', { _meta: modernMeta(clientInfo) }, { isProbe: true });
    await it.initializes();
    await it.notify('notifications/initialized');
    await it.listens();
  },
  stumbles: {
    does: 'refreshes once more, from a process that still has the old token',
    async script(it) {
      const { refresh } = it;
      await it.refreshes();
      Object.assign(it, { refresh });
      await it.refreshes();
      await this.works(it);
    },
  },
};
