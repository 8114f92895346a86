// What a program that uses OpenAI's SDK for JavaScript does; prints what it saw, as JSON.
// Run from the folder of the SDK: node openai_sdk.mjs <base URL>
import { createRequire } from "node:module";

const require = createRequire(`${process.cwd()}/`);
const { OpenAI } = require("openai");
const client = new OpenAI({ baseURL: process.argv[2], apiKey: "none", maxRetries: 0 });
const ask = (text, more) => ({ messages: [{ role: "user", content: text }], max_tokens: 12, ...more });
const seen = {};

const models = [];
for await (const model of client.models.list()) models.push(model.id);
seen.models = models;
seen.model = (await client.models.retrieve("auto")).owned_by;

const { data, response } = await client.chat.completions.create(ask("Hello there!", { model: "auto" })).withResponse();
seen.plain = { model: data.model, content: data.choices[0].message.content, usage: data.usage };
seen.why = response.headers.get("x-octoroute-reason");
seen.id = response.headers.get("x-request-id");

for (const [name, options] of [["stream", {}], ["counted", { stream_options: { include_usage: true } }]]) {
  const chunks = [];
  const stream = await client.chat.completions.create(ask("Name a colour.", { model: "deep", stream: true, ...options }));
  for await (const chunk of stream) chunks.push(chunk);
  seen[name] = {
    content: chunks.map((chunk) => chunk.choices[0]?.delta?.content ?? "").join(""),
    finished: chunks.filter((chunk) => chunk.choices[0]?.finish_reason).length,
    withoutChoice: chunks.filter((chunk) => chunk.choices.length === 0).length,
    usage: chunks.at(-1).usage ?? null,
  };
}

const stopped = await client.chat.completions.create(ask("Count.", { model: "fast", stream: true, max_tokens: 200 }));
for await (const _ of stopped) break; // which aborts the request
seen.stopped = stopped.controller.signal.aborted;

for (const [name, request] of [
  ["unknownModel", ask("x", { model: "gpt-nothing" })],
  ["badValue", ask("x", { model: "fast", temperature: 9 })],
  ["tooLong", ask("word ".repeat(9000), { model: "fast" })],
]) {
  try {
    await client.chat.completions.create(request);
  } catch (error) {
    seen[name] = { class: error.constructor.name, status: error.status, type: error.type, param: error.param };
  }
}
console.log(JSON.stringify(seen));
