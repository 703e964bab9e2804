"use strict";
(() => {
const data = JSON.parse(document.getElementById("data").textContent);
const tip = document.getElementById("tip");

// ---- Elements: text always through textContent, so that no string of the record is ever markup.
const SVG = "http://www.w3.org/2000/svg";
function fill(node, attributes, children) {
  for (const [name, value] of Object.entries(attributes)) {
    if (value === null || value === undefined || value === false) continue;
    if (name.startsWith("on")) node.addEventListener(name.slice(2), value);
    else node.setAttribute(name, value === true ? "" : value);
  }
  for (const child of children.flat(3)) if (child !== null && child !== undefined) node.append(child);
  return node;
}
const h = (tag, attributes = {}, ...children) => fill(document.createElement(tag), attributes, children);
const s = (tag, attributes = {}, ...children) => fill(document.createElementNS(SVG, tag), attributes, children);

// ---- Numbers
const DASH = "–";
const ok = (v) => typeof v === "number" && Number.isFinite(v);
const positive = (v) => ok(v) && v > 0;
const percent = (v, digits = 2) => (ok(v) ? (100 * v).toFixed(digits) + "%" : DASH);
const points = (v) => (v >= 0 ? "+" : "−") + Math.abs(100 * v).toFixed(2);
function withSd(mean, sd) { return ok(mean) && ok(sd) ? `${(100 * mean).toFixed(2)} ± ${(100 * sd).toFixed(2)}%` : percent(mean); }
function count(v) {
  if (!ok(v)) return DASH;
  const prefixes = ["", "k", "M", "G", "T", "P", "E"];
  if (Math.abs(v) < 1000) return Number.isInteger(v) ? String(v) : String(+v.toPrecision(3));
  let power = Math.min(Math.floor(Math.log10(Math.abs(v)) / 3), 6), scaled = v / 1000 ** power;
  if (Math.abs(scaled) >= 999.5 && power < 6) { power += 1; scaled /= 1000; }
  const digits = Math.abs(scaled) < 9.995 ? 2 : Math.abs(scaled) < 99.95 ? 1 : 0;
  return `${scaled.toFixed(digits)} ${prefixes[power]}`;
}
const short = (v) => { const [number, prefix] = count(v).split(" "); return (number.includes(".") ? number.replace(/\.?0+$/, "") : number) + (prefix ? " " + prefix : ""); };
const bytes = (v) => (ok(v) ? count(v) + (Math.abs(v) >= 999.5 ? "B" : " B") : DASH);
function seconds(v) {
  if (!ok(v)) return DASH;
  if (v < 59.95) return v.toFixed(1) + " s";
  const minutes = Math.floor(Math.round(v) / 60);
  return minutes < 60 ? `${minutes} min ${Math.round(v) % 60} s` : `${Math.floor(minutes / 60)} h ${minutes % 60} min`;
}
const plain = (v) => v === null || v === undefined ? "" : v === true ? "yes" : v === false ? "no" : typeof v === "number" && !Number.isInteger(v) ? String(+v.toPrecision(4)) : typeof v === "object" ? JSON.stringify(v) : String(v);
const words = (name) => ({ n_params: "parameters", size_bytes: "size", macs: "MACs", val_accuracy: "validation accuracy" })[name] || String(name).replaceAll("_", " ");
const costLabel = (name) => name === "macs" ? "MACs of one image, logarithmic (multiply-accumulates; FLOPs = 2 × MACs)" : name === "n_params" ? "parameters, logarithmic" : name === "size_bytes" ? "size in bytes (32 bits a weight), logarithmic" : words(name) + ", logarithmic";
const costText = (name, v) => (name === "size_bytes" ? bytes(v) : count(v));

// ---- The record
const trials = data.trials;
const byNumber = new Map(trials.map((t) => [t.number, t]));
const front = data.front.map((n) => byNumber.get(n)).filter(Boolean);
const complete = trials.filter((t) => t.state === "COMPLETE");
const teacher = data.teacher;
const tests = new Map((data.retrained ? data.retrained.designs : []).map((d) => [d.number, d]));
const curveOf = (t, name) => { const c = t.curve || {}; return (c.epoch || []).map((e, i) => [e, (c[name] || [])[i]]).filter((p) => ok(p[0]) && ok(p[1])); };

// ---- State: one selected trial, and those who want to know.
const listeners = [];
let selected = null;
function select(number) {
  if (!byNumber.has(number)) return;
  selected = number;
  try { history.replaceState(null, "", "#trial-" + number); } catch { /* some browsers refuse on file: pages */ }
  for (const listener of listeners) listener();
}
const onSelect = (listener) => listeners.push(listener);

function showTip(event, ...content) {
  tip.replaceChildren(...content);
  tip.hidden = false;
  const box = tip.getBoundingClientRect();
  const x = event.clientX + 16 + box.width > innerWidth ? event.clientX - box.width - 14 : event.clientX + 16;
  const y = event.clientY + 16 + box.height > innerHeight ? event.clientY - box.height - 12 : event.clientY + 16;
  tip.style.left = Math.max(4, x) + "px";
  tip.style.top = Math.max(4, y) + "px";
}
const hideTip = () => { tip.hidden = true; };
function trialTip(t) {
  const test = tests.get(t.number);
  return [
    h("div", {}, h("b", {}, percent(t.val_accuracy)), `  trial ${t.number}${t.on_front ? ", on the front" : ""}`),
    h("div", {}, `${count(t.macs)} MACs · ${count(t.n_params)} parameters`),
    test ? h("div", {}, `test ${withSd(test.test_accuracy_mean, test.test_accuracy_sd)} over ${test.n} seeds`) : null,
    t.student ? h("div", {}, t.student) : null,
    t.taught_by ? h("div", { class: "soft" }, "taught by ", t.taught_by) : null,
  ].filter(Boolean);
}

// ---- Scales and frames
function linear(low, high, from, to) {
  const scale = (v) => from + ((v - low) / (high - low)) * (to - from);
  scale.invert = (p) => low + ((p - from) / (to - from)) * (high - low);
  scale.ticks = (n) => {
    const raw = (high - low) / n, power = 10 ** Math.floor(Math.log10(raw));
    const step = [1, 2, 2.5, 5, 10].map((m) => m * power).find((m) => m >= raw * 0.999);
    const out = [];
    for (let v = Math.ceil(low / step - 1e-9) * step; v <= high + step * 1e-9; v += step) out.push(Math.abs(v) < step * 1e-9 ? 0 : v);
    return out;
  };
  scale.domain = [low, high];
  return scale;
}
function log(low, high, from, to) {
  const inner = linear(Math.log10(low), Math.log10(high), from, to);
  const scale = (v) => inner(Math.log10(v));
  scale.invert = (p) => 10 ** inner.invert(p);
  scale.ticks = (n) => {
    const span = Math.log10(high / low);
    if (span < 0.5) return linear(low, high, 0, 1).ticks(n);
    const steps = span > n ? [1] : span * 2 > n * 0.8 ? [1, 3] : [1, 2, 5], out = [];
    const every = Math.max(1, Math.ceil(span / n));
    for (let p = Math.floor(Math.log10(low)); p <= Math.log10(high); p++) if (p % every === 0) for (const m of steps) { const v = m * 10 ** p; if (v >= low * 0.999 && v <= high * 1.001) out.push(v); }
    return out;
  };
  scale.domain = [low, high];
  return scale;
}
// Accuracy as error on a logarithmic scale: 90, 99 and 99.9% are equally far apart.
function logError(low, high, from, to, least) {
  const error = (v) => Math.max(1 - v, least);
  const inner = log(error(high), error(low), to, from);
  const scale = (v) => inner(error(v));
  scale.invert = (p) => 1 - inner.invert(p);
  scale.ticks = (n) => inner.ticks(n).map((e) => 1 - e);
  scale.domain = [low, high];
  return scale;
}
let frames = 0;
function frame(width, height, options) {
  const m = { top: 12, right: 16, bottom: 44, left: 58, ...options.margin };
  const box = { x0: m.left, x1: Math.max(width - m.right, m.left + 40), y0: height - m.bottom, y1: m.top };
  const x = options.x(box.x0, box.x1), y = options.y(box.y0, box.y1);
  const svg = s("svg", { width, height, viewBox: `0 0 ${width} ${height}`, role: "img", "aria-label": options.title });
  for (const v of x.ticks(Math.max(2, Math.floor((box.x1 - box.x0) / 80)))) {
    svg.append(s("line", { class: "gridline", x1: x(v), x2: x(v), y1: box.y0, y2: box.y1 }));
    svg.append(s("text", { x: x(v), y: box.y0 + 17, "text-anchor": "middle" }, options.xText(v)));
  }
  for (const v of y.ticks(Math.max(2, Math.floor((box.y0 - box.y1) / 48)))) {
    svg.append(s("line", { class: "gridline", x1: box.x0, x2: box.x1, y1: y(v), y2: y(v) }));
    svg.append(s("text", { x: box.x0 - 8, y: y(v) + 4, "text-anchor": "end" }, options.yText(v)));
  }
  svg.append(s("line", { class: "axis", x1: box.x0, x2: box.x1, y1: box.y0, y2: box.y0 }));
  if (options.xLabel) svg.append(s("text", { class: "label", x: (box.x0 + box.x1) / 2, y: height - 8, "text-anchor": "middle" }, options.xLabel));
  if (options.yLabel) svg.append(s("text", { class: "label", x: -(box.y0 + box.y1) / 2, y: 14, transform: "rotate(-90)", "text-anchor": "middle" }, options.yLabel));
  const clip = "clip" + frames++;
  svg.append(s("clipPath", { id: clip }, s("rect", { x: box.x0 - 1, y: box.y1 - 1, width: box.x1 - box.x0 + 2, height: box.y0 - box.y1 + 2 })));
  const plot = s("g", { "clip-path": `url(#${clip})` }), over = s("g");
  svg.append(plot, over);
  return { svg, plot, over, x, y, box, width, height };
}
// Tick texts of accuracies: as many decimals as tell neighbours apart.
function percentTicks(scale) {
  return (v) => { const e = Math.abs(1 - v); const span = scale.domain[1] - scale.domain[0]; return percent(v, e > 0 && e < 0.0095 ? 1 : span < 0.03 ? 1 : span < 0.004 ? 2 : 0); };
}
const pathOf = (list, x, y) => list.map((p, i) => `${i ? "L" : "M"}${x(p[0]).toFixed(1)},${y(p[1]).toFixed(1)}`).join("");
const stepPath = (list, x, y) => list.map((p, i) => (i ? `H${x(p[0]).toFixed(1)}V${y(p[1]).toFixed(1)}` : `M${x(p[0]).toFixed(1)},${y(p[1]).toFixed(1)}`)).join("");
function polygon(n, r, turn) { return Array.from({ length: n }, (_, i) => { const a = turn + (i * 2 * Math.PI) / n; return `${i ? "L" : "M"}${(r * Math.cos(a)).toFixed(2)},${(r * Math.sin(a)).toFixed(2)}`; }).join("") + "Z"; }
function symbol(kind, r) {
  const up = -Math.PI / 2;
  if (kind === "star") return Array.from({ length: 10 }, (_, i) => { const a = up + (i * Math.PI) / 5, q = i % 2 ? r * 0.45 : r; return `${i ? "L" : "M"}${(q * Math.cos(a)).toFixed(2)},${(q * Math.sin(a)).toFixed(2)}`; }).join("") + "Z";
  if (kind === 1) return polygon(4, r * 1.2, Math.PI / 4);
  if (kind === 2) return polygon(3, r * 1.35, up);
  if (kind === 3) return polygon(4, r * 1.3, 0);
  if (kind === 4) return polygon(3, r * 1.35, -up);
  if (kind === 5) { const a = r * 1.2, b = r * 0.42; return `M${-b},${-a}H${b}V${-b}H${a}V${b}H${b}V${a}H${-b}V${b}H${-a}V${-b}H${-b}Z`; }
  if (kind === 6) return polygon(6, r * 1.1, 0);
  if (kind === 7) return polygon(5, r * 1.15, up);
  return `M${-r},0A${r},${r} 0 1 1 ${r},0A${r},${r} 0 1 1 ${-r},0Z`;
}
const mark = (kind, r, cls, px, py) => s("path", { d: symbol(kind, r), class: cls, transform: `translate(${px.toFixed(1)},${py.toFixed(1)})` });
const swatch = (kind, cls, r = 5) => s("svg", { viewBox: "-8 -8 16 16", "aria-hidden": "true" }, s("path", { d: symbol(kind, r), class: cls }));

// Redraw at the width there is, so that letters keep their size.
function mount(host, draw) {
  let last = 0;
  const redraw = () => { if (host.clientWidth) host.replaceChildren(...draw(host.clientWidth).filter(Boolean)); };
  new ResizeObserver(() => { if (host.clientWidth !== last) { last = host.clientWidth; redraw(); } }).observe(host);
  return redraw;
}
function nearest(list, event, host, reach) {
  const box = host.getBoundingClientRect(), px = event.clientX - box.left, py = event.clientY - box.top;
  let best = null, least = reach * reach;
  for (const item of list) { const d = (item.px - px) ** 2 + (item.py - py) ** 2; if (d <= least) { least = d; best = item; } }
  return best;
}
const quantile = (values, q) => { const v = [...values].sort((a, b) => a - b); return v.length ? v[Math.round((v.length - 1) * q)] : 0; };
function staircase(list) {
  const out = [];
  for (const p of [...list].sort((a, b) => a[0] - b[0] || b[1] - a[1])) if (!out.length || p[1] > out[out.length - 1][1]) out.push(p);
  return out;
}
function padLog(values) {
  const low = Math.min(...values), high = Math.max(...values), pad = Math.max((high / low) ** 0.05, 1.12);
  return [low / pad, high * pad];
}
function choice(label, options, value, change) {
  const node = h("select", { onchange: () => change(node.value) }, options.map(([v, text]) => h("option", { value: v, selected: v === value }, text)));
  return h("label", {}, label, node);
}
function check(label, value, change) {
  const node = h("input", { type: "checkbox", onchange: () => change(node.checked) });
  node.checked = value;
  return h("label", {}, node, label);
}
const card = (title, note, ...content) => h("section", { class: "card" }, h("h2", {}, title), note ? h("p", { class: "note" }, note) : null, content);
const empty = (text) => h("div", { class: "empty" }, text);

// ---- Head
function tile(name, value, more) { return h("div", { class: "tile" }, h("div", { class: "name" }, name), h("div", { class: "value" }, value), more ? h("div", { class: "more" }, more) : null); }
function smallestLikeTeacher() {
  const r = data.retrained;
  if (!r || !ok(r.teacher_test_accuracy) || !(r.teacher_test_n > 0)) return null;
  const p = r.teacher_test_accuracy, error = Math.sqrt((p * (1 - p)) / r.teacher_test_n);
  const found = r.designs.filter((d) => ok(d.test_accuracy_mean) && ok(d.macs) && d.test_accuracy_mean >= p - error).sort((a, b) => a.macs - b.macs)[0];
  return { found, error };
}
function head() {
  const objectives = (data.objectives || []).map((o) => `${o.direction === "maximize" ? "more" : "less"} ${words(o.name)}`).join(", ");
  const measured = front.filter((t) => ok(t.val_accuracy));
  const best = measured.reduce((a, t) => (!a || t.val_accuracy > a.val_accuracy ? t : a), null);
  const costed = front.map((t) => t[data.cost]).filter(positive);
  const counts = data.counts || {};
  const like = smallestLikeTeacher();
  const tiles = [
    tile("On the front", String(front.length), costed.length > 1 ? `${short(Math.max(...costed) / Math.min(...costed))}× between cheapest and dearest` : null),
    best ? tile("Most accurate", percent(best.val_accuracy), `validation, ${costText(data.cost, best[data.cost])} ${words(data.cost)}`) : null,
    teacher ? tile("Teacher", percent(teacher.val_accuracy), ok(teacher.macs) ? `validation, ${count(teacher.macs)} MACs` : teacher.name) : null,
    like && like.found ? tile("As good as the teacher", `${count(like.found.macs)} MACs`, `trial ${like.found.number}, test ${percent(like.found.test_accuracy_mean)}` + (teacher && positive(teacher.macs) ? `, ${short(teacher.macs / like.found.macs)}× fewer MACs` : "")) : null,
    ok(data.hypervolume) ? tile("Hypervolume", data.hypervolume.toFixed(4), "of accuracy × log₁₀ cost") : null,
    ok(data.train_macs) ? tile("Spent on the search", `${count(data.train_macs)}MACs`.replace(/(\d)MACs/, "$1 MACs"), "trainings and teachers") : null,
    tile("Trials", String(counts.complete ?? complete.length), [counts.failed ? `${counts.failed} failed` : null, counts.turned_away ? `${counts.turned_away} turned away` : null].filter(Boolean).join(", ") || "none failed"),
  ];
  document.getElementById("head").append(
    h("h1", {}, data.study ?? "study"),
    h("div", { class: "soft" }, "Students, distilled: accuracy against cost", objectives ? ` · searched for ${objectives}` : ""),
    h("div", { class: "tiles" }, tiles));
  if ((data.warnings || []).length) document.getElementById("head").append(
    h("div", { class: "warnings", role: "note" }, h("strong", {}, data.warnings.length > 1 ? "Read these first" : "Read this first"), h("ul", {}, data.warnings.map((w) => h("li", {}, String(w))))));
}

// ---- The front
function frontSection() {
  const keys = [...new Set([data.cost, ...data.costs, "macs", "n_params", "size_bytes"])].filter((k) => complete.some((t) => positive(t[k])));
  const names = [...new Set(complete.flatMap((t) => Object.keys(t.choices)))].filter((n) => new Set(complete.map((t) => t.choices[n] ?? DASH)).size > 1);
  const view = { key: keys[0] || data.cost, dominated: true, by: "", error: false, zoom: null };
  const host = h("div", { class: "chart", tabindex: "0", "aria-label": "The front. Arrow keys walk along it." });
  const legend = h("div", { class: "legend" }), note = h("p", { class: "note" }), reset = h("button", { type: "button", hidden: true, onclick: () => { view.zoom = null; redraw(); } }, "Reset zoom");
  let shown = [], current = null, hover = null, drag = null;

  const groups = () => {
    if (!view.by) return null;
    const tally = new Map();
    for (const t of complete) { const v = t.choices[view.by] ?? DASH; tally.set(v, (tally.get(v) || 0) + 1); }
    const order = [...tally].sort((a, b) => b[1] - a[1]).map((p) => p[0]);
    const rank = new Map(order.map((v, i) => [v, order.length > 8 && i >= 7 ? 7 : i]));
    return { rank, label: (i) => (order.length > 8 && i === 7 ? `${order.length - 7} others` : order[i]), n: Math.min(order.length, 8) };
  };

  function draw(width) {
    const key = view.key, usable = (t) => positive(t[key]) && ok(t.val_accuracy);
    const stars = front.filter(usable), rest = view.dominated ? complete.filter((t) => !t.on_front && usable(t)) : [];
    const mine = teacher && ok(teacher.val_accuracy) ? teacher : null;
    legend.replaceChildren(); note.textContent = "";
    if (!stars.length && !rest.length) { shown = []; return [empty("No complete trial to draw yet.")]; }
    const xs = [...stars, ...rest].map((t) => t[key]);
    if (mine && positive(mine[key])) xs.push(mine[key]);
    const ys = [...(stars.length ? stars : rest).map((t) => t.val_accuracy)];
    // One collapsed trial must not flatten all others into a line: the axis starts near the worst of the bulk.
    if (rest.length) ys.push(quantile(rest.map((t) => t.val_accuracy), 0.12));
    if (mine) ys.push(mine.val_accuracy);
    const low = Math.min(...ys), high = Math.max(...ys), pad = Math.max(0.04 * (high - low), 0.004);
    const domain = view.zoom || { x: padLog(xs), y: [Math.max(low - pad, -0.01), Math.min(high + pad, 1 + pad)] };
    const least = Math.min(...[...stars, ...rest].map((t) => 1 - t.val_accuracy).filter((e) => e > 1e-6), 0.5) / 2;
    const f = frame(width, 440, {
      title: "Accuracy against cost",
      x: (a, b) => log(...domain.x, a, b),
      y: (a, b) => (view.error ? logError(domain.y[0], Math.min(domain.y[1], 1), a, b, least) : linear(...domain.y, a, b)),
      xText: short, yText: (v) => percentTicks(f0)(v), xLabel: costLabel(key), yLabel: view.error ? "validation accuracy (logarithmic error)" : "validation accuracy",
    });
    const g = groups();
    const cls = (t, base) => (g ? `${base} marked m${g.rank.get(t.choices[view.by] ?? DASH) ?? 7}` : base);
    const kind = (t) => (g ? g.rank.get(t.choices[view.by] ?? DASH) ?? 7 : 0);
    const stairs = staircase(stars.map((t) => [t[key], t.val_accuracy]));
    if (stairs.length) {
      const end = Math.max(domain.x[1], stairs[stairs.length - 1][0]);
      const line = stepPath([...stairs, [end, stairs[stairs.length - 1][1]]], f.x, f.y);
      f.plot.append(s("path", { class: "under", d: `${line}V${f.box.y0}H${f.x(stairs[0][0])}Z` }), s("path", { class: "stairs", d: line }));
    }
    if (mine) {
      const y = f.y(mine.val_accuracy);
      f.plot.append(s("line", { class: "teacher-line", x1: f.box.x0, x2: f.box.x1, y1: y, y2: y }));
      f.plot.append(s("text", { class: "teacher-text", x: f.box.x0 + 6, y: y < f.box.y1 + 20 ? y + 15 : y - 6 }, `teacher ${percent(mine.val_accuracy)}` + (positive(mine[key]) ? `, ${costText(key, mine[key])}` : "")));
      if (positive(mine[key])) f.plot.append(mark("star", 9, "teacher", f.x(mine[key]), y));
    }
    shown = [];
    for (const t of [...rest, ...stars]) {
      const px = f.x(t[key]), py = f.y(t.val_accuracy);
      f.plot.append(mark(kind(t), t.on_front ? 5.2 : 3.4, cls(t, t.on_front ? "front" : "dominated"), px, py));
      if (px >= f.box.x0 - 2 && px <= f.box.x1 + 2 && py <= f.box.y0 + 2 && py >= f.box.y1 - 2) shown.push({ t, px, py });
    }
    const ring = s("circle", { class: "ring", r: 10 }), halo = s("circle", { class: "hover-ring", r: 8 }), rect = s("rect", { class: "zoom" });
    f.over.append(ring, halo, rect);
    current = { f, ring, halo, rect };
    if (g) for (let i = 0; i < g.n; i++) legend.append(h("span", {}, swatch(i, `front marked m${i}`), g.label(i)));
    else legend.append(h("span", {}, swatch(0, "front"), data.costs.length > 1 ? "front (in all objectives)" : "front"), rest.length ? h("span", {}, swatch(0, "dominated", 3.6), "dominated") : null, mine ? h("span", {}, swatch("star", "teacher", 7), "teacher") : null);
    const outside = stars.length + rest.length - shown.length, texts = [];
    if (outside) texts.push(view.zoom ? `${outside} trials lie outside this view.` : `${outside} of the weakest trials lie below the axis.`);
    if (stairs.length < new Set(stars.map((t) => t[key] + "/" + t.val_accuracy)).size) texts.push("The study has other objectives than these two: points beneath the line are on the front because of those.");
    texts.push("Hover for the design, click for its details, drag to zoom.");
    note.textContent = texts.join(" ");
    reset.hidden = !view.zoom;
    rings();
    return [f.svg];
  }
  const f0 = { get domain() { return view.zoom ? view.zoom.y : current ? current.f.y.domain : [0, 1]; } };
  function place(node, item) { if (!node) return; node.setAttribute("visibility", item ? "visible" : "hidden"); if (item) { node.setAttribute("cx", item.px); node.setAttribute("cy", item.py); } }
  function rings() { if (!current) return; place(current.ring, shown.find((i) => i.t.number === selected)); place(current.halo, hover); }
  const redraw = mount(host, draw);
  onSelect(rings);
  const at = (event) => { const b = host.getBoundingClientRect(); return [event.clientX - b.left, event.clientY - b.top]; };
  host.addEventListener("pointermove", (event) => {
    if (!current) return;
    if (drag) {
      drag.to = at(event);
      const [x0, y0] = drag.from, [x1, y1] = drag.to;
      for (const [name, v] of Object.entries({ x: Math.min(x0, x1), y: Math.min(y0, y1), width: Math.abs(x1 - x0), height: Math.abs(y1 - y0) })) current.rect.setAttribute(name, v);
      hideTip();
      return;
    }
    hover = nearest(shown, event, host, 28);
    host.style.cursor = hover ? "pointer" : "crosshair";
    rings();
    if (hover) showTip(event, ...trialTip(hover.t)); else hideTip();
  });
  host.addEventListener("pointerleave", () => { hover = null; rings(); hideTip(); });
  host.addEventListener("pointerdown", (event) => { if (event.button === 0 && current && event.pointerType === "mouse") { drag = { from: at(event), to: at(event) }; host.setPointerCapture(event.pointerId); } });
  host.addEventListener("pointerup", () => {
    if (!drag || !current) return;
    const { from, to } = drag, { f } = current;
    drag = null;
    for (const name of ["width", "height"]) current.rect.setAttribute(name, 0);
    if (Math.abs(from[0] - to[0]) > 12 && Math.abs(from[1] - to[1]) > 12) {
      const clamp = (v, a, b) => Math.min(Math.max(v, a), b);
      const px = [from[0], to[0]].map((v) => clamp(v, f.box.x0, f.box.x1)).sort((a, b) => a - b), py = [from[1], to[1]].map((v) => clamp(v, f.box.y1, f.box.y0)).sort((a, b) => b - a);
      if (px[1] - px[0] > 4 && py[0] - py[1] > 4) { view.zoom = { x: px.map(f.x.invert), y: py.map(f.y.invert) }; hover = null; redraw(); }
    }
  });
  host.addEventListener("click", (event) => { const item = nearest(shown, event, host, 28); if (item) select(item.t.number); });
  host.addEventListener("dblclick", () => { view.zoom = null; redraw(); });
  host.addEventListener("keydown", (event) => {
    const step = { ArrowRight: 1, ArrowLeft: -1 }[event.key];
    if (!step || !front.length) return;
    event.preventDefault();
    const index = front.findIndex((t) => t.number === selected);
    select(front[Math.min(Math.max(index + step, 0), front.length - 1)].number);
  });
  const bar = h("div", { class: "bar" },
    check("dominated trials", true, (v) => { view.dominated = v; view.zoom = null; redraw(); }),
    check("error on a log scale", false, (v) => { view.error = v; redraw(); }),
    keys.length > 1 ? choice("cost", keys.map((k) => [k, words(k)]), view.key, (v) => { view.key = v; view.zoom = null; redraw(); }) : null,
    names.length ? choice("mark by", [["", "nothing"], ...names.map((n) => [n, n])], "", (v) => { view.by = v; redraw(); }) : null,
    reset);
  return h("div", { class: "row wide" }, h("section", { class: "card", id: "front" }, h("h2", {}, "The front"), bar, host, legend, note), detailsCard());
}

// ---- One design
function pairs(rows) { return h("dl", {}, rows.filter((r) => r && r[1] !== "" && r[1] !== DASH).map(([k, v]) => [h("dt", {}, k), h("dd", {}, v)])); }
function listing(rows) {
  const names = [...new Set(rows.flatMap((r) => Object.keys(r)))].filter((n) => rows.some((r) => plain(r[n]) !== ""));
  return h("table", {}, h("thead", {}, h("tr", {}, names.map((n) => h("th", {}, n.replaceAll("_", " "))))), h("tbody", {}, rows.map((r) => h("tr", {}, names.map((n) => h("td", {}, plain(r[n])))))));
}
const stageRows = (stages) => stages.map((q) => ({ block: q.block, "w × d": `${q.width} × ${q.depth}`, kernel: q.kernel, expand: q.expansion, stride: q.stride, SE: q.squeeze_excitation }));
function smallCurve(t, name, label, text) {
  const list = curveOf(t, name);
  if (list.length < 2) return null;
  const host = h("div", { class: "chart" });
  mount(host, (width) => {
    const values = list.map((p) => p[1]), level = name === "val_accuracy" && teacher && ok(teacher.val_accuracy) ? [teacher.val_accuracy] : [];
    let low = Math.min(...values, ...level), high = Math.max(...values, ...level);
    const pad = (high - low || 0.01) * 0.08;
    const f = frame(width, 150, { title: label, margin: { left: 46, bottom: 34, right: 8 }, x: (a, b) => linear(list[0][0], list[list.length - 1][0], a, b), y: (a, b) => linear(low - pad, high + pad, a, b), xText: plain, yText: text, xLabel: `epoch: ${label}` });
    if (level.length) f.plot.append(s("line", { class: "teacher-line", x1: f.box.x0, x2: f.box.x1, y1: f.y(level[0]), y2: f.y(level[0]) }));
    f.plot.append(s("path", { class: "curve plain", d: pathOf(list, f.x, f.y) }));
    return [f.svg];
  });
  return host;
}
function details(t) {
  const config = t.config || {}, arch = config.architecture || {}, kd = config.distillation || {}, test = tests.get(t.number), rep = t.replicates || {};
  const terms = (kd.terms || []).map((q) => ({ kind: q.kind, weight: q.weight, weighting: q.weighting, T: q.temperature, pairs: q.pairs, options: (q.options || []).map(([k, v]) => `${k}=${plain(v)}`).join(", ") }));
  const run = data.run || "RUN";
  return [
    h("div", { class: "spread" }, h("h2", {}, `Trial ${t.number}`, h("span", { class: "badge" + (t.on_front ? " on" : "") }, t.on_front ? "on the front" : t.state === "COMPLETE" ? "dominated" : t.state.toLowerCase()))),
    t.reason ? h("p", {}, t.reason) : null,
    h("div", { class: "pair" }, h("div", {}, h("div", { class: "big" }, percent(t.val_accuracy)), h("div", { class: "soft" }, "validation")),
      test ? h("div", {}, h("div", { class: "big" }, percent(test.test_accuracy_mean)), h("div", { class: "soft" }, `test, ± ${ok(test.test_accuracy_sd) ? (100 * test.test_accuracy_sd).toFixed(2) : DASH} over ${test.n} seeds`)) : null,
      h("div", {}, h("div", { class: "big" }, count(t.macs)), h("div", { class: "soft" }, `MACs (${ok(t.macs) ? count(2 * t.macs) : DASH} FLOPs)`))),
    pairs([["parameters", ok(t.n_params) ? `${count(t.n_params)}${ok(t.size_bytes) ? `, ${bytes(t.size_bytes)}` : ""}` : ""],
      ...data.costs.filter((k) => !["macs", "n_params", "size_bytes"].includes(k)).map((k) => [words(k), plain(t[k])]),
      teacher && positive(teacher.macs) && positive(t.macs) ? ["of the teacher", `${short(teacher.macs / t.macs)}× fewer MACs`] : null,
      rep.n > 1 ? ["over seeds", `${withSd(rep.mean, rep.sd)}, n = ${rep.n}`] : null,
      ["agrees with teacher", percent(t.teacher_agreement)],
      ["trained for", [ok(t.train_macs) ? `${count(t.train_macs)}MACs` : null, ok(t.wall_seconds) ? seconds(t.wall_seconds) : null].filter(Boolean).join(", ")],
      ["seed", plain(t.seed)], ["design", plain(t.config_id)]]),
    (arch.stages || []).length ? [h("h3", {}, "Student"), h("div", {}, t.student), listing(stageRows(arch.stages))] : null,
    t.config ? [h("h3", {}, "Taught by"), h("div", {}, t.taught_by), listing([...terms, { kind: "cross-entropy", weight: kd.ce_weight ?? 1 }]),
      (kd.assistants || []).map((a, i) => h("div", { class: "note" }, `assistant ${i + 1}: `, ((a.architecture || {}).stages || []).map((q) => `${q.block} ${q.width}×${q.depth}`).join(" → ")))] : null,
    config.training ? [h("h3", {}, "Training"), h("div", {}, Object.entries(config.training).map(([k, v]) => `${k.replaceAll("_", " ")} ${plain(v)}`).join(" · "))] : null,
    curveOf(t, "val_accuracy").length > 1 || curveOf(t, "loss").length > 1 ? [h("h3", {}, "Learning curve"), smallCurve(t, "val_accuracy", teacher ? "accuracy (dashed: teacher)" : "accuracy", (v) => percent(v, 0)), smallCurve(t, "loss", "training loss", plain)] : null,
    t.error ? h("details", {}, h("summary", {}, "Error"), h("pre", {}, t.error)) : null,
    t.config ? [h("h3", {}, "Take it away"), h("pre", {}, `naskd show ${run} ${t.number}\nnaskd retrain ${run} ${t.number} --seeds 5\nnaskd export ${run} ${t.number} --format onnx`),
      h("details", {}, h("summary", {}, "Whole design as JSON"), h("pre", {}, JSON.stringify(t.config, null, 1)))] : null,
  ];
}
function detailsCard() {
  const node = h("section", { class: "card details", id: "details", "aria-live": "polite" });
  const show = () => {
    const t = byNumber.get(selected);
    node.replaceChildren(...(t ? details(t) : [h("h2", {}, "Details"), empty("Click a point to see its design.")]).flat(3).filter(Boolean));
    node.scrollTop = 0;
  };
  onSelect(show);
  show();
  return node;
}

// ---- Tables
function sortable(columns, rows, last) {
  const body = h("tbody", { class: "pickable" });
  let by = null, down = false;
  const heads = columns.map((c) => {
    const arrow = h("span", { "aria-hidden": "true" }, "");
    const th = h("th", { class: c.num ? "num" : null, scope: "col" }, h("button", { type: "button", onclick: () => { down = by === c ? !down : !!c.down; by = c; put(); } }, c.name, arrow));
    return { c, th, arrow };
  });
  function put() {
    const value = (t) => { const v = by.value(t); return v === null || v === undefined || v === DASH ? null : v; };
    const order = by ? [...rows].sort((a, b) => {
      const x = value(a), y = value(b);
      if (x === null || y === null) return (x === null) - (y === null);
      return (x < y ? -1 : x > y ? 1 : 0) * (down ? -1 : 1);
    }) : rows;
    body.replaceChildren(...order.map((t) => h("tr", { class: t.number === selected ? "picked" : null, tabindex: "0", onclick: () => select(t.number), onkeydown: (e) => { if (e.key === "Enter") select(t.number); } },
      columns.map((c) => h("td", { class: [c.num ? "num" : "", c.strong ? "strong" : ""].join(" ").trim() || null }, c.text(t))))));
    for (const { c, th, arrow } of heads) { arrow.textContent = c === by ? (down ? " ↓" : " ↑") : ""; if (c === by) th.setAttribute("aria-sort", down ? "descending" : "ascending"); else th.removeAttribute("aria-sort"); }
  }
  onSelect(() => put());
  put();
  const foot = last ? h("tfoot", {}, h("tr", { class: "teacher-row" }, columns.map((c) => h("td", { class: c.num ? "num" : null }, c.last ? c.last(last) : "")))) : null;
  return h("div", { class: "scroll" }, h("table", {}, h("thead", {}, h("tr", {}, heads.map((x) => x.th))), body, foot));
}
function tableSection() {
  const col = (name, key, text, extra = {}) => ({ name, num: true, value: (t) => t[key], text: (t) => text(t[key]), last: (t) => text(t[key]), ...extra });
  const columns = [
    col("trial", "number", plain, { last: () => "teacher" }),
    { ...col("validation", "val_accuracy", percent, { strong: true, down: true }), text: (t) => (t.replicates && t.replicates.n > 1 ? `${withSd(t.replicates.mean, t.replicates.sd)} (${t.replicates.n})` : percent(t.val_accuracy)) },
    tests.size ? { name: "test", num: true, down: true, value: (t) => (tests.get(t.number) || {}).test_accuracy_mean, text: (t) => { const d = tests.get(t.number) || {}; return withSd(d.test_accuracy_mean, d.test_accuracy_sd); }, last: () => percent(data.retrained.teacher_test_accuracy) } : null,
    col("MACs", "macs", count, { strong: true }), col("parameters", "n_params", count),
    ...data.costs.filter((k) => !["macs", "n_params"].includes(k)).map((k) => col(words(k), k, (v) => costText(k, v))),
    { name: "student (width×depth)", value: (t) => t.student, text: (t) => t.student, last: (t) => plain(t.name) },
    { name: "taught by", value: (t) => t.taught_by, text: (t) => t.taught_by },
    col("agreement", "teacher_agreement", (v) => percent(v, 1), { down: true, last: null }), col("seconds", "wall_seconds", (v) => (ok(v) ? v.toFixed(1) : DASH), { last: null }),
  ].filter(Boolean);
  return card("Designs on the front", front.length ? "Cheapest first; click a heading to sort, a row for its details. Accuracy of single trainings is optimistic: the best of many was picked on these very images." : null, front.length || teacher ? sortable(columns, front, teacher) : empty("No trial is on the front yet."));
}

// ---- Retrained
function retrainedSection() {
  const r = data.retrained;
  if (!r || !r.designs.length) return null;
  const key = r.designs.some((d) => positive(d[data.cost])) ? data.cost : "macs";
  const usable = r.designs.filter((d) => positive(d[key]) && ok(d.test_accuracy_mean)).sort((a, b) => a[key] - b[key]);
  const host = h("div", { class: "chart" });
  let shown = [];
  mount(host, (width) => {
    if (!usable.length) return [empty("No retrained design has a test accuracy.")];
    const ys = usable.flatMap((d) => [d.test_accuracy_mean - (d.test_accuracy_sd || 0), d.test_accuracy_mean + (d.test_accuracy_sd || 0), d.val_accuracy_search]).filter(ok);
    if (ok(r.teacher_test_accuracy)) ys.push(r.teacher_test_accuracy);
    const low = Math.min(...ys), high = Math.max(...ys), pad = Math.max(0.05 * (high - low), 0.004);
    const f = frame(width, 340, { title: "Test accuracy after retraining", x: (a, b) => log(...padLog(usable.map((d) => d[key])), a, b), y: (a, b) => linear(low - pad, Math.min(high + pad, 1 + pad), a, b), xText: short, yText: (v) => percent(v, high - low < 0.05 ? 1 : 0), xLabel: costLabel(key), yLabel: "accuracy" });
    if (ok(r.teacher_test_accuracy)) {
      const y = f.y(r.teacher_test_accuracy);
      f.plot.append(s("line", { class: "teacher-line", x1: f.box.x0, x2: f.box.x1, y1: y, y2: y }), s("text", { class: "teacher-text", x: f.box.x0 + 6, y: y < f.box.y1 + 20 ? y + 15 : y - 6 }, `teacher ${percent(r.teacher_test_accuracy)}`));
    }
    const stairs = staircase(usable.map((d) => [d[key], d.test_accuracy_mean]));
    f.plot.append(s("path", { class: "test-line", d: stepPath([...stairs, [f.x.domain[1], stairs[stairs.length - 1][1]]], f.x, f.y) }));
    shown = usable.map((d) => {
      const px = f.x(d[key]), py = f.y(d.test_accuracy_mean), sd = d.test_accuracy_sd || 0, up = f.y(d.test_accuracy_mean + sd), down = f.y(d.test_accuracy_mean - sd);
      if (ok(d.val_accuracy_search)) f.plot.append(s("line", { class: "ghost", x1: px, x2: px, y1: f.y(d.val_accuracy_search), y2: py }), mark(0, 3.2, "ghost-dot", px, f.y(d.val_accuracy_search)));
      f.plot.append(s("path", { class: "test-line", d: `M${px},${up}V${down}M${px - 4},${up}h8M${px - 4},${down}h8` }), mark(3, 5, "test", px, py));
      return { d, px, py };
    });
    return [f.svg];
  });
  host.addEventListener("pointermove", (event) => { const item = nearest(shown, event, host, 26); if (item) showTip(event, ...trialTip(byNumber.get(item.d.number) || item.d)); else hideTip(); });
  host.addEventListener("pointerleave", hideTip);
  host.addEventListener("click", (event) => { const item = nearest(shown, event, host, 26); if (item) select(item.d.number); });
  const rows = usable.map((d) => ({ ...d, sd: d.test_accuracy_sd, loss: ok(d.val_accuracy_search) ? d.test_accuracy_mean - d.val_accuracy_search : null }));
  const num = (name, key2, text, extra = {}) => ({ name, num: true, value: (t) => t[key2], text: (t) => text(t[key2]), ...extra });
  const columns = [num("trial", "number", plain), num("MACs", "macs", count, { strong: true }), num("in the search", "val_accuracy_search", percent, { down: true }), { name: "test, mean ± sd", num: true, strong: true, down: true, value: (t) => t.test_accuracy_mean, text: (t) => withSd(t.test_accuracy_mean, t.sd) }, num("change, points", "loss", (v) => (ok(v) ? points(v) : DASH)), num("n", "n", plain), { name: "still on the front", value: (t) => (t.on_front ? 0 : 1), text: (t) => (t.on_front ? "yes" : "no") }];
  const like = smallestLikeTeacher();
  const verdict = like ? (like.found ? `The smallest student whose mean is within one standard error of the teacher (${(100 * like.error).toFixed(2)} points, binomial on ${r.teacher_test_n} test images) is trial ${like.found.number}: ${count(like.found.macs)} MACs` + (teacher && positive(teacher.macs) ? `, ${short(teacher.macs / like.found.macs)}× fewer than the teacher.` : ".") : `No student's mean is within one standard error of the teacher (${(100 * like.error).toFixed(2)} points, binomial on ${r.teacher_test_n} test images).`) : null;
  return card("After retraining", `Fresh seeds${ok(r.seeds) ? ` (${r.seeds})` : ""}, the final schedule${ok(r.epochs) ? ` (${r.epochs} epochs)` : ""}, the sealed test split: the numbers to quote.`,
    verdict ? h("p", {}, verdict) : null,
    h("div", { class: "legend" }, h("span", {}, swatch(3, "test"), "test, mean ± sd over seeds"), h("span", {}, swatch(0, "ghost-dot", 4), "validation accuracy that the search saw")),
    h("div", { class: "row" }, host, sortable(columns, rows, null)));
}

// ---- Learning curves
function curvesSection() {
  const all = complete.filter((t) => curveOf(t, "val_accuracy").length > 1);
  if (!all.length) return card("Learning curves", null, empty("This record holds no learning curves."));
  const view = { all: false, name: "val_accuracy" };
  const has = (name) => all.some((t) => curveOf(t, name).length > 1);
  const host = h("div", { class: "chart" });
  let lines = [], spots = [], hot = null;
  const costs = front.map((t) => t[data.cost]).filter(positive), span = costs.length ? [Math.log(Math.min(...costs)), Math.log(Math.max(...costs))] : [0, 1];
  const redraw = mount(host, (width) => {
    const some = all.filter((t) => t.on_front || view.all || t.number === selected).map((t) => ({ t, list: curveOf(t, view.name) })).filter((c) => c.list.length > 1).sort((a, b) => a.t.on_front - b.t.on_front);
    if (!some.length) return [empty("No design of the front has a curve.")];
    const xs = some.flatMap((c) => c.list.map((p) => p[0])), ys = some.flatMap((c) => c.list.map((p) => p[1]));
    const accuracy = view.name === "val_accuracy";
    const level = accuracy && teacher && ok(teacher.val_accuracy) ? teacher.val_accuracy : null;
    let low = Math.min(...ys), high = Math.max(...ys, level ?? -Infinity);
    const pad = (high - low || 0.01) * 0.04;
    const f = frame(width, 320, { title: "Learning curves", x: (a, b) => linear(Math.min(...xs), Math.max(...xs), a, b), y: (a, b) => linear(low - pad, high + pad, a, b), xText: plain, yText: accuracy ? (v) => percent(v, high - low < 0.05 ? 1 : 0) : plain, xLabel: "epoch", yLabel: accuracy ? "validation accuracy" : "training loss" });
    if (level !== null) f.plot.append(s("line", { class: "teacher-line", x1: f.box.x0, x2: f.box.x1, y1: f.y(level), y2: f.y(level) }));
    spots = [];
    lines = some.map((c) => {
      const path = s("path", { d: pathOf(c.list, f.x, f.y) });
      if (c.t.on_front && positive(c.t[data.cost])) {
        const share = span[1] > span[0] ? (Math.log(c.t[data.cost]) - span[0]) / (span[1] - span[0]) : 0.5;
        path.style.stroke = `color-mix(in oklab, var(--cheap), var(--dear) ${(100 * share).toFixed(0)}%)`;
      }
      f.plot.append(path);
      for (const p of c.list) spots.push({ t: c.t, p, px: f.x(p[0]), py: f.y(p[1]) });
      return { t: c.t, path, colour: path.style.stroke };
    });
    heat();
    return [f.svg];
  });
  function heat() {
    const best = hot !== null ? hot : selected;
    for (const l of lines) {
      const on = l.t.number === best;
      l.path.setAttribute("class", on ? "curve hot" : l.t.on_front ? "curve" : "curve dim");
      l.path.style.stroke = on ? "" : l.colour;
      if (on) l.path.parentNode.append(l.path);
    }
  }
  onSelect(redraw);
  host.addEventListener("pointermove", (event) => {
    const item = nearest(spots, event, host, 30), number = item ? item.t.number : null;
    if (number !== hot) { hot = number; heat(); }
    if (item) showTip(event, h("div", { class: "soft" }, `epoch ${item.p[0]}: ${view.name === "val_accuracy" ? percent(item.p[1]) : plain(item.p[1])}`), ...trialTip(item.t)); else hideTip();
  });
  host.addEventListener("pointerleave", () => { hot = null; heat(); hideTip(); });
  host.addEventListener("click", (event) => { const item = nearest(spots, event, host, 30); if (item) select(item.t.number); });
  return card("Learning curves", null,
    h("div", { class: "bar" }, check("all trials", false, (v) => { view.all = v; redraw(); }), has("loss") ? choice("show", [["val_accuracy", "validation accuracy"], ["loss", "training loss"]], "val_accuracy", (v) => { view.name = v; redraw(); }) : null,
      h("span", { class: "soft" }, "front, cheap ", h("span", { class: "gradient", "aria-hidden": "true" }), " dear")), host,
    h("p", { class: "note" }, "The thick line is the selected trial, or the one under the pointer."));
}

// ---- What mattered
function importanceCard() {
  const importance = Object.entries(data.importance || {}).filter(([, v]) => v && Object.keys(v).length);
  if (!importance.length) return card("Which choices mattered", null, empty("Importances need a few complete trials that differ."));
  return card("Which choices mattered", "Share of an objective's variance over the whole space that each parameter explains. An estimate from the trials there are, not a cause.",
    importance.map(([name, shares]) => {
      const rows = Object.entries(shares).filter((p) => ok(p[1])).sort((a, b) => b[1] - a[1]), top = rows.slice(0, 10), total = rows.reduce((a, p) => a + p[1], 0) || 1, most = top.length ? top[0][1] || 1 : 1;
      return [h("h3", {}, `for ${words(name)}`), h("div", { class: "imp" }, top.map(([k, v]) => {
        const bar = h("div", { class: "fill" });
        bar.style.width = Math.max(0, (100 * v) / most).toFixed(1) + "%";
        return [h("div", { class: "name" }, k), h("div", { class: "track" }, bar), h("div", { class: "num" }, percent(v / total, 0))];
      })), rows.length > top.length ? h("div", { class: "note" }, `and ${rows.length - top.length} others`) : null];
    }));
}
function marginalCard() {
  const title = "Better or worse at equal cost";
  if (!data.residuals) return card(title, null, empty(`A trend of accuracy over cost needs at least ${data.min_trials} complete trials.`));
  const rows = data.residuals.number.map((n, i) => ({ t: byNumber.get(n), v: data.residuals.value[i] })).filter((r) => r.t && ok(r.v));
  const names = [...new Set(rows.flatMap((r) => Object.keys(r.t.choices)))].filter((n) => new Set(rows.map((r) => r.t.choices[n] ?? "not used")).size > 1);
  if (!names.length) return card(title, null, empty("All trials made the same choices."));
  const host = h("div", { class: "chart" }), note = h("p", { class: "note" });
  let name = names[0], spots = [];
  const redraw = mount(host, (width) => {
    const groups = new Map();
    for (const r of rows) { const k = r.t.choices[name] ?? "not used"; if (!groups.has(k)) groups.set(k, []); groups.get(k).push(r); }
    const median = (list) => { const v = list.map((r) => r.v).sort((a, b) => a - b); return (v[Math.floor((v.length - 1) / 2)] + v[Math.ceil((v.length - 1) / 2)]) / 2; };
    const sorted = [...groups].map(([k, list]) => ({ k, list, median: median(list) })).sort((a, b) => b.median - a.median);
    const order = sorted.length > 14 ? [...sorted].sort((a, b) => b.list.length - a.list.length).slice(0, 14).sort((a, b) => b.median - a.median) : sorted;
    note.textContent = sorted.length > 14 ? `The 14 most frequent of ${sorted.length} values.` : "";
    const values = rows.map((r) => r.v), edge = Math.max(Math.abs(quantile(values, 0.03)), Math.abs(quantile(values, 0.97)), 0.002) * 1.1;
    const left = Math.min(190, Math.max(90, width * 0.32)), height = order.length * 30 + 50;
    const f = frame(width, height, { title, margin: { left, right: 96, top: 4, bottom: 42 }, x: (a, b) => linear(-edge, edge, a, b), y: (a, b) => { const q = linear(order.length - 0.5, -0.5, a, b); q.ticks = () => []; return q; }, xText: (v) => points(v).replace(/\.?0+$/, "").replace(/^\+$/, "0"), yText: plain, xLabel: "accuracy points against designs of equal cost" });
    f.plot.append(s("line", { class: "zero", x1: f.x(0), x2: f.x(0), y1: f.box.y0, y2: f.box.y1 }));
    spots = [];
    order.forEach((g, i) => {
      const limit = Math.floor(left / 6.6), text = g.k.length > limit ? g.k.slice(0, limit - 1) + "…" : g.k;
      f.svg.append(s("text", { class: "label", x: left - 8, y: f.y(i) + 4, "text-anchor": "end" }, text, s("title", {}, g.k)));
      f.svg.append(s("text", { x: f.box.x1 + 8, y: f.y(i) + 4 }, `${points(g.median)}  n=${g.list.length}`));
      g.list.forEach((r, j) => {
        const v = Math.min(Math.max(r.v, -edge), edge), px = f.x(v), py = f.y(i) + (((j * 0.618034) % 1) - 0.5) * 17;
        f.plot.append(s("circle", { class: r.t.number === selected ? "dot mine" : "dot", r: r.t.number === selected ? 4.5 : 2.8, cx: px, cy: py }));
        spots.push({ ...r, px, py });
      });
      f.plot.append(s("line", { class: "median", x1: f.x(g.median), x2: f.x(g.median), y1: f.y(i) - 11, y2: f.y(i) + 11 }));
    });
    return [f.svg];
  });
  onSelect(redraw);
  host.addEventListener("pointermove", (event) => { const item = nearest(spots, event, host, 14); if (item) showTip(event, h("div", { class: "soft" }, `${points(item.v)} points against its peers`), ...trialTip(item.t)); else hideTip(); });
  host.addEventListener("pointerleave", hideTip);
  host.addEventListener("click", (event) => { const item = nearest(spots, event, host, 14); if (item) select(item.t.number); });
  return card(title, "Each dot is a complete trial: its accuracy less what the other trials of similar cost reach. The bar is the median. The sampler chose what to try, so a value that was tried more often late in the search looks better than it is.",
    h("div", { class: "bar" }, choice("choice", names.map((n) => [n, n]), name, (v) => { name = v; redraw(); })), host, note);
}

// ---- The search itself
function progressCard() {
  const list = (data.progress || []).filter((p) => ok(p.train_macs) && ok(p.hypervolume)).sort((a, b) => a.train_macs - b.train_macs);
  if (list.length < 2) return card("How the front grew", null, empty("Nothing to draw before the second complete trial."));
  const host = h("div", { class: "chart" });
  let spots = [];
  mount(host, (width) => {
    const low = list[0].hypervolume, high = list[list.length - 1].hypervolume, pad = (high - low || 0.1) * 0.08;
    const f = frame(width, 300, { title: "Hypervolume against compute", x: (a, b) => linear(0, list[list.length - 1].train_macs * 1.02, a, b), y: (a, b) => linear(low - pad, high + pad, a, b), xText: short, yText: plain, xLabel: "compute spent on training, MACs (teachers included)", yLabel: "hypervolume" });
    f.plot.append(s("path", { class: "stairs", d: stepPath(list.map((p) => [p.train_macs, p.hypervolume]), f.x, f.y) }));
    spots = list.map((p) => ({ p, px: f.x(p.train_macs), py: f.y(p.hypervolume) }));
    let previous = -Infinity;
    for (const { p, px, py } of spots) { if (p.hypervolume > previous + 1e-12) f.plot.append(s("circle", { class: "front", r: 3.6, cx: px, cy: py })); previous = Math.max(previous, p.hypervolume); }
    return [f.svg];
  });
  host.addEventListener("pointermove", (event) => { const item = nearest(spots, event, host, 30); if (item) { const t = byNumber.get(item.p.trial); showTip(event, h("div", { class: "soft" }, `hypervolume ${item.p.hypervolume.toFixed(4)} after ${count(item.p.train_macs)}MACs`), ...(t ? trialTip(t) : [])); } else hideTip(); });
  host.addEventListener("pointerleave", hideTip);
  host.addEventListener("click", (event) => { const item = nearest(spots, event, host, 30); if (item) select(item.p.trial); });
  return card("How the front grew", "Hypervolume of accuracy × log₁₀ cost; a dot is a trial that enlarged it.", host);
}
function booksCard() {
  const others = trials.filter((t) => t.state !== "COMPLETE"), counts = data.counts || {};
  const told = { FAIL: "failed", PRUNED: "turned away or stopped", RUNNING: "running", WAITING: "waiting" };
  const rows = new Map();
  for (const t of others) {
    // Numbers differ from trial to trial; the reason is what is left without them.
    const reason = t.reason || "no reason recorded", key = t.state + "\0" + reason.replace(/\d[\d.,e+-]*/g, "#");
    if (!rows.has(key)) rows.set(key, { state: t.state, reason, numbers: [] });
    rows.get(key).numbers.push(t.number);
  }
  const list = [...rows.values()].sort((a, b) => a.state.localeCompare(b.state) || b.numbers.length - a.numbers.length);
  const links = (numbers) => [numbers.slice(0, 8).map((n) => [h("button", { type: "button", onclick: () => { select(n); document.getElementById("details").scrollIntoView({ behavior: "smooth", block: "nearest" }); } }, String(n)), " "]), numbers.length > 8 ? `and ${numbers.length - 8} more` : ""];
  return card("What did not finish", `${counts.complete ?? complete.length} complete, ${counts.failed ?? 0} failed, ${counts.turned_away ?? 0} turned away before training (they cost nothing).`,
    list.length ? h("div", { class: "scroll" }, h("table", {}, h("thead", {}, h("tr", {}, ["", "n", "reason (of one)", "trials"].map((n) => h("th", { scope: "col" }, n)))), h("tbody", {}, list.map((r) => h("tr", {}, h("td", {}, told[r.state] || r.state), h("td", { class: "num" }, r.numbers.length), h("td", {}, r.reason), h("td", {}, links(r.numbers))))))) : empty("Every trial in this record is complete."));
}
function foot() {
  const reference = Object.entries(data.reference_point || {}).map(([k, v]) => `${words(k)} ${plain(v)}`).join(", ");
  const rows = [["study", plain(data.study)], ["seed", plain(data.seed)], ["objectives", (data.objectives || []).map((o) => `${o.direction} ${o.name}`).join(", ")], ["reference point", reference], ["record", data.schema_version ? `schema ${data.schema_version}` : ""], ...Object.entries(data.environment || {}).map(([k, v]) => [k, plain(v)])];
  document.getElementById("foot").append(h("h3", {}, "Where this came from"), h("dl", {}, rows.filter((r) => r[1] !== "").map(([k, v]) => [h("dt", {}, k), h("dd", {}, v)])),
    h("p", {}, "Accuracy is on the validation split unless it says test. MACs: convolutions and matrix products of one forward pass of one image, training-time heads excluded; FLOPs = 2 × MACs."));
}

head();
document.getElementById("main").append(...[frontSection(), tableSection(), retrainedSection(), curvesSection(), h("div", { class: "row" }, importanceCard(), marginalCard()), h("div", { class: "row" }, progressCard(), booksCard())].filter(Boolean));
foot();
const wanted = Number((location.hash.match(/^#trial-(\d+)$/) || [])[1]);
const middle = front[Math.floor(front.length / 2)];
if (byNumber.has(wanted)) select(wanted);
else if (middle) { selected = middle.number; for (const listener of listeners) listener(); }
})();
