// Live curves of a job, drawn by uPlot over the pictures that the server made.
"use strict";

(function () {
  const PERIOD = 2000;
  const plots = new Map();
  let seen = 0, ended = false;

  const colour = (name) => getComputedStyle(document.documentElement).getPropertyValue(`--${name}`).trim();
  const NAMES = ["accent", "second", "third", "fourth"];

  function figureOf(root, curve) {
    const known = [...root.querySelectorAll("figure")].find((each) => each.dataset.key === curve.key);
    if (known) return known;
    const figure = document.createElement("figure");
    figure.dataset.key = curve.key;
    const title = document.createElement("figcaption");
    title.textContent = curve.title;
    const plot = document.createElement("div");
    plot.className = "plot";
    figure.append(title, plot);
    root.append(figure);
    return figure;
  }

  function draw(root, curve, index) {
    const place = figureOf(root, curve).querySelector(".plot");
    const data = [curve.steps, curve.values];
    const known = plots.get(curve.key);
    if (known && place.contains(known.root)) {
      known.setData(data);
      known.setLegend({ idx: curve.steps.length - 1 });
      return;
    }
    if (curve.steps.length < 2) return; // the server's picture says as much
    place.textContent = "";
    const axis = { stroke: colour("muted"), grid: { stroke: colour("rule"), width: 1 }, ticks: { stroke: colour("rule") } };
    const options = {
      width: place.clientWidth || 440,
      height: 220,
      scales: { x: { time: false } },
      axes: [axis, { ...axis, size: 62, space: 28 }],
      // Where nobody points, the last values are told.
      hooks: { setCursor: [(plot) => { if (plot.cursor.idx == null) plot.setLegend({ idx: plot.data[0].length - 1 }); }] },
      series: [
        { label: "step" },
        { label: curve.quantity, stroke: colour(NAMES[index % NAMES.length]), width: 2, points: { show: false } },
      ],
    };
    const made = new uPlot(options, data, place);
    made.root.setAttribute("role", "img");
    made.root.setAttribute("aria-label", figureOf(root, curve).querySelector("figcaption").textContent);
    made.setLegend({ idx: curve.steps.length - 1 });
    plots.set(curve.key, made);
  }

  async function look() {
    const root = document.getElementById("curves");
    if (!root || ended || document.visibilityState !== "visible" || typeof uPlot === "undefined") return;
    let found;
    try {
      const answer = await fetch(`${root.dataset.address}?seen=${seen}`);
      if (answer.status !== 200) return;
      found = await answer.json();
    } catch {
      return; // the service is away, or the page is left: it is looked again
    }
    seen = found.seen;
    ended = found.ended;
    found.curves.forEach((curve, index) => draw(root, curve, index));
  }

  function again() {
    for (const plot of plots.values()) plot.destroy();
    plots.clear();
    seen = 0;
    ended = false;
    look();
  }

  addEventListener("resize", () => {
    for (const plot of plots.values()) plot.setSize({ width: plot.root.parentElement.clientWidth || 440, height: 220 });
  });
  matchMedia("(prefers-color-scheme: dark)").addEventListener("change", again);
  setInterval(() => look().catch(() => {}), PERIOD);
  look().catch(() => {});
})();
