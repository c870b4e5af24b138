// Puts the page together.

import { $, fill, h } from "./dom.js";
import { Problem } from "./api.js";
import { guarded, route, start } from "./router.js";
import { can, destination, load, session } from "./session.js";
import { build, focusSearch } from "./parts/sidebar.js";
import { listen as listenKeys } from "./parts/shortcuts.js";
import { listen as listenDrops } from "./parts/drop.js";
import { chatView } from "./views/chat.js";
import { documentsView } from "./views/documents.js";
import { documentView } from "./views/document.js";
import { jobsView } from "./views/jobs.js";
import { settingsView } from "./views/settings.js";

route("/", chatView);
route("/chat/:id", chatView);
route("/documents", documentsView);
route("/documents/:id", documentView);
route("/jobs", jobsView);
route("/settings", settingsView);

// What is opened less often is fetched when it is. `needs`: the permission it takes.
const later =
  (name, needs) =>
  async (...given) => {
    if (needs && !can(needs)) throw new Problem("", { status: 403, permission: needs });
    return (await import(`./views/${name}.js`)).view(...given);
  };
for (const name of ["login", "register", "setup", "join", "reset"]) route(`/${name}`, later(name), { outside: true });
for (const name of ["usage", "limits", "account"]) route(`/${name}`, later(name));
for (const [name, needs] of [
  ["analyses", "analyses"],
  ["campaigns", "campaigns"],
  ["contacts", "campaigns"],
  ["templates", "campaigns"],
  ["sources", "sources"],
  ["schedules", "sources"],
  ["index", "sources"],
  ["webhooks", "webhooks"],
  ["keys", "keys"],
  ["members", "members"],
  ["audit", "audit"],
  ["tenants", "operator"],
])
  route(`/${name}`, later(name, needs));
route("/analyses/:id", later("analysis", "analyses"));
route("/campaigns/new", later("campaignwizard", "campaigns"));
route("/campaigns/:id", later("campaign", "campaigns"));

guarded(({ outside }) => {
  const { mode, user } = session();
  const at = location.pathname.split("/")[1];
  if (mode === "setup") return at === "setup" ? null : "/setup";
  if (mode === "local") return outside && at !== "setup" ? "/" : null;
  if (at === "setup") return "/";
  if (user) return at === "login" || at === "register" ? destination() : null;
  return outside ? null : `/login?next=${encodeURIComponent(location.pathname + location.search + location.hash)}`;
});

listenKeys({ focusSearch });
try {
  await load();
  if (session().user || session().mode === "local") {
    build();
    if (can("documents:write")) listenDrops();
  }
  await start();
} catch (error) {
  fill(
    $("main"),
    h(
      "div",
      { class: "page" },
      h(
        "div",
        { class: "empty" },
        h("h1", null, "This could not be shown"),
        h("p", null, error instanceof TypeError ? "The server can't be reached. Is it still running?" : error.message),
        h("button", { type: "button", class: "button", onclick: () => location.reload() }, "Try again"),
      ),
    ),
  );
}
