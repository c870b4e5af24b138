// How much may be used, and how much is: the tenant's, a person's, a key's.

import { fill, h } from "../dom.js";
import { accounts } from "../accounts.js";
import { can, isLocal, session } from "../session.js";
import { icon } from "../parts/icons.js";
import { limitCard } from "../parts/limitcard.js";
import { knownKeys, knownPeople, learnNames, subjectName } from "../parts/names.js";
import { page } from "../parts/page.js";
import { attempt } from "../parts/toast.js";

const RANK = { tenant: 0, user: 1, key: 2 };
const KINDS = { tenant: "Tenant", user: "Person", key: "Key" };

export async function view(main, _params, { signal }) {
  const list = h("div", { class: "limitcards" });
  const adding = h("span", { class: "selectwrap" });
  page(
    main,
    {
      name: "Limits",
      lead: "A call is counted before it is made, as the most it can come to, and settled after. What is full is refused until there is room.",
      actions: [can("limits") && adding],
    },
    list,
  );
  await learnNames();
  let cards = new Map();

  async function load(open = null) {
    const { items } = await accounts.limits(signal);
    if (open && !items.some(({ subject }) => subject === open)) items.push({ subject: open, limits: [] });
    items.sort((a, b) => rank(a) - rank(b));
    cards = new Map(
      items
        .filter((item) => item.limits.length || item.subject === open || mayChange(item.subject))
        .map((item) => [item.subject, card(item)]),
    );
    fill(
      list,
      [...cards.values()].map(({ element }) => element),
    );
    if (!cards.size) fill(list, nothing());
    drawAdding(items);
    if (open) cards.get(open)?.edit();
  }

  const card = (item) =>
    limitCard({
      ...item,
      name: subjectName(item.subject),
      kind: isLocal() && item.subject === "tenant" ? "" : KINDS[item.subject.split(":")[0]],
      save: mayChange(item.subject) && ((values) => accounts.setLimits(item.subject, values)),
    });

  function drawAdding(items) {
    const there = new Set(items.map(({ subject }) => subject));
    const own = session().user ? [session().user] : [];
    const people = (knownPeople().length ? knownPeople() : own).map(({ id, name }) => [`user:${id}`, name]);
    const keys = knownKeys()
      .filter((key) => !key.revoked_at)
      .map(({ id, name }) => [`key:${id}`, name]);
    const group = (label, options) =>
      options.length > 0 &&
      h(
        "optgroup",
        { label },
        options.map(([value, text]) => h("option", { value }, text)),
      );
    const choice = h(
      "select",
      {
        class: "select boxed",
        "aria-label": "Add limits for",
        onchange: () => attempt(() => load(choice.value)),
      },
      h("option", { value: "" }, "Add limits for…"),
      group("People", isLocal() ? [] : people.filter(([value]) => !there.has(value))),
      group(
        "Keys",
        keys.filter(([value]) => !there.has(value)),
      ),
    );
    adding.hidden = choice.options.length < 2;
    fill(adding, choice, icon("down"));
  }

  await load(location.hash ? decodeURIComponent(location.hash.slice(1)) : null);
}

const rank = ({ subject }) => RANK[subject.split(":")[0]];

// A tenant's own limits are the operator's to set.
const mayChange = (subject) => can("limits") && (subject !== "tenant" || can("operator"));

const nothing = () =>
  h(
    "div",
    { class: "empty" },
    icon("chart"),
    h("h2", null, "No limits"),
    h("p", null, "Nothing bounds what you use here."),
  );
