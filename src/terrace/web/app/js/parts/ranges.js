// Ranges of days, in UTC as the books are kept.

const DAY = 86_400_000;
const iso = (time) => new Date(time).toISOString().slice(0, 10);

export const RANGES = [
  ["7", "7 days"],
  ["30", "30 days"],
  ["90", "90 days"],
  ["month", "This month"],
];

// {from, to} as days, both included.
export function range(name, now = Date.now()) {
  const to = iso(now);
  if (name === "month") return { from: `${to.slice(0, 8)}01`, to };
  return { from: iso(now - (Number(name) - 1) * DAY), to };
}

const options = { timeZone: "UTC", day: "numeric", month: "short" };
export const shortDay = (day) => new Date(day).toLocaleDateString(undefined, options);
export const plainDay = (day) => new Date(day).toLocaleDateString(undefined, { ...options, year: "numeric" });
export const longDay = (day) =>
  new Date(day).toLocaleDateString(undefined, { ...options, weekday: "long", month: "long", year: "numeric" });
