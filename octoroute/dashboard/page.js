// Rows and cells: made once, and changed only where a value has. Text goes in as text, never as markup.

import { NONE } from "./figures.js";

const COLOURS = ["good", "warn", "bad"];
const SVG = "http://www.w3.org/2000/svg";

export const by = (id) => document.getElementById(id);

export function make(tag, text = "", className = "") {
  const element = document.createElement(tag);
  if (text !== "") element.textContent = text;
  if (className) element.className = className;
  return element;
}

/** Text, and the class that says how it is to be seen: one of COLOURS, or none. */
export function put(element, text, colour) {
  if (element.textContent !== text) element.textContent = text;
  if (colour !== undefined) for (const one of COLOURS) element.classList.toggle(one, one === colour);
}

/**
 * Makes a table's rows those of `items`, in their order. `key` tells items apart; a row that stays is the same
 * element, so that focus and selection stay too. `make` fills an empty row once, `show` writes into it.
 */
export function rows(table, items, key, fill, show) {
  const body = table.tBodies[0];
  const heads = [...table.tHead.rows[0].cells];
  const there = new Map([...body.rows].map((row) => [row.dataset.key, row]));
  let before = body.firstElementChild;
  for (const item of items) {
    const name = key(item);
    let row = there.get(name);
    if (row) {
      there.delete(name);
    } else {
      row = make("tr");
      row.dataset.key = name;
      heads.forEach((head, at) => {
        const cell = make(at ? "td" : "th", "", head.className);
        if (at) cell.dataset.label = head.textContent;
        else cell.scope = "row";
        row.append(cell);
      });
      fill?.(row.cells, item, row);
    }
    if (row === before) before = row.nextElementSibling;
    else body.insertBefore(row, before);
    show(row.cells, item, row);
    for (const cell of row.cells) cell.classList.toggle("none", cell.textContent === NONE);
  }
  for (const row of there.values()) row.remove();
}

/** Tables keep their meaning for screen readers where a narrow screen lays them out as blocks. */
export function keepRoles(root) {
  const roles = { table: "table", thead: "rowgroup", tbody: "rowgroup", tr: "row", td: "cell" };
  for (const [tag, role] of Object.entries(roles)) {
    for (const element of root.querySelectorAll(`${tag}:not([role])`)) element.setAttribute("role", role);
  }
  for (const head of root.querySelectorAll("th:not([role])")) {
    head.setAttribute("role", head.scope === "row" ? "rowheader" : "columnheader");
  }
}

export function options(select, names) {
  const known = [...select.options].slice(1).map((option) => option.value);
  if (known.join("\n") === names.join("\n")) return;
  const chosen = select.value;
  select.replaceChildren(select.options[0], ...names.map((name) => new Option(name, name)));
  select.value = names.includes(chosen) ? chosen : "";
}

/** How full something is, 0 to 1; nothing is drawn where that is not known. */
export function meter(share) {
  const whole = make("span", "", share >= 1 ? "meter full" : "meter");
  const part = make("i");
  part.style.inlineSize = `${Math.round(Math.min(1, share) * 100)}%`;
  whole.append(part);
  return whole;
}

/** Two lines over the last `seconds`: requests, and failures where there are any. */
export function sparkline(points, seconds) {
  const [width, height] = [120, 22];
  const most = Math.max(1e-9, ...points.map(([, rate]) => rate));
  const line = (at, name) => {
    const one = document.createElementNS(SVG, "polyline");
    const place = ([ago, ...rates]) =>
      `${(width * (1 - ago / seconds)).toFixed(1)},${(height - 1 - (height - 3) * (rates[at] / most)).toFixed(1)}`;
    one.setAttribute("points", points.filter(([ago]) => ago <= seconds).map(place).join(" "));
    one.setAttribute("class", name);
    return one;
  };
  const svg = document.createElementNS(SVG, "svg");
  svg.setAttribute("viewBox", `0 0 ${width} ${height}`);
  svg.setAttribute("class", "spark");
  svg.setAttribute("preserveAspectRatio", "none");
  svg.setAttribute("aria-hidden", "true");
  svg.append(line(0, "all"));
  if (points.some(([, , failed]) => failed > 0)) svg.append(line(1, "failed"));
  return svg;
}
