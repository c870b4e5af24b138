// One message: what a person wrote, or an answer with its tools.

import { ICON, fill, h, rendered, outer } from "../dom.js";
import { ago, plural } from "../format.js";
import { icon } from "./icons.js";
import { limitNotice } from "./limitwords.js";
import { copy } from "./toast.js";

// Around code: a copy button. Around tables: their own scrolling. `source` keeps what the server sent, to compare.
export function dress(prose) {
  for (const child of [...prose.children]) {
    const wrap = child.tagName === "PRE" ? "codebox" : child.tagName === "TABLE" ? "scroll" : null;
    if (!wrap) continue;
    const box = h("div", { class: wrap });
    box.source = outer(child);
    child.replaceWith(box);
    box.append(child);
    child.tabIndex = 0;
    if (wrap === "codebox")
      box.append(
        h(
          "button",
          {
            type: "button",
            class: "iconbutton little",
            "aria-label": "Copy code",
            onclick: () => copy(child.textContent, "Code copied"),
          },
          icon("copy"),
        ),
      );
  }
}

const tool = (sign, label, run) =>
  h(
    "button",
    { type: "button", class: "iconbutton little", "aria-label": label, title: label, onclick: run },
    icon(sign),
  );

function siblings(message, place, act) {
  if (place.count < 2) return null;
  return h(
    "span",
    { class: "siblings" },
    h(
      "button",
      {
        type: "button",
        class: "iconbutton little",
        "aria-label": "Previous version",
        disabled: place.index === 0,
        onclick: () => act.switchTo(message, -1),
      },
      icon("left"),
    ),
    h(
      "span",
      { "aria-label": `Version ${place.index + 1} of ${place.count}`, role: "img" },
      `${place.index + 1}/${place.count}`,
    ),
    h(
      "button",
      {
        type: "button",
        class: "iconbutton little",
        "aria-label": "Next version",
        disabled: place.index === place.count - 1,
        onclick: () => act.switchTo(message, 1),
      },
      icon("right"),
    ),
  );
}

export function userMessage(message, place, act) {
  const element = h("article", { class: "message user", id: message.id, "aria-label": "You" });
  const show = () =>
    fill(
      element,
      h("div", { class: "bubble" }, message.content),
      h(
        "div",
        { class: "tools" },
        siblings(message, place, act),
        tool("edit", "Edit and ask again", edit),
        tool("copy", "Copy", () => copy(message.content)),
      ),
    );
  const edit = () => {
    const area = h("textarea", { "aria-label": "Edit your message" });
    area.value = message.content;
    const save = async () => {
      if (area.value.trim()) await act.edit(message, area.value.trim());
    };
    area.addEventListener("keydown", (event) => {
      if (event.key === "Escape") {
        event.stopPropagation();
        show();
      }
      if (event.key === "Enter" && (event.ctrlKey || event.metaKey)) save();
    });
    fill(
      element,
      h(
        "form",
        {
          class: "editor",
          onsubmit: (event) => {
            event.preventDefault();
            save();
          },
        },
        area,
        h(
          "div",
          { class: "row" },
          h("span", { class: "small faint grow" }, "The conversation so far stays as another version."),
          h("button", { type: "button", class: "button little", onclick: show }, "Cancel"),
          h("button", { type: "submit", class: "button primary little" }, "Ask again"),
        ),
      ),
    );
    area.focus();
  };
  show();
  return { element };
}

export const againButton = (label, run) => h("button", { type: "button", class: "button little", onclick: run }, label);

function failure({ error }, again) {
  if (error?.code === "limit_reached")
    return limitNotice(
      { detail: error.message, ...error.extra, ...error },
      { later: [againButton("Try again", again)] },
    );
  return h(
    "div",
    { class: "notice bad" },
    icon("warn"),
    h("div", { class: "grow" }, error?.message ?? "Something went wrong while answering."),
    againButton("Try again", again),
  );
}

// An answer. While it is written, `stream.*` change it in place.
export function answerMessage(message, place, act) {
  const prose = h("div", { class: "prose" });
  const name = h("b", null, message.model ?? "Terrace");
  const note = h("span", { class: "clip" });
  const thinking = h("details", { class: "thinking", hidden: true }, h("summary", null, "Thinking"), h("div"));
  const after = h("div");
  const element = h(
    "article",
    { class: "message assistant", id: message.id, tabindex: "-1", "aria-label": "Answer" },
    h("div", { class: "byline" }, h("img", { src: ICON, alt: "" }), name, note),
    thinking,
    prose,
    after,
  );
  let raw = "";
  let ended = message.state !== "running";

  function finish() {
    prose.classList.remove("streaming", "plainstream");
    rendered(prose, message.html ?? "");
    dress(prose);
    name.textContent = message.model ?? "Terrace";
    note.textContent = message.state === "stopped" ? "stopped" : message.cached_at ? `answered ${ago(message.cached_at)}` : "";
    note.title = message.cached_at ? "The same was asked before: this is the answer of then, and cost nothing." : "";
    const sources = message.sources ?? [];
    fill(
      after,
      message.state === "failed" && failure(message, () => act.again(message)),
      h(
        "div",
        { class: "tools" },
        siblings(message, place, act),
        message.content && tool("copy", "Copy answer", () => copy(message.content)),
        tool("redo", "Answer again", () => act.again(message)),
        sources.length > 0 &&
          h(
            "button",
            { type: "button", class: "button plain little", onclick: () => act.sources(message) },
            icon("book"),
            plural(sources.length, "source"),
          ),
      ),
    );
  }

  prose.addEventListener("click", (event) => {
    const mark = event.target.closest("a.cite");
    if (!mark) return;
    event.preventDefault();
    act.cite(message, Number(mark.dataset.n), mark);
  });
  for (const type of ["pointerover", "focusin"]) {
    prose.addEventListener(type, (event) => {
      const mark = event.target.closest("a.cite");
      if (mark) act.peek(message, Number(mark.dataset.n), mark);
    });
  }
  for (const type of ["pointerout", "focusout"]) prose.addEventListener(type, () => act.peek(null));

  if (ended) finish();
  else {
    prose.classList.add("streaming");
    note.textContent = "is reading your question";
  }
  return {
    element,
    stream: {
      note: (text) => {
        note.textContent = text;
      },
      reset() {
        raw = "";
        fill(prose);
        fill(thinking.lastChild);
        thinking.hidden = true;
      },
      reasoning(text) {
        thinking.hidden = false;
        thinking.lastChild.append(text);
        note.textContent = "is thinking";
      },
      text(text) {
        raw += text;
        if (!prose.dataset.rendered) {
          prose.classList.add("plainstream");
          prose.textContent = raw;
        }
      },
      render(html) {
        prose.classList.remove("plainstream");
        if (!prose.dataset.rendered) {
          fill(prose);
          prose.dataset.rendered = "yes";
        }
        rendered(prose, html);
        dress(prose);
        return prose.childElementCount;
      },
      blocks: (from, to) => [...prose.children].slice(from, to).map((each) => each.innerText),
      finish() {
        ended = true;
        finish();
      },
    },
  };
}
