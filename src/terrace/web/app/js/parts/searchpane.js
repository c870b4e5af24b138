// Retrieval alone: what a question would find, with scores.

import { fill, h } from "../dom.js";
import { api } from "../api.js";
import { icon } from "./icons.js";
import { openViewer } from "./viewer.js";

const MODES = [
  ["hybrid", "Words and meaning"],
  ["text", "Words only"],
  ["vector", "Meaning only"],
];

export function searchPane({ query, filters, signal }) {
  const input = h("input", {
    class: "field",
    type: "search",
    "aria-label": "What to look for",
    placeholder: "Search inside your documents…",
  });
  input.value = query;
  const mode = h(
    "select",
    { class: "select boxed", "aria-label": "How to search", onchange: () => run() },
    MODES.map(([value, label]) => h("option", { value }, label)),
  );
  const results = h("div", { class: "hits", "aria-live": "polite" });
  let line = null;

  async function run() {
    const text = input.value.trim();
    line?.abort();
    if (!text) {
      fill(results);
      return;
    }
    line = new AbortController();
    signal.addEventListener("abort", () => line.abort(), { once: true });
    try {
      const answer = await api.search({ query: text, k: 10, mode: mode.value, ...filters() }, line.signal);
      fill(
        results,
        h(
          "p",
          { class: "small faint" },
          `${answer.hits.length ? `${answer.hits.length} passages` : "Nothing found"} in ${Math.round(answer.took_ms)} ms${answer.embedding ? "" : ", by words alone"}`,
        ),
        answer.hits.map(hit),
      );
    } catch (error) {
      if (error.name !== "AbortError") fill(results, h("div", { class: "notice bad" }, icon("warn"), error.message));
    }
  }

  const form = h(
    "form",
    {
      class: "bigsearch",
      role: "search",
      onsubmit: (event) => {
        event.preventDefault();
        run();
      },
    },
    h("div", { class: "searchfield" }, icon("search"), input),
    h("span", { class: "selectwrap" }, mode, icon("down")),
    h("button", { type: "submit", class: "button primary" }, "Search"),
  );
  if (query) run();
  return h("div", null, form, results);
}

// BM25, the score of words, has no upper end and so no bar.
function score(label, value, bounded = true) {
  if (value === null || value === undefined) return null;
  const bar = h("i");
  bar.style.width = `${Math.max(0, Math.min(1, value)) * 100}%`;
  return h(
    "span",
    null,
    bounded && h("span", { class: "bar", "aria-hidden": "true" }, bar),
    `${label} ${value.toFixed(2)}`,
  );
}

function hit(found) {
  const place = [found.page ? `page ${found.page}` : "", ...(found.headings ?? [])].filter(Boolean).join(" › ");
  return h(
    "article",
    { class: "hit" },
    h(
      "div",
      { class: "head" },
      h(
        "button",
        {
          type: "button",
          onclick: () =>
            openViewer({
              id: found.document_id,
              name: found.document_name,
              page: found.page,
              start: found.start,
              end: found.end,
            }),
        },
        found.title || found.document_name,
      ),
      h("span", { class: "small faint" }, place),
    ),
    h("blockquote", null, found.text),
    h(
      "div",
      { class: "scores" },
      score("score", found.score),
      score("words", found.text_score, false),
      score("meaning", found.vector_score),
    ),
  );
}
