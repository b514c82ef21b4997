// Claude's connector until July 2026: the handshake of 2025-11-25, a session for each call, sessions
// returned, but spread over machines of which one forgets the session. Discovery, registration and
// tokens come as `python-httpx`, calls as `Claude-User`.

import { byTheBook, httpx, initialize } from './actor.mjs';

const UI = { extensions: { 'io.modelcontextprotocol/ui': { mimeTypes: ['text/html;profile=mcp-app'] } } };
const clientInfo = { name: 'Anthropic/ClaudeAI', version: '1.0.0' };

export default {
  title: 'Claude 2025',
  seen: [
    'anthropics/claude-ai-mcp#217', // both probes, byte for byte
    'anthropics/claude-ai-mcp#82', // asks for a secret when it registers
    'anthropics/claude-ai-mcp#654', // registers twice
    'anthropics/claude-ai-mcp#99', // order of the requests; the notification without its session
    'anthropics/claude-ai-mcp#70', // no version header
    'anthropics/claude-ai-mcp#583', // a handshake before each call
    'aipotheosis-labs/gate22#90', // lists prompts and resources, and pings, whatever the server can
    'jlowin/fastmcp#4264', // refreshes from two machines
  ],
  addresses: 4,
  signIn: {
    headers: httpx('python-httpx/0.28.1'),
    probes: [
      { headers: { 'MCP-Protocol-Version': '2025-11-25' }, body: initialize(1, '2025-11-25', { name: 'Anthropic', version: '1.0.0' }) },
      { headers: { Accept: 'application/json, text/event-stream' }, body: initialize(0, '2025-11-25', clientInfo, UI) },
    ],
    registration: {
      client_name: 'Claude',
      redirect_uris: ['https://claude.ai/api/mcp/auth_callback'],
      grant_types: ['authorization_code', 'refresh_token'],
      response_types: ['code'],
      token_endpoint_auth_method: 'client_secret_post',
      scope: 'claudeai',
    },
    registrations: 2,
    redirectUri: 'https://claude.ai/api/mcp/auth_callback',
    scope: ({ scope, metadata }) =>
      [scope, metadata.scopes_supported?.includes('offline_access') && 'offline_access'].filter(Boolean).join(' '),
  },
  // Five minutes before the end of the hour that a token lives elsewhere.
  refresh: { early: 5 },
  calls: {
    headers: httpx('Claude-User'),
    version: '2025-11-25',
    clientInfo,
    capabilities: UI,
    headersOf: (it, message, { forgetsSession }) => ({
      ...byTheBook(it, message), ...(forgetsSession && { 'Mcp-Session-Id': undefined }), 'MCP-Protocol-Version': undefined,
    }),
  },

  async handshake(it) {
    await it.initializes();
    await it.notify('notifications/initialized');
  },
  async connects(it) {
    await it.initializes();
    await it.lists('tools');
    await it.notify('notifications/initialized', { forgetsSession: true });
    await it.request('ping');
    await it.lists('prompts', 'resources');
    await it.endsSession();
  },
  async works(it, tool) {
    await this.handshake(it);
    await it.callsTool({ tool });
  },
  stumbles: {
    does: 'refreshes from two machines at once',
    async script(it) {
      const { refresh } = it;
      const [one, other] = await Promise.all([it.refreshes(), Object.assign(Object.create(it), { refresh }).refreshes()]);
      if (one.refresh_token !== other.refresh_token) throw new Error('the machines got different refresh tokens');
      await this.works(it);
    },
  },
  ends: (it) => it.endsSession(),
};
