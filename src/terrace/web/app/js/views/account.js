// One's own account: name, password, where one is logged in, and the way out for good.

import { fill, h } from "../dom.js";
import { accounts } from "../accounts.js";
import { ago, date, exact } from "../format.js";
import { isLocal, session, turn } from "../session.js";
import { roleName } from "../words.js";
import { typed } from "../parts/dialog.js";
import { field, form } from "../parts/form.js";
import { icon } from "../parts/icons.js";
import { PASSWORD, PASSWORD_CODES, newPassword } from "../parts/outside.js";
import { page, section } from "../parts/page.js";
import { logOut, switchTo } from "../parts/person.js";
import { attempt, toast } from "../parts/toast.js";

export async function view(main, _params, { signal }) {
  const { user } = session();
  if (isLocal()) {
    page(
      main,
      { name: "Account", lead: "Nobody logs in on this installation yet: whoever uses this machine is its owner." },
      h("div", { class: "row" }, h("a", { href: "/setup", class: "button" }, icon("shield"), "Set up accounts")),
    );
    return;
  }
  const logins = h("ul", { class: "lines", "aria-label": "Where you are logged in" });
  page(
    main,
    {
      name: "Account",
      lead: `${user.email}, here since ${date(user.created_at)}.`,
      actions: [h("button", { type: "button", class: "button", onclick: logOut }, icon("leave"), "Log out")],
    },
    h(
      "div",
      { class: "settings" },
      section("name", "Name", nameForm(user)),
      session().tenants.length > 1 && section("tenants", "Your tenants", tenants()),
      section("password", user.has_password ? "Password" : "Log-in", passwordForm(user, signal)),
      section("sessions", "Where you are logged in", logins),
      section("erase", "Erase my account", erase(user)),
    ),
  );
  await drawLogins(logins, signal);
}

function nameForm(user) {
  return form({
    parts: [field({ label: "Your name", name: "name", autocomplete: "name", value: user.name, maxlength: 100 })],
    action: "Save",
    submit: async ({ name }) => {
      await accounts.rename(user.id, name);
      session().user.name = name;
      document.querySelector(".person b").textContent = name;
      toast("Name saved");
    },
  });
}

function tenants() {
  const { tenant } = session();
  return h(
    "ul",
    { class: "lines" },
    session().tenants.map((each) =>
      h(
        "li",
        null,
        h("div", { class: "grow" }, h("b", null, each.name), h("p", { class: "small faint" }, roleName(each.role))),
        each.id === tenant?.id
          ? h("span", { class: "badge good" }, "You are here")
          : h("button", { type: "button", class: "button little", onclick: () => switchTo(each.id) }, "Go there"),
      ),
    ),
  );
}

function passwordForm(user, signal) {
  if (!user.has_password)
    return h("p", { class: "soft" }, "You log in with another provider, so there is no password here.");
  const made = form({
    parts: [
      h("input", {
        class: "quiet",
        autocomplete: "username",
        value: user.email,
        readonly: true,
        tabindex: "-1",
        "aria-hidden": "true",
      }),
      field({ label: "Password now", name: "current", autocomplete: "current-password", ...PASSWORD }),
      field({ name: "fresh", ...newPassword("New password") }),
    ],
    action: "Change the password",
    signal,
    at: {
      ...Object.fromEntries(Object.keys(PASSWORD_CODES).map((code) => [code, "fresh"])),
      wrong_password: "current",
    },
    submit: async ({ current, fresh }) => {
      await accounts.password(current, fresh);
      made.reset();
      toast("Password changed. Your other logins have ended.");
      dispatchEvent(new Event("loginschanged"));
    },
  });
  return made;
}

async function drawLogins(list, signal) {
  const load = async () => {
    const { items } = await accounts.sessions(signal);
    fill(list, items.map(line));
  };
  const line = (login) =>
    h(
      "li",
      null,
      h(
        "div",
        { class: "grow" },
        h("b", null, browser(login.agent)),
        h(
          "p",
          { class: "small faint" },
          `${login.address || "This machine"} · since ${date(login.created_at)} · `,
          h(
            "span",
            { title: exact(login.last_used_at) },
            login.current ? "in use now" : `last used ${ago(login.last_used_at)}`,
          ),
        ),
      ),
      login.current
        ? h("span", { class: "badge good" }, "This one")
        : h(
            "button",
            {
              type: "button",
              class: "button little",
              "aria-label": `Log out ${browser(login.agent)}`,
              onclick: async () => {
                if (!(await attempt(() => accounts.endSession(login.id), "Logged out there"))) return;
                await attempt(load);
                list.querySelector("button")?.focus();
              },
            },
            "Log out",
          ),
    );
  addEventListener("loginschanged", () => attempt(load), { signal });
  await load();
}

const BROWSERS = [
  [/Edg\//, "Edge"],
  [/OPR\//, "Opera"],
  [/Firefox\//, "Firefox"],
  [/Chrom(e|ium)\//, "Chrome"],
  [/Safari\//, "Safari"],
];
const SYSTEMS = [
  [/Android/, "Android"],
  [/iPhone|iPad/, "iOS"],
  [/Windows/, "Windows"],
  [/Mac OS X/, "macOS"],
  [/Linux|X11/, "Linux"],
];

// "Firefox on Linux", or what the program calls itself.
export function browser(agent) {
  const among = (list) => list.find(([test]) => test.test(agent))?.[1];
  const [name, system] = [among(BROWSERS), among(SYSTEMS)];
  if (name) return system ? `${name} on ${system}` : name;
  return agent.split(/[\s/(]/)[0] || "A program";
}

function erase(user) {
  const run = async () => {
    const sure = await typed({
      title: "Erase your account?",
      text: "Your conversations, questions, logins and keys go for good. What you added to the collections of the tenant stays; the books keep numbers without your name.",
      word: user.email,
      action: "Erase for good",
    });
    if (!sure || !(await attempt(() => accounts.erase(user.id)))) return;
    await accounts.logout().catch(() => {}); // only the cookies are left to go
    turn("/login");
  };
  return [
    h("p", { class: "soft" }, "Everything that is yours alone goes, and can't be brought back."),
    h(
      "div",
      { class: "row" },
      h("button", { type: "button", class: "button quietdanger", onclick: run }, "Erase my account…"),
    ),
  ];
}
