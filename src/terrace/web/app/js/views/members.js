// Who belongs to the tenant, and who is invited.

import { fill, h } from "../dom.js";
import { accounts } from "../accounts.js";
import { ago, date } from "../format.js";
import { can, isLocal, session, turn } from "../session.js";
import { ROLES, roleName, rolesToGive } from "../words.js";
import { confirm, modal } from "../parts/dialog.js";
import { field, form } from "../parts/form.js";
import { icon } from "../parts/icons.js";
import { inviteForm, showLink } from "../parts/invite.js";
import { menuButton } from "../parts/menu.js";
import { nameOf, learnNames } from "../parts/names.js";
import { page, section } from "../parts/page.js";
import { avatar } from "../parts/person.js";
import { attempt, toast } from "../parts/toast.js";

export async function view(main, _params, { signal }) {
  const { tenant } = session();
  const members = h("ul", { class: "lines", "aria-label": "Members" });
  const invited = h("ul", { class: "lines", "aria-label": "Invitations" });
  const more = h(
    "button",
    { type: "button", class: "button", hidden: true, onclick: () => attempt(() => load(true)) },
    "Show more",
  );
  let all = [];
  let next = null;

  async function load(add = false) {
    const answer = await accounts.members({ limit: 100, cursor: add ? next : null }, signal);
    all = add ? [...all, ...answer.items] : answer.items;
    next = answer.next;
    more.hidden = !next;
    fill(
      members,
      all.map((each) => member(each, () => attempt(() => load()))),
    );
  }
  async function loadInvited() {
    const { items } = await accounts.invitations(signal);
    fill(
      invited,
      items.map((each) => invitation(each, () => attempt(loadInvited))),
    );
    if (!items.length) fill(invited, h("li", { class: "soft small" }, "Nobody is invited at the moment."));
  }

  page(
    main,
    {
      name: "Members",
      lead: isLocal() ? "Nobody has an account yet." : `Who may use ${tenant?.name ?? "this tenant"}, and how far.`,
      actions: [
        !isLocal() &&
          h(
            "button",
            { type: "button", class: "button primary", onclick: () => invite(() => attempt(loadInvited)) },
            icon("plus"),
            "Invite",
          ),
      ],
    },
    h(
      "div",
      { class: "settings" },
      section("people", "People", members, h("div", { class: "row" }, more)),
      section("invitations", "Invitations", invited),
      section("roles", "What the roles may do", roles()),
      can("tenant") && section("tenant", "This tenant", ...own(tenant)),
    ),
  );
  await learnNames();
  await Promise.all([load(), loadInvited()]);
}

function member({ user, role, joined_at: joined }, changed) {
  const me = user.id === session().user?.id;
  const own = rolesToGive();
  const above = !own.includes(role);
  const options = above ? [role] : own;
  const choice = h(
    "select",
    {
      class: "select boxed",
      "aria-label": `Role of ${user.name}`,
      disabled: me || above,
      onchange: async () => {
        if (
          !(await attempt(
            () => accounts.setRole(user.id, choice.value),
            `${user.name} is ${roleName(choice.value).toLowerCase()} now`,
          ))
        )
          choice.value = role;
        changed();
      },
    },
    options.map((each) => h("option", { value: each }, roleName(each))),
  );
  choice.value = role;
  return h(
    "li",
    { class: user.disabled && "over" },
    avatar(user.name),
    h(
      "div",
      { class: "grow" },
      h("b", null, user.name, me && h("span", { class: "faint" }, " (you)")),
      h("p", { class: "small faint" }, user.email),
      h(
        "p",
        { class: "small faint" },
        `Since ${date(joined)} · ${user.last_login_at ? `last here ${ago(user.last_login_at)}` : "never logged in"}`,
        user.disabled && " · disabled",
      ),
    ),
    h("span", { class: "selectwrap" }, choice, icon("down")),
    menuButton(`More about ${user.name}`, () => [
      { label: "Limits", icon: "chart", href: `/limits#user:${user.id}` },
      { label: "Usage", icon: "chart", href: `/usage?user=${user.id}` },
      !above && user.has_password && { label: "Link to a new password", icon: "link", run: () => resetLink(user) },
      !me && !above && { label: "Remove", icon: "trash", bad: true, run: () => remove(user, changed) },
    ]),
  );
}

async function resetLink(user) {
  await attempt(async () => {
    const { url, expires_at: end } = await accounts.resetLink(user.id);
    showLink({
      title: `A new password for ${user.name}`,
      text: `Give this link to ${user.name} and nobody else: whoever opens it chooses the password. It is good once, until ${date(end)}.`,
      url,
    });
  });
}

async function remove(user, changed) {
  const sure = await confirm({
    title: `Remove ${user.name}?`,
    text: `They lose their access to ${session().tenant?.name ?? "this tenant"} at once, and their keys here are revoked. Their account elsewhere stays.`,
    action: "Remove",
  });
  if (sure && (await attempt(() => accounts.removeMember(user.id), `${user.name} was removed`))) changed();
}

function invitation(each, changed) {
  return h(
    "li",
    null,
    h(
      "div",
      { class: "grow" },
      h("b", null, each.email ?? "Whoever has the link"),
      h(
        "p",
        { class: "small faint" },
        `${roleName(each.role)} · invited ${nameOf(each.invited_by ?? "terminal", { by: true })} · good until ${date(each.expires_at)}`,
      ),
    ),
    h(
      "button",
      {
        type: "button",
        class: "button little",
        "aria-label": `Take back the invitation of ${each.email ?? "whoever has the link"}`,
        onclick: async () => {
          if (await attempt(() => accounts.revokeInvitation(each.id))) {
            toast("Invitation taken back");
            changed();
          }
        },
      },
      "Take back",
    ),
  );
}

function invite(changed) {
  const dialog = modal(
    "Invite somebody",
    inviteForm({
      roles: rolesToGive(),
      cancel: () => dialog.close(),
      submit: async (body) => {
        const made = await accounts.invite(body);
        dialog.close();
        showLink({ title: "The invitation", text: words(made.invitation), url: made.url });
        changed();
      },
    }),
  );
}

const words = ({ email, expires_at: end }) =>
  `Send this link to ${email ?? "whoever should join"}. It is shown this once, good for one person until ${date(end)}.`;

// For its owners: what it is called, and all of it as one file.
function own(tenant) {
  return [
    form({
      parts: [field({ label: "Name", name: "name", value: tenant.name, maxlength: 200, autocomplete: "off" })],
      action: "Rename",
      at: { tenant_name_taken: "name" },
      submit: async ({ name }) => {
        await accounts.renameTenant(name);
        turn("/members");
      },
    }),
    h(
      "div",
      { class: "row spread" },
      h("p", { class: "soft" }, "Documents, conversations, members and usage, as one archive."),
      h("a", { class: "button", href: accounts.exportUrl, download: "" }, icon("download"), "Export"),
    ),
  ];
}

const roles = () =>
  h(
    "dl",
    { class: "facts" },
    Object.values(ROLES).map(([name, means]) => [h("dt", null, name), h("dd", null, means)]),
  );
