// Curves of jobs, and the events of a running one.
"use strict";

const style = (name) => getComputedStyle(document.documentElement).getPropertyValue(name).trim();
const COLOURS = ["#2f6fed", "#d9480f", "#12874a", "#9333ea", "#b8860b", "#0e7490", "#be185d", "#64748b"];

function smoothed(values, weight) {
  let mean = null;
  return values.map((value) => {
    if (value === null) return null;
    mean = mean === null ? value : weight * mean + (1 - weight) * value;
    return mean;
  });
}

const positive = (values) => values.map((value) => (value !== null && value > 0 ? value : null));

function draw(place, title, series, log) {
  const box = document.createElement("div");
  box.className = "chart";
  const heading = document.createElement("h3");
  heading.textContent = title;
  box.append(heading);
  place.append(box);
  const axis = { stroke: style("--soft"), grid: { stroke: style("--line"), width: 1 }, ticks: { stroke: style("--line") } };
  const data = uPlot.join(series.map((one) => [one.steps, log ? positive(one.values) : one.values]));
  return new uPlot({
    width: Math.max(240, box.clientWidth - 16), height: 220, scales: { x: { time: false }, y: { distr: log ? 3 : 1 } },
    axes: [{ ...axis }, { ...axis, size: 64 }],
    series: [{ label: "step" }, ...series.map((one, at) => ({
      label: one.name, stroke: COLOURS[at % COLOURS.length], dash: at < COLOURS.length ? [] : [6, 4], width: 1.5, spanGaps: true, points: { show: one.steps.length < 30 },
      value: (_, value) => (value == null ? "–" : Number(value).toPrecision(4)),
    }))],
  }, data, box);
}

function jobCurves(root) {
  const charts = root.querySelector(".charts"), controls = root.querySelector(".controls");
  const curves = new Map(), drawn = new Map();
  let timer = null;
  const settings = () => [controls.querySelector("[name=log]").checked, Number(controls.querySelector("[name=smoothing]").value)];

  function redraw() {
    const [log, weight] = settings();
    for (const [name, [steps, values]] of curves) {
      if (!steps.length) continue;
      const shown = smoothed(values, weight);
      const known = drawn.get(name);
      if (known && known.log === log) {
        known.plot.setData([steps, log ? positive(shown) : shown]);
      } else {
        if (known) { known.plot.destroy(); known.box.remove(); }
        const before = charts.children.length;
        const plot = draw(charts, name, [{ name, steps, values: shown }], log);
        drawn.set(name, { plot, log, box: charts.children[before] });
      }
      root.dataset.points = Math.max(Number(root.dataset.points || 0), steps.length);
    }
    controls.hidden = !curves.size;
  }

  function add(name, step, value) {
    if (!curves.has(name)) curves.set(name, [[], []]);
    const [steps, values] = curves.get(name);
    // after a resume, steps that are computed again replace the old ones
    while (steps.length && steps[steps.length - 1] >= step) { steps.pop(); values.pop(); }
    steps.push(step);
    values.push(value);
  }

  const later = () => { timer = timer || setTimeout(() => { timer = null; redraw(); }, 250); };
  controls.addEventListener("input", () => {
    redraw();
  });
  fetch(root.dataset.curves, { headers: { Accept: "application/json" } }).then((answer) => answer.json()).then((found) => {
    for (const [name, [steps, values]] of Object.entries(found)) curves.set(name, [steps, values]);
    redraw();
    if (root.dataset.final === "no") follow(root.dataset.events, add, later);
  });
}

// A message, with what stands between backticks as code, as the server writes it.
function coded(text) {
  return text.split(/`([^`\s](?:[^`\n]*[^`\s])?)`/).map((part, at) => {
    if (at % 2 === 0) return part;
    const code = document.createElement("code");
    code.textContent = part;
    return code;
  });
}

function follow(address, add, later) {
  const source = new EventSource(address); // reconnects on its own, with the number of the last event
  const list = document.getElementById("event-list");
  const changed = (name) => htmx.trigger(document.body, name);
  const log = (message) => {
    const event = JSON.parse(message.data);
    const item = document.createElement("li");
    item.className = event.level;
    const kind = document.createElement("span");
    kind.className = "kind";
    kind.textContent = event.type;
    item.append(new Date(event.created_at).toLocaleTimeString() + " ", kind, " ", ...coded(event.message.slice(0, 400)));
    list.append(item);
    while (list.children.length > 300) list.firstElementChild.remove();
    return event;
  };
  source.addEventListener("metrics", (message) => {
    for (const [name, newest] of Object.entries(JSON.parse(message.data).data)) {
      add(name, newest.step, newest.value);
      const row = document.querySelector(`#metrics tr[data-metric="${CSS.escape(name)}"]`);
      if (row) { row.children[1].textContent = newest.step; row.children[2].textContent = newest.value === null ? "–" : Number(newest.value).toPrecision(4); }
    }
    later();
  });
  let due = null;
  const soon = () => { due = due || setTimeout(() => { due = null; changed("job-changed"); }, 1000); }; // a part may be 0.85 s old
  source.addEventListener("progress", soon);
  for (const kind of ["log", "checkpoint", "artifact"]) source.addEventListener(kind, log);
  source.addEventListener("phase", (message) => { log(message); soon(); });
  source.addEventListener("preview", (message) => { log(message); changed("images-changed"); });
  source.addEventListener("status", (message) => {
    const event = log(message);
    soon();
    if (["succeeded", "failed", "cancelled"].includes((event.data || {}).status)) {
      source.close();
      setTimeout(() => window.location.reload(), 600); // the report, the files and other buttons
    }
  });
}

async function overlay(root) {
  const jobs = JSON.parse(root.dataset.jobs), names = JSON.parse(root.dataset.names);
  const found = await Promise.all(jobs.map((id) => fetch(`/jobs/${id}/curves`, { headers: { Accept: "application/json" } }).then((answer) => answer.json())));
  const metrics = [...new Set(found.flatMap(Object.keys))].sort();
  const controls = root.querySelector(".controls"), select = controls.querySelector("select"), charts = root.querySelector(".charts");
  if (!metrics.length) { charts.textContent = "No curves yet."; return; }
  for (const name of metrics) select.add(new Option(name, name));
  select.value = ["validation/accuracy", "loss"].find((name) => metrics.includes(name)) || metrics[0];
  const redraw = () => {
    charts.replaceChildren();
    const series = found.map((curves, at) => ({ name: names[at], curve: curves[select.value] })).filter((one) => one.curve)
      .map((one) => ({ name: one.name, steps: one.curve[0], values: one.curve[1] }));
    draw(charts, select.value, series, controls.querySelector("[name=log]").checked);
  };
  controls.addEventListener("input", redraw);
  controls.hidden = false;
  redraw();
}

if (window.uPlot) {
  const curves = document.getElementById("curves"), both = document.getElementById("overlay");
  if (curves) jobCurves(curves);
  if (both) overlay(both);
}
