// What every part needs: steps that are counted, processes that are ended, and a pass-through.

import { spawn } from 'node:child_process';
import { createWriteStream, mkdtempSync } from 'node:fs';
import http from 'node:http';
import net from 'node:net';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { setTimeout as pause } from 'node:timers/promises';
import { fileURLToPath } from 'node:url';

/** The folder of this file. */
export const here = fileURLToPath(new URL('.', import.meta.url));
/** Everything that a run writes: logs, databases, transcripts, results. */
export const scratch = mkdtempSync(join(process.env.INTEROP_OUT ?? tmpdir(), 'mcp-oauth-proxy-interop-'));

// ---- steps

export const tally = { passed: 0, failed: 0 };

export function passed(name, note = '') {
  tally.passed += 1;
  console.log(`ok    ${name}${note && `  (${note})`}`);
}

export function failed(name, reason) {
  tally.failed += 1;
  console.log(`FAIL  ${name}: ${String(reason).trim().replaceAll('\n', '\n      ')}`);
}

/** Runs one step, prints its line, and says whether it passed. */
export async function step(name, action, seconds = 60) {
  const started = performance.now();
  try {
    const note = await within(seconds, action());
    passed(name, note ?? `${Math.round(performance.now() - started)} ms`);
    return true;
  } catch (error) {
    failed(name, error?.message ?? error);
    return false;
  }
}

export function check(condition, otherwise) {
  if (!condition) throw new Error(otherwise);
}

export async function within(seconds, promise) {
  const timer = new AbortController();
  const late = pause(seconds * 1000, undefined, { signal: timer.signal }).then(() => {
    throw new Error(`not done within ${seconds} s`);
  });
  try {
    return await Promise.race([promise, late]);
  } finally {
    timer.abort();
    late.catch(() => {});
  }
}

/** Waits until `condition` holds; there is no event to wait for across processes. */
export async function until(what, seconds, condition) {
  const end = performance.now() + seconds * 1000;
  while (!(await condition())) {
    check(performance.now() < end, `${what} did not happen within ${seconds} s`);
    await pause(50);
  }
}

// ---- processes

const children = new Set();

/** Starts a process whose output goes to `<scratch>/<name>.log`; `end()` ends it and its children. */
export function start(name, command, args, { env = {}, cwd = here } = {}) {
  const log = join(scratch, `${name}.log`);
  const child = spawn(command, args, {
    cwd,
    env: { ...process.env, ...env },
    detached: true,
    stdio: ['ignore', 'pipe', 'pipe'],
  });
  const file = createWriteStream(log, { flags: 'a' });
  let tail = '';
  for (const stream of [child.stdout, child.stderr]) {
    stream.pipe(file, { end: false });
    stream.on('data', (chunk) => (tail = (tail + chunk).slice(-4000)));
  }
  const exit = new Promise((done) => {
    child.on('error', (error) => done({ code: `cannot be started: ${error.message}` }));
    child.on('close', (code, signal) => done({ code: code ?? signal }));
  }).then((how) => {
    children.delete(running);
    file.end();
    return how;
  });
  const running = {
    name, log, child, exit,
    tail: () => tail,
    async end(signal = 'SIGTERM', seconds = 10) {
      signalGroup(child, signal);
      try {
        return await within(seconds, exit);
      } catch {
        signalGroup(child, 'SIGKILL');
        return { code: 'did not end' };
      }
    },
  };
  children.add(running);
  return running;
}

function signalGroup(child, signal) {
  try {
    if (child.pid) process.kill(-child.pid, signal);
  } catch {
    // It has already ended.
  }
}

export async function endAll() {
  await Promise.all([...children].map((running) => running.end()));
}

process.on('exit', () => children.forEach(({ child }) => signalGroup(child, 'SIGKILL')));
for (const signal of ['SIGINT', 'SIGTERM']) process.on(signal, () => process.exit(1));

/** Runs a command to its end and returns what it printed on stdout. */
export async function run(name, command, args, { seconds = 60, ...options } = {}) {
  const running = start(name, command, args, options);
  let printed = '';
  running.child.stdout.on('data', (chunk) => (printed += chunk));
  let how;
  try {
    how = await within(seconds, running.exit);
  } catch (error) {
    await running.end('SIGKILL');
    throw new Error(`${command} was ${error.message}; ${running.tail()}`);
  }
  check(how.code === 0, `${command} ended with ${how.code}; ${running.tail()}`);
  return printed;
}

let lastPort = 20_000 + Math.floor(Math.random() * 10_000);

/** A free port below those that the system gives to outgoing connections, so that it is still free later. */
export async function freePort() {
  for (;;) {
    const port = (lastPort += 1);
    const server = net.createServer();
    const free = await new Promise((done) =>
      server.on('error', () => done(false)).listen({ port, exclusive: true }, () => done(true)));
    await new Promise((done) => server.close(done));
    if (free) return port;
  }
}

/** Waits until something answers HTTP at `url`; a process that ends early is named with its last words. */
export async function answers(url, running, seconds = 60) {
  let ended;
  running.exit.then((how) => (ended = how));
  await until(`an answer from ${running.name} at ${url}`, seconds, async () => {
    check(!ended, `${running.name} ended with ${ended?.code} before it answered; ${running.tail()}`);
    return fetch(url, { signal: AbortSignal.timeout(2000) }).then(() => true, () => false);
  });
}

// ---- a pass-through

/**
 * Serves `port` by passing every request to `target()` byte for byte, streams included.
 * `admit(headers, request)` may change the flat list of header names and values, or return a status
 * to refuse with. `saw(exchange)` receives each finished request and its response.
 */
export async function passThrough({ port = 0, target, admit = () => {}, saw = () => {} }) {
  const agent = new http.Agent({ keepAlive: true });
  const server = http.createServer((request, response) => {
    const headers = [...request.rawHeaders];
    const refusal = admit(headers, request);
    if (refusal) return response.writeHead(refusal).end();

    const exchange = { method: request.method, path: request.url, headers, sent: [], received: [], answer: [] };
    const { hostname, port } = target();
    const onward = http.request({
      agent, hostname, port, method: request.method, path: request.url, headers, setHost: false,
    });
    onward.on('response', (answer) => {
      exchange.status = answer.statusCode;
      exchange.answer = answer.rawHeaders;
      response.writeHead(answer.statusCode, answer.statusMessage, answer.rawHeaders);
      response.flushHeaders();
      answer.on('data', (chunk) => exchange.received.push(chunk));
      answer.on('aborted', () => response.destroy());
      answer.pipe(response);
    });
    onward.on('error', () => (response.headersSent ? response.destroy() : response.writeHead(502).end()));
    request.on('data', (chunk) => exchange.sent.push(chunk));
    request.pipe(onward);
    response.on('close', () => {
      onward.destroy();
      saw({ ...exchange, sent: Buffer.concat(exchange.sent), received: Buffer.concat(exchange.received) });
    });
  });
  server.keepAliveTimeout = 60_000;
  await new Promise((done, fail) => server.on('error', fail).listen(port, '127.0.0.1', done));
  return {
    port: server.address().port,
    close() {
      agent.destroy();
      server.closeAllConnections();
      return new Promise((done) => server.close(done));
    },
  };
}

/** The value of a header in a flat list of names and values. */
export function header(headers, name) {
  const at = headers.findIndex((item, index) => index % 2 === 0 && item.toLowerCase() === name);
  return at < 0 ? undefined : headers[at + 1];
}
