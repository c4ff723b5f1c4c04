// Keeps what is shown up to date: asks only while somebody looks, says changes to screen readers, and tells errors.
"use strict";

(function () {
  const MINUTE = 60, HOUR = 3600, DAY = 86400;

  // Relative times, in the words of page/formats.py.
  function relative(seconds) {
    const size = Math.abs(seconds);
    if (size < 10) return "just now";
    const [divisor, unit] = size < MINUTE ? [1, "s"] : size < HOUR ? [MINUTE, "min"] : size < DAY ? [HOUR, "h"] : [DAY, "d"];
    const said = `${Math.floor(size / divisor)} ${unit}`;
    return seconds > 0 ? `${said} ago` : `in ${said}`;
  }

  // Lengths of time, in the words of report/wording.py.
  function lasted(seconds) {
    const whole = Math.round(Math.max(0, seconds));
    if (seconds < 9.95) return `${Math.max(0, seconds).toFixed(1)} s`;
    if (whole < MINUTE) return `${whole} s`;
    if (whole < HOUR) return `${Math.floor(whole / MINUTE)} min ${whole % MINUTE} s`;
    return `${Math.floor(whole / HOUR)} h ${Math.floor((whole % HOUR) / MINUTE)} min`;
  }

  function tellTimes() {
    for (const each of document.querySelectorAll("time [data-ago]")) {
      const moment = Date.parse(each.parentElement.dateTime);
      if (!Number.isNaN(moment)) each.textContent = relative((Date.now() - moment) / 1000);
    }
    for (const each of document.querySelectorAll("[data-since]")) {
      const moment = Date.parse(each.dataset.since);
      if (!Number.isNaN(moment)) each.textContent = lasted((Date.now() - moment) / 1000);
    }
  }

  // Tables that become cards on narrow screens stay tables to screen readers; what scrolls sideways takes the focus.
  const ROLES = { TABLE: "table", THEAD: "rowgroup", TBODY: "rowgroup", TR: "row", TD: "cell" };
  function tellShapes() {
    for (const each of document.querySelectorAll("table.stack, table.stack *")) {
      const role = each.tagName === "TH" ? (each.scope === "row" ? "rowheader" : "columnheader") : ROLES[each.tagName];
      if (role) each.setAttribute("role", role);
    }
    for (const each of document.querySelectorAll(".wrap, pre, figure, .said")) {
      const scrolls = each.scrollWidth > each.clientWidth + 1 || each.scrollHeight > each.clientHeight + 1;
      if (scrolls) each.tabIndex = 0;
      else each.removeAttribute("tabindex");
    }
  }

  // A change is said once, in a region that stays while its text changes.
  let said = "";
  function announce() {
    const from = document.querySelector("[data-announce]");
    const to = document.getElementById("announce");
    if (!from || !to || from.dataset.announce === said) return;
    if (said) to.textContent = from.dataset.announce;
    said = from.dataset.announce;
  }

  // What polls does so only in a visible tab, and not while somebody ticks boxes in the list or has the text selected.
  document.addEventListener("htmx:beforeRequest", (event) => {
    const polls = (event.target.getAttribute("hx-trigger") || "").startsWith("every");
    if (!polls) return;
    const ticked = event.target.querySelector('table.jobs input[type="checkbox"]:checked');
    const typing = event.target.contains(document.activeElement) && document.activeElement.matches("input:not([type=checkbox])");
    const selecting = String(document.getSelection() || "") !== "";
    const open = event.target.querySelector("details[open]");
    if (document.visibilityState !== "visible" || ticked || typing || selecting || (open && open.closest(".delete"))) {
      event.preventDefault();
    }
  });

  document.addEventListener("htmx:afterSwap", () => {
    announce();
    tellTimes();
    tellShapes();
    const problem = document.getElementById("problem");
    if (problem) problem.textContent = "";
  });

  function tell(text) {
    const problem = document.getElementById("problem");
    if (problem) problem.textContent = text;
  }
  document.addEventListener("htmx:sendError", () => tell("The server does not answer; what is shown may be old."));
  document.addEventListener("htmx:responseError", (event) => {
    const { status, responseText } = event.detail.xhr;
    let why = `The server answers with status ${status}.`;
    try {
      why = JSON.parse(responseText).detail || why;
    } catch {
      // a proxy's page
    }
    tell(`${why} What is shown may be old.`);
  });

  tellTimes();
  tellShapes();
  announce();
  setInterval(tellTimes, 5000);
  addEventListener("resize", tellShapes);
  const errors = document.getElementById("errors");
  if (errors) errors.focus();
})();
