// From what the admin API says to what stands on the page.

import { NONE, clock, count, course, duration, lately, percent, quantile, rate, span } from "./figures.js";
import { by, make, meter, put, rows, sparkline } from "./page.js";

const MINUTE = 60;
const COURSE = 120;
const SOFTWARE = { llama_cpp: "llama.cpp", vllm: "vLLM", sglang: "SGLang", ollama: "Ollama", openai: "other" };
const OUTCOMES = {
  ok: ["good", ""],
  client_error: ["", ""],
  limited: ["warn", ""],
  error: ["bad", ""],
  broken: ["bad", "broken off"],
  client_gone: ["", "client gone"],
};

export function showFacts({ gateway, tiers }) {
  put(by("version"), gateway.version);
  const facts = [
    ["Up", span(gateway.uptime_seconds)],
    ["Workers", count(gateway.workers)],
    ["Requests", count(gateway.requests)],
    ["In flight", count(Object.values(tiers).reduce((sum, tier) => sum + tier.in_flight, 0))],
  ];
  const list = by("facts");
  if (!list.children.length) {
    for (const [name] of facts) {
      const pair = make("div");
      pair.append(make("dt", name), make("dd"));
      list.append(pair);
    }
  }
  facts.forEach(([, value], at) => put(list.children[at].lastChild, value));
}

export function showTiers({ tiers, queues, endpoints }, samples) {
  rows(by("tiers"), Object.entries(tiers), ([name]) => name, null, (cells, [name, tier]) => {
    const own = endpoints.filter((endpoint) => endpoint.tier === name);
    const up = own.filter((endpoint) => endpoint.healthy && !endpoint.draining && !endpoint.asleep).length;
    const last = lately(samples, name, MINUTE);
    const at = (share) => duration(quantile(share, last.first, last.bounds));
    const answered = last && last.first.some((one) => one > 0);
    const failed = last?.requests ? last.failed / last.requests : null;
    const stand = tier.fallback.length ? `, then ${tier.fallback.join(", ")}` : "";
    put(cells[0], name);
    put(cells[1], tier.policy.replaceAll("_", " ") + stand);
    put(cells[2], own.length ? `${up}/${own.length}` : "none", up ? (up < own.length ? "warn" : "") : "bad");
    put(cells[3], count(tier.in_flight));
    put(cells[4], count(queues[name].waiting), queues[name].waiting ? "warn" : "");
    put(cells[5], last ? duration(last.wait) : NONE);
    put(cells[6], failed === null ? NONE : percent(failed), failed ? "bad" : "");
    put(cells[7], answered ? `${at(0.5)} · ${at(0.95)}` : NONE);
    put(cells[8], last ? rate(last.tokens) : NONE);
    put(cells[9], last ? rate(last.rate) : NONE);
    cells[10].replaceChildren(sparkline(course(samples, name), COURSE));
  });
}

function state(endpoint) {
  if (!endpoint.healthy) {
    const times = endpoint.consecutive_failures;
    return ["bad", "down", times ? `${times} failure${times === 1 ? "" : "s"} in a row` : ""];
  }
  if (endpoint.draining) return ["warn", "draining", endpoint.in_flight ? "" : "idle"];
  if (endpoint.asleep) return ["warn", "asleep", ""];
  if (endpoint.capacity && endpoint.in_flight >= endpoint.capacity) return ["warn", "full", ""];
  return ["good", "up", ""];
}

function load(endpoint) {
  if (!endpoint.load) return NONE;
  const { running, waiting, kv_use, seconds_ago } = endpoint.load;
  const parts = [`${running}\u00a0run`];
  if (waiting) parts.push(`${waiting}\u00a0wait`);
  if (kv_use) parts.push(`KV\u00a0${percent(kv_use)}`);
  return parts.join(" · ") + (seconds_ago > 15 ? ` (${span(seconds_ago)} ago)` : "");
}

export function showEndpoints({ endpoints }, steering) {
  const names = {};
  for (const { tier, name } of endpoints) names[`${tier}/${name}`] = (names[`${tier}/${name}`] ?? 0) + 1;
  const known = endpoints.map((one) => ({ ...one, replicas: names[`${one.tier}/${one.name}`] }));
  by("no-endpoints").hidden = known.length > 0;
  by("endpoints").hidden = known.length === 0;
  const key = ({ tier, name, replica }) => `${tier}/${name}#${replica}`;
  const fill = (cells, _, row) => {
    cells[0].append(make("span", "", "tier"), make("span", "", "name"), make("small"));
    cells[2].append(make("span", "", "state"), make("small"));
    cells[3].append(make("span", "", "figure"));
    const [weight, drain] = [make("button"), make("button")];
    weight.type = drain.type = "button";
    weight.onclick = () => steering.weight(row.endpoint);
    drain.onclick = () => steering.drain(row.endpoint);
    cells[9].append(weight, " ", drain);
  };
  let tier = "";
  rows(by("endpoints"), known, key, fill, (cells, endpoint, row) => {
    row.endpoint = endpoint;
    row.classList.toggle("first", endpoint.tier !== tier);
    tier = endpoint.tier;
    const [of, name, more] = cells[0].children;
    put(of, endpoint.tier);
    put(name, endpoint.name);
    const other = endpoint.model !== endpoint.name ? ` as ${endpoint.model}` : "";
    put(more, (endpoint.replicas > 1 ? ` #${endpoint.replica}` : "") + other);
    // The worker that is asked next may not have learnt it yet.
    if (endpoint.software || !cells[1].textContent) put(cells[1], SOFTWARE[endpoint.software] ?? NONE);
    const [colour, word, detail] = state(endpoint);
    put(cells[2].firstChild, word, colour);
    put(cells[2].lastChild, detail && ` ${detail}`);
    const of_all = endpoint.capacity ? ` / ${count(endpoint.capacity)}` : "";
    put(cells[3].firstChild, count(endpoint.in_flight) + of_all);
    cells[3].querySelector(".meter")?.remove();
    if (endpoint.capacity) cells[3].append(meter(endpoint.in_flight / endpoint.capacity));
    put(cells[4], load(endpoint));
    put(cells[5], duration(endpoint.ttft_ms === null ? null : endpoint.ttft_ms / 1000));
    put(cells[6], count(endpoint.priority));
    const changed = endpoint.weight !== endpoint.configured_weight;
    put(cells[7], count(endpoint.weight) + (changed ? "*" : ""), changed ? "warn" : "");
    const ago = endpoint.last_check_seconds_ago;
    put(cells[8], ago === null ? "never" : `${span(ago)} ago`);
    const [weight, drain] = cells[9].children;
    put(weight, "Weight");
    put(drain, endpoint.draining ? "Undrain" : "Drain");
    const one = `${endpoint.tier}/${endpoint.name} ${endpoint.replicas > 1 ? endpoint.replica : ""}`;
    weight.setAttribute("aria-label", `Weight of ${one}`);
    drain.setAttribute("aria-label", `${drain.textContent} ${one}`);
  });
}

export function showSources({ discovery }) {
  by("sources-section").hidden = !discovery?.length;
  rows(by("sources"), discovery ?? [], ({ source, tier }) => `${source}.${tier}`, null, (cells, one) => {
    const failing = one.failing !== null;
    put(cells[0], one.source === "dns" ? "DNS" : "Kubernetes");
    put(cells[1], one.tier);
    put(cells[2], count(one.servers), one.servers ? "" : "bad");
    cells[3].replaceChildren(
      make("span", failing ? one.failing.replaceAll("_", " ") : "up to date", `state ${failing ? "bad" : "good"}`),
    );
    const ago = one.success_seconds_ago;
    put(cells[4], ago === null ? "never" : `${span(ago)} ago`);
  });
}

/** "used / limit". A limit of 0 is none, and what has none is not counted, perhaps. */
function showUse(cell, used, limit) {
  put(cell, limit ? `${count(used)} / ${count(limit)}` : count(used), limit && used >= limit ? "warn" : "");
}

function sharing(limits) {
  if (!limits) return ["", ""];
  const { redis, gateways, workers_away: away } = limits;
  if (redis === "up" && !away) return [gateways === 1 ? "" : `limits hold over ${gateways} gateways`, ""];
  if (redis === "connecting") return ["Redis is not reached yet: each gateway holds keys to its share", "warn"];
  return ["Redis is away: each gateway holds keys to its share", "warn"];
}

export function showTenants({ tenants, shared_limits }) {
  by("tenants-section").hidden = !tenants?.length;
  put(by("sharing"), ...sharing(shared_limits));
  rows(by("tenants"), tenants ?? [], ({ name }) => name, null, (cells, one) => {
    put(cells[0], one.name);
    showUse(cells[1], one.in_flight, one.max_in_flight);
    showUse(cells[2], one.requests, one.requests_per_minute);
    showUse(cells[3], one.tokens, one.tokens_per_minute);
    put(cells[4], one.admin ? `${one.tiers.join(", ")}; admin` : one.tiers.join(", "));
  });
}

function ended({ status, result }) {
  if (result === "broken" || result === "client_gone") return result;
  if (status === 429) return "limited";
  if (status >= 400 && status < 500) return "client_error";
  return result === "ok" && status < 500 ? "ok" : "error";
}

export function showRecent({ requests, workers }, filtered) {
  const silent = workers.asked - workers.answered;
  const none = requests.length ? "" : filtered ? "No request is like that." : "No request has been made yet.";
  const told = silent ? ` ${silent} of ${workers.asked} workers did not answer in time: theirs are missing.` : "";
  put(by("no-recent"), (none + told).trim());
  by("no-recent").hidden = !none && !silent;
  by("recent").hidden = requests.length === 0;
  by("recent").classList.toggle("keyless", requests.every((one) => !one.tenant));
  const key = (one) => `${one.time} ${one.request_id}`;
  rows(by("recent"), requests, key, null, (cells, one, row) => {
    if (row.shown) return; // what has ended does not change
    row.shown = true;
    const [colour, word] = OUTCOMES[ended(one)];
    put(cells[0], clock(one.time));
    cells[1].append(make("span", [one.status || "", word].join(" ").trim() || NONE, `state ${colour}`));
    put(cells[2], one.tier || NONE);
    put(cells[3], one.endpoint || NONE);
    put(cells[4], one.model || NONE);
    put(cells[5], one.why || NONE);
    put(cells[6], one.ttft_ms === null ? NONE : duration(one.ttft_ms / 1000));
    put(cells[7], duration(one.duration_ms / 1000));
    const tokens = one.prompt_tokens === null && one.completion_tokens === null;
    put(cells[8], tokens ? NONE : `${count(one.prompt_tokens)} → ${count(one.completion_tokens)}`);
    put(cells[9], count(one.attempts) + (one.resumed ? `, resumed` : ""));
    put(cells[10], one.tenant || NONE);
    put(cells[11], one.request_id);
    // What does not fit is cut.
    for (const at of [3, 4, 5, 10, 11]) cells[at].title = cells[at].textContent;
  });
}
