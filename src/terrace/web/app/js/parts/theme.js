// Light, dark, or as the system has it.

import { remember } from "../dom.js";

export function theme() {
  return document.documentElement.dataset.theme ?? "system";
}

export function setTheme(value) {
  if (value === "system") {
    delete document.documentElement.dataset.theme;
    try {
      localStorage.removeItem("terrace.theme");
    } catch {
      /* not kept, then */
    }
  } else {
    document.documentElement.dataset.theme = value;
    try {
      localStorage.setItem("terrace.theme", value);
    } catch {
      /* not kept, then */
    }
  }
  dispatchEvent(new CustomEvent("themechange"));
}

export const isDark = () =>
  theme() === "dark" || (theme() === "system" && matchMedia("(prefers-color-scheme: dark)").matches);

export const singleKeys = () => remember.get("singlekeys", true);
