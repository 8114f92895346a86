// The buttons of an endpoint: each asks before it does something, and says afterwards what it did.

import { by, put } from "./page.js";

const LASTS = "In force until octoroute ends; what is to last belongs in the config file.";

export class Steering {
  #post;
  #after;
  #act = null;

  /** `post(path, body)` does it; `after()` looks at the fleet again. */
  constructor(post, after) {
    this.#post = post;
    this.#after = after;
    by("dialog-cancel").addEventListener("click", () => by("dialog").close());
    by("dialog").querySelector("form").addEventListener("submit", (event) => {
      event.preventDefault();
      this.#do(this.#act);
    });
  }

  drain(endpoint) {
    const one = title(endpoint);
    if (endpoint.draining) {
      this.#open(`Take ${one} back?`, `It gets new requests again. ${LASTS}`, "Undrain", endpoint, "undrain");
    } else {
      const busy = endpoint.in_flight;
      const running = busy ? ` The ${busy} that ${busy === 1 ? "runs ends as it" : "run end as they"} would.` : "";
      this.#open(`Drain ${one}?`, `It gets no new requests.${running} ${LASTS}`, "Drain", endpoint, "drain");
    }
  }

  weight(endpoint) {
    const asWritten = `The file says ${endpoint.configured_weight}.`;
    const share = "Its share of the tier's requests, against endpoints of the same priority.";
    this.#open(`Weight of ${title(endpoint)}`, `${share} ${asWritten} ${LASTS}`, "Set", endpoint, "weight");
    by("dialog-weight").hidden = false;
    by("weight").value = endpoint.weight;
    by("weight").select();
    if (endpoint.weight !== endpoint.configured_weight) {
      by("dialog-other").hidden = false;
      put(by("dialog-other"), `Back to ${endpoint.configured_weight}`);
      by("dialog-other").onclick = () => this.#do(this.#act, null);
    }
  }

  #open(question, text, word, endpoint, what) {
    this.#act = { endpoint, what };
    put(by("dialog-title"), question);
    put(by("dialog-text"), text);
    put(by("dialog-do"), word);
    put(by("dialog-error"), "");
    by("dialog-weight").hidden = by("dialog-other").hidden = true;
    by("dialog").showModal();
  }

  async #do({ endpoint, what }, weight = Number(by("weight").value)) {
    const name = encodeURIComponent(endpoint.name);
    const path = `admin/endpoints/${endpoint.tier}/${name}/${what}?replica=${endpoint.replica}`;
    const buttons = [...by("dialog").querySelectorAll("button")];
    for (const button of buttons) button.disabled = true;
    try {
      await this.#post(path, what === "weight" ? { weight } : undefined);
      by("dialog").close();
      this.#after();
    } catch (error) {
      put(by("dialog-error"), `Nothing was changed: ${error.message}.`);
    } finally {
      for (const button of buttons) button.disabled = false;
    }
  }
}

/** What an endpoint is called where there may be replicas of its name. */
export function title({ tier, name, replica, replicas }) {
  return `${tier}/${name}${replicas > 1 ? ` #${replica}` : ""}`;
}
