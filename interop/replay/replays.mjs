// Hosted clients and editors, played by hand: each in its real order of requests, with its headers
// and omissions, against four kinds of server, through nginx as it comes, over a silence, a restart
// of the servers and one of the proxy.

import { writeFileSync } from 'node:fs';
import { join } from 'node:path';
import { setTimeout as pause } from 'node:timers/promises';

import * as canary from '../canary.mjs';
import { answers, check, freePort, here, scratch, start, step } from '../lib.mjs';
import { Actor, MODERN } from './actor.mjs';
import chatgpt from './chatgpt.mjs';
import claude2025 from './claude_2025.mjs';
import claude2026 from './claude_2026.mjs';
import claudeCode from './claude_code.mjs';
import codex from './codex.mjs';
import cursor from './cursor.mjs';
import gemini from './gemini.mjs';
import vscode from './vscode.mjs';

/** Claude plays twice: one client and, with a passphrase, one person, but two grants. */
const PROFILES = [
  claude2025, claude2026, { ...claude2026, title: 'Claude 2026 again' }, claudeCode, chatgpt, vscode, codex, gemini, cursor,
];
const NGINX = process.env.NGINX ?? 'nginx';
/** Longer than nginx waits for the next byte of a stream, and than a token lives here: 60 s each. */
const SILENCE = Number(process.env.REPLAY_SILENCE ?? 65);
/** Seconds between two acts. */
const PAUSE = Number(process.env.REPLAY_PAUSE ?? 0);
const TOKEN = canary.secret('upstream token', 'replays-only-4f1f6a0e');

const EVERYTHING = join(here, 'node_modules/@modelcontextprotocol/server-everything/dist/index.js');
const FASTMCP = join(here, 'upstream/fastmcp_server.py');
const TYPESCRIPT = {
  call: { name: 'echo', arguments: { message: 'over there' }, expect: 'over there' },
  slow: { name: 'trigger-long-running-operation', arguments: { duration: SILENCE, steps: 1 }, expect: 'completed' },
};
const PYTHON = {
  call: { name: 'add', arguments: { a: 20, b: 22 }, expect: '42' },
  slow: { name: 'rest', arguments: { seconds: SILENCE }, expect: 'rested' },
  session: { name: 'session', arguments: {}, expect: '' },
};

/** The four kinds: sessions in TypeScript and Python, both eras, and neither session nor new era. */
const SERVERS = ({ python, python2025 }) => ({
  everything: { program: [process.execPath, [EVERYTHING, 'streamableHttp']], tools: TYPESCRIPT },
  'fastmcp-2025': { program: [python2025, [FASTMCP]], tools: PYTHON },
  'fastmcp-2026': { program: [python, [FASTMCP]], tools: PYTHON },
  stateless: { program: [python2025, [FASTMCP]], env: { FASTMCP_STATELESS_HTTP: 'true', QUIET: '1' }, tools: PYTHON },
});

async function startServers(servers) {
  await Promise.all(
    Object.entries(servers).map(async ([name, server]) => {
      const [command, args] = server.program;
      server.port ??= await freePort();
      server.running = start(`replay-${name}`, command, args, {
        env: { PORT: String(server.port), FASTMCP_TOKEN: TOKEN, ...server.env },
      });
      await answers(`http://127.0.0.1:${server.port}/mcp`, server.running, 120);
    }),
  );
}

/** nginx with its defaults, except that it forwards the client's address and writes to our folder only. */
async function startNginx(port, target) {
  const temporary = ['client_body', 'proxy', 'fastcgi', 'uwsgi', 'scgi'].map((name) => `${name}_temp_path ${scratch}/nginx-${name};`);
  writeFileSync(join(scratch, 'nginx.conf'), `
    daemon off; master_process off; pid ${scratch}/nginx.pid; error_log stderr;
    events {}
    http {
      access_log ${scratch}/nginx-access.log; ${temporary.join(' ')}
      server {
        listen 127.0.0.1:${port};
        location / {
          proxy_pass http://127.0.0.1:${target};
          proxy_set_header Host $http_host;
          proxy_set_header X-Forwarded-For $remote_addr;
        }
      }
    }`);
  const running = start('nginx', NGINX, ['-c', join(scratch, 'nginx.conf')]);
  await answers(`http://127.0.0.1:${port}/`, running, 10);
  return running;
}

function configuration({ port, publicUrl, passphrase, servers }) {
  const upstream = ([name, server]) => `
    [upstream.${name}]
    url = "http://127.0.0.1:${server.port}/mcp"
    credential = { bearer = ${JSON.stringify(TOKEN)} }`;
  return `
    public_url = ${JSON.stringify(publicUrl)}
    listen = "127.0.0.1:${port}"
    data_dir = "./data"
    [sign_in]
    passphrase = ${JSON.stringify(passphrase)}
    [tokens]
    access_lifetime = "1m"
    [trusted_proxies]
    ranges = ["127.0.0.1"]
    ${Object.entries(servers).map(upstream).join('')}`;
}

/** Lets all players do one act at the same time. A player that failed is out. */
async function act(players, name, script) {
  if (players.some((player) => !player.isDirect)) await pause(PAUSE * 1000);
  await Promise.all(
    players.map(async (player) => {
      if (player.isOut) return;
      const does = typeof name === 'function' ? name(player) : name;
      const plays = async () => {
        await script(player);
        await player.answering;
      };
      player.isOut = !(await step(`${player.title} · ${does}`, plays, SILENCE + 60));
    }),
  );
}

const connects = (player) => player.profile.connects(player);
const works = (player) => player.profile.works(player);
const ends = (player) => player.profile.ends(player);

/** A client that listens must not lose its stream; the others call a tool that takes as long. */
async function silence(player) {
  if (!player.profile.listens) return player.profile.works(player, player.server.slow);
  await pause(SILENCE * 1000);
  check(player.isListening(), 'its stream was cut');
}

/** A client that leaves its session id out must not come into the session of another grant. */
function inOwnSession() {
  const owners = new Map();
  return async (player) => {
    const { server, profile } = player;
    const session = `${server.name} ${await player.callsTool({ tool: server.session, ...profile.calls.how })}`;
    check(!owners.has(session), `it is in the session of ${owners.get(session)}`);
    owners.set(session, player.title);
  };
}

export async function replays({ startProxy, passphrase, python, python2025 }) {
  const servers = SERVERS({ python, python2025 });
  await startServers(servers);
  const everybody = (serverOf) =>
    PROFILES.flatMap((profile) =>
      Object.entries(servers).map(([name, { tools, port }]) =>
        new Actor(profile, { name, ...tools, ...serverOf(name, port) }, { passphrase, saw: canary.record })));

  // Without the proxy and by the specification, each replay must succeed. A failure below is then the proxy's.
  const direct = everybody((name, port) => ({ name: `${name} directly`, url: `http://127.0.0.1:${port}/mcp`, bearer: TOKEN }));
  await act(direct, 'connects, calls and ends', async (player) => {
    for (const script of [connects, works, ends]) await script(player);
  });
  direct.forEach((player) => player.leaves());

  const [outside, port] = [await freePort(), await freePort()];
  const publicUrl = `http://127.0.0.1:${outside}`;
  const config = configuration({ port, publicUrl, passphrase, servers });
  const startAgain = () => startProxy('replays', { port, config });
  let proxy = await startAgain();
  const nginx = await startNginx(outside, port);
  const players = everybody((name) => ({ url: `${publicUrl}/mcp/${name}` }));

  await act(players, 'signs in', (player) => player.signsIn());
  await act(players, 'connects', connects);
  await act(players, 'calls', works);
  const inSession = players.filter(({ session, negotiated, server }) => session && negotiated !== MODERN && server.session);
  await act(inSession, 'is in a session of its own', inOwnSession());

  await act(players, ({ profile }) => `${profile.listens ? 'listens' : 'waits for a tool'} through ${SILENCE} s of silence`, silence);
  await act(players, 'calls after the silence', works);

  await Promise.all(Object.values(servers).map(({ running }) => running.end()));
  await startServers(servers);
  await act(players, 'calls after a restart of its server', works);

  await proxy.end('SIGTERM', 40);
  proxy = await startAgain();
  await act(players, 'calls after a restart of the proxy', works);

  await act(players, ({ profile }) => profile.stumbles.does, (player) => player.profile.stumbles.script.call(player.profile, player));
  await act(players, 'ends', ends);

  players.forEach((player) => player.leaves());
  await Promise.all([proxy, nginx, ...Object.values(servers).map(({ running }) => running)].map((running) => running.end()));
}
