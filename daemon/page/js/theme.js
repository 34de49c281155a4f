// The choice of colours. Not a module: it runs before anything is painted, so that the page does not flash.
"use strict";
(() => {
  const THEMES = ["auto", "light", "dark"];
  const KEY = "visaged-theme";
  const root = document.documentElement;

  function kept() {
    try {
      return localStorage.getItem(KEY);
    } catch {
      return null; // storage is switched off; the choice lasts as long as the page
    }
  }

  function choose(theme) {
    root.dataset.theme = THEMES.includes(theme) ? theme : "auto";
    try {
      localStorage.setItem(KEY, root.dataset.theme);
    } catch {
      // as above
    }
  }

  choose(kept());
  addEventListener("DOMContentLoaded", () => {
    const button = document.getElementById("theme");
    const tell = () => {
      button.textContent = `Theme: ${root.dataset.theme}`;
    };
    button.hidden = false;
    button.addEventListener("click", () => {
      choose(THEMES[(THEMES.indexOf(root.dataset.theme) + 1) % THEMES.length]);
      tell();
    });
    tell();
  });
})();
