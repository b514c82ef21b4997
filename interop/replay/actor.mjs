// The actor of all replays. A profile says what one client is and does; the actor signs in, speaks
// MCP and listens in that manner, and insists on what such a client needs in order to go on.
//
// A profile is data and some short scripts:
//   title, seen                  its name, and where its behaviour was reported
//   addresses                    from how many machines it sends; one unless it says so
//   signIn.headers               what is in every request until it has a token
//   signIn.probes                its requests without a token
//   signIn.resourceMetadata      where it looks: 'challenge', 'path', 'root'
//   signIn.document              its metadata document, used where the server takes those, or
//   signIn.registration          what it registers, `signIn.registrations` times
//   signIn.redirectUri           where it waits for the code
//   signIn.resource(url)         how it spells the resource, when it signs in
//   signIn.scope(found)          the scopes that it asks for
//   refresh.early                seconds before the end of a token; without it, only at a 401
//   refresh.form(it)             what it sends beside the token
//   calls.headers                what is in every request with a token
//   calls.version                the revision that it asks for in `initialize`
//   calls.headersOf(it, message) its headers about version and session
//   calls.meta                   `_meta` of its tool calls, in the scripts of `inOneSession`
//   calls.startsAgainAt          the statuses at which it begins a new session: 404
//   listens                      whether it keeps a stream open
//   handshake, connects, works, stumbles, ends

import { createHash, randomBytes } from 'node:crypto';
import http from 'node:http';
import { setTimeout as pause } from 'node:timers/promises';

import { check } from '../lib.mjs';
import { decide } from '../person.mjs';

export const MODERN = '2026-07-28';
const WELL_KNOWN = '/.well-known/';
const RESOURCE_METADATA = `${WELL_KNOWN}oauth-protected-resource`;
const EITHER = 'application/json, text/event-stream';
const JSON_TYPE = { 'Content-Type': 'application/json' };

/** Headers that HTTP libraries send by themselves. */
export const httpx = (agent) => ({ Accept: '*/*', 'Accept-Encoding': 'gzip, deflate', Connection: 'keep-alive', 'User-Agent': agent });
export const nodeFetch = (agent = 'node') => ({
  Accept: '*/*', 'Accept-Language': '*', 'Sec-Fetch-Mode': 'cors', 'User-Agent': agent, 'Accept-Encoding': 'gzip, deflate',
});

/** Joins sets of headers into one list. A later one replaces an earlier one of its name; `undefined` removes it. */
function together(...sets) {
  const all = new Map();
  for (const [name, value] of sets.flatMap((set) => Object.entries(set ?? {}))) all.set(name.toLowerCase(), [name, value]);
  return [...all.values()].filter(([, value]) => value !== undefined).flatMap(([name, value]) => [name, String(value)]);
}

/** The headers of a client that keeps to the specification: session and negotiated version. */
export const byTheBook = (it, { method, params }) => ({
  ...(it.session && { 'Mcp-Session-Id': it.session }),
  ...(it.negotiated && { 'MCP-Protocol-Version': it.negotiated }),
  ...(it.negotiated === MODERN && method && { 'Mcp-Method': method }),
  ...(it.negotiated === MODERN && params?.name && { 'Mcp-Name': params.name }),
});

export const initialize = (id, protocolVersion, clientInfo, capabilities = {}) => ({
  jsonrpc: '2.0', id, method: 'initialize', params: { protocolVersion, capabilities, clientInfo },
});

/** The scripts of a client that keeps to one session and listens in it. A profile replaces what it does otherwise. */
export const inOneSession = {
  listens: true,

  async handshake(it) {
    await it.initializes();
    await it.notify('notifications/initialized');
    await it.listens();
  },
  async connects(it) {
    await this.handshake(it);
    await it.lists('tools', 'prompts', 'resources');
  },
  async works(it) {
    await it.listensAgain();
    await it.callsTool({ meta: this.calls.meta });
  },
  ends: (it) => it.endsSession(),
};

let actors = 0;

export class Actor {
  /**
   * `server` is `{ name, url, call, slow, session?, bearer? }`: tools to call, and a `bearer` if the
   * server itself is called, without the proxy. `passphrase` is the person's; `saw` receives every exchange.
   */
  constructor(profile, server, { passphrase, saw = () => {} }) {
    Object.assign(this, { profile, server, passphrase, saw });
    this.number = actors += 1;
    this.isDirect = Boolean(server.bearer);
    this.access = server.bearer;
    this.connections = new http.Agent({ keepAlive: true });
    this.requests = 0;
    this.lastId = 0;
  }

  get title() {
    return `${this.profile.title} · ${this.server.name}`;
  }

  // ---- HTTP

  /**
   * Sends exactly these headers, from one of the client's machines. Returns the answer, whose `text`
   * is missing when it is a stream that shall stay open.
   */
  async send(method, url, headerSets, body = '', { keepsOpen } = {}) {
    const { host, hostname, port, pathname, search } = new URL(url);
    const path = pathname + search;
    const headers = together({ Host: host }, ...headerSets, body && { 'Content-Length': Buffer.byteLength(body) });
    const machine = 1 + ((this.requests += 1) % (this.profile.addresses ?? 1));
    const sent = `${method} ${path} ${headers.join(' ').replace(/Bearer \S+/, 'Bearer …')} ${body}`;
    const broken = (error) => {
      throw new Error(`${error.message}\nat ${sent}`);
    };
    const answer = await new Promise((done, fail) => {
      http
        .request({
          method, hostname, port, path, headers, setHost: false,
          agent: this.connections, localAddress: `127.77.${this.number}.${machine}`,
        })
        .on('response', done)
        .on('error', fail)
        .end(body);
    }).catch(broken);
    const { statusCode: status, rawHeaders } = answer;
    if (keepsOpen && status === 200) return { status, headers: answer.headers, sent, stream: answer };
    const received = Buffer.concat(await answer.toArray().catch(broken));
    this.saw({ method, path, headers, sent: Buffer.from(body), status, answer: rawHeaders, received });
    return { status, headers: answer.headers, sent, text: received.toString() };
  }

  async document(url) {
    const answer = await this.send('GET', url, [this.profile.signIn.headers, this.profile.signIn.metadataHeaders]);
    // Where there is nothing, clients look further; anything else ends their search.
    if (answer.status === 404) return undefined;
    check(answer.status === 200 && /^application\/json/.test(answer.headers['content-type']), tells(answer, 'a document or 404'));
    return JSON.parse(answer.text);
  }

  // ---- signing in

  async signsIn() {
    const { signIn } = this.profile;
    let challenge;
    for (const { method = 'POST', headers, body } of signIn.probes) {
      challenge = await this.isChallenged(method, [signIn.headers, headers], body);
    }
    await this.discovers(challenge);
    await this.becomesKnown();
    await this.asksThePerson();
  }

  async isChallenged(method, headerSets, body) {
    const answer = await this.send(method, this.server.url, [...headerSets, body && JSON_TYPE], body && JSON.stringify(body));
    check(answer.status === 401, tells(answer, 'a challenge'));
    const [, metadata] = answer.headers['www-authenticate']?.match(/^Bearer .*resource_metadata="([^"]+)"/) ?? [];
    check(metadata, tells(answer, 'a challenge with resource_metadata'));
    const [, scope] = answer.headers['www-authenticate'].match(/scope="([^"]+)"/) ?? [];
    return { metadata, scope };
  }

  async discovers(challenge) {
    const { origin, pathname } = new URL(this.server.url);
    const places = {
      challenge: challenge.metadata, path: `${origin}${RESOURCE_METADATA}${pathname}`, root: `${origin}${RESOURCE_METADATA}`,
    };
    let resource;
    for (const place of this.profile.signIn.resourceMetadata ?? ['challenge']) {
      resource = (await this.document(places[place])) ?? resource;
    }
    check(resource?.resource === this.server.url, `the resource is described as ${resource?.resource}`);
    const [issuer] = resource.authorization_servers;
    const metadata = await this.document(`${issuer}${WELL_KNOWN}oauth-authorization-server`);
    check(metadata?.issuer === issuer, `the issuer is ${metadata?.issuer}, not ${issuer}`);
    this.found = { metadata, scope: challenge.scope };
  }

  async becomesKnown({ registration = this.profile.signIn.registration, ownDocument = this.profile.signIn.document } = {}) {
    const { metadata } = this.found;
    const takesDocuments =
      metadata.client_id_metadata_document_supported && metadata.token_endpoint_auth_methods_supported.includes('none');
    if (ownDocument && takesDocuments) {
      this.client = { client_id: ownDocument };
      return;
    }
    for (let times = this.profile.signIn.registrations ?? 1; times > 0; times -= 1) {
      const answer = await this.send(
        'POST', metadata.registration_endpoint, [this.profile.signIn.headers, JSON_TYPE], JSON.stringify(registration),
      );
      check(answer.status === 201, tells(answer, 'a registration'));
      this.client = JSON.parse(answer.text);
    }
  }

  async asksThePerson({ redirectUri = this.profile.signIn.redirectUri } = {}) {
    const { signIn } = this.profile;
    const { metadata } = this.found;
    const verifier = randomBytes(32).toString('base64url');
    const state = randomBytes(16).toString('base64url');
    const resource = signIn.resource?.(this.server.url) ?? this.server.url;
    const scope = signIn.scope?.(this.found) ?? this.found.scope;
    const url = new URL(metadata.authorization_endpoint);
    url.search = new URLSearchParams({
      response_type: 'code',
      client_id: this.client.client_id,
      redirect_uri: redirectUri,
      code_challenge: createHash('sha256').update(verifier).digest('base64url'),
      code_challenge_method: 'S256',
      state,
      ...(scope && { scope }),
      resource,
    });
    const back = await decide(url.href, { passphrase: this.passphrase });
    check(back.href.startsWith(redirectUri), `the browser was sent to ${back}`);
    check(back.searchParams.get('state') === state, 'the state is another');
    check(back.searchParams.get('iss') === metadata.issuer, `iss is ${back.searchParams.get('iss')}`);
    await this.takesTokens({
      grant_type: 'authorization_code',
      code: back.searchParams.get('code'),
      redirect_uri: redirectUri,
      code_verifier: verifier,
      resource,
    });
  }

  async takesTokens(form) {
    const { client_id, client_secret } = this.client;
    const body = new URLSearchParams({ ...form, client_id, ...(client_secret && { client_secret }) });
    const answer = await this.send(
      'POST', this.found.metadata.token_endpoint,
      [this.profile.signIn.headers, { 'Content-Type': 'application/x-www-form-urlencoded' }, this.profile.signIn.tokenHeaders],
      body.toString(),
    );
    check(answer.status === 200, tells(answer, 'tokens'));
    const tokens = JSON.parse(answer.text);
    check(tokens.access_token && tokens.refresh_token, 'there is no pair of tokens');
    this.access = tokens.access_token;
    this.refresh = tokens.refresh_token;
    this.accessEnds = Date.now() + tokens.expires_in * 1000;
    return tokens;
  }

  refreshes() {
    const form = this.profile.refresh?.form?.(this) ?? { resource: this.server.url };
    return this.takesTokens({ grant_type: 'refresh_token', refresh_token: this.refresh, ...form });
  }

  /** Gives its tokens up, and sees that they are. */
  async revokes() {
    const { client_id, client_secret } = this.client;
    const form = new URLSearchParams({ token: this.refresh, client_id, ...(client_secret && { client_secret }) });
    const headers = [this.profile.signIn.headers, { 'Content-Type': 'application/x-www-form-urlencoded' }];
    const answer = await this.send('POST', this.found.metadata.revocation_endpoint, headers, form.toString());
    check(answer.status === 200, tells(answer, 'a revocation'));
    const call = await this.postOnce({ jsonrpc: '2.0', id: 0, method: 'tools/list' });
    check(call.status === 401, tells(call, 'a challenge'));
  }

  // ---- calling

  /** Sends with a token that works: a new one before the end of the old where the client does that, else at a 401. */
  async withToken(send) {
    const { refresh, calls } = this.profile;
    if (refresh?.early !== undefined && Date.now() > this.accessEnds - refresh.early * 1000) await this.refreshes();
    const answer = await send();
    if (answer.status !== 401) return answer;
    check(/error="invalid_token"/.test(answer.headers['www-authenticate']), tells(answer, 'a challenge with the reason'));
    await (calls.refused ?? (() => this.refreshes()))(this);
    return send();
  }

  /** POSTs one message. Where the session is lost, begins a new one and sends it once more. */
  async post(message, how = {}) {
    const send = () => this.withToken(() => this.postOnce(message, how));
    const answer = await send();
    const isSessionOver = (this.profile.calls.startsAgainAt ?? [404]).includes(answer.status);
    if (!isSessionOver || this.isStarting || how.isProbe || message.method === 'initialize') return answer;
    this.session = this.negotiated = undefined;
    this.isStarting = true;
    await this.profile.handshake(this).finally(() => (this.isStarting = false));
    return send();
  }

  postOnce(message, how = {}) {
    const accept = { Accept: this.profile.calls.accept ?? EITHER };
    return this.send('POST', this.server.url, [...this.headers(message, how), accept, JSON_TYPE], JSON.stringify(message));
  }

  /** Headers of every request with a token. Towards the server itself, the client keeps to the specification. */
  headers(message = {}, how = {}) {
    const headersOf = (!this.isDirect && this.profile.calls.headersOf) || byTheBook;
    return [this.profile.calls.headers, { Authorization: `Bearer ${this.access}` }, headersOf(this, message, how)];
  }

  /** Sends a request and returns its result; `params._meta` is the modern era's where that is spoken. */
  async request(method, params = {}, how = {}) {
    const id = (this.lastId += 1);
    if (this.negotiated === MODERN) params = { ...params, _meta: { ...modernMeta(this.profile.calls.clientInfo), ...params._meta } };
    const answer = await this.post({ jsonrpc: '2.0', id, method, params }, how);
    const message = answerTo(id, answer);
    if (how.isProbe && !message?.result) return undefined;
    check(answer.status === 200 && message?.result, tells(answer, `a result of ${method}`));
    this.answered = answer;
    return message.result;
  }

  async notify(method, how = {}) {
    const answer = await this.post({ jsonrpc: '2.0', method }, how);
    check(answer.status === 202 && answer.text === '', tells(answer, `202 for ${method}`));
  }

  async initializes(how) {
    const { version, clientInfo, capabilities = {} } = this.profile.calls;
    this.session = this.negotiated = undefined;
    const { protocolVersion } = await this.request('initialize', { protocolVersion: version, capabilities, clientInfo }, how);
    this.session = this.answered.headers['mcp-session-id'];
    this.negotiated = protocolVersion;
  }

  async lists(...kinds) {
    for (const kind of kinds) {
      const result = await this.request(`${kind}/list`);
      check(Array.isArray(result[kind]), `${kind}/list has no ${kind}`);
      if (kind === 'tools') check(result.tools.some(({ name }) => name === this.server.call.name), 'the tool is not listed');
    }
  }

  async callsTool({ tool = this.server.call, meta, ...how } = {}) {
    const { name, arguments: given, expect } = tool;
    const { content } = await this.request('tools/call', { name, arguments: given, ...(meta && { _meta: meta }) }, how);
    check(JSON.stringify(content).includes(expect), `the tool answered ${JSON.stringify(content)}`);
    return content[0].text;
  }

  /** Ends the session, once all that the server asked is answered. A server without any may say so. */
  async endsSession() {
    this.stream?.destroy();
    await this.answering;
    const answer = await this.withToken(() => this.send('DELETE', this.server.url, this.headers()));
    check([200, 202, 204, 405].includes(answer.status), tells(answer, 'an end of the session'));
  }

  // ---- listening

  /** Opens the stream of the server's own messages, where the server has one, and answers its requests. */
  async listens({ again, tries = 3 } = {}) {
    this.stream?.destroy();
    const accept = { Accept: 'text/event-stream' };
    const answer = await this.withToken(() =>
      this.send('GET', this.server.url, [...this.headers(), accept], '', { keepsOpen: true }));
    this.stream = answer.stream?.setEncoding('utf8');
    if (answer.status === 409 && tries > 1) {
      // The server has not noticed yet that the stream before is gone.
      await pause(1600);
      return this.listens({ again, tries: tries - 1 });
    }
    // At a 404 its next call begins a new session, and listens to that.
    if (answer.status === 405 || (again && answer.status === 404)) return;
    const isStream = /^text\/event-stream/.test(answer.headers['content-type']);
    check(answer.status === 200 && isStream, tells(answer, 'an event stream or 405'));
    let rest = '';
    this.stream.on('data', (chunk) => {
      const events = (rest + chunk).split(/\r?\n\r?\n/);
      rest = events.pop();
      for (const message of events.map(dataOf)) if (message?.method && message.id !== undefined) this.answers(message);
    });
    this.stream.on('error', () => {});
  }

  answers({ id, method }) {
    const result = this.profile.calls.answers?.[method];
    const reply = result ? { jsonrpc: '2.0', id, result } : { jsonrpc: '2.0', id, error: { code: -32601, message: 'Method not found' } };
    this.answering = this.post(reply).then(({ status }) => {
      check(status === 202, `its answer to ${method} got ${status}`);
    });
    this.answering.catch(() => {});
  }

  /** Takes the stream up again if that was cut. */
  async listensAgain() {
    if (!this.isListening()) await this.listens({ again: true });
  }

  /** Whether the stream that it opened is open still. */
  isListening() {
    return !this.stream || !this.stream.destroyed;
  }

  /** Closes everything that it holds open. */
  leaves() {
    this.stream?.destroy();
    this.connections.destroy();
  }
}

export const modernMeta = (clientInfo, clientCapabilities = {}) => ({
  'io.modelcontextprotocol/protocolVersion': MODERN,
  'io.modelcontextprotocol/clientInfo': clientInfo,
  'io.modelcontextprotocol/clientCapabilities': clientCapabilities,
});

/** The report of a wrong answer. */
function tells({ status, headers, text = '', sent }, expected) {
  return `${expected}, but ${status} ${headers['content-type'] ?? ''} ${text.slice(0, 400)}\nto ${sent}`;
}

/** The message in one event of a stream. */
function dataOf(event) {
  const data = event.split(/\r?\n/).filter((line) => line.startsWith('data:')).map((line) => line.slice(5)).join('\n');
  return data.trim() ? JSON.parse(data) : undefined;
}

/** The answer to the request `id`, in a document or in a stream. */
function answerTo(id, { headers, text }) {
  const type = headers['content-type'] ?? '';
  try {
    const messages = type.startsWith('text/event-stream') ? text.split(/\r?\n\r?\n/).map(dataOf) : [JSON.parse(text)];
    return messages.find((message) => message?.id === id && !message.method);
  } catch {
    return undefined;
  }
}
