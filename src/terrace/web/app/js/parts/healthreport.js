// What a check of the corpus found, what mends it, and how it was before.

import { fill, h } from "../dom.js";
import { COLOURS, columns } from "../chart.js";
import { ago, compact, duration, exact, number, plural } from "../format.js";
import { icon } from "./icons.js";

const EXAMPLES = 5; // shown at first
const PAST = 48; // checks in the picture
const DAYS = 36 * 3_600_000; // ms, from which on they are told apart by their days
const timeOf = (at) => new Date(at).toLocaleTimeString(undefined, { hour: "2-digit", minute: "2-digit" });
const shortDay = (at) => new Date(at).toLocaleDateString(undefined, { day: "numeric", month: "short" });
const whole = (value) => (Number.isInteger(value) ? compact(value) : ""); // half a finding is none
const said = (value) => plural(value, "finding");

export function figures({ report }) {
  const found = report.findings.reduce((sum, each) => sum + each.count, 0);
  const fact = (label, value, more) =>
    h("div", null, h("dt", null, label), h("dd", null, value, more && h("small", null, more)));
  return h(
    "dl",
    { class: "figures" },
    fact("Findings", number(found), found ? `of ${plural(report.findings.length, "kind")}` : "all is well"),
    fact("Documents", compact(report.documents)),
    fact("Passages", compact(report.chunks)),
    fact("Vectors", compact(report.vectors)),
  );
}

export const checked = ({ report }) =>
  h(
    "p",
    { class: "small faint checked" },
    "Checked ",
    h("span", { title: exact(report.checked_at) }, ago(report.checked_at)),
    `, in ${duration(report.seconds)}.`,
    report.notes.map((note) => ` ${note}`),
  );

// `repair(finding)` asks and does it; `busy` while a check or repair goes on.
export function findings({ report }, { repair, busy }) {
  if (!report.findings.length)
    return h(
      "div",
      { class: "notice good" },
      icon("check"),
      h("p", null, "Every document is read, every passage can be found, and nothing is left over."),
    );
  return h(
    "ul",
    { class: "lines findings", "aria-label": "Findings" },
    report.findings.map((finding) => line(finding, repair, busy)),
  );
}

function line(finding, repair, busy) {
  const rest = finding.examples.slice(EXAMPLES);
  return h(
    "li",
    { id: `finding-${finding.kind}` },
    h("span", { class: "count nums" }, compact(finding.count)),
    h(
      "div",
      { class: "grow" },
      h("p", null, h("b", null, finding.title)),
      h(
        "p",
        { class: "small soft" },
        finding.repairable ? finding.repair : "Nothing mends this by itself: look at them and decide.",
      ),
      finding.examples.length > 0 &&
        h(
          "ul",
          { class: "examples small", "aria-label": "Examples" },
          finding.examples.slice(0, EXAMPLES).map(example),
        ),
      rest.length > 0 &&
        h(
          "details",
          { class: "more small" },
          h("summary", null, `${number(rest.length)} more`),
          h("ul", { class: "examples" }, rest.map(example)),
        ),
      finding.count > finding.examples.length &&
        finding.examples.length > 0 &&
        h("p", { class: "small faint" }, `The first ${finding.examples.length} of ${number(finding.count)}.`),
    ),
    finding.repairable &&
      h(
        "button",
        {
          type: "button",
          class: "button little",
          disabled: busy,
          "aria-label": `Repair: ${finding.title}`,
          onclick: () => repair(finding),
        },
        "Repair",
      ),
  );
}

function example({ id, name, note }) {
  const text = name || id;
  return h(
    "li",
    null,
    id.startsWith("doc_") ? h("a", { href: `/documents/${id}` }, text) : h("code", null, text),
    note && h("span", { class: "faint" }, ` ${note}`),
  );
}

// Findings at each check, the commonest kinds in colours of their own.
export function past({ history, report }) {
  const checks = history
    .slice()
    .sort((one, two) => new Date(one.checked_at) - new Date(two.checked_at))
    .slice(-PAST);
  if (!checks.length) return h("p", { class: "soft" }, "The checks to come will show here.");
  const sums = new Map();
  for (const { counts } of checks)
    for (const [kind, count] of Object.entries(counts)) if (count) sums.set(kind, (sums.get(kind) ?? 0) + count);
  if (!sums.size)
    return h("p", { class: "soft" }, `At the last ${plural(checks.length, "check")} nothing was found.`);
  const titles = new Map(report.findings.map(({ kind, title }) => [kind, title]));
  const titleOf = (kind) => titles.get(kind) ?? kind.replaceAll("_", " ");
  const ranked = [...sums].sort((one, two) => two[1] - one[1]).map(([kind]) => kind);
  const own = ranked.slice(0, COLOURS);
  const rest = ranked.slice(COLOURS);
  const days = new Date(checks.at(-1).checked_at) - new Date(checks[0].checked_at) > DAYS;
  const points = checks.map(({ checked_at: at, counts }) => ({
    label: exact(at),
    short: days ? shortDay(at) : timeOf(at),
    parts: [
      ...own.map((kind) => counts[kind] ?? 0),
      ...(rest.length ? [rest.reduce((sum, kind) => sum + (counts[kind] ?? 0), 0)] : []),
    ],
  }));
  const series = [...own.map(titleOf), ...(rest.length ? ["Others"] : [])];
  const label = `Findings at the last ${plural(checks.length, "check")}`;
  return [
    h("p", { class: "small soft" }, series.length > 1 ? `${label}.` : `${label}: ${series[0].toLowerCase()}.`),
    columns({ label, points, series, format: said, axis: whole, others: rest.length > 0 }),
    table(label, checks, ranked, titleOf),
  ];
}

function table(caption, checks, kinds, titleOf) {
  return h(
    "details",
    { class: "more" },
    h("summary", null, "As a table"),
    h(
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
            h("th", { scope: "col" }, "Checked"),
            kinds.map((kind) => h("th", { scope: "col", class: "nums" }, titleOf(kind))),
          ),
        ),
        h(
          "tbody",
          null,
          checks
            .slice()
            .reverse()
            .map(({ checked_at: at, counts }) =>
              h(
                "tr",
                null,
                h("th", { scope: "row" }, exact(at)),
                kinds.map((kind) => h("td", { class: "nums" }, number(counts[kind] ?? 0))),
              ),
            ),
        ),
      ),
    ),
  );
}

// What goes on: a check, or a repair, with its progress.
export function going(job) {
  const part = job.progress?.total ? job.progress.done / job.progress.total : 0;
  const bar = h("i");
  if (part) bar.style.width = `${100 * part}%`;
  return fill(
    h("div", { class: "runningline small", role: "status" }),
    h("span", { class: "badge busy" }, job.progress?.note || "Looking through the corpus"),
    h("div", { class: part ? "bar" : "bar unknown", "aria-hidden": "true" }, bar),
  );
}
