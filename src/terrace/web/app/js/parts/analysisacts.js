// What one can do with an analysis, wherever it stands.

import { api } from "../api.js";
import { analyses } from "../analyses.js";
import { navigate } from "../router.js";
import { can } from "../session.js";
import { OVER } from "./analysiswords.js";
import { ask, confirm } from "./dialog.js";
import { attempt, toast } from "./toast.js";

export const hasText = (analysis) => analysis.state === "succeeded";
export const isBroken = ({ state }) => state === "failed" || state === "cancelled";

export async function retry(analysis, changed) {
  const fresh = await attempt(() => analyses.retry(analysis.id), "It is tried again");
  if (fresh) changed(fresh);
}

export const stop = (analysis) => attempt(() => api.cancelJob(analysis.job_id), "It is being stopped");

export async function remove(analysis, gone) {
  const sure = await confirm({
    title: "Delete this analysis?",
    text: `“${analysis.name}”, its pages and its result will be gone for good.`,
    action: "Delete",
  });
  if (!sure || !(await attempt(() => analyses.remove(analysis.id)))) return;
  toast("Analysis deleted");
  gone(analysis);
}

export async function toDocument(analysis) {
  const collection = await ask({
    title: "Add to the documents",
    label: "Collection",
    value: "default",
    action: "Add",
    hint: "Its text can be asked and cited then. A name that isn't there yet makes a new collection.",
  });
  if (!collection) return;
  const added = await attempt(() => analyses.toDocument(analysis.id, { collection }));
  if (!added) return;
  const { document } = added;
  toast(document.duplicate ? "It is among the documents already" : "Added to the documents", {
    action: { label: "Open", run: () => navigate(`/documents/${document.id}`) },
  });
}

// For a menu.
export const entries = (analysis, { changed, gone }) => [
  { label: "Download original", icon: "download", href: analyses.originalUrl(analysis.id), download: "" },
  hasText(analysis) &&
    can("documents:write") && { label: "Add to the documents", icon: "book", run: () => toDocument(analysis) },
  isBroken(analysis) && { label: "Try again", icon: "redo", run: () => retry(analysis, changed) },
  !OVER.has(analysis.state) && analysis.job_id && { label: "Stop", icon: "stop", run: () => stop(analysis) },
  { label: "Delete", icon: "trash", bad: true, run: () => remove(analysis, gone) },
];
