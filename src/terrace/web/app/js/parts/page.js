// The frame of a page: heading, lead, actions, and the neighbours it belongs with.

import { fill, h } from "../dom.js";
import { path, title } from "../router.js";
import { can, isLocal } from "../session.js";

const apart = () => !isLocal(); // where people have accounts

const AREAS = {
  Campaigns: [
    ["/campaigns", "Campaigns", () => true],
    ["/contacts", "Contacts", () => true],
    ["/templates", "Templates", () => true],
  ],
  Sources: [
    ["/sources", "Sources", () => can("sources")],
    ["/schedules", "Schedules", () => can("sources")],
    ["/index", "Index", () => can("sources")],
    ["/webhooks", "Webhooks", () => can("webhooks")],
  ],
  Usage: [
    ["/usage", "Usage", () => true],
    ["/limits", "Limits", () => true],
  ],
  Settings: [
    ["/settings", "General", () => true],
    ["/account", "Account", apart],
    ["/keys", "API keys", () => apart() && can("keys")],
    ["/members", "Members", () => apart() && can("members")],
    ["/audit", "Audit log", () => apart() && can("audit")],
    ["/tenants", "Tenants", () => apart() && can("operator")],
  ],
};

// The places of an area that are open to whoever is here.
export const places = (area) => AREAS[area].filter(([, , open]) => open());

export const areaOf = (address) =>
  Object.keys(AREAS).find((area) => AREAS[area].some(([href]) => address.startsWith(href))) ?? null;

export function subnav() {
  const area = areaOf(path());
  const open = area ? places(area) : [];
  return (
    open.length > 1 &&
    h(
      "nav",
      { class: "subnav", "aria-label": area },
      open.map(([href, label]) => h("a", { href, "aria-current": path().startsWith(href) && "page" }, label)),
    )
  );
}

// Fills `main`. `lead` is a sentence or two, `actions` stand at the right.
export function page(main, { name, lead, actions = [] }, ...body) {
  title(name);
  fill(
    main,
    h(
      "div",
      { class: "page" },
      subnav(),
      h(
        "header",
        null,
        h("div", null, h("h1", null, name), lead && h("p", null, lead)),
        h("div", { class: "row headacts" }, actions),
      ),
      ...body,
    ),
  );
  main.querySelector(".subnav [aria-current]")?.scrollIntoView({ block: "nearest", inline: "center" });
}

export const section = (id, name, ...inside) =>
  h("section", { id, "aria-labelledby": `${id}-title` }, h("h2", { id: `${id}-title` }, name), ...inside);
