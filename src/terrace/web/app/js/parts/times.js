// Times that are still to come.

import { duration } from "../format.js";

// "in 3 hours", or the day where it is far off.
export function soon(moment) {
  const seconds = (new Date(moment) - Date.now()) / 1000;
  if (seconds <= 1) return "any moment now";
  if (seconds > 14 * 86_400) return `on ${new Date(moment).toLocaleDateString()}`;
  if (seconds > 36 * 3600) return `in ${Math.round(seconds / 86_400)} days`;
  return `in ${duration(seconds)}`;
}
