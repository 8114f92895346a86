// Asks the admin API every two seconds and shows what it says. Knows nothing else, and keeps nothing but the
// key, in this tab. While the tab is hidden it asks nothing.

import { Steering } from "./steer.js";
import { keep, sample, span, clock } from "./figures.js";
import { by, keepRoles, options, put } from "./page.js";
import { showEndpoints, showFacts, showRecent, showSources, showTenants, showTiers } from "./show.js";

const EVERY = 2;
const PATIENCE = 5;
const SLOWEST = 15;
const STALE = 3 * EVERY;
const REMEMBERED = 120;
const LIMIT = 60;
const TIERS = ["fast", "balanced", "deep"];
const OUTCOMES = ["ok", "client_error", "limited", "error", "broken", "client_gone"];
const KEY = "octoroute-key";

const now = () => performance.now() / 1000;

let key = stored();
let samples = [];
let shown = null; // when the figures on the page were told, on two clocks
let trouble = ""; // why there are no newer ones
let pause = EVERY;
let timer = 0;
let asking = null;

function stored() {
  try {
    return sessionStorage.getItem(KEY) ?? "";
  } catch {
    return "";
  }
}

function remember(text) {
  key = text;
  try {
    if (text) sessionStorage.setItem(KEY, text);
    else sessionStorage.removeItem(KEY);
  } catch {
    // A browser that keeps nothing: the key lives as long as the page.
  }
}

class Refused extends Error {
  constructor(status, message) {
    super(message);
    this.status = status;
  }
}

/** What the admin API answers, as JSON. Throws Refused with its own words, or an Error without an answer. */
async function ask(path, body, { method = "GET", signal } = {}) {
  const headers = key ? { authorization: `Bearer ${key}` } : {};
  if (body !== undefined) headers["content-type"] = "application/json";
  const late = AbortSignal.timeout(PATIENCE * 1000);
  const answer = await fetch(path, {
    method,
    headers,
    body: body === undefined ? undefined : JSON.stringify(body),
    cache: "no-store",
    credentials: "omit",
    signal: signal ? AbortSignal.any([signal, late]) : late,
  }).catch(() => {
    throw new Error(late.aborted ? `no answer within ${PATIENCE} s` : "it can't be reached");
  });
  let said = null;
  try {
    said = await answer.json();
  } catch {
    if (answer.ok) throw new Error("its answer can't be read");
  }
  if (!answer.ok) throw new Refused(answer.status, said?.error?.message ?? `it answers ${answer.status}`);
  return said;
}

const steering = new Steering((path, body) => ask(path, body, { method: "POST" }), poll);

/** Looks once, and again after a pause. A look that is under way is given up for a new one. */
async function poll() {
  clearTimeout(timer);
  asking?.abort();
  const own = (asking = new AbortController());
  let told = null;
  try {
    const status = await ask("admin/status", undefined, own);
    told = [status, held() ? null : await ask(`admin/recent?${wanted()}`, undefined, own)];
    trouble = "";
  } catch (error) {
    if (own === asking && [401, 403].includes(error.status)) {
      lock(error.status);
      return;
    }
    trouble = error.message;
  }
  if (own !== asking) return;
  pause = told ? EVERY : Math.min(2 * pause, SLOWEST);
  if (!document.hidden) timer = setTimeout(poll, pause * 1000);
  if (told) {
    samples = keep(samples, sample(told[0], now()), REMEMBERED);
    show(...told);
    shown = { at: now(), time: Date.now() };
  }
  tell();
}

function show(status, recent) {
  unlock();
  showFacts(status);
  showTiers(status, samples);
  showEndpoints(status, steering);
  showSources(status);
  showTenants(status);
  options(by("filter").tenant, (status.tenants ?? []).map((tenant) => tenant.name));
  by("by-tenant").hidden = !status.tenants?.length;
  if (recent) showRecent(recent, new URLSearchParams(wanted()).size > 1);
  keepRoles(by("main"));
  const down = status.endpoints.filter((endpoint) => !endpoint.healthy).length;
  document.title = down ? `${down} down · octoroute` : "octoroute";
}

/** What there is to say about the figures themselves: none yet, old, or not to be had. */
function tell() {
  const age = shown && now() - shown.at;
  const stale = shown !== null && (trouble !== "" || age > STALE);
  document.body.classList.toggle("stale", stale);
  if (trouble) {
    const lost = `The gateway does not answer: ${trouble}.`;
    put(by("notice"), shown ? `${lost} What is shown is from ${clock(shown.time)}.` : lost, "bad");
  } else if (shown) {
    put(by("notice"), "", "");
  }
  put(by("freshness"), shown ? (stale ? `${span(age)} old` : "live") : "", stale ? "bad" : "good");
}

function lock(status) {
  by("main").hidden = true;
  asking = shown = null;
  trouble = "";
  samples = [];
  by("forget").hidden = true;
  const asked = !by("key").hidden;
  by("key").hidden = false;
  const told = status === 401 ? "This key is not known." : "This key is not that of an admin.";
  put(by("notice"), key ? told : "This gateway has keys: it shows itself to admins only.", key ? "bad" : "");
  put(by("freshness"), "", "");
  if (status === 401) remember("");
  if (!asked) by("key-text").focus();
  by("key-text").select();
}

function unlock() {
  by("main").hidden = false;
  by("key").hidden = true;
  by("key-text").value = "";
  by("forget").hidden = !key;
}

function held() {
  return by("filter").paused.checked && shown !== null;
}

function wanted() {
  const query = new URLSearchParams({ limit: LIMIT });
  for (const name of ["tier", "outcome", "tenant"]) {
    const chosen = by("filter")[name].value;
    if (chosen) query.set(name, chosen);
  }
  return query.toString();
}

options(by("filter").tier, [...TIERS, "none"]);
options(by("filter").outcome, OUTCOMES);
by("filter").addEventListener("submit", (event) => event.preventDefault());
by("filter").addEventListener("change", (event) => {
  // Another filter is a wish to see something, be the list held still or not.
  if (event.target.name !== "paused") by("filter").paused.checked = false;
  poll();
});
by("key").addEventListener("submit", (event) => {
  event.preventDefault();
  remember(by("key-text").value.trim());
  poll();
});
by("forget").addEventListener("click", () => {
  remember("");
  poll();
});
document.addEventListener("visibilitychange", () => {
  if (document.hidden) {
    clearTimeout(timer);
    timer = 0;
  } else if (by("key").hidden) {
    poll();
  }
});
window.addEventListener("online", () => by("key").hidden && poll());
setInterval(() => document.hidden || tell(), 1000);
poll();
