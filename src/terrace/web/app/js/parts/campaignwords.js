// Campaigns in words: their states and why, what they cost, how far they are.

import { h } from "../dom.js";
import { duration, exact, money, number, plural } from "../format.js";

export const OVER = new Set(["finished", "cancelled", "failed"]);

const STATES = {
  draft: ["", "Draft"],
  scheduled: ["warn", "Will start"],
  preparing: ["busy", "Checking"],
  running: ["busy", "Writing"],
  paused: ["warn", "Paused"],
  finished: ["good", "Finished"],
  cancelled: ["", "Cancelled"],
  failed: ["bad", "Could not start"],
};

export function stateBadge({ state }) {
  const [look, name] = STATES[state] ?? ["", state];
  return h("span", { class: `badge ${look}` }, name);
}

// What is going on, in a sentence or two.
export function sentence(campaign) {
  const { state, reason, counts } = campaign;
  const left = counts.waiting + counts.writing;
  if (state === "draft") return "Nothing is written before you start it.";
  if (state === "scheduled") return `It starts ${exact(campaign.start_at)}.`;
  if (state === "preparing") return "Every contact is being checked for what the template asks for.";
  if (state === "running") return `Writing to ${plural(counts.total, "contact")}.`;
  if (state === "paused") {
    const why = reason ? reason.message : "You paused it.";
    const also = counts.writing ? ` ${plural(counts.writing, "message")} already begun will still be finished.` : "";
    return `${why}${also} ${plural(left, "contact")} ${left === 1 ? "waits" : "wait"} for a message.`;
  }
  if (state === "finished")
    return counts.done === counts.total ? `${result(counts)} Each contact has one message.` : result(counts);
  if (state === "cancelled") return `Cancelled. ${result(counts)} What is written stays.`;
  return reason?.message ?? "It could not be started.";
}

function result({ done, failed, skipped }) {
  const told = [`${number(done)} written`];
  if (failed) told.push(`${number(failed)} failed`);
  if (skipped) told.push(`${number(skipped)} left out`);
  return `${told.join(", ")}.`;
}

// What was spent, as far as anybody knows.
export function spent({ cost, unpriced }) {
  if (unpriced && !cost) return "Unknown";
  return unpriced ? `${money(cost)} and more` : money(cost);
}

export const ended = ({ done, failed, skipped }) => done + failed + skipped;

export function eta({ state, eta: seconds }) {
  return state === "running" && seconds !== null ? `about ${duration(seconds)} left` : "";
}

// What the whole may cost: [the figure, what it rests on].
export function estimated(estimate, perMessage) {
  if (estimate.basis === "nothing")
    return ["Unknown", "No message could be made; each says below what was in the way."];
  if (!estimate.known)
    return [
      "Unknown",
      "Nobody knows the price of this model. Set its price under Usage to see what the campaign costs, and to give it a budget.",
    ];
  if (estimate.high === 0) return ["$0.00", "No message costs anything."];
  const near =
    estimate.low === estimate.high ? money(estimate.high) : `${money(estimate.low)} to ${money(estimate.high)}`;
  const basis = perMessage
    ? `Told from these messages. Were each as long as it may be: ${money(estimate.ceiling)}.`
    : "Told from the prompts and the model's price; writing a few tells it better.";
  return [near, basis];
}

// "the contact": name, else address, else key.
export const called = ({ name, email, key }) => name || email || key || "Somebody who is gone";
export const under = ({ name, email, key }) => (name ? email || key : email && key !== email ? key : "");
