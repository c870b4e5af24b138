// The box one writes in: grows, sends with Enter, stops, and holds model, documents switch and filters.

import { fill, h, inThisTab, remember } from "../dom.js";
import { api, items } from "../api.js";
import { can, session } from "../session.js";
import { chatModels, models, onModels } from "./answering.js";
import { pickFiles } from "./drop.js";
import { icon } from "./icons.js";
import { popup } from "./menu.js";

// `send(text, options)` gets `{model, use_rag, collections, tags, cache}`; returns false when it was not taken.
export function composer({ send, stop, signal }) {
  const filters = { collections: [], tags: [] };
  let busy = false;
  let sending = "";

  const area = h("textarea", {
    id: "composer",
    rows: 1,
    placeholder: "Ask your documents…",
    "aria-label": "Your message",
    enterkeyhint: "send",
  });
  const button = h("button", { type: "submit", class: "send" });
  const chosen = h("div", { class: "chosen", hidden: true });
  const model = h("select", {
    class: "select",
    "aria-label": "Model that answers",
    onchange: () => remember.set("model", model.value),
  });
  const use = h("input", {
    type: "checkbox",
    role: "switch",
    checked: remember.get("documents", true),
    onchange: () => remember.set("documents", use.checked),
  });
  const filter = h(
    "button",
    {
      type: "button",
      class: "iconbutton",
      "aria-label": "Choose collections, tags and more",
      title: "Choose collections, tags and more",
      "aria-haspopup": "dialog",
      "aria-expanded": "false",
      onclick: pick,
    },
    icon("filter"),
  );

  const form = h(
    "form",
    { class: "composer", onsubmit: submit },
    chosen,
    area,
    h(
      "div",
      { class: "controls" },
      can("documents:write") &&
        h(
          "button",
          {
            type: "button",
            class: "iconbutton",
            "aria-label": "Add files",
            title: "Add files",
            onclick: () => pickFiles(() => ({ collection: filters.collections[0] ?? "default" })),
          },
          icon("plus"),
        ),
      h(
        "div",
        { class: "grow" },
        h(
          "label",
          { class: "switch", title: "Answer from your documents" },
          use,
          h("span", null, h("span", { class: "wide" }, "Use "), "documents"),
        ),
        filter,
      ),
      h("span", { class: "selectwrap" }, model, icon("down")),
      button,
    ),
  );

  function grow() {
    area.style.height = "auto";
    area.style.height = `${area.scrollHeight}px`;
    if (!busy) button.disabled = !area.value.trim();
  }

  function paint() {
    fill(button, icon(busy ? "stop" : "send"));
    button.setAttribute("aria-label", busy ? "Stop" : "Send");
    button.disabled = !busy && !area.value.trim();
  }

  async function submit(event) {
    event?.preventDefault();
    if (busy) {
      stop();
      return;
    }
    const text = area.value.trim();
    if (!text) return;
    area.value = "";
    grow();
    sending = text;
    const taken = await send(text, options());
    sending = "";
    if (taken === false && !area.value) {
      area.value = text;
      grow();
      paint();
    }
  }

  function options() {
    return {
      ...(model.value === "auto" ? {} : { model: model.value }),
      use_rag: use.checked ? undefined : false,
      collections: [...filters.collections],
      tags: [...filters.tags],
      cache: remember.get("cache", false) || undefined,
    };
  }

  async function pick() {
    const box = h(
      "div",
      { class: "menu", role: "dialog", "aria-label": "Collections, tags and more" },
      h("p", { class: "small faint" }, "Loading…"),
    );
    popup(filter, box);
    try {
      const [collections, tags] = await Promise.all([api.collections(signal), api.tags(signal)]);
      const group = (title, key, names) =>
        names.length > 0 &&
        h(
          "fieldset",
          null,
          h("legend", null, title),
          names.map((name) =>
            h(
              "label",
              { class: "check" },
              h("input", {
                type: "checkbox",
                checked: filters[key].includes(name),
                onchange: (event) => {
                  filters[key] = event.target.checked
                    ? [...filters[key], name]
                    : filters[key].filter((each) => each !== name);
                  chips();
                },
              }),
              name,
            ),
          ),
        );
      fill(
        box,
        group(
          "Only these collections",
          "collections",
          items(collections).map((each) => each.name),
        ),
        group(
          "Only these tags",
          "tags",
          items(tags).map((each) => each.name ?? each),
        ),
      );
      box.append(
        h(
          "fieldset",
          null,
          h("legend", null, "Asked before"),
          h(
            "label",
            { class: "check" },
            h("input", {
              type: "checkbox",
              checked: remember.get("cache", false),
              onchange: (event) => remember.set("cache", event.target.checked),
            }),
            h(
              "span",
              null,
              "Take the answer of then",
              h("span", { class: "small faint" }, "At once and for nothing, while its documents are as they were"),
            ),
          ),
        ),
      );
      box.querySelector("input")?.focus();
    } catch (error) {
      fill(box, h("p", { class: "small" }, error.message));
    }
  }

  function chips() {
    const all = [
      ...filters.collections.map((name) => ["collections", name, "folder"]),
      ...filters.tags.map((name) => ["tags", name, "tag"]),
    ];
    chosen.hidden = !all.length;
    fill(
      chosen,
      all.map(([key, name, sign]) =>
        h(
          "button",
          {
            type: "button",
            class: "chip on",
            "aria-label": `Remove ${name}`,
            onclick: () => {
              filters[key] = filters[key].filter((each) => each !== name);
              chips();
              area.focus();
            },
          },
          icon(sign),
          h("span", { class: "clip" }, name),
          icon("close"),
        ),
      ),
    );
  }

  async function listModels() {
    const answer = await models();
    const wanted = remember.get("model", "auto");
    const groups = new Map();
    for (const each of chatModels(answer)) groups.set(each.provider, [...(groups.get(each.provider) ?? []), each]);
    fill(
      model,
      h("option", { value: "auto" }, `Auto · ${short(answer.answering?.model ?? "none")}`),
      [...groups].map(([provider, members]) =>
        h(
          "optgroup",
          { label: provider },
          members.map((each) => h("option", { value: each.id }, each.name || each.id)),
        ),
      ),
    );
    model.value = [...model.options].some((option) => option.value === wanted) ? wanted : "auto";
  }

  // Words of somebody whose login ends wait in this tab until they, and nobody else, have logged in again.
  const keep = () => inThisTab.set("draft", { user: session().user?.id, text: area.value || sending });
  addEventListener("loginover", keep, { signal });
  const draft = inThisTab.take("draft");
  if (draft && draft.user === session().user?.id) area.value = draft.text;

  area.addEventListener("input", grow);
  area.addEventListener("keydown", (event) => {
    if (event.key !== "Enter" || event.shiftKey || event.isComposing || busy) return;
    event.preventDefault();
    submit();
  });
  onModels(() => listModels().catch(() => {}), signal);
  listModels().catch(() => fill(model, h("option", { value: "auto" }, "Auto")));
  fill(model, h("option", { value: "auto" }, "Auto"));
  paint();
  requestAnimationFrame(grow);

  return {
    element: form,
    focus: () => area.focus({ preventScroll: true }),
    options,
    setBusy(value) {
      if (busy !== value) {
        busy = value;
        paint();
      }
    },
    write(text) {
      area.value = text;
      grow();
      paint();
      area.focus();
    },
  };
}

const short = (model) => model.split("/").pop();
