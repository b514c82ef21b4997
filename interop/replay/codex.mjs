// Codex, which is made of rmcp: probes with GET and without an agent, writes a slash at the end of
// the resource, refreshes without it, and begins one new session when its own is lost.

import { inOneSession } from './actor.mjs';

const clientInfo = { name: 'codex-mcp-client', version: '0.171.0', title: 'Codex' };
const NO_AGENT = { Accept: '*/*' };

export default {
  ...inOneSession,
  title: 'Codex',
  seen: [
    'openai/codex#12859', // no User-Agent
    'openai/codex#5588', // GETs with a version header, before everything
    'openai/codex#35716', // slash at the end of the resource
    'openai/codex#33403', // refresh without resource
    'openai/codex#13514', // one new session at 404
    'anomalyco/opencode#47737', // its document
  ],
  signIn: {
    headers: NO_AGENT,
    metadataHeaders: { 'mcp-protocol-version': '2024-11-05' },
    probes: [{ method: 'GET', headers: { 'mcp-protocol-version': '2024-11-05' } }],
    document: 'https://chatgpt.com/oauth/codex/client.json',
    redirectUri: 'http://127.0.0.1:41239/callback',
    resource: (url) => `${url}/`,
  },
  refresh: { form: () => ({}) },
  calls: {
    headers: NO_AGENT,
    version: '2025-06-18',
    clientInfo,
    capabilities: { elicitation: {} },
    meta: { progressToken: 3 },
  },

  async connects(it) {
    await this.handshake(it);
    await it.lists('tools');
  },
  stumbles: {
    does: 'goes on after another process ended its session',
    async script(it) {
      const { session } = it;
      await it.endsSession();
      Object.assign(it, { session });
      await it.callsTool();
    },
  },
};
