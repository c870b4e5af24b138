// Numbers and times as people read them.

export function bytes(count) {
  if (count < 1000) return `${count} B`;
  const units = ["kB", "MB", "GB", "TB"];
  let size = count / 1000;
  let unit = 0;
  while (size >= 999.5 && unit < units.length - 1) {
    size /= 1000;
    unit += 1;
  }
  return `${size < 10 ? size.toFixed(1) : Math.round(size)} ${units[unit]}`;
}

export const number = (value) => Number(value).toLocaleString();

export const plural = (count, one, many = `${one}s`) => `${number(count)} ${count === 1 ? one : many}`;

// Dollars. Small sums keep two digits that say something: $0.0042.
export function money(dollars) {
  const size = Math.abs(dollars);
  const digits = size === 0 || size >= 0.995 ? 2 : Math.min(8, Math.max(2, 1 - Math.floor(Math.log10(size))));
  const text = size.toLocaleString(undefined, { minimumFractionDigits: 2, maximumFractionDigits: digits });
  return `${dollars < 0 ? "−" : ""}$${text}`;
}

const short = new Intl.NumberFormat(undefined, { notation: "compact", maximumFractionDigits: 1 });
export const compact = (value) => short.format(value);

export const date = (moment) =>
  new Date(moment).toLocaleDateString(undefined, { day: "numeric", month: "short", year: "numeric" });

const relative = new Intl.RelativeTimeFormat(undefined, { numeric: "auto", style: "short" });

export function ago(moment) {
  const seconds = (new Date(moment) - Date.now()) / 1000;
  for (const [unit, size] of [
    ["day", 86400],
    ["hour", 3600],
    ["minute", 60],
  ]) {
    if (Math.abs(seconds) >= size) {
      if (unit === "day" && Math.abs(seconds) > 7 * size) return new Date(moment).toLocaleDateString();
      return relative.format(Math.round(seconds / size), unit);
    }
  }
  return "just now";
}

export const exact = (moment) => (moment ? new Date(moment).toLocaleString() : "");

export function duration(seconds) {
  if (seconds < 1) return "under a second";
  if (seconds < 90) return plural(Math.round(seconds), "second");
  if (seconds < 5400) return plural(Math.round(seconds / 60), "minute");
  return plural(Math.round(seconds / 3600), "hour");
}

// Which heading of the conversation list a moment belongs under.
export function day(moment) {
  const date = new Date(moment);
  const start = new Date();
  start.setHours(0, 0, 0, 0);
  const days = Math.ceil((start - date) / 86400000);
  if (days <= 0) return "Today";
  if (days === 1) return "Yesterday";
  if (days <= 7) return "Last seven days";
  if (days <= 30) return "Last thirty days";
  return date.toLocaleDateString(undefined, { month: "long", year: "numeric" });
}

export function fileType(document) {
  const suffix = /\.([a-z0-9]{1,5})$/i.exec(document.name)?.[1];
  return suffix ?? document.media_type?.split("/").pop().slice(0, 4) ?? "file";
}
