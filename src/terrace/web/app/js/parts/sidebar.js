// Places, conversations grouped by day, and the footer. A drawer on small screens.

import { $, ICON, debounce, fill, h } from "../dom.js";
import { api } from "../api.js";
import { day } from "../format.js";
import { navigate, onNavigate, path } from "../router.js";
import { models, onModels } from "./answering.js";
import { connection } from "../connection.js";
import { can } from "../session.js";
import { confirm } from "./dialog.js";
import { icon } from "./icons.js";
import { menuButton } from "./menu.js";
import { areaOf } from "./page.js";
import { personMenu } from "./person.js";
import { showShortcuts } from "./shortcuts.js";
import { isDark, setTheme } from "./theme.js";
import { attempt, toast } from "./toast.js";

// Address, name, sign, and the permission it takes.
const PLACES = [
  ["/", "New chat", "edit"],
  ["/documents", "Documents", "files"],
  ["/analyses", "Analyses", "scan", "analyses"],
  ["/campaigns", "Campaigns", "letters", "campaigns"],
  ["/sources", "Sources", "refresh", "sources"],
  ["/jobs", "Jobs", "jobs"],
  ["/usage", "Usage", "chart"],
  ["/settings", "Settings", "settings"],
];
const here = (href) => href !== "/" && (path().startsWith(href) || areaOf(path())?.toLowerCase() === href.slice(1));
const narrow = matchMedia("(max-width: 53.75em)");

let listed = [];
let following = null;
let list;
let search;
let turn = 0;

export function build() {
  list = h("div", { class: "talklist" });
  search = h("input", {
    class: "field",
    type: "search",
    placeholder: "Search",
    "aria-label": "Search conversations",
    oninput: debounce(180, () => refresh()),
  });
  const places = h("nav", { class: "places", "aria-label": "Main" });
  const who = h("a", { class: "answerer", href: "/settings" });
  const dark = h("button", {
    type: "button",
    class: "iconbutton",
    onclick: () => setTheme(isDark() ? "light" : "dark"),
  });
  const paintDark = () => {
    fill(dark, icon(isDark() ? "sun" : "moon"));
    dark.setAttribute("aria-label", isDark() ? "Switch to light" : "Switch to dark");
  };
  addEventListener("themechange", paintDark);
  paintDark();
  fill(
    $("sidebar"),
    h(
      "div",
      { class: "brandrow" },
      h("a", { class: "brand", href: "/" }, h("img", { src: ICON, alt: "" }), "Terrace"),
      h(
        "button",
        {
          type: "button",
          class: "iconbutton drawer-close",
          "aria-label": "Close menu",
          hidden: true,
          onclick: () => drawer(false),
        },
        icon("close"),
      ),
    ),
    places,
    h(
      "nav",
      { class: "talks", "aria-label": "Conversations" },
      h("div", { class: "searchfield" }, icon("search"), search),
      list,
    ),
    h(
      "div",
      { class: "side-foot" },
      who,
      dark,
      h(
        "button",
        { type: "button", class: "iconbutton", "aria-label": "Keyboard shortcuts", onclick: showShortcuts },
        icon("keyboard"),
      ),
    ),
    personMenu(),
  );
  fill(
    $("topbar"),
    h(
      "button",
      {
        type: "button",
        class: "iconbutton",
        id: "open-menu",
        "aria-label": "Open menu",
        "aria-expanded": "false",
        onclick: () => drawer(true),
      },
      icon("menu"),
    ),
    h("strong", { class: "clip" }, "Terrace"),
    h("a", { class: "iconbutton", href: "/", "aria-label": "New chat" }, icon("edit")),
  );

  const paint = () => {
    fill(
      places,
      PLACES.filter(([, , , needs]) => !needs || can(needs)).map(([href, label, sign]) =>
        h(
          "a",
          { class: "place", href, "aria-current": path() === href ? "page" : here(href) && "true" },
          icon(sign),
          label,
        ),
      ),
    );
    draw();
    drawer(false);
  };
  onNavigate(paint);
  onModels(async () => {
    const { answering } = await models();
    fill(who, h("b", { class: "clip" }, answering?.model ?? "No model"), "answers your questions");
  });
  $("scrim").addEventListener("click", () => drawer(false));
  $("sidebar").addEventListener("keydown", (event) => {
    if (event.key === "Escape" && narrow.matches) drawer(false);
  });
  narrow.addEventListener("change", () => drawer(false));
  connection.onReturn(() => refresh());
  models().catch(() => {});
  paint();
  refresh();
}

export function drawer(open) {
  const was = $("shell").classList.contains("drawer");
  $("shell").classList.toggle("drawer", open);
  $("stage").inert = open;
  $("sidebar").querySelector(".drawer-close").hidden = !narrow.matches;
  $("open-menu")?.setAttribute("aria-expanded", String(open));
  if (open) $("sidebar").querySelector(".drawer-close").focus();
  else if (was) $("open-menu").focus();
}

export function focusSearch() {
  if (!search) return; // nobody is in
  if (narrow.matches) drawer(true);
  search.focus();
  search.select();
}

// Reads the list again; `more` appends the next page.
export async function refresh(more = false) {
  turn += 1;
  const mine = turn;
  try {
    const answer = await api.conversations({ q: search.value.trim(), limit: 40, cursor: more ? following : null });
    if (mine !== turn) return; // something newer was typed
    listed = more ? [...listed, ...answer.items] : answer.items;
    following = answer.next;
    draw();
  } catch {
    /* the connection badge tells */
  }
}

function draw() {
  if (list.querySelector("input")) return; // somebody is renaming
  const groups = new Map();
  for (const each of listed) {
    const name = search.value.trim() ? "Found" : day(each.updated_at);
    groups.set(name, [...(groups.get(name) ?? []), each]);
  }
  if (!listed.length) {
    fill(
      list,
      h(
        "p",
        { class: "small faint place" },
        search.value.trim() ? "Nothing found." : "Your conversations will be here.",
      ),
    );
    return;
  }
  const at = list.contains(document.activeElement) ? document.activeElement : null;
  fill(
    list,
    [...groups].map(([name, members]) => [h("h3", null, name), h("ul", null, members.map(line))]),
    following &&
      h("button", { type: "button", class: "button plain little", onclick: () => refresh(true) }, "Show more"),
  );
  // Whoever has come into the list by keyboard meanwhile stays where they are.
  const same = (each) => each.href === at.href && each.ariaLabel === at.ariaLabel;
  if (at) [...list.querySelectorAll("a, button")].find(same)?.focus();
}

function line(talk) {
  const href = `/chat/${talk.id}`;
  const current = path() === href;
  return h(
    "li",
    { class: current ? "talk current" : "talk" },
    h(
      "a",
      { href, "aria-current": current && "page", title: talk.title },
      h("span", { class: "clip" }, talk.title || "Untitled"),
      talk.snippet && h("span", { class: "snippet clip" }, talk.snippet),
    ),
    menuButton(`More about ${talk.title || "this conversation"}`, () => [
      { label: "Rename", icon: "edit", run: () => rename(talk) },
      { label: "Export as Markdown", icon: "download", href: api.exportUrl(talk.id, "md"), download: "" },
      { label: "Export as JSON", icon: "download", href: api.exportUrl(talk.id, "json"), download: "" },
      { label: "Delete", icon: "trash", bad: true, run: () => remove(talk) },
    ]),
  );
}

function rename(talk) {
  const row = [...list.querySelectorAll("a")].find((each) => each.pathname === `/chat/${talk.id}`)?.parentElement;
  if (!row) return;
  let ended = false;
  const end = async (keep) => {
    if (ended) return;
    ended = true;
    const title = input.value.trim();
    input.remove();
    if (keep && title && title !== talk.title && (await attempt(() => api.changeConversation(talk.id, { title })))) {
      talk.title = title;
      dispatchEvent(new CustomEvent("renamed", { detail: talk }));
    }
    draw();
  };
  const input = h("input", {
    class: "field",
    "aria-label": "New title",
    maxlength: 200,
    onblur: () => end(true),
    onkeydown: (event) => {
      if (event.key === "Enter") end(true);
      if (event.key === "Escape") {
        event.stopPropagation();
        end(false);
      }
    },
  });
  input.value = talk.title;
  fill(row, input);
  input.focus();
  input.select();
}

async function remove(talk) {
  const sure = await confirm({
    title: "Delete this conversation?",
    text: `“${talk.title}” and all its messages will be gone for good.`,
    action: "Delete",
  });
  if (!sure || !(await attempt(() => api.deleteConversation(talk.id)))) return;
  listed = listed.filter((each) => each.id !== talk.id);
  toast("Conversation deleted");
  if (path() === `/chat/${talk.id}`) navigate("/");
  else draw();
}
