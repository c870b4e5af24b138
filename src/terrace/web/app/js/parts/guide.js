// What an empty chat shows: three steps on a fresh machine, ideas when there are documents; and who answers.

import { fill, h, remember } from "../dom.js";
import { can, isLocal } from "../session.js";
import { lacks } from "../words.js";
import { models, onModels, quotes } from "./answering.js";
import { pickFiles } from "./drop.js";
import { icon } from "./icons.js";

export function firstRun({ documents, answering, focus }) {
  const step = (n, done, title, text, action) =>
    h(
      "li",
      { class: done && "done" },
      h("span", { class: "num", "aria-hidden": "true" }, done ? icon("check") : n),
      h("div", null, h("h2", null, title, done && h("span", { class: "quiet" }, " (done)")), h("p", null, text)),
      action,
    );
  const connected = answering && !quotes(answering);
  return h(
    "div",
    { class: "welcome" },
    h(
      "div",
      null,
      h("h1", null, "Ask your documents"),
      h(
        "p",
        null,
        "Terrace reads what you give it and answers with sources that open on the very words. ",
        connected
          ? `Your files stay on this ${isLocal() ? "machine" : "server"}; the model that answers is sent the passages it needs.`
          : `Everything stays on this ${isLocal() ? "machine" : "server"}.`,
      ),
    ),
    h(
      "ol",
      { class: "steps" },
      step(
        "1",
        documents > 0,
        "Add documents",
        "PDF, Word, web pages, text, spreadsheets, slides, e-books, mail. Drop them anywhere on this page.",
        can("documents:write") &&
          h(
            "button",
            { type: "button", class: "button primary", onclick: () => pickFiles() },
            icon("upload"),
            "Choose files",
          ),
      ),
      step(
        "2",
        false,
        "Ask a question",
        "In your own words. Each statement carries a number that opens its source.",
        h("button", { type: "button", class: "button", onclick: focus }, "Write"),
      ),
      step(
        "3",
        connected,
        "Connect a model",
        connected
          ? `${answering.answering.model} answers.`
          : "Until then the built-in quote model answers, with sentences out of your documents.",
        h("a", { class: "button", href: "/settings#connect" }, connected ? "See models" : "How to"),
      ),
    ),
  );
}

export function ideas({ documents, write }) {
  const named = documents
    .filter((each) => each.state === "ready")
    .slice(0, 3)
    .map((each) => each.title || each.name.replace(/\.\w{1,5}$/, ""));
  return h(
    "div",
    { class: "welcome" },
    h(
      "div",
      null,
      h("h1", null, "What would you like to know?"),
      h("p", null, "Answers come from your documents, with numbered sources."),
    ),
    named.length > 0 &&
      h(
        "div",
        { class: "ideas" },
        named.map((name) =>
          h(
            "button",
            { type: "button", class: "idea", onclick: () => write(`What is “${name}” about?`) },
            icon("right"),
            h("span", { class: "clip" }, `What is “${name}” about?`),
          ),
        ),
      ),
  );
}

// For whoever may read but not ask.
export const readersWelcome = () =>
  h(
    "div",
    { class: "welcome" },
    h("div", null, h("h1", null, "Read and search the documents"), h("p", null, lacks({ permission: "chat" }))),
    h(
      "div",
      { class: "row" },
      h("a", { class: "button primary", href: "/documents" }, icon("files"), "Documents"),
      h("a", { class: "button", href: "/documents?tab=search" }, icon("search"), "Search"),
    ),
  );

// Said plainly while no model is connected, until dismissed.
export function quoteBanner(signal) {
  const place = h("div");
  const draw = () =>
    models()
      .then((answer) => fill(place, notice(answer)))
      .catch(() => {}); // the chat works without it
  onModels(draw, signal);
  draw();
  return place;
}

function notice(answer) {
  if (!quotes(answer) || !answer.answering?.advice || remember.get("quote-banner") === "hidden") return null;
  const banner = h(
    "div",
    { class: "above" },
    h(
      "div",
      { class: "notice" },
      icon("info"),
      h(
        "div",
        { class: "grow" },
        "The built-in ",
        h("b", null, "quote"),
        " model answers by quoting your documents. ",
        can("operator") && [
          h("a", { href: "/settings#connect" }, "Connect Ollama or an API key"),
          " for written answers.",
        ],
      ),
      h(
        "button",
        {
          type: "button",
          class: "iconbutton little",
          "aria-label": "Hide this",
          onclick: () => {
            remember.set("quote-banner", "hidden");
            banner.remove();
          },
        },
        icon("close"),
      ),
    ),
  );
  return banner;
}
