// VS Code: no version header on calls, its stream opened before the handshake is over, a lost
// session at 400 as well as at 404, and a new registration at any 401 or 403.

import { byTheBook, initialize, inOneSession, nodeFetch } from './actor.mjs';

const clientInfo = { name: 'Visual Studio Code', version: '1.137.0' };
const capabilities = { roots: { listChanged: true }, sampling: {}, elicitation: { form: {}, url: {} } };
const AGENT = nodeFetch('Visual Studio Code/1.137.0');
const accept = 'text/event-stream, application/json';

export default {
  ...inOneSession,
  title: 'VS Code',
  seen: [
    // src/vs/workbench/api/common/extHostMcp.ts and src/vs/base/common/oauth.ts
    'microsoft/vscode#308766', // no version header
    'microsoft/vscode#278512', // another port when its own is busy
    'microsoft/vscode#298300', // its document
  ],
  signIn: {
    headers: AGENT,
    metadataHeaders: { Accept: 'application/json', 'MCP-Protocol-Version': '2025-11-25' },
    probes: [{ headers: { Accept: accept }, body: initialize(1, '2025-11-25', clientInfo, capabilities) }],
    document: 'https://vscode.dev/oauth/client-metadata.json',
    registration: {
      client_name: 'Visual Studio Code',
      client_uri: 'https://code.visualstudio.com',
      grant_types: ['authorization_code', 'refresh_token', 'urn:ietf:params:oauth:grant-type:device_code'],
      response_types: ['code'],
      redirect_uris: [
        'https://insiders.vscode.dev/redirect', 'https://vscode.dev/redirect', 'http://127.0.0.1/', 'http://127.0.0.1:33418/',
      ],
      token_endpoint_auth_method: 'none',
      application_type: 'native',
    },
    redirectUri: 'http://127.0.0.1:33418/',
    tokenHeaders: { Accept: 'application/json' },
  },
  refresh: { early: 0 },
  calls: {
    headers: AGENT,
    accept,
    version: '2025-11-25',
    clientInfo,
    capabilities,
    answers: { 'roots/list': { roots: [{ uri: 'file:///home/me/project', name: 'project' }] } },
    meta: { progressToken: '1106ae9e', 'vscode.conversationId': 'dc30885e', 'vscode.requestId': 'bf766dd8' },
    headersOf: (it, message) => ({ ...byTheBook(it, message), 'MCP-Protocol-Version': undefined }),
    startsAgainAt: [400, 404],
    /** The person signs in anew, this time at another port. */
    async refused(it) {
      await it.becomesKnown({ ownDocument: undefined });
      await it.asksThePerson({ redirectUri: 'http://127.0.0.1:60123/' });
    },
  },

  async handshake(it) {
    await it.initializes();
    await it.listens();
    await it.notify('notifications/initialized');
  },
  stumbles: {
    does: 'registers anew when its token is refused',
    async script(it) {
      it.access = 'a-token-of-another-time';
      await this.works(it);
    },
  },
};
