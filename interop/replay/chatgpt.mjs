// ChatGPT: one machine looks after the connection, another calls tools. The second leaves the
// session id out. Both send reserved names in `_meta` that belong to the new era, under 2025-11-25.

import { byTheBook, httpx, initialize } from './actor.mjs';

const callback = 'https://chatgpt.com/connector/oauth/tU1UVEq8rRTK';
const clientInfo = { name: 'openai-mcp', version: '1.0.0' };
const LOOKS_AFTER = httpx('openai-mcp/1.0.0 (ChatGPT)');
const CALLS = httpx('openai-mcp/1.0.0');

export default {
  title: 'ChatGPT',
  seen: [
    'modelcontextprotocol/ext-apps#647', // two machines, two agents; calls without the session id
    'openai/openai-apps-sdk-examples#201', // a handshake for each batch of calls
    'stacklok/toolhive#6188', // reserved names in _meta under 2025-11-25
    'kernel/kernel-mcp-server#91', // looks for the metadata at the root too
    'omi#8824', // a callback for each connector
  ],
  addresses: 2,
  signIn: {
    headers: LOOKS_AFTER,
    probes: [{ headers: { Accept: 'application/json, text/event-stream' }, body: initialize(0, '2025-11-25', clientInfo) }],
    resourceMetadata: ['challenge', 'root', 'path'],
    registration: {
      client_name: 'ChatGPT',
      redirect_uris: [callback],
      grant_types: ['authorization_code', 'refresh_token'],
      response_types: ['code'],
      token_endpoint_auth_method: 'none',
    },
    redirectUri: callback,
    scope: ({ metadata }) => metadata.scopes_supported?.join(' '),
  },
  calls: {
    headers: LOOKS_AFTER,
    version: '2025-11-25',
    clientInfo,
    how: { calls: true },
    headersOf: (it, message, { calls }) => ({
      ...byTheBook(it, message), ...(calls && { ...CALLS, ...(message.method !== 'initialize' && { 'Mcp-Session-Id': undefined }) }),
    }),
  },

  async handshake(it) {
    await it.initializes();
    await it.notify('notifications/initialized');
  },
  async connects(it) {
    await this.handshake(it);
    await it.lists('tools', 'resources');
  },
  /** The machine that calls has a session of its own, and the other goes on with its. */
  async works(it, tool) {
    const { session } = it;
    await it.initializes({ calls: true });
    await it.callsTool({
      tool,
      calls: true,
      meta: { 'io.modelcontextprotocol/clientInfo': clientInfo, 'openai/userAgent': 'ChatGPT/1.2026', 'openai/locale': 'en-GB' },
    });
    it.session = session;
    await it.lists('tools');
  },
  stumbles: {
    does: 'gives its token up, and the person signs in again',
    async script(it) {
      await it.revokes();
      await it.becomesKnown();
      await it.asksThePerson();
      await this.connects(it);
      await this.works(it);
    },
  },
  ends: (it) => it.endsSession(),
};
