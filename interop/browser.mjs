// The consent page in a real browser.

import { mkdirSync, mkdtempSync } from 'node:fs';
import http from 'node:http';
import { join } from 'node:path';

import { chromium } from 'playwright-core';

import { callTool, register, request } from './client/plain.mjs';
import { check, freePort, scratch, step, until } from './lib.mjs';

const CHROMIUM = process.env.CHROMIUM ?? '/usr/bin/chromium';
const PICTURES = process.env.SCREENSHOTS ?? join(scratch, 'screenshots');
const APP = 'cursor://anysphere.cursor-mcp/oauth/callback';

/** Without these, a browser looks for its maker's servers at every start. */
const FLAGS = [
  '--no-sandbox', '--disable-gpu', '--disable-quic', '--no-first-run', '--disable-background-networking',
  '--disable-component-update', '--disable-sync',
];

/** Stands where a client waits for the browser to come back. */
async function callbackListener() {
  const received = [];
  const server = http.createServer(async (request, response) => {
    const { method, url, headers } = request;
    received.push({ method, url, headers, body: (await request.toArray()).join('') });
    response.setHeader('content-type', 'text/html').end('<h1>Back at the client</h1>');
  });
  const port = await freePort();
  // No address: `localhost` may mean either loopback address.
  await new Promise((done) => server.listen(port, done));
  return { port, received, close: () => (server.closeAllConnections(), server.close()) };
}

/** Shows `url` in a frame, as another site would. */
async function framingSite(url) {
  const page = `<!doctype html><title>Another site</title><iframe src="${url.replaceAll('&', '&amp;')}"></iframe>`;
  const server = http.createServer((_, response) => response.setHeader('content-type', 'text/html').end(page));
  const port = await freePort();
  await new Promise((done) => server.listen(port, '127.0.0.1', done));
  return { url: `http://127.0.0.1:${port}/`, close: () => (server.closeAllConnections(), server.close()) };
}

export async function browser({ issuer, resource, passphrase }) {
  mkdirSync(PICTURES, { recursive: true });
  const listener = await callbackListener();
  const context = await chromium.launchPersistentContext(mkdtempSync(join(scratch, 'chromium-')), {
    executablePath: CHROMIUM,
    headless: true,
    args: FLAGS,
    viewport: { width: 1280, height: 900 },
  });
  context.setDefaultTimeout(15_000);
  const complaints = [];
  const client = await register(issuer, 'http://127.0.0.1:1/callback', {
    client_name: 'Browser & <b>interop</b>',
    redirect_uris: ['http://127.0.0.1:1/callback', 'http://localhost:1/callback', APP],
    application_type: 'native',
  });
  const ask = (redirectUri, more = { resource }) => request(issuer, { clientId: client.client_id, redirectUri, ...more });
  const loopback = (host = '127.0.0.1') => `http://${host}:${listener.port}/callback`;

  async function openPage(asked, where = context) {
    const page = await where.newPage();
    page.on('pageerror', (error) => complaints.push(`${error}`));
    page.on('console', (message) => message.type() === 'error' && complaints.push(message.text()));
    const response = await page.goto(asked.url);
    check(response.status() === 200, `the consent page answered ${response.status()}`);
    return page;
  }
  const type = (page, words = passphrase) => page.fill('input[name=secret]', words);
  const button = (page, decision) => page.locator(`button[name=decision][value=${decision}]`);
  async function atCallback(page, asked, host = '127.0.0.1') {
    await page.waitForURL((url) => url.hostname === host && url.pathname === '/callback');
    const answer = new URL(page.url()).searchParams;
    check(answer.get('state') === asked.state, 'the callback has another state');
    check(answer.get('iss') === issuer, `the callback has iss ${answer.get('iss')}`);
    return answer;
  }
  async function approve(page, asked, host) {
    await type(page);
    await button(page, 'approve').click();
    return atCallback(page, asked, host);
  }
  async function redeems(asked, answer) {
    const response = await asked.redeem(answer.get('code'));
    check(response.status === 200, `the code was refused: ${await response.text()}`);
  }
  /** One step in a page of its own; a complaint on the browser's console fails it. */
  const inBrowser = (name, action) =>
    step(`browser · ${name}`, async () => {
      complaints.length = 0;
      const before = context.pages();
      try {
        const note = await action();
        check(complaints.length === 0, `on the console: ${complaints.join(' | ')}`);
        return note;
      } finally {
        for (const page of context.pages()) if (!before.includes(page)) await page.close();
      }
    });

  try {
    await inBrowser('approving leads back to the client with a code', async () => {
      const asked = ask(loopback());
      await redeems(asked, await approve(await openPage(asked), asked));
    });

    await inBrowser('the page names the client, where it returns to, and the upstream', async () => {
      const words = await (await openPage(ask(APP))).locator('body').innerText();
      for (const part of ['Browser & <b>interop</b>', 'cursor:', new URL(resource).pathname.split('/').at(-1)]) {
        check(words.toLowerCase().includes(part.toLowerCase()), `"${part}" is not on the page: ${words}`);
      }
    });

    await inBrowser('denying leads back with access_denied, without a passphrase', async () => {
      const asked = ask(loopback());
      const page = await openPage(asked);
      await button(page, 'deny').click();
      const answer = await atCallback(page, asked);
      check(answer.get('error') === 'access_denied', `error is ${answer.get('error')}`);
      check(!answer.has('code'), 'a code came with the denial');
    });

    await inBrowser('a wrong passphrase can be corrected', async () => {
      const asked = ask(loopback());
      const page = await openPage(asked);
      await type(page, 'not the passphrase at all');
      const [response] = await Promise.all([page.waitForNavigation(), button(page, 'approve').click()]);
      check(response.status() === 401, `the answer was ${response.status()}`);
      await page.screenshot({ path: join(PICTURES, 'wrong-passphrase.png'), fullPage: true });
      // The browser itself reports the status of the answer.
      complaints.splice(0, complaints.length, ...complaints.filter((it) => !it.includes('status of 401')));
      await redeems(asked, await approve(page, asked));
    });

    await inBrowser('two tabs finish independently', async () => {
      const [first, second] = [ask(loopback()), ask(loopback())];
      const [one, two] = [await openPage(first), await openPage(second)];
      const late = await approve(two, second);
      const early = await approve(one, first);
      await redeems(first, early);
      await redeems(second, late);
    });

    await inBrowser('the back button after success gives no second use of the code', async () => {
      const asked = ask(loopback());
      const page = await openPage(asked);
      const first = await approve(page, asked);
      const back = await page.goBack();
      check(!back || back.status() < 500, `going back answered ${back?.status()}`);
      if (await button(page, 'approve').count()) {
        await type(page);
        await button(page, 'approve').click();
        await page.waitForLoadState();
        const again = new URL(page.url()).searchParams.get('code');
        check(again !== first.get('code'), 'the same code was given again');
      } else {
        check((await page.locator('body').innerText()).trim().length > 20, 'the page explains nothing');
      }
      complaints.length = 0;
    });

    await inBrowser('a double click on Approve counts once', async () => {
      const asked = ask(loopback());
      const page = await openPage(asked);
      let sent = 0;
      page.on('request', (it) => (sent += it.method() === 'POST' ? 1 : 0));
      await type(page);
      const { x, y, width, height } = await button(page, 'approve').boundingBox();
      await page.mouse.click(x + width / 2, y + height / 2);
      await until('a request', 5, () => sent === 1);
      await page.mouse.click(x + width / 2, y + height / 2);
      await until('the way back to the client', 15, () => new URL(page.url()).pathname === '/callback');
      await redeems(asked, await atCallback(page, asked));
      return `${sent} requests`;
    });

    await inBrowser('a person chooses the upstream when the client names none', async () => {
      const asked = ask(loopback(), {});
      const page = await openPage(asked);
      await page.locator('input[name=upstream][value=demo]').check();
      const answer = await approve(page, asked);
      const { access_token: token } = await (await asked.redeem(answer.get('code'))).json();
      const { status: chosen } = await callTool(`${issuer}/mcp/demo`, token, 'get_user_info', {});
      const { status: other } = await callTool(resource, token, 'echo', { message: 'no' });
      check(chosen === 200 && other === 401, `the chosen upstream answered ${chosen}, another ${other}`);
    });

    await inBrowser('nothing that was typed goes on to the client', async () => {
      const asked = ask(loopback());
      const before = listener.received.length;
      await redeems(asked, await approve(await openPage(asked), asked));
      const received = listener.received.slice(before);
      check(received.some(({ url }) => url.startsWith('/callback?')), 'the callback was not called');
      for (const { method, url, headers, body } of received) {
        check(method === 'GET' && body === '', `${method} ${url} came with ${body.length} characters`);
        // The client's own page may be the referrer of what it asks for itself, its icon for one.
        check(!headers.referer?.startsWith(issuer), `the referrer ${headers.referer} was told`);
        const said = decodeURIComponent(JSON.stringify([url, headers]).replaceAll('+', ' '));
        check(!said.includes(passphrase), 'the passphrase was told');
      }
    });

    await inBrowser('a client on localhost gets its code on any port', async () => {
      const asked = ask(loopback('localhost'));
      await redeems(asked, await approve(await openPage(asked), asked, 'localhost'));
    });

    /** The links of an app that the page opens, as the browser hands them to the system. */
    async function calls(page) {
      const devtools = await context.newCDPSession(page);
      await devtools.send('Network.enable');
      const called = [];
      devtools.on('Network.requestWillBeSent', ({ request: sent, requestId }) => {
        if (sent.url.startsWith('cursor://')) called.push({ url: sent.url, requestId });
      });
      devtools.on('Network.loadingFailed', ({ requestId, errorText, blockedReason }) => {
        const call = called.find((it) => it.requestId === requestId);
        if (call) Object.assign(call, { errorText, blockedReason });
      });
      return called;
    }
    const ended = (call) => call?.errorText !== undefined;
    /** Here nothing is installed for the scheme, and the browser says so. */
    const forgetMissingApp = () =>
      complaints.splice(0, complaints.length, ...complaints.filter((it) => !/registered handler|scheme/.test(it)));

    await inBrowser('an app is opened by its link, and the tab says that it is done', async () => {
      const asked = ask(APP);
      const page = await openPage(asked);
      const called = await calls(page);
      await type(page);
      await button(page, 'approve').click({ noWaitAfter: true });
      await page.getByText('You can close this page').waitFor();
      await until('a call of cursor://', 10, () => ended(called[0]));
      const { url, errorText, blockedReason } = called[0];
      check(!blockedReason && !/BLOCKED/.test(errorText), `it was blocked: ${blockedReason ?? errorText}`);
      check((await page.locator('input').count()) === 0, 'the form is still there');
      check(!(await page.content()).includes(passphrase), 'the passphrase is still there');
      await page.screenshot({ path: join(PICTURES, 'app-opened.png'), fullPage: true });
      // For the case that the app did not open. Pressing it here would do nothing: the browser's own
      // question, whether to open the app, waits for an answer that nobody can give it.
      check((await page.locator('a').getAttribute('href')) === url, 'the link is another one');
      await redeems(asked, new URL(url).searchParams);
      // What was typed does not come back with the page before.
      await page.goBack();
      check((await page.inputValue('input[name=secret]')) === '', 'the passphrase is in the field again');
      forgetMissingApp();
      return errorText;
    });

    await inBrowser('denying an app leaves a page that says so', async () => {
      const asked = ask(APP);
      const page = await openPage(asked);
      const called = await calls(page);
      await button(page, 'deny').click({ noWaitAfter: true });
      await page.getByText('Denied. You can close this page').waitFor();
      await until('a call of cursor://', 10, () => ended(called[0]));
      check(new URL(called[0].url).searchParams.get('error') === 'access_denied', `it was told ${called[0].url}`);
      forgetMissingApp();
    });

    await inBrowser('without JavaScript an app is opened too', async () => {
      const plain = await context.browser().newContext({ javaScriptEnabled: false });
      try {
        const asked = ask(APP);
        const page = await openPage(asked, plain);
        await type(page);
        await button(page, 'approve').click({ noWaitAfter: true });
        await page.getByText('You can close this page').waitFor();
        const refresh = await page.locator('meta[http-equiv=refresh]').getAttribute('content');
        await redeems(asked, new URL(refresh.replace(/^0; url=/, '')).searchParams);
        forgetMissingApp();
      } finally {
        await plain.close();
      }
    });

    await inBrowser('an address that is opened says what to do with it', async () => {
      const page = await context.newPage();
      const response = await page.goto(resource);
      const words = await page.locator('body').innerText();
      check(response.status() === 401, `the answer was ${response.status()}`);
      check(words.includes(`claude mcp add --transport http everything ${resource}`), `it says: ${words}`);
      await page.screenshot({ path: join(PICTURES, 'address.png'), fullPage: true });
    });

    await inBrowser('another site cannot frame the page', async () => {
      const site = await framingSite(ask(loopback()).url);
      const page = await context.newPage();
      const refused = [];
      page.on('requestfailed', (failed) => refused.push(failed.failure().errorText));
      try {
        await page.goto(site.url);
        await until('a refused frame', 10, () => refused.length > 0);
        const frame = page.frames().at(-1);
        check((await frame.locator('form').count()) === 0, 'the form is shown in the frame');
      } finally {
        site.close();
      }
      return refused[0];
    });

    const sizes = { narrow: { width: 340, height: 720 }, phone: { width: 390, height: 844 }, wide: { width: 1280, height: 900 } };
    for (const [size, viewport] of Object.entries(sizes)) {
      for (const colorScheme of ['light', 'dark']) {
        await inBrowser(`the page fits, ${size} and ${colorScheme}`, async () => {
          const page = await openPage(ask(loopback()));
          await page.setViewportSize(viewport);
          await page.emulateMedia({ colorScheme });
          await page.screenshot({ path: join(PICTURES, `consent-${size}-${colorScheme}.png`), fullPage: true });
          const width = await page.evaluate(() => document.documentElement.scrollWidth);
          check(width <= viewport.width, `it is ${width} wide`);
        });
      }
    }

    await inBrowser('without JavaScript it works all the same', async () => {
      const plain = await context.browser().newContext({ javaScriptEnabled: false });
      try {
        const asked = ask(loopback());
        await redeems(asked, await approve(await openPage(asked, plain), asked));
      } finally {
        await plain.close();
      }
    });
  } finally {
    await context.close();
    listener.close();
  }
}
