// Elements, scales and charts. Joined with the other files into the one script of a report (html.py).
const tip = document.getElementById("tip");
// What the reader has set outlives a page that is drawn again with newer data.
const remembered = (name, first) => {
  if (!memory.has(name)) memory.set(name, first);
  return memory.get(name);
};
// Whoever listens to more than the page's own elements is deaf once it is drawn again.
memory.get("drawn")?.abort();
const drawn = new AbortController();
memory.set("drawn", drawn);

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
const s = (tag, attributes = {}, ...children) =>
  fill(document.createElementNS(SVG, tag), attributes, children);

// ---- Words
const choiceOf = (t, name) => {
  const v = t.choices[name];
  return v === undefined ? DASH : Array.isArray(v) ? v.join(" + ") : v;
};
// ---- Objectives: titles, units, directions and scales are the record's.
const measure = (name) =>
  data.measures[name] || {
    title: String(name).replaceAll("_", " "),
    label: String(name),
    unit: "",
    direction: "minimize",
    scale: "linear",
  };
const words = (name) => measure(name).title;
const isLog = (name) => measure(name).scale === "log";
const moreIsBetter = (name) => measure(name).direction === "maximize";
const usable = (name, v) => (isLog(name) ? positive(v) : ok(v));
const costLabel = (name) => measure(name).label + (isLog(name) ? ", logarithmic" : "");
const costText = (name, v) => inUnit(v, measure(name).unit);
// With the name, after the number where it is also the unit.
const costPhrase = (name, v) =>
  measure(name).unit === words(name)
    ? `${costText(name, v)} ${words(name)}`
    : `${words(name)} ${costText(name, v)}`;
const costTicks = (name) => (measure(name).unit === "fraction" ? percentTicks : countTick);
const costScale = (name, domain, from, to) => (isLog(name) ? log : linear)(...domain, from, to);
const padCost = (name, values) => (isLog(name) ? padLog : padLinear)(values);
const volumeOf = () =>
  (data.objectives || []).map((o) => (isLog(o.name) ? "log₁₀ " : "") + words(o.name)).join(" × ") ||
  "accuracy × log₁₀ cost";

function showTip(event, ...content) {
  tip.replaceChildren(...content);
  tip.hidden = false;
  const box = tip.getBoundingClientRect();
  const x = event.clientX + 16 + box.width > innerWidth ? event.clientX - box.width - 14 : event.clientX + 16;
  const y =
    event.clientY + 16 + box.height > innerHeight ? event.clientY - box.height - 12 : event.clientY + 16;
  tip.style.left = Math.max(4, x) + "px";
  tip.style.top = Math.max(4, y) + "px";
}
const hideTip = () => {
  tip.hidden = true;
};
// ---- Scales and frames
function linear(low, high, from, to) {
  const scale = (v) => from + ((v - low) / (high - low)) * (to - from);
  scale.invert = (p) => low + ((p - from) / (to - from)) * (high - low);
  scale.ticks = (n) => {
    const raw = (high - low) / n,
      power = 10 ** Math.floor(Math.log10(raw));
    const step = [1, 2, 2.5, 5, 10].map((m) => m * power).find((m) => m >= raw * 0.999);
    const out = [];
    for (let v = Math.ceil(low / step - 1e-9) * step; v <= high + step * 1e-9; v += step)
      out.push(Math.abs(v) < step * 1e-9 ? 0 : v);
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
    const steps = span > n ? [1] : span * 2 > n * 0.8 ? [1, 3] : [1, 2, 5],
      out = [];
    const every = Math.max(1, Math.ceil(span / n));
    for (let p = Math.floor(Math.log10(low)); p <= Math.log10(high); p++)
      if (p % every === 0)
        for (const m of steps) {
          const v = m * 10 ** p;
          if (v >= low * 0.999 && v <= high * 1.001) out.push(v);
        }
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
const LETTER = 6.5; // mean width of one, in pixels
// A title is whole: where it is too long for its axis it stands in several lines.
function wrapped(text, room) {
  const most = Math.max(6, Math.floor(room / LETTER)),
    out = [""];
  for (const word of text.split(" ")) {
    const longer = out.at(-1) ? `${out.at(-1)} ${word}` : word;
    if (out.at(-1) && longer.length > most) out.push(word);
    else out[out.length - 1] = longer;
  }
  return out;
}
let frames = 0;
function frame(width, height, options) {
  const m = { top: 12, right: 16, ...options.margin };
  const yTitle = options.yLabel ? wrapped(options.yLabel, height - 60) : [];
  const sides = (bottom) => [height - bottom, m.top];
  // As wide as the longest number needs, so that narrow screens keep room for points.
  const rough = options.y(...sides(44));
  const marks = rough.ticks(Math.max(3, Math.floor((height - 44 - m.top) / 48)));
  const longest = Math.max(0, ...marks.map((v) => options.yText(v, marks).length));
  const left = m.left ?? 16 + 16 * yTitle.length + longest * 7;
  const xTitle = options.xLabel ? wrapped(options.xLabel, width - left - 4) : [];
  const bottom = m.bottom ?? 28 + 16 * xTitle.length;
  const [y0, y1] = sides(bottom);
  const box = { x0: left, x1: Math.max(width - m.right, left + 40), y0, y1 };
  const x = options.x(box.x0, box.x1),
    y = options.y(box.y0, box.y1);
  const svg = s("svg", {
    width,
    height,
    viewBox: `0 0 ${width} ${height}`,
    role: "img",
    "aria-label": options.title,
  });
  const across = x.ticks(Math.max(3, Math.floor((box.x1 - box.x0) / 80))),
    up = y.ticks(Math.max(3, Math.floor((box.y0 - box.y1) / 48)));
  for (const v of across) {
    svg.append(s("line", { class: "gridline", x1: x(v), x2: x(v), y1: box.y0, y2: box.y1 }));
    svg.append(s("text", { x: x(v), y: box.y0 + 17, "text-anchor": "middle" }, options.xText(v, across)));
  }
  for (const v of up) {
    svg.append(s("line", { class: "gridline", x1: box.x0, x2: box.x1, y1: y(v), y2: y(v) }));
    svg.append(s("text", { x: box.x0 - 8, y: y(v) + 4, "text-anchor": "end" }, options.yText(v, up)));
  }
  svg.append(s("line", { class: "axis", x1: box.x0, x2: box.x1, y1: box.y0, y2: box.y0 }));
  xTitle.forEach((text, i) => {
    const middle = Math.min(
      Math.max((box.x0 + box.x1) / 2, (text.length * LETTER) / 2),
      width - (text.length * LETTER) / 2,
    );
    svg.append(
      s("text", { class: "label", x: middle, y: box.y0 + 36 + 16 * i, "text-anchor": "middle" }, text),
    );
  });
  yTitle.forEach((text, i) => {
    svg.append(
      s(
        "text",
        {
          class: "label",
          x: -(box.y0 + box.y1) / 2,
          y: 14 + 16 * i,
          transform: "rotate(-90)",
          "text-anchor": "middle",
        },
        text,
      ),
    );
  });
  const clip = "clip" + frames++;
  svg.append(
    s(
      "clipPath",
      { id: clip },
      s("rect", { x: box.x0 - 1, y: box.y1 - 1, width: box.x1 - box.x0 + 2, height: box.y0 - box.y1 + 2 }),
    ),
  );
  const plot = s("g", { "clip-path": `url(#${clip})` }),
    over = s("g");
  svg.append(plot, over);
  return { svg, plot, over, x, y, box, width, height };
}
const pathOf = (list, x, y) =>
  list.map((p, i) => `${i ? "L" : "M"}${x(p[0]).toFixed(1)},${y(p[1]).toFixed(1)}`).join("");
const stepPath = (list, x, y) =>
  list
    .map((p, i) =>
      i ? `H${x(p[0]).toFixed(1)}V${y(p[1]).toFixed(1)}` : `M${x(p[0]).toFixed(1)},${y(p[1]).toFixed(1)}`,
    )
    .join("");
function polygon(n, r, turn) {
  return (
    Array.from({ length: n }, (_, i) => {
      const a = turn + (i * 2 * Math.PI) / n;
      return `${i ? "L" : "M"}${(r * Math.cos(a)).toFixed(2)},${(r * Math.sin(a)).toFixed(2)}`;
    }).join("") + "Z"
  );
}
function symbol(kind, r) {
  const up = -Math.PI / 2;
  if (kind === "star")
    return (
      Array.from({ length: 10 }, (_, i) => {
        const a = up + (i * Math.PI) / 5,
          q = i % 2 ? r * 0.45 : r;
        return `${i ? "L" : "M"}${(q * Math.cos(a)).toFixed(2)},${(q * Math.sin(a)).toFixed(2)}`;
      }).join("") + "Z"
    );
  if (kind === 1) return polygon(4, r * 1.2, Math.PI / 4);
  if (kind === 2) return polygon(3, r * 1.35, up);
  if (kind === 3) return polygon(4, r * 1.3, 0);
  if (kind === 4) return polygon(3, r * 1.35, -up);
  if (kind === 5) {
    const a = r * 1.2,
      b = r * 0.42;
    return `M${-b},${-a}H${b}V${-b}H${a}V${b}H${b}V${a}H${-b}V${b}H${-a}V${-b}H${-b}Z`;
  }
  if (kind === 6) return polygon(6, r * 1.1, 0);
  if (kind === 7) return polygon(5, r * 1.15, up);
  return `M${-r},0A${r},${r} 0 1 1 ${r},0A${r},${r} 0 1 1 ${-r},0Z`;
}
const mark = (kind, r, cls, px, py) =>
  s("path", { d: symbol(kind, r), class: cls, transform: `translate(${px.toFixed(1)},${py.toFixed(1)})` });
const swatch = (kind, cls, r = 5) =>
  s("svg", { viewBox: "-8 -8 16 16", "aria-hidden": "true" }, s("path", { d: symbol(kind, r), class: cls }));

// Redraw at the width there is, so that letters keep their size. The first drawing waits for no
// frame: a browser that prints, saves or is busy may show none before the page is read.
function mount(host, draw) {
  let last = 0;
  const redraw = () => {
    if (host.clientWidth) host.replaceChildren(...draw(host.clientWidth).filter(Boolean));
  };
  const resize = () => {
    if (host.clientWidth !== last) {
      last = host.clientWidth;
      redraw();
    }
  };
  new ResizeObserver(resize).observe(host);
  queueMicrotask(resize);
  return redraw;
}
function nearest(list, event, host, reach) {
  const box = host.getBoundingClientRect(),
    px = event.clientX - box.left,
    py = event.clientY - box.top;
  let best = null,
    least = reach * reach;
  for (const item of list) {
    const d = (item.px - px) ** 2 + (item.py - py) ** 2;
    if (d <= least) {
      least = d;
      best = item;
    }
  }
  return best;
}
const quantile = (values, q) => {
  const v = [...values].sort((a, b) => a - b);
  return v.length ? v[Math.round((v.length - 1) * q)] : 0;
};
function staircase(list, more) {
  const out = [];
  for (const p of [...list].sort((a, b) => (more ? b[0] - a[0] : a[0] - b[0]) || b[1] - a[1]))
    if (!out.length || p[1] > out[out.length - 1][1]) out.push(p);
  return out;
}
function padLog(values) {
  const low = Math.min(...values),
    high = Math.max(...values),
    pad = Math.max((high / low) ** 0.05, 1.12);
  return [low / pad, high * pad];
}
function padLinear(values) {
  const low = Math.min(...values),
    high = Math.max(...values),
    pad = 0.05 * (high - low) || 0.05 * Math.abs(high) || 1;
  return [low - pad, high + pad];
}
function choice(label, options, value, change) {
  const node = h(
    "select",
    { onchange: () => change(node.value) },
    options.map(([v, text]) => h("option", { value: v, selected: v === value }, text)),
  );
  return h("label", {}, label, node);
}
function check(label, value, change) {
  const node = h("input", { type: "checkbox", onchange: () => change(node.checked) });
  node.checked = value;
  return h("label", {}, node, label);
}
// What saves a card's figures and tables stands beside its title, wherever it was made.
function card(title, note, ...content) {
  const parts = content.flat(3).filter((part) => part !== null && part !== undefined);
  const isTool = (part) => part instanceof Element && part.classList.contains("tools");
  const slug = title.toLowerCase().replace(/[^a-z]+/g, "-");
  return h(
    "section",
    { class: "card", id: slug, "aria-label": title },
    h("div", { class: "spread" }, h("h2", {}, title), parts.filter(isTool)),
    note ? h("p", { class: "note" }, note) : null,
    parts.filter((part) => !isTool(part)),
  );
}
const empty = (text) => h("div", { class: "empty" }, text);
// Reached by the keyboard, too, where it is longer than its place.
const scrolled = (title, table) =>
  h("div", { class: "scroll", tabindex: "0", role: "region", "aria-label": `Table: ${title}` }, table);
