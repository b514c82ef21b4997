// Proves the proxy with what it is for: real clients, real MCP servers, the official conformance
// suite and a real browser. `interop/run [part…]`; without parts, all of them.

import { randomBytes } from 'node:crypto';
import { existsSync, mkdirSync, readFileSync, writeFileSync } from 'node:fs';
import { join, resolve } from 'node:path';

import { browser } from './browser.mjs';
import * as canary from './canary.mjs';
import { callTool, obtainTokens } from './client/plain.mjs';
import * as conformance from './conformance.mjs';
import { replays } from './replay/replays.mjs';
import {
  answers, check, endAll, failed, freePort, header, here, passed, passThrough, run, scratch, start, step, tally, within,
} from './lib.mjs';

const PROXY = resolve(process.env.PROXY_BIN ?? join(here, '../target/release/mcp-oauth-proxy'));
const POSTGRES = new URL(process.env.TEST_POSTGRES_URL ?? 'postgres://postgres@127.0.0.1:5432/test');
const PYTHON = process.env.PYTHON ?? join(here, '.venv/bin/python');
const PYTHON_2025 = process.env.PYTHON_2025 ?? join(here, '.venv-2025/bin/python');

const random = () => randomBytes(18).toString('base64url');
const passphrase = canary.secret('passphrase', `horse & "battery" <staple> ü ${random()}`);
const toml = JSON.stringify;

/** What to call at each upstream, and what the answer contains. */
const CALLS = {
  everything: {
    call: { name: 'echo', arguments: { message: 'over there' }, expect: 'over there' },
    progress: { name: 'trigger-long-running-operation', arguments: { duration: 0.3, steps: 3 } },
  },
  fastmcp: {
    call: { name: 'add', arguments: { a: 20, b: 22 }, expect: '42' },
    progress: { name: 'climb', arguments: { steps: 4 } },
  },
  demo: {
    call: { name: 'calculate', arguments: { operation: 'add', a: 20, b: 22 }, expect: '42' },
    progress: { name: 'count_down', arguments: { from: 4, interval_ms: 50 } },
  },
};

// ---- the bench: upstreams, the proxy, and a front door that records

/** Headers that upstreams received, and what must have been among them. */
const arrivals = [];

/** Puts a pass-through before an upstream that demands exactly one header and keeps what it saw. */
async function gate(name, port, credential) {
  const [demanded, value] = credential;
  return passThrough({
    target: () => ({ hostname: '127.0.0.1', port }),
    admit(headers) {
      arrivals.push({ name, headers: [...headers], credential });
      return header(headers, demanded) === value ? undefined : 401;
    },
  });
}

async function startUpstreams() {
  const tokens = Object.fromEntries(
    ['everything', 'fastmcp', 'conformance'].map((name) => [name, canary.secret('upstream token', `${name}-${random()}`)]),
  );
  const programs = {
    everything: [process.execPath, [join(here, 'node_modules/@modelcontextprotocol/server-everything/dist/index.js'), 'streamableHttp']],
    fastmcp: [PYTHON, [join(here, 'upstream/fastmcp_server.py')]],
    conformance: [process.execPath, [join(here, 'upstream/conformance.mjs')]],
  };
  const upstreams = {};
  await Promise.all(
    Object.entries(programs).map(async ([name, [command, args]]) => {
      const port = await freePort();
      const running = start(`upstream-${name}`, command, args, {
        env: { PORT: String(port), FASTMCP_TOKEN: tokens.fastmcp },
      });
      await answers(`http://127.0.0.1:${port}/mcp`, running);
      const credential = name === 'conformance' ? ['x-api-key', tokens[name]] : ['authorization', `Bearer ${tokens[name]}`];
      const door = await gate(name, port, credential);
      upstreams[name] = { url: `http://127.0.0.1:${door.port}/mcp`, direct: `http://127.0.0.1:${port}/mcp`, token: tokens[name] };
    }),
  );
  return upstreams;
}

/** What the internet and careless proxies add, and no upstream may see. */
const FROM_OUTSIDE = {
  Cookie: 'visitor=of-another-site',
  'X-Forwarded-For': '203.0.113.9',
  'X-Forwarded-Host': 'outside.example',
  'X-Forwarded-Proto': 'https',
  Forwarded: 'for=203.0.113.9;host=outside.example',
  'X-Real-IP': '203.0.113.9',
};

/** The public address of a proxy: records all, adds what strangers add, and a token where a client knows none. */
async function frontDoor(target) {
  const door = { bearer: undefined };
  const front = await passThrough({
    target: () => target,
    admit(headers, { url }) {
      if (!url.startsWith('/mcp')) return;
      for (const [name, value] of Object.entries(FROM_OUTSIDE)) headers.push(name, value);
      if (door.bearer && !header(headers, 'authorization')) headers.push('Authorization', `Bearer ${door.bearer}`);
    },
    saw: canary.record,
  });
  return Object.assign(door, { url: `http://127.0.0.1:${front.port}`, close: front.close });
}

/** Starts the proxy in a folder of its own, with trace logs, and waits until it is alive. */
async function startProxy(name, { config, env = {}, port }) {
  const cwd = join(scratch, name);
  mkdirSync(cwd, { recursive: true });
  const args = ['serve'];
  if (config) {
    writeFileSync(join(cwd, 'proxy.toml'), config, { mode: 0o600 });
    args.push('--config', 'proxy.toml');
  }
  const running = start(`proxy-${name}`, PROXY, args, { cwd, env: { RUST_LOG: 'trace', RUST_BACKTRACE: '1', ...env } });
  await answers(`http://127.0.0.1:${port}/health`, running, 30);
  writeFileSync(join(scratch, `proxy-${name}.cmdline`), readFileSync(`/proc/${running.child.pid}/cmdline`));
  watched.add(join(cwd, 'data')).add(running.log).add(join(scratch, `proxy-${name}.cmdline`));
  return running;
}

/** What the canary searches. */
const watched = new Set();

function configuration(port, publicUrl, upstreams, store = 'sqlite') {
  const remote = (name, credential) => `[upstream.${name}]\nurl = ${toml(upstreams[name].url)}\ncredential = ${credential}\n`;
  return [
    `public_url = ${toml(publicUrl)}`,
    `listen = "127.0.0.1:${port}"`,
    'data_dir = "./data"',
    `store = ${toml(store)}`,
    `[sign_in]\npassphrase = ${toml(passphrase)}`,
    remote('everything', '{ bearer = { env = "EVERYTHING_TOKEN" } }'),
    remote('fastmcp', `{ bearer = ${toml(upstreams.fastmcp.token)} }`),
    remote('conformance', `{ header = "X-API-Key", value = ${toml(upstreams.conformance.token)} }`),
    '[upstream.demo]\nbuiltin = "demo"\n',
  ].join('\n');
}

/** Upstreams, a proxy with four of them on SQLite, and its front door. */
async function makeBench() {
  const upstreams = await startUpstreams();
  const port = await freePort();
  const front = await frontDoor({ hostname: '127.0.0.1', port });
  const config = configuration(port, front.url, upstreams);
  const startAgain = () => startProxy('main', { port, config, env: { EVERYTHING_TOKEN: upstreams.everything.token } });
  return { upstreams, front, proxy: await startAgain(), startAgain };
}

// ---- the parts

const CLIENTS = {
  'typescript 1': [process.execPath, 'client/typescript_v1.mjs'],
  'typescript 2': [process.execPath, 'client/typescript_v2.mjs'],
  python: [PYTHON, 'client/python.py'],
};

/** Lets one client make its journey in a process of its own; each line it prints is a step. */
async function journey(client, name, details) {
  const title = `${client} · ${name}${details.era ? ` ${details.era}` : ''}`;
  const [command, script] = CLIENTS[client];
  const running = start(title.replace(/[^\w]+/g, '-'), command, [join(here, script)], {
    env: { NODE: process.execPath, JOURNEY: JSON.stringify({ passphrase, ...CALLS[name], ...details }) },
  });
  let rest = '';
  let steps = 0;
  let bad = false;
  running.child.stdout.on('data', (chunk) => {
    const lines = (rest + chunk).split('\n');
    rest = lines.pop();
    for (const line of lines) {
      const [, not, what, why] = line.match(/^(not )?ok ([^:]*)(?:: (.*))?$/) ?? [];
      if (not) failed(`${title} · ${what}`, why);
      else if (what) passed(`${title} · ${what}`);
      steps += what ? 1 : 0;
      bad ||= Boolean(not);
    }
  });
  const how = await within(150, running.exit).catch((error) => ({ code: error.message }));
  await running.end('SIGKILL');
  if ((how.code !== 0 || steps < 8) && !bad) failed(title, `ended with ${how.code} after ${steps} steps; ${running.tail()}`);
}

async function clients() {
  const { front } = bench;
  for (const name of ['everything', 'fastmcp', 'demo']) {
    for (const client of Object.keys(CLIENTS)) await journey(client, name, { url: `${front.url}/mcp/${name}` });
  }
  await journey('typescript 2', 'demo', { url: `${front.url}/mcp/demo`, era: '2026-07-28' });
  await step('upstreams saw the operator’s credential and nothing of the client', async () => {
    check(arrivals.length > 0, 'no request arrived');
    const clientSecrets = canary.seen('access token', 'refresh token', 'client secret', 'session cookie', 'code');
    for (const { name, headers, credential } of arrivals) {
      for (let index = 0; index < headers.length; index += 2) {
        const [header, value] = [headers[index].toLowerCase(), headers[index + 1]];
        const isOurs = header === credential[0] && value === credential[1];
        check(isOurs || header !== 'authorization', `${name} got another Authorization header`);
        check(!/^(cookie|forwarded|x-forwarded-.*|x-real-ip|origin)$/.test(header), `${name} got ${header}: ${value}`);
        check(!clientSecrets.some((it) => value.includes(it)), `${name} got a secret of the client in ${header}`);
      }
    }
    return `${arrivals.length} requests`;
  });
}

async function conformanceSuite() {
  const { front, upstreams } = bench;
  const resource = `${front.url}/mcp/conformance`;
  for (const asked of [resource, undefined]) {
    await step(`conformance · authorization ${asked ? 'with' : 'without'} resource`, () =>
      conformance.authorization({ issuer: front.url, resource: asked, passphrase }));
  }
  const { access_token: token } = await obtainTokens(front.url, { resource, passphrase });
  console.log(conformance.heading);
  for (const version of ['2025-11-25', '2026-07-28']) {
    await step(`conformance · server ${version} comes out the same through the proxy`, async () => {
      const direct = await conformance.server(upstreams.conformance.direct, version, 'direct');
      console.log(conformance.counts(`${version} directly`, direct));
      front.bearer = token;
      const through = await conformance.server(resource, version, 'through').finally(() => (front.bearer = undefined));
      console.log(conformance.counts(`${version} through proxy`, through));
      const lines = conformance.differences(direct, through);
      check(lines.length === 0, `${lines.length} differences\n${lines.join('\n')}`);
    }, 620);
  }
}

async function browserPart() {
  const { front } = bench;
  await browser({ issuer: front.url, resource: `${front.url}/mcp/everything`, passphrase });
}

/** One upstream from the environment, no file: what a newcomer runs. */
async function environment() {
  const { upstreams } = bench;
  const port = await freePort();
  const proxy = await startProxy('environment', {
    port,
    env: {
      LISTEN: `127.0.0.1:${port}`,
      PASSPHRASE: passphrase,
      UPSTREAM_URL: upstreams.everything.url,
      UPSTREAM_TOKEN: upstreams.everything.token,
    },
  });
  await journey('typescript 2', 'everything', { url: `http://127.0.0.1:${port}/mcp` });
  await proxy.end();
}

async function postgres() {
  const { upstreams } = bench;
  const database = `interop_${process.pid}_${Date.now().toString(36)}`;
  const url = Object.assign(new URL(POSTGRES), { pathname: `/${database}` }).href;
  const psql = (sql) => run('psql', 'psql', [POSTGRES.href, '--quiet', '--set=ON_ERROR_STOP=1', `--command=${sql}`]);
  await psql(`create database ${database}`);
  let proxy;
  try {
    const port = await freePort();
    const front = await frontDoor({ hostname: '127.0.0.1', port });
    proxy = await startProxy('postgres', {
      port,
      config: configuration(port, front.url, upstreams, url),
      env: { EVERYTHING_TOKEN: upstreams.everything.token },
    });
    await journey('typescript 2', 'everything', { url: `${front.url}/mcp/everything` });
    const dump = join(scratch, 'postgres.sql');
    await run('pg_dump', 'pg_dump', [url, `--file=${dump}`]);
    check(readFileSync(dump, 'utf8').includes('COPY '), 'the dump is empty');
    watched.add(dump);
  } finally {
    await proxy?.end();
    await psql(`drop database ${database} with (force)`);
  }
}

async function restart() {
  const { front, proxy, startAgain } = bench;
  const resource = `${front.url}/mcp/demo`;
  const { access_token: token } = await obtainTokens(front.url, { resource, passphrase });
  await step('restart · a stop lets a running call end cleanly', async () => {
    const response = await callTool(resource, token, 'count_down', { from: 10, interval_ms: 100 }, { progressToken: 1 });
    check(response.status === 200, `the call answered ${response.status}`);
    const reader = response.body.getReader();
    const { done } = await reader.read();
    check(!done, 'nothing streamed');
    proxy.child.kill('SIGTERM');
    while (!(await reader.read()).done);
    const { code } = await within(35, proxy.exit);
    check(code === 0, `the proxy ended with ${code}`);
  });
  await proxy.end();
  await step('restart · tokens live on', async () => {
    bench.proxy = await startAgain();
    const response = await callTool(resource, token, 'calculate', { operation: 'add', a: 1, b: 2 });
    check(response.status === 200, `the call answered ${response.status}`);
    await response.body.cancel();
  });
}

/** Hosted clients and editors, played by hand. */
async function replaysPart() {
  await replays({ startProxy, passphrase, python: PYTHON, python2025: PYTHON_2025 });
}

async function canaryPart(parts) {
  await step('canary · a planted secret is found in every form', async () => canary.selfTest());
  await step('canary · no secret in logs, answers and databases', async () => {
    const { proxy } = bench;
    await proxy.end();
    const missing = [...watched].filter((path) => !existsSync(path));
    check(missing.length === 0, `nothing to search at ${missing}`);
    return canary.searchAll([...watched], parts.length === Object.keys(PARTS).length);
  }, 300);
}

const PARTS = { clients, environment, postgres, conformance: conformanceSuite, browser: browserPart, replays: replaysPart, restart, canary: canaryPart };

const asked = process.argv.slice(2);
const unknown = asked.filter((part) => !PARTS[part]);
if (unknown.length > 0) {
  console.error(`unknown part ${unknown.join(', ')}; there are ${Object.keys(PARTS).join(', ')}`);
  process.exit(2);
}
if (!existsSync(PROXY)) {
  console.error(`there is no program at ${PROXY}; build it with \`cargo build --release\` or set PROXY_BIN`);
  process.exit(2);
}
const parts = asked.length > 0 ? asked : Object.keys(PARTS);
console.log(`logs and results: ${scratch}`);
const bench = await makeBench();
for (const part of parts) {
  console.log(`\n== ${part}`);
  try {
    await PARTS[part](parts);
  } catch (error) {
    failed(part, error.stack);
  }
}
await endAll();
console.log(`\n${tally.passed} passed, ${tally.failed} failed`);
process.exit(tally.failed > 0 ? 1 : 0);
