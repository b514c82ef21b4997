// An upstream that offers what the scenarios of the conformance suite call, in both eras of the
// protocol: sessions up to 2025-11-25, single requests from 2026-07-28. The names are the suite's.

import { randomBytes, randomUUID } from 'node:crypto';
import http from 'node:http';
import { setTimeout as pause } from 'node:timers/promises';

import {
  localhostHostValidation,
  localhostOriginValidation,
  NodeStreamableHTTPServerTransport,
  toNodeHandler,
  toWebRequest,
} from '@modelcontextprotocol/node';
import {
  acceptedContent,
  CLIENT_CAPABILITIES_META_KEY,
  completable,
  createMcpHandler,
  createRequestStateCodec,
  fromJsonSchema,
  inputRequired,
  isLegacyRequest,
  McpServer,
  ResourceTemplate,
} from '@modelcontextprotocol/server';
import { z } from 'zod';

const PNG = 'iVBORw0KGgoAAAANSUhEUgAAAAEAAAABCAYAAAAfFcSJAAAADUlEQVR42mP8z8BQDwAEhQGAhKmMIQAAAABJRU5ErkJggg==';
const WAV = 'UklGRiQAAABXQVZFZm10IBAAAAABAAEARKwAAIhYAQACABAAZGF0YQAAAAA=';

const text = (words) => ({ type: 'text', text: words });
const image = { type: 'image', data: PNG, mimeType: 'image/png' };
const resource = (uri, mimeType, words) => ({ type: 'resource', resource: { uri, mimeType, text: words } });
const content = (...items) => ({ content: items });
const object = (properties, required) => ({ type: 'object', properties, ...(required && { required }) });

const state = createRequestStateCodec({ key: randomBytes(32) });

/** Change notifications of the modern era, sent to all listening streams. */
let notify;

/** Tools without arguments whose answer is always the same. */
const ANSWERS = {
  test_simple_text: content(text('This is a simple text response for testing.')),
  test_image_content: content(image),
  test_audio_content: content({ type: 'audio', data: WAV, mimeType: 'audio/wav' }),
  test_embedded_resource: content(resource('test://embedded-resource', 'text/plain', 'This is an embedded resource.')),
  test_multiple_content_types: content(
    text('Multiple content types test:'),
    image,
    resource('test://mixed-content-resource', 'application/json', '{"test":"data","value":123}'),
  ),
  test_streaming_elicitation: content(text('Nothing had to be asked.')),
  test_logging_tool: content(text('Nothing was logged.')),
};

/** Tools without arguments that do something. */
const ACTIONS = {
  test_error_handling() {
    throw new Error('This tool intentionally returns an error for testing');
  },
  async test_tool_with_logging(_, { mcpReq }) {
    for (const words of ['Tool execution started', 'Tool processing data', 'Tool execution completed']) {
      await mcpReq.log('info', words);
      await pause(50);
    }
    return content(text('Logged three times.'));
  },
  async test_tool_with_progress(_, { mcpReq }) {
    const { progressToken } = mcpReq._meta ?? {};
    for (const progress of [0, 50, 100]) {
      if (progressToken !== undefined) {
        await mcpReq.notify({ method: 'notifications/progress', params: { progressToken, progress, total: 100 } });
      }
      await pause(50);
    }
    return content(text('Done.'));
  },
  async test_reconnection(_, { http, mcpReq }) {
    http?.closeSSE?.();
    await pause(100);
    return content(text(`Answered ${mcpReq.method} after the stream was closed.`));
  },
  test_missing_capability() {
    return inputRequired({ inputRequests: { question: sample('What can you do?') } });
  },
  test_trigger_tool_change() {
    notify.toolsChanged();
    return content(text('Told.'));
  },
  test_trigger_prompt_change() {
    notify.promptsChanged();
    return content(text('Told.'));
  },
  test_trigger_resource_change() {
    notify.resourcesChanged();
    return content(text('Told.'));
  },
};

const capabilities = (mcpReq) => mcpReq.envelope?.[CLIENT_CAPABILITIES_META_KEY] ?? {};

/** The forms of legacy elicitation that two scenarios look at. */
const ELICITED = {
  test_elicitation_sep1034_defaults: object({
    name: { type: 'string', default: 'John Doe' },
    age: { type: 'integer', default: 30 },
    score: { type: 'number', default: 95.5 },
    status: { type: 'string', enum: ['active', 'inactive', 'pending'], default: 'active' },
    verified: { type: 'boolean', default: true },
  }),
  test_elicitation_sep1330_enums: object({
    untitledSingle: { type: 'string', enum: ['option1', 'option2', 'option3'] },
    titledSingle: { type: 'string', oneOf: titled('value', 'Option') },
    legacyEnum: { type: 'string', enum: ['opt1', 'opt2'], enumNames: ['Option One', 'Option Two'] },
    untitledMulti: { type: 'array', items: { type: 'string', enum: ['option1', 'option2', 'option3'] } },
    titledMulti: { type: 'array', items: { anyOf: titled('value', 'Choice') } },
  }),
};

function titled(value, title) {
  return [1, 2, 3].map((number) => ({ const: `${value}${number}`, title: `${title} ${number}` }));
}

const ask = (message, field, type = 'string') =>
  inputRequired.elicit({ message, requestedSchema: object({ [field]: { type } }, [field]) });
const sample = (words) =>
  inputRequired.createMessage({ messages: [{ role: 'user', content: text(words) }], maxTokens: 100 });

/** Modern tools that need input: what they ask, and whether their state is sealed. */
const NEEDS_INPUT = {
  test_input_required_result_elicitation: { asks: { user_name: ask('What is your name?', 'name') } },
  test_input_required_result_sampling: { asks: { capital_question: sample('What is the capital of France?') } },
  test_input_required_result_list_roots: { asks: { client_roots: inputRequired.listRoots() } },
  test_input_required_result_request_state: { asks: { confirm: ask('Please confirm', 'ok', 'boolean') }, sealed: true },
  test_input_required_result_tampered_state: { asks: { confirm: ask('Please confirm', 'ok', 'boolean') }, sealed: true },
  test_input_required_result_multiple_inputs: {
    asks: {
      user_name: ask('What is your name?', 'name'),
      greeting: sample('Generate a greeting'),
      client_roots: inputRequired.listRoots(),
    },
    sealed: true,
  },
};

const isAnswer = (value) => typeof value === 'object' && value !== null;

async function answerOrAsk({ asks, sealed }, { mcpReq }) {
  const answers = mcpReq.inputResponses ?? {};
  if (Object.keys(asks).every((key) => isAnswer(answers[key]))) {
    return content(text(`${sealed ? 'state-ok ' : ''}${JSON.stringify(answers)}`));
  }
  return inputRequired({ inputRequests: asks, ...(sealed && { requestState: await state.mint({ round: 1 }) }) });
}

async function twoRounds(_, { mcpReq }) {
  const round = mcpReq.requestState()?.round ?? 0;
  if (round === 2) return content(text('Thank you.'));
  const question = round === 0 ? ['Step 1: What is your name?', 'name'] : ['Step 2: What is your favorite color?', 'color'];
  return inputRequired({
    inputRequests: { [`step${round + 1}`]: ask(...question) },
    requestState: await state.mint({ round: round + 1 }),
  });
}

async function onlyWhatTheClientCan(_, { mcpReq }) {
  const { sampling, elicitation } = capabilities(mcpReq);
  return inputRequired({
    inputRequests: {
      ...(sampling && { question: sample('What is the capital of France?') }),
      ...(elicitation && { name: ask('What is your name?', 'name') }),
    },
  });
}

/** A schema with the keywords that must survive the way to the client. */
const KEYWORDS = {
  $schema: 'https://json-schema.org/draft/2020-12/schema',
  ...object({
    name: { type: 'string' },
    address: { $ref: '#/$defs/address' },
    contactMethod: { type: 'string', enum: ['phone', 'email'] },
    phone: { type: 'string' },
    email: { type: 'string' },
  }),
  $defs: { address: { $anchor: 'addressDef', ...object({ street: { type: 'string' }, city: { type: 'string' } }) } },
  allOf: [{ anyOf: [{ required: ['phone'] }, { required: ['email'] }] }],
  if: { properties: { contactMethod: { const: 'phone' } }, required: ['contactMethod'] },
  then: { required: ['phone'] },
  else: { required: ['email'] },
  additionalProperties: false,
};

function makeServer({ era }) {
  const server = new McpServer(
    { name: 'conformance-fixture', version: '1.0.0' },
    {
      capabilities: {
        tools: { listChanged: true },
        prompts: { listChanged: true },
        resources: { listChanged: true, subscribe: true },
        logging: {},
        completions: {},
      },
      requestState: { verify: state.verify },
    },
  );
  const tool = (name, action, inputSchema) =>
    server.registerTool(name, { description: name.replaceAll('_', ' '), inputSchema }, action);

  for (const [name, answer] of Object.entries(ANSWERS)) tool(name, () => answer, z.object({}));
  for (const [name, action] of Object.entries(ACTIONS)) tool(name, action, z.object({}));
  tool('json_schema_2020_12_tool', (args) => content(text(JSON.stringify(args))), fromJsonSchema(KEYWORDS));
  tool(
    'test_custom_header',
    ({ region }) => content(text(`Region ${region}`)),
    fromJsonSchema(object({ region: { type: 'string', 'x-mcp-header': 'Region' } })),
  );
  if (era === 'legacy') offerLegacy(server, tool);
  else offerModern(server, tool);
  offerResources(server);
  offerPrompts(server);
  return server;
}

// `send` puts a request on the stream of the call; `elicitInput` would use the stream that the client
// opens with GET, and what is sent before that is open is lost.
function offerLegacy(server, tool) {
  tool(
    'test_sampling',
    async ({ prompt }, { mcpReq }) => {
      const params = { messages: [{ role: 'user', content: text(prompt) }], maxTokens: 100 };
      const answer = await mcpReq.send({ method: 'sampling/createMessage', params });
      return content(text(`LLM response: ${answer.content.text}`));
    },
    z.object({ prompt: z.string() }),
  );
  const elicit = async (message, requestedSchema, { mcpReq }) => {
    const params = { message, requestedSchema };
    const { action, content: given } = await mcpReq.send({ method: 'elicitation/create', params });
    return content(text(`Elicitation completed: action=${action}, content=${JSON.stringify(given)}`));
  };
  const username = object({ username: { type: 'string' }, email: { type: 'string' } }, ['username', 'email']);
  tool('test_elicitation', ({ message }, ctx) => elicit(message, username, ctx), z.object({ message: z.string() }));
  for (const [name, form] of Object.entries(ELICITED)) {
    tool(name, (_, ctx) => elicit('Please fill in', form, ctx), z.object({}));
  }
  server.server.setRequestHandler('resources/subscribe', () => ({}));
  server.server.setRequestHandler('resources/unsubscribe', () => ({}));
}

function offerModern(server, tool) {
  for (const [name, needs] of Object.entries(NEEDS_INPUT)) {
    tool(name, (_, ctx) => answerOrAsk(needs, ctx), z.object({}));
  }
  tool('test_input_required_result_multi_round', twoRounds, z.object({}));
  tool('test_input_required_result_capabilities', onlyWhatTheClientCan, z.object({}));
  server.registerPrompt(
    'test_input_required_result_prompt',
    { description: 'Asks for context first' },
    ({ mcpReq }) => {
      const given = acceptedContent(mcpReq.inputResponses, 'user_context');
      return given
        ? { messages: [{ role: 'user', content: text(given.context) }] }
        : inputRequired({ inputRequests: { user_context: ask('What context should the prompt use?', 'context') } });
    },
  );
}

function offerResources(server) {
  const plain = { description: 'A static text', mimeType: 'text/plain' };
  for (const name of ['static-text', 'watched-resource']) {
    server.registerResource(name, `test://${name}`, plain, ({ href }) => ({
      contents: [{ uri: href, mimeType: 'text/plain', text: 'This is the content of the static text resource.' }],
    }));
  }
  server.registerResource(
    'static-binary', 'test://static-binary', { description: 'A static image', mimeType: 'image/png' },
    ({ href }) => ({ contents: [{ uri: href, mimeType: 'image/png', blob: PNG }] }),
  );
  server.registerResource(
    'template',
    new ResourceTemplate('test://template/{id}/data', { list: undefined }),
    { description: 'Data by id', mimeType: 'application/json' },
    ({ href }, { id }) => ({
      contents: [{ uri: href, mimeType: 'application/json', text: JSON.stringify({ id, templateTest: true }) }],
    }),
  );
}

function offerPrompts(server) {
  const prompt = (name, argsSchema, answer) =>
    server.registerPrompt(name, { description: name.replaceAll('_', ' '), argsSchema }, (...given) => ({
      messages: answer(...given).map((item) => ({ role: 'user', content: item })),
    }));
  prompt('test_simple_prompt', undefined, () => [text('This is a simple prompt for testing.')]);
  prompt(
    'test_prompt_with_arguments',
    z.object({
      arg1: completable(z.string(), (start) => ['paris', 'park', 'party'].filter((word) => word.startsWith(start))),
      arg2: z.string(),
    }),
    ({ arg1, arg2 }) => [text(`Prompt with arguments: arg1='${arg1}', arg2='${arg2}'`)],
  );
  prompt('test_prompt_with_embedded_resource', z.object({ resourceUri: z.string() }), ({ resourceUri }) => [
    resource(resourceUri, 'text/plain', 'Embedded resource content for testing.'),
    text('Please process the embedded resource above.'),
  ]);
  prompt('test_prompt_with_image', undefined, () => [image, text('Please analyze the image above.')]);
}

// ---- serving

/** Keeps the events of a session, so that a stream can be taken up again after its last event. */
class Events {
  kept = [];
  async storeEvent(streamId, message) {
    return String(this.kept.push({ streamId, message }));
  }
  async getStreamIdForEventId(eventId) {
    return this.kept[Number(eventId) - 1]?.streamId;
  }
  async replayEventsAfter(eventId, { send }) {
    const { streamId } = this.kept[Number(eventId) - 1];
    for (const [index, event] of this.kept.entries()) {
      if (index >= Number(eventId) && event.streamId === streamId && Object.keys(event.message).length > 0) {
        await send(String(index + 1), event.message);
      }
    }
    return streamId;
  }
}

const sessions = new Map();

async function serveLegacy(request, response, body) {
  const id = request.headers['mcp-session-id'];
  let transport = sessions.get(id);
  if (id && !transport) return response.writeHead(404).end();
  if (!transport) {
    transport = new NodeStreamableHTTPServerTransport({
      sessionIdGenerator: randomUUID,
      eventStore: new Events(),
      retryInterval: 100,
      onsessioninitialized: (started) => sessions.set(started, transport),
      onsessionclosed: (ended) => sessions.delete(ended),
    });
    await makeServer({ era: 'legacy' }).connect(transport);
  }
  await transport.handleRequest(request, response, body);
}

const modern = createMcpHandler(makeServer, { legacy: 'reject' });
({ notify } = modern);
const serveModern = toNodeHandler(modern);
const hasGoodHost = localhostHostValidation();
const hasGoodOrigin = localhostOriginValidation();

http
  .createServer(async (request, response) => {
    if (!hasGoodHost(request, response) || !hasGoodOrigin(request, response)) return;
    if (request.method !== 'POST') return serveLegacy(request, response);
    const probe = await toWebRequest(request);
    const legacy = await isLegacyRequest(probe);
    const body = await probe.json().catch(() => undefined);
    await (legacy ? serveLegacy : serveModern)(request, response, body);
  })
  .listen(Number(process.env.PORT), '127.0.0.1');
