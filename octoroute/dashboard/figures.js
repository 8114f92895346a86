// From two looks at counters to what happened between them, and from numbers to text. No page, no clock.

export const NONE = "–";

/** What the gateway counted, as it was at one moment. `at` is in seconds. */
export function sample(status, at) {
  const tiers = {};
  for (const [name, tier] of Object.entries(status.tiers)) {
    const ended = tier.requests;
    tiers[name] = {
      requests: Object.values(ended).reduce((sum, count) => sum + count, 0),
      failed: ended.error + ended.broken,
      answered: tier.tokens.completion,
      first: tier.first_token.map(([, count]) => count),
      bounds: tier.first_token.map(([bound]) => bound),
      waited: status.queues[name].waited.count,
      waitedSeconds: status.queues[name].waited.seconds,
    };
  }
  return { at, uptime: status.gateway.uptime_seconds, tiers };
}

/** The samples of the last `seconds`, and the one before them; all go where the gateway began anew. */
export function keep(samples, next, seconds) {
  const last = samples.at(-1);
  if (last && next.uptime < last.uptime) return [next];
  const kept = [...samples, next];
  while (kept.length > 2 && kept[1].at < next.at - seconds) kept.shift();
  return kept;
}

/** What happened in a tier within the last `seconds`; null while there is nothing to compare with. */
export function lately(samples, tier, seconds) {
  const last = samples.at(-1);
  const first = samples.find((each) => each.at >= last.at - seconds - 1) ?? last;
  if (first === last) return null;
  const [from, to] = [first.tiers[tier], last.tiers[tier]];
  const passed = last.at - first.at;
  const waits = to.waited - from.waited;
  return {
    rate: (to.requests - from.requests) / passed,
    requests: to.requests - from.requests,
    failed: to.failed - from.failed,
    tokens: (to.answered - from.answered) / passed,
    wait: waits ? (to.waitedSeconds - from.waitedSeconds) / waits : null,
    first: to.first.map((count, at) => count - from.first[at]),
    bounds: to.bounds,
  };
}

/** [seconds ago, requests per second, failures per second] between each sample and the next. */
export function course(samples, tier) {
  const points = [];
  for (let at = 1; at < samples.length; at++) {
    const [from, to] = [samples[at - 1], samples[at]];
    const passed = to.at - from.at;
    const of = (what) => (to.tiers[tier][what] - from.tiers[tier][what]) / passed;
    if (passed > 0) points.push([samples.at(-1).at - to.at, of("requests"), of("failed")]);
  }
  return points;
}

/** As Prometheus' histogram_quantile: even within a bucket. null without observations. */
export function quantile(share, counts, bounds) {
  const all = counts.reduce((sum, count) => sum + count, 0);
  if (!all) return null;
  let below = 0;
  for (let at = 0; at < counts.length; at++) {
    if (counts[at] && below + counts[at] >= share * all) {
      const floor = at ? bounds[at - 1] : 0;
      if (bounds[at] === null) return floor;
      return floor + ((bounds[at] - floor) * (share * all - below)) / counts[at];
    }
    below += counts[at];
  }
  return null;
}

/** 0.34 s as "340 ms", 75 s as "1 min 15 s". */
export function duration(seconds) {
  if (seconds === null || seconds === undefined) return NONE;
  if (seconds < 0.0995) return `${Math.round(seconds * 10000) / 10} ms`;
  if (seconds < 0.9995) return `${Math.round(seconds * 1000)} ms`;
  if (seconds < 59.95) return `${(Math.round(seconds * 10) / 10).toFixed(1)} s`;
  return span(seconds);
}

/** Whole seconds in the two largest units. */
export function span(seconds) {
  const whole = Math.round(seconds);
  const units = [["d", 86400], ["h", 3600], ["min", 60], ["s", 1]];
  const at = units.findIndex(([, size]) => whole >= size);
  if (at < 0) return "0 s";
  const [[name, size], next] = [units[at], units[at + 1]];
  const rest = next ? Math.floor((whole % size) / next[1]) : 0;
  return `${Math.floor(whole / size)} ${name}${rest ? ` ${rest} ${next[0]}` : ""}`;
}

/** A rate: as many digits as say something. */
export function rate(value) {
  if (value === null || value === undefined) return NONE;
  if (value === 0) return "0";
  if (value < 0.1) return value.toFixed(2);
  return value < 9.95 ? value.toFixed(1) : count(Math.round(value));
}

export function count(value) {
  return value === null || value === undefined ? NONE : value.toLocaleString("en-US").replaceAll(",", "\u202f");
}

export function percent(share) {
  return `${Math.round(share * 100)}\u00a0%`;
}

/** 12:04:07 in the reader's own time. */
export function clock(time) {
  return new Date(time).toLocaleTimeString("en-GB");
}
