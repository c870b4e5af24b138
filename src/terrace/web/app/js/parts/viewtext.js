// The text of a document in windows around a span, the span marked; more is read above and below on demand.

import { fill, h } from "../dom.js";
import { api } from "../api.js";
import { number } from "../format.js";
import { attempt } from "./toast.js";

const AROUND = 6_000; // characters before and after the span at first
const MORE = 20_000;

export async function textCanvas(document, spot, { canvas, signal }) {
  if (!document.characters) {
    const why = document.error?.message ?? "There is no text in it.";
    fill(canvas, h("div", { class: "empty" }, h("h2", null, "No text"), h("p", null, why)));
    return;
  }
  const start = spot.start ?? 0;
  const end = spot.end ?? start;
  const first = await api.text(
    document.id,
    Math.max(0, start - AROUND),
    Math.min(document.characters, end + AROUND),
    signal,
  );
  let from = first.start;
  let to = first.end;
  const { total } = first;

  // Spans count code points as Python does, so the text is cut as an array of them.
  const letters = Array.from(first.text);
  const cut = (a, b) => letters.slice(Math.max(0, a - from), Math.max(0, b - from)).join("");
  const mark = end > start && h("mark", { id: "span", tabindex: "-1" }, cut(start, end));
  const page = h("div", { class: "textpage" }, cut(from, start), mark, cut(Math.max(start, end), to));
  const above = h("div", { class: "textmore" });
  const below = h("div", { class: "textmore" });

  async function earlier() {
    const more = await api.text(document.id, Math.max(0, from - MORE), from, signal);
    const height = canvas.scrollHeight;
    page.prepend(more.text);
    from = more.start;
    canvas.scrollTop += canvas.scrollHeight - height;
    ends();
  }
  async function later() {
    const more = await api.text(document.id, to, Math.min(total, to + MORE), signal);
    page.append(more.text);
    to = more.end;
    ends();
  }
  function ends() {
    fill(
      above,
      from > 0 &&
        h(
          "button",
          { type: "button", class: "button little", onclick: () => attempt(earlier) },
          `Show earlier text (${number(from)} characters)`,
        ),
    );
    fill(
      below,
      to < total &&
        h(
          "button",
          { type: "button", class: "button little", onclick: () => attempt(later) },
          `Show later text (${number(total - to)} characters)`,
        ),
    );
  }
  ends();
  fill(canvas, above, page, below);
  if (mark) mark.scrollIntoView({ block: "center", behavior: "instant" });
}
