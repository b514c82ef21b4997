// Claude's connector since August 2026: `server/discover` first. Where that succeeds, new bodies
// under the old version header; where it does not, a handshake before each call, the new version
// header after it, and never a session id.

import { httpx, initialize, MODERN, modernMeta } from './actor.mjs';
import claude2025 from './claude_2025.mjs';

const clientInfo = { name: 'Anthropic/ClaudeAI', version: '1.0.0' };

export default {
  title: 'Claude 2026',
  seen: [
    'hauptsacheNet/typo3-mcp-server#110', // server/discover first
    'anthropics/claude-ai-mcp#975', // 0 of 30 requests had the session id; ten machines
    'CodeWithCJ/SparkyFitness#2155', // header 2026-07-28 after a handshake of 2025-11-25
    'anthropics/claude-code#93290', // header 2025-11-25 over a body of 2026-07-28
    'anthropics/claude-code#96183', // `initialize` after a good discover
    'anthropics/claude-ai-mcp#96', // its document
  ],
  addresses: 10,
  signIn: {
    ...claude2025.signIn,
    document: 'https://claude.ai/oauth/mcp-oauth-client-metadata',
    registrations: 1,
    probes: [
      { headers: { 'MCP-Protocol-Version': MODERN }, body: initialize(1, MODERN, { name: 'Anthropic', version: '1.0.0' }) },
      ...claude2025.signIn.probes.slice(1),
    ],
  },
  calls: {
    headers: httpx('Claude-User'),
    version: MODERN,
    clientInfo,
    headersOf: (it, { method }) => ({
      'MCP-Protocol-Version': it.negotiated === MODERN ? '2025-11-25' : MODERN,
      ...(method === 'server/discover' && { 'Mcp-Method': method }),
    }),
  },

  /** Finds out what the server speaks, as it does before everything. */
  async handshake(it) {
    it.session = it.negotiated = undefined;
    const discovered = await it.request('server/discover', { _meta: modernMeta(clientInfo) }, { isProbe: true });
    if (discovered?.supportedVersions.includes(MODERN)) {
      it.negotiated = MODERN;
      return;
    }
    await it.initializes();
    await it.notify('notifications/initialized');
  },
  async connects(it) {
    await this.handshake(it);
    await it.lists('tools', 'prompts', 'resources');
  },
  /** Looks at the tools first, when a chat is opened, as if its last handshake held for ever. */
  async works(it, tool) {
    await it.lists('tools');
    await this.handshake(it);
    await it.callsTool({ tool });
  },
  stumbles: {
    does: 'shakes hands after a good discover, with a token that was replaced meanwhile',
    async script(it) {
      it.access = 'mcp_a_token_of_another_time';
      await it.initializes();
      await it.notify('notifications/initialized');
      await it.callsTool();
    },
  },
  ends: (it) => it.lists('tools'),
};
