// A schedule is made or changed: what runs, with what, and when.

import { fill, h } from "../dom.js";
import { get } from "../api.js";
import { schedules, sources } from "../automation.js";
import { can } from "../session.js";
import { bad, field, form, group, select } from "./form.js";
import { modal } from "./dialog.js";
import { timing } from "./timing.js";
import { toast } from "./toast.js";

const USUAL = "sources.run";
const AT = { schedule_exists: "name", bad_name: "name" };

// `given`: {name, action, payload} where that is settled already; `done()` comes when it is saved.
export function scheduleDialog({ title, schedule = null, given = schedule, signal, done }) {
  const when = timing({ schedule, signal });
  const name = field({
    label: "Name",
    name: "name",
    maxlength: 200,
    value: given?.name ?? "",
    autocomplete: "off",
    placeholder: "Nightly look",
  });
  const what = given ? null : whatField(signal);
  const dialog = modal(
    title,
    form({
      parts: [what, name, when],
      action: schedule ? "Save" : "Make the schedule",
      cancel: () => dialog.close(),
      signal,
      at: { ...AT, ...when.at },
      submit: async (values) => {
        const times = when.times();
        if (schedule) await schedules.change(schedule.id, { name: values.name, ...times });
        else await schedules.create({ name: values.name, ...(given ?? what.chosen(values)), ...times });
        dialog.close();
        toast(schedule ? "Schedule changed" : "Schedule made");
        await done();
      },
    }),
  );
  dialog.querySelector("select, input").focus();
  return dialog;
}

// What may be scheduled, and the one thing it is done with.
function whatField(signal) {
  const action = select({ label: "What", name: "action", options: [] });
  const place = h("div");
  const element = h("div", { class: "timing" }, action.element, place);
  let actions = [];
  let needed = [];
  let turn = 0;

  async function paint() {
    const { needs = [] } = actions.find((each) => each.name === action.value) ?? {};
    turn += 1;
    const mine = turn;
    const fields = await Promise.all(needs.map((each) => neededField(each, signal)));
    if (mine !== turn) return; // something else was chosen meanwhile
    needed = fields;
    fill(place, needed.map((each) => each.element));
  }
  schedules
    .actions(signal)
    .then(({ items }) => {
      actions = items;
      fill(action.input, items.map(({ name, title }) => h("option", { value: name }, title)));
      if (items.some((each) => each.name === USUAL)) action.input.value = USUAL;
      return paint();
    })
    .catch((error) => error.name !== "AbortError" && fill(place, bad(error.message)));
  action.input.addEventListener("change", () => paint().catch((error) => fill(place, bad(error.message))));
  return {
    ...group(element, action),
    chosen: () => ({
      action: action.value,
      payload: Object.fromEntries(needed.map((each) => [each.name, each.value])),
    }),
  };
}

// A choice where the page knows what there is; else the id itself.
async function neededField(name, signal) {
  if (name === "source_id") {
    const { items } = await sources.list({ limit: 200 }, signal);
    return choice("Source", name, items, "Add a source first.");
  }
  if (name === "campaign_id" && can("campaigns")) {
    const { items } = await get("/api/campaigns", { limit: 200 }, signal);
    return choice("Campaign", name, items, "Make a campaign first.");
  }
  return field({ label: name, name, autocomplete: "off" });
}

const choice = (label, name, items, hint) =>
  select({
    label,
    name,
    hint: items.length ? "" : hint,
    options: items.map((each) => [each.id, each.name || each.id]),
  });
