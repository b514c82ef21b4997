// A person at a browser, without the browser: opens the consent page, types the passphrase, presses
// a button. As a program it prints where the browser is sent: `node person.mjs AUTHORIZATION_URL`,
// with the passphrase in the environment.

import { pathToFileURL } from 'node:url';

/** Returns the URL to which the browser is redirected, or the link that opens an app. Asked for an upstream, takes the first. */
export async function decide(authorizationUrl, { passphrase, decision = 'approve' }) {
  const page = await get(authorizationUrl);
  const html = await page.text();
  const form = html.match(/<form\b[^>]*>[\s\S]*?<\/form>/gi)?.find((it) => it.includes('transaction'));
  if (page.status !== 200 || !form) {
    throw new Error(`no consent form at ${authorizationUrl}: status ${page.status}, ${html.slice(0, 500)}`);
  }
  const fields = new URLSearchParams({ decision });
  for (const [tag] of form.matchAll(/<input\b[^>]*>/gi)) {
    const { type, name, value = '' } = attributes(tag);
    if (type === 'hidden') fields.append(name, value);
    if (type === 'password') fields.append(name, passphrase);
    if (type === 'radio' && !fields.has(name)) fields.append(name, value);
  }
  const answer = await fetch(new URL(attributes(form).action ?? '', page.url), {
    method: 'POST',
    redirect: 'manual',
    headers: {
      cookie: page.headers.getSetCookie().map((cookie) => cookie.split(';')[0]).join('; '),
      origin: new URL(page.url).origin,
    },
    body: fields,
  });
  const end = await answer.text();
  const location = answer.status === 200 ? linkOfApp(end) : answer.headers.get('location');
  if (![200, 303].includes(answer.status) || !location) {
    throw new Error(`consent answered ${answer.status} and leads nowhere: ${end.slice(0, 500)}`);
  }
  return new URL(location);
}

/** An app is opened from a page that stays. */
function linkOfApp(html) {
  const links = [...html.matchAll(/<a\b[^>]*>/gi)].map(([tag]) => attributes(tag).href ?? '');
  return links.find((href) => URL.canParse(href) && !/^https?:/.test(href));
}

async function get(url) {
  return fetch(url, { redirect: 'manual', headers: { accept: 'text/html' } });
}

const ENTITIES = { amp: '&', lt: '<', gt: '>', quot: '"', apos: "'" };

/** The attributes of the first tag in `html`. */
function attributes(html) {
  const tag = html.slice(0, html.indexOf('>') + 1);
  const found = {};
  for (const [, name, double, single, bare] of tag.matchAll(/([\w-]+)\s*=\s*(?:"([^"]*)"|'([^']*)'|([^\s>]+))/g)) {
    found[name.toLowerCase()] = (double ?? single ?? bare).replace(
      /&(?:#x([\da-f]+)|#(\d+)|(\w+));/gi,
      (whole, hex, decimal, word) =>
        word ? (ENTITIES[word] ?? whole) : String.fromCodePoint(hex ? parseInt(hex, 16) : Number(decimal)),
    );
  }
  return found;
}

if (import.meta.url === pathToFileURL(process.argv[1]).href) {
  console.log((await decide(process.argv[2], { passphrase: process.env.PASSPHRASE })).href);
}
