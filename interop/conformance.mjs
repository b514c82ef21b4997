// The official conformance suite: against the proxy as an authorization server, and against an
// upstream directly and through the proxy, where every check must come out the same.

import { existsSync, readdirSync, readFileSync } from 'node:fs';
import { join } from 'node:path';

import { register } from './client/plain.mjs';
import { check, freePort, here, scratch, start, until, within } from './lib.mjs';
import { decide } from './person.mjs';

const SUITE = join(here, 'node_modules/@modelcontextprotocol/conformance/dist/index.js');

/** Runs the suite's `authorization` mode; `resource` may be absent, as some clients leave it out. */
export async function authorization({ issuer, resource, passphrase }) {
  const port = await freePort();
  const redirectUri = `http://127.0.0.1:${port}/callback`;
  const { client_id: clientId } = await register(issuer, redirectUri, { client_name: 'Conformance suite' });
  const name = resource ? 'authorization' : 'authorization-without-resource';
  const results = join(scratch, name);
  const suite = start(`conformance-${name}`, process.execPath, [
    SUITE, 'authorization', '--url', issuer, '--client-id', clientId, '--port', String(port), '--output-dir', results,
    ...(resource ? ['--resource', resource] : []),
  ]);
  const printed = () => suite.tail().match(/^http\S+[?&]response_type=code\S*$/m)?.[0];
  await until('an authorization URL of the suite', 30, () => printed());
  await (await fetch(await decide(printed(), { passphrase }))).text();
  const { code } = await within(30, suite.exit);

  const checks = [...results_of(results).values()].flat();
  const bad = checks.filter((it) => it.status === 'FAILURE' || it.status === 'WARNING');
  check(code === 0 && bad.length === 0, bad.map((it) => `${it.id}: ${it.errorMessage}`).join('\n') || suite.tail());
  return `${checks.filter((it) => it.status === 'SUCCESS').length} of ${checks.length} checks`;
}

/** Runs the suite's `server` mode at `url`; returns the checks by scenario. */
export async function server(url, version, name) {
  const results = join(scratch, `server-${version}-${name}`);
  const suite = start(`conformance-server-${version}-${name}`, process.execPath, [
    SUITE, 'server', '--url', url, '--suite', 'all', '--spec-version', version, '--output-dir', results,
  ]);
  try {
    await within(300, suite.exit);
  } finally {
    await suite.end('SIGKILL');
  }
  const found = results_of(results);
  check(found.size > 10, `the suite ran ${found.size} scenarios; ${suite.tail()}`);
  return found;
}

function results_of(folder) {
  const scenarios = new Map();
  for (const entry of existsSync(folder) ? readdirSync(folder) : []) {
    const scenario = entry.replace(/-\d{4}-\d{2}-\d{2}T.*$/, '').replace(/^server-/, '');
    scenarios.set(scenario, JSON.parse(readFileSync(join(folder, entry, 'checks.json'))));
  }
  return scenarios;
}

/** Every verdict of a scenario as one sorted text. What is only told (`INFO`) may differ. */
const verdicts = (checks = []) =>
  checks.filter((it) => it.status !== 'INFO').map((it) => `${it.status} ${it.id}/${it.name}`).sort();

/** What came out differently, one line for each verdict. */
export function differences(direct, through) {
  const lines = [];
  for (const scenario of new Set([...direct.keys(), ...through.keys()])) {
    const [before, after] = [verdicts(direct.get(scenario)), verdicts(through.get(scenario))];
    const extra = (list, other) => list.filter((it, at) => list.slice(0, at + 1).filter((x) => x === it).length > other.filter((x) => x === it).length);
    for (const it of extra(before, after)) lines.push(`${scenario}: only directly: ${it}`);
    for (const it of extra(after, before)) {
      const [, id] = it.match(/^\S+ ([^/]*)/);
      const why = through.get(scenario).find((found) => found.id === id && found.errorMessage)?.errorMessage;
      lines.push(`${scenario}: only through the proxy: ${it}${why ? ` (${why})` : ''}`);
    }
  }
  return lines;
}

/** One line of the table of counts. */
export function counts(label, scenarios) {
  const all = [...scenarios.values()].flat();
  const of = (status) => String(all.filter((it) => it.status === status).length).padStart(9);
  return `      ${label.padEnd(24)}${String(scenarios.size).padStart(9)}${['SUCCESS', 'FAILURE', 'WARNING', 'SKIPPED'].map(of).join('')}`;
}

export const heading = `      ${''.padEnd(24)}${['scenarios', 'passed', 'failed', 'warned', 'skipped'].map((it) => it.padStart(9)).join('')}`;

