// The pictures of usage and the tables behind them. A price nobody knows is said, and never counted as nothing.

import { h } from "../dom.js";
import { columns, share } from "../chart.js";
import { compact, money, number, plural } from "../format.js";
import { can } from "../session.js";
import { nameOf } from "./names.js";
import { priceDialog } from "./price.js";
import { longDay, plainDay, shortDay } from "./ranges.js";
import { icon } from "./icons.js";

const MEASURES = {
  cost: { label: "Cost", of: (row) => row.cost, format: money, axis: money },
  tokens: {
    label: "Tokens",
    of: (row) => row.input_tokens + row.output_tokens,
    format: (value) => `${number(value)} tokens`,
    axis: compact,
  },
  calls: { label: "Calls", of: (row) => row.calls, format: (value) => plural(value, "call"), axis: compact },
};
const tokens = MEASURES.tokens.of;

// What a row cost, in words that don't say more than is known.
export function costOf({ cost, unpriced, calls }) {
  if (!unpriced) return money(cost);
  return unpriced >= calls ? "price unknown" : `${money(cost)} + ${number(unpriced)} unpriced`;
}

export function summary(total) {
  const fact = (label, value, more) =>
    h("div", null, h("dt", null, label), h("dd", null, value, more && h("small", null, more)));
  const known = total.unpriced < total.calls;
  return h(
    "dl",
    { class: "figures" },
    fact(
      "Cost",
      known ? money(total.cost) : "Unknown",
      total.unpriced > 0 && known && `and ${plural(total.unpriced, "call")} of unknown price`,
    ),
    fact("Tokens", compact(tokens(total)), `${compact(total.input_tokens)} in, ${compact(total.output_tokens)} out`),
    fact(
      "Cached",
      total.input_tokens ? `${Math.round((100 * total.cached_tokens) / total.input_tokens)}%` : "–",
      "of what was read",
    ),
    fact("Calls", number(total.calls), total.failed ? `${number(total.failed)} failed` : "none failed"),
  );
}

export function unpricedNotice(total, models, changed) {
  const names = models.filter((row) => row.unpriced).map((row) => row.label ?? row.group);
  return h(
    "div",
    { class: "notice warn" },
    icon("warn"),
    h(
      "div",
      { class: "grow" },
      h(
        "p",
        null,
        `Nobody knows what ${plural(total.unpriced, "call")} cost: there is no price for ${names.slice(0, 3).join(", ") || "their model"}${names.length > 3 ? " and others" : ""}.`,
      ),
      h("p", { class: "soft" }, "The sums leave them out. A price counts from the next call on."),
    ),
    can("operator") &&
      names.length > 0 &&
      h(
        "button",
        { type: "button", class: "button little", onclick: () => priceDialog(names[0], changed) },
        "Set a price",
      ),
  );
}

// Columns by day, stacked by model. `daily` has a row for each day; `stacks` is [{name, rows}], the days of the models
// that come to most. What they leave of a day is "others".
export function byDay({ rows }, stacks, span, measure) {
  const { label, of, format, axis } = MEASURES[measure];
  const sum = (some) => some.reduce((total, row) => total + of(row), 0);
  const shown = stacks.filter((stack) => sum(stack.rows) > 0).sort((one, two) => sum(two.rows) - sum(one.rows));
  const byName = shown.map((stack) => new Map(stack.rows.map((row) => [row.group, of(row)])));
  const points = rows.map((row) => {
    const parts = byName.map((days) => days.get(row.group) ?? 0);
    const rest = of(row) - parts.reduce((total, part) => total + part, 0);
    const unknown =
      measure === "cost" && row.unpriced > 0 ? `and ${plural(row.unpriced, "call")} of unknown price` : "";
    const dust = of(row) * 1e-9; // sums of fractions differ in the last digits
    return {
      label: longDay(row.group),
      short: shortDay(row.group),
      parts: [...parts, rest > dust ? rest : 0],
      note: unknown,
    };
  });
  const others = points.some(({ parts }) => parts.at(-1) > 0);
  if (!others) for (const { parts } of points) parts.pop();
  const series = [...shown.map(({ name }) => name), ...(others ? ["Others"] : [])];
  if (!series.length)
    return h(
      "p",
      { class: "soft" },
      rows.some((row) => row.unpriced)
        ? "No price is known for what was used in these days."
        : "Nothing was paid in these days: what runs here is free.",
    );
  const title = `${label} by day, from ${longDay(span.from)} to ${longDay(span.to)}`;
  return [columns({ label: title, points, series, format, axis, others }), dayTable(rows)];
}

function dayTable(rows) {
  const used = rows.filter((row) => row.calls).reverse();
  return h(
    "details",
    { class: "more" },
    h("summary", null, "As a table"),
    table(
      "Usage by day",
      "Day",
      used.map((row) => [plainDay(row.group), row]),
    ),
  );
}

// Bars in a table: the largest first.
export function breakdown({ rows, by, total }, heading, changed) {
  const weight = total.cost > 0 ? MEASURES.cost.of : tokens;
  const sorted = [...rows].sort((a, b) => weight(b) - weight(a) || tokens(b) - tokens(a));
  const name = (row) => {
    if (by === "model" || !row.group) return row.label.replace(/^no /, "Without ") || row.group;
    return row.label === row.group ? nameOf(row.group) : row.label;
  };
  const price = (row) =>
    changed && row.unpriced > 0 && can("operator")
      ? h(
          "button",
          {
            type: "button",
            class: "linkbutton small",
            "aria-label": `Set a price for ${name(row)}`,
            onclick: () => priceDialog(name(row), changed),
          },
          "Set a price",
        )
      : null;
  const whole = weight(sorted[0] ?? total);
  return table(
    `Usage by ${heading.toLowerCase()}`,
    heading,
    sorted.map((row) => [[h("span", { class: "rowname" }, name(row)), share(weight(row), whole)], row, price(row)]),
  );
}

function table(caption, heading, rows) {
  const cell = (value) => h("td", { class: "nums" }, value);
  return h(
    "div",
    { class: "tablewrap", tabindex: "0", role: "region", "aria-label": caption },
    h(
      "table",
      { class: "table" },
      h("caption", { class: "quiet" }, caption),
      h(
        "thead",
        null,
        h(
          "tr",
          null,
          [heading, "Cost", "Tokens in", "Tokens out", "Calls"].map((text, index) =>
            h("th", { scope: "col", class: index && "nums" }, text),
          ),
        ),
      ),
      h(
        "tbody",
        null,
        rows.map(([name, row, act]) =>
          h(
            "tr",
            null,
            h("th", { scope: "row" }, name),
            h("td", { class: "nums" }, h("span", { class: row.unpriced && "unknown" }, costOf(row)), act),
            cell(number(row.input_tokens)),
            cell(number(row.output_tokens)),
            cell(row.failed ? `${number(row.calls)} (${number(row.failed)} failed)` : number(row.calls)),
          ),
        ),
      ),
    ),
  );
}
