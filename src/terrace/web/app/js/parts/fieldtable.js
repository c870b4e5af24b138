// Fields as tables: objects in objects, lists of objects with a column for each name.

import { fill, h } from "../dom.js";
import { number } from "../format.js";

const SHOWN = 50; // of a long list, until more is asked for
const DEEPEST = 6; // below it stands as JSON

const isObject = (value) => typeof value === "object" && value !== null && !Array.isArray(value);
const isPlain = (value) => typeof value !== "object" || value === null;

// "due_date" -> "Due date"
export function named(key) {
  const words = key
    .replace(/([a-z\d])([A-Z])/g, "$1 $2")
    .replace(/[_\s]+/g, " ")
    .trim();
  return words ? words[0].toUpperCase() + words.slice(1) : key;
}

export const fieldTable = (value, label = "Fields") => shown(value, label, 0);

function shown(value, label, depth) {
  if (isPlain(value)) return plain(value);
  if (depth > DEEPEST) return h("pre", { class: "fieldjson" }, JSON.stringify(value, null, 2));
  if (Array.isArray(value)) return list(value, label, depth);
  const entries = Object.entries(value);
  if (!entries.length) return none();
  return h(
    "table",
    { class: "fields", "aria-label": label },
    h(
      "tbody",
      null,
      entries.map(([key, each]) => row(named(key), each, depth)),
    ),
  );
}

// A list of objects takes the whole width, below its name.
function row(name, value, depth) {
  const inside = shown(value, name, depth + 1);
  if (!Array.isArray(value) || !value.some(isObject))
    return h("tr", null, h("th", { scope: "row" }, name), h("td", null, inside));
  return [
    h("tr", { class: "above" }, h("th", { scope: "row", colspan: 2 }, name)),
    h("tr", null, h("td", { colspan: 2 }, inside)),
  ];
}

function plain(value) {
  if (value === null || value === undefined || value === "") return none("not given");
  if (typeof value === "boolean") return value ? "Yes" : "No";
  return h("span", { class: typeof value === "number" ? "nums" : "words" }, String(value)); // digits as they are
}

const none = (text = "none") => h("span", { class: "faint" }, text);

function list(values, label, depth) {
  if (!values.length) return none();
  if (values.every(isPlain))
    return inParts(values, h("ul", { class: "fieldlist", "aria-label": label }), (each) => h("li", null, plain(each)));
  if (values.every((each) => isObject(each) && Object.values(each).every(isPlain))) return columns(values, label);
  return inParts(values, h("ol", { class: "fieldlist apart", "aria-label": label }), (each, index) =>
    h("li", null, shown(each, `${label} ${index + 1}`, depth + 1)),
  );
}

function columns(rows, label) {
  const names = [...new Set(rows.flatMap(Object.keys))].map((name) => {
    const values = rows.map((each) => each[name] ?? null).filter((each) => each !== null);
    return { name, right: values.length > 0 && values.every((each) => typeof each === "number") && "right" };
  });
  const body = h("tbody");
  const head = names.map(({ name, right }) => h("th", { scope: "col", class: right }, named(name)));
  const line = (each) =>
    h("tr", null, names.map(({ name, right }) => h("td", { class: right }, plain(each[name]))));
  const filled = inParts(rows, body, line);
  const table = h("table", { class: "columns", "aria-label": label }, h("thead", null, h("tr", null, head)), body);
  const scroll = h("div", { class: "scroll", tabindex: "0", role: "region", "aria-label": `${label}, table` }, table);
  return filled === body ? scroll : [scroll, filled.at(-1)];
}

// Fills `place` with the first of many, and a button for the rest.
function inParts(values, place, line) {
  fill(place, values.slice(0, SHOWN).map(line));
  if (values.length <= SHOWN) return place;
  const all = h(
    "button",
    {
      type: "button",
      class: "button little",
      onclick: () => {
        fill(place, values.map(line));
        place.querySelectorAll(":scope > *")[SHOWN]?.scrollIntoView({ block: "nearest" });
        all.remove();
      },
    },
    `Show all ${number(values.length)}`,
  );
  return [place, all];
}
