// Runs before the first paint (a classic script in the head), so that a chosen theme never flashes.
(() => {
  let theme = null;
  try {
    theme = localStorage.getItem("terrace.theme");
  } catch {
    /* storage may be refused */
  }
  if (theme === "light" || theme === "dark") document.documentElement.dataset.theme = theme;
})();
