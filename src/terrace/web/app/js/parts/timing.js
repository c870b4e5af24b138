// When something runs: plain choices, or cron, with its next times told while one types.

import { debounce, fill, h } from "../dom.js";
import { schedules } from "../automation.js";
import { exact } from "../format.js";
import { field, group, select } from "./form.js";

const HAND = ["hand", "At no set times"];
const CHOICES = [
  ["hourly", "Every hour"],
  ["nightly", "Every night at 02:00"],
  ["weekly", "Every Sunday at 02:00"],
  ["cron", "At times of my own (cron)"],
];
const CRONS = { nightly: "0 2 * * *", weekly: "0 2 * * 0" };
const HOUR = 3600;

export const zone = () => Intl.DateTimeFormat().resolvedOptions().timeZone || "UTC";

// The choice that says what a schedule has.
function choiceOf({ cron, every }) {
  if (every) return every === HOUR ? "hourly" : "every";
  return Object.keys(CRONS).find((name) => CRONS[name] === cron) ?? "cron";
}

// `{element, fields, at, times()}`: a part of a form; `times()` is what it chose ({cron | every, timezone}), or {}.
export function timing({ schedule = null, byHand = false, signal }) {
  const chosen = schedule ? choiceOf(schedule) : byHand ? "hand" : "nightly";
  const choice = select({
    label: "When",
    name: "when",
    options: [
      ...(byHand ? [HAND] : []),
      ...(chosen === "every" ? [["every", schedule.sentence.replace(/\.$/, "")]] : []),
      ...CHOICES,
    ],
  });
  choice.input.value = chosen;
  const cron = field({
    label: "Cron expression",
    name: "cron",
    required: false,
    value: schedule?.cron ?? "30 6 * * 1-5",
    autocomplete: "off",
    spellcheck: "false",
    maxlength: 100,
    hint: "Minute, hour, day of the month, month, day of the week.",
  });
  cron.element.querySelector("label .faint")?.remove();
  const timezone = field({
    label: "Time zone",
    name: "timezone",
    required: false,
    value: schedule?.timezone ?? zone(),
    autocomplete: "off",
    spellcheck: "false",
    maxlength: 64,
  });
  timezone.element.querySelector("label .faint")?.remove();
  const told = h("div", { class: "nexttimes", "aria-live": "polite" });
  const own = h("div", { class: "pair" }, cron.element, timezone.element);

  function times() {
    const when = choice.value;
    if (when === "hand") return {};
    if (when === "hourly") return { every: HOUR, timezone: timezone.value || "UTC" };
    if (when === "every") return { every: schedule.every, timezone: timezone.value || "UTC" };
    return { cron: CRONS[when] ?? cron.value, timezone: timezone.value || "UTC" };
  }

  let turn = 0;
  async function look() {
    const wanted = times();
    turn += 1;
    const mine = turn;
    if (!wanted.timezone || wanted.cron === "") {
      fill(told);
      return;
    }
    try {
      const preview = await schedules.check(wanted, signal);
      if (mine === turn) tell(preview, wanted.timezone);
    } catch (error) {
      if (mine !== turn || error.name === "AbortError") return;
      fill(told);
      (error.code === "bad_timezone" ? timezone : cron).fail(error.message);
    }
  }

  function tell({ sentence, next }, where) {
    fill(
      told,
      h("p", null, sentence),
      h(
        "ol",
        { "aria-label": "The next times" },
        next.map(({ utc }) => h("li", null, h("time", { datetime: utc, title: exact(utc) }, inZone(utc, where)))),
      ),
    );
  }

  function paint() {
    const when = choice.value;
    own.hidden = when === "hand" || when === "hourly" || when === "every";
    cron.element.hidden = when !== "cron";
    cron.input.required = when === "cron";
    cron.fail("");
    look();
  }
  const lookSoon = debounce(250, look);
  choice.input.addEventListener("change", paint);
  for (const each of [cron, timezone]) each.input.addEventListener("input", lookSoon);
  paint();
  const element = h("div", { class: "timing" }, choice.element, own, told);
  return {
    ...group(element, choice, cron, timezone),
    at: { bad_cron: "cron", never: "cron", bad_timezone: "timezone" },
    times,
  };
}

function inZone(moment, timeZone) {
  const shape = { weekday: "short", day: "numeric", month: "short", hour: "2-digit", minute: "2-digit" };
  try {
    return new Date(moment).toLocaleString(undefined, { ...shape, timeZone });
  } catch {
    return new Date(moment).toLocaleString(undefined, shape); // a zone that this browser does not know
  }
}
