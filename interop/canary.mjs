// The canary: no secret of the run may be found in what the proxy wrote or answered.
//
// The front door that all clients use reports every exchange here. Secrets are picked up where the
// standards put them; answers are written down without those that they rightly carry; then `grep`
// looks for all secrets, in every usual encoding, in logs, answers and databases.

import { spawnSync } from 'node:child_process';
import { mkdirSync, writeFileSync } from 'node:fs';
import { join } from 'node:path';

import { check, header, scratch } from './lib.mjs';

const transcript = join(scratch, 'transcript');
mkdirSync(transcript, { recursive: true });

/** Every secret of the run and what it is. */
const secrets = new Map();
let exchanges = 0;

export function secret(kind, value) {
  // Shorter ones are found by chance; none of the proxy's own is.
  if (value && value.length >= 12) secrets.set(value, kind);
  return value;
}

/** Where a kind of secret rightly appears in an answer: it is what the answer is for. */
const MAY_CARRY = {
  '/token': ['access token', 'refresh token'],
  '/register': ['client secret', 'registration token'],
};

export function record({ method, path, headers, sent, status, answer, received }) {
  const url = new URL(path, 'http://front');
  const form = new URLSearchParams(sent.toString());
  const asked = (name, kind) => form.getAll(name).forEach((value) => secret(kind, value));
  if (method === 'POST' && ['/token', '/revoke', '/introspect', '/consent'].includes(url.pathname)) {
    asked('code', 'code');
    asked('code_verifier', 'PKCE verifier');
    asked('client_secret', 'client secret');
    asked('secret', 'passphrase');
  }
  const [scheme, credentials] = (header(headers, 'authorization') ?? '').split(' ');
  if (scheme === 'Bearer') secret('access token', credentials);
  if (scheme === 'Basic') secret('client secret', credentials);

  let body = received.toString('latin1');
  for (const [name, kind] of Object.entries({
    access_token: 'access token',
    refresh_token: 'refresh token',
    client_secret: 'client secret',
    registration_access_token: 'registration token',
  })) {
    if (!MAY_CARRY[url.pathname]?.includes(kind)) continue;
    const value = parsed(received)?.[name];
    if (typeof value === 'string') body = body.replace(secret(kind, value), '-');
  }

  if (url.pathname === '/consent' && status === 200) {
    // The page after an app was approved carries the code in the link that opens the app.
    body = body.replace(/(?<=[?&;]code=)[\w-]+/g, (code) => (secret('code', code), '-'));
  }

  const shown = [];
  for (let index = 0; index < (answer ?? []).length; index += 2) {
    const name = answer[index].toLowerCase();
    let value = answer[index + 1];
    if (name === 'set-cookie') {
      const cookie = value.slice(value.indexOf('=') + 1).split(';')[0];
      if (secret('session cookie', cookie)) value = value.replace(cookie, '-');
    }
    if (name === 'location') {
      const code = URL.canParse(value) && new URL(value).searchParams.get('code');
      if (code && secret('code', code)) value = value.replace(encodeURIComponent(code), '-').replace(code, '-');
    }
    shown.push(`${name}: ${value}`);
  }
  exchanges += 1;
  const name = `${String(exchanges).padStart(5, '0')}.txt`;
  writeFileSync(join(transcript, name), `${method} ${url.pathname} ${status}\n${shown.join('\n')}\n\n${body}`, 'latin1');
}

function parsed(bytes) {
  try {
    return JSON.parse(bytes);
  } catch {
    return undefined;
  }
}

const ESCAPED = { '&': '&amp;', '<': '&lt;', '>': '&gt;', '"': '&quot;', "'": '&#x27;' };
const ESCAPED_DECIMAL = { '&': '&#38;', '<': '&#60;', '>': '&#62;', '"': '&#34;', "'": '&#39;' };

/** The forms that a secret could hide in. */
export function encodings(value) {
  const bytes = Buffer.from(value);
  const forms = {
    raw: value,
    percent: encodeURIComponent(value),
    form: new URLSearchParams({ v: value }).toString().slice(2),
    json: JSON.stringify(value).slice(1, -1),
    html: value.replace(/[&<>"']/g, (it) => ESCAPED[it]),
    'html decimal': value.replace(/[&<>"']/g, (it) => ESCAPED_DECIMAL[it]),
    hex: bytes.toString('hex'),
    HEX: bytes.toString('hex').toUpperCase(),
  };
  // Inside a longer text the base64 depends on the position modulo three, and both ends on the neighbours.
  for (const shift of [0, 1, 2]) {
    const from = Math.ceil((shift * 4) / 3);
    const whole = Math.floor(((shift + bytes.length) * 4) / 3);
    const text = Buffer.concat([Buffer.alloc(shift), bytes]).toString('base64').slice(from, whole);
    forms[`base64 +${shift}`] = text;
    forms[`base64url +${shift}`] = text.replaceAll('+', '-').replaceAll('/', '_');
  }
  return forms;
}

/** Finds the secrets of `known` in `paths`; returns one line for each kind, form and file. */
function search(known, paths) {
  const patterns = new Map();
  for (const [value, kind] of known) {
    for (const [form, text] of Object.entries(encodings(value))) {
      if (!patterns.has(text)) patterns.set(text, `${kind} (${form})`);
    }
  }
  const list = join(scratch, 'canary-patterns');
  writeFileSync(list, [...patterns.keys()].join('\n'));
  const found = spawnSync(
    'grep',
    ['--recursive', '--fixed-strings', '--text', '--only-matching', '--with-filename', '--null', `--file=${list}`, ...paths],
    { env: { ...process.env, LC_ALL: 'C' }, encoding: 'latin1', maxBuffer: 1 << 28 },
  );
  writeFileSync(list, '');
  check(found.status === 0 || found.status === 1, `grep ended with ${found.status}: ${found.stderr}`);
  const lines = found.stdout.split('\n').filter(Boolean).map((line) => {
    const [file, text] = line.split('\0');
    return `${patterns.get(Buffer.from(text, 'latin1').toString()) ?? 'a secret'} in ${file}`;
  });
  return [...new Set(lines)];
}

/** A planted secret must be found in every encoding, or the search proves nothing. */
export function selfTest() {
  const planted = `planted "secret" & <canary> ü+/${'0123456789'.repeat(2)}`;
  const forms = encodings(planted);
  const folder = join(scratch, 'canary-self-test');
  mkdirSync(folder, { recursive: true });
  for (const [form, text] of Object.entries(forms)) {
    writeFileSync(join(folder, form.replaceAll(' ', '-')), Buffer.from(`\0before ${text} after\xff`));
  }
  const files = new Set(search(new Map([[planted, 'planted']]), [folder]).map((line) => line.split(' in ')[1]));
  check(files.size === Object.keys(forms).length, `only ${files.size} of ${Object.keys(forms).length} forms were found`);
  const other = search(new Map([['another secret altogether', 'other']]), [folder]);
  check(other.length === 0, `something was found that is not there: ${other}`);
  return `${files.size} forms`;
}

const KINDS = [
  'passphrase', 'upstream token', 'code', 'PKCE verifier', 'access token', 'refresh token', 'client secret', 'session cookie',
];

/** Fails when any secret of the run is in `paths` or in the recorded answers; a `complete` run has secrets of all kinds. */
export function searchAll(paths, complete) {
  const kinds = new Set(secrets.values());
  for (const kind of complete ? KINDS : []) {
    check(kinds.has(kind), `the run used no ${kind}, so nothing is proved about it`);
  }
  const hits = search(secrets, [...paths, transcript]);
  check(hits.length === 0, `${hits.length} places hold a secret:\n${hits.slice(0, 20).join('\n')}`);
  return `${secrets.size} secrets, ${exchanges} answers`;
}

/** The secrets of some kinds that the run has seen so far. */
export function seen(...kinds) {
  return [...secrets].filter(([, kind]) => kinds.includes(kind)).map(([value]) => value);
}
