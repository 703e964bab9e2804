// Several runs on one page: fronts, what arms attain, how hypervolume grew, and a table.
const arms = data.arms;
const runs = data.runs;
const many = arms.some((a) => a.runs.length > 1);
const armOf = new Map(runs.map((r) => [r.name, arms.findIndex((a) => a.name === r.arm)]));
const colour = (arm) => `m${arm % 8}`;
const hidden = new Set();
const view = { cost: data.costs[0], bands: true, lines: true };
const redraws = [];
const redrawAll = () => {
  for (const redraw of redraws) redraw();
};
const shownRuns = () => runs.filter((r) => !hidden.has(armOf.get(r.name)));
const shownArms = () => arms.map((a, i) => ({ a, i })).filter(({ i }) => !hidden.has(i));
const listed = (names) =>
  names.length > 4 ? `${names.slice(0, 3).join(", ")} and ${names.length - 3} more` : names.join(", ");

// ---- Bands: the area between what all runs of an arm have and what one of them has.
const stepsOf = (at, values) => at.map((x, i) => [x, values[i]]).filter((p) => ok(p[1]));
function addBand(f, arm, at, levels, end) {
  const [any, median, all] = ["any", "median", "all"].map((level) => stepsOf(at, levels[level]));
  if (!any.length) return;
  const drawn = (list) => stepPath([...list, [end, list[list.length - 1][1]]], f.x, f.y);
  const back = all.reverse().map((p) => `V${f.y(p[1]).toFixed(1)}H${f.x(p[0]).toFixed(1)}`);
  // Where not all runs have anything, the band reaches down to the axis.
  const floor = `V${f.box.y0.toFixed(1)}H${f.x(any[0][0]).toFixed(1)}Z`;
  f.plot.append(s("path", { class: `band ${colour(arm)}`, d: drawn(any) + back.join("") + floor }));
  if (median.length) f.plot.append(s("path", { class: `median-line ${colour(arm)}`, d: drawn(median) }));
}

// ---- Fronts
function frontsCard() {
  const host = h("div", { class: "chart" }),
    note = h("p", { class: "note" });
  let spots = [];
  const redraw = mount(host, (width) => {
    const key = view.cost,
      more = moreIsBetter(key);
    const points = shownRuns().flatMap((r) =>
      r.front
        .filter((p) => usable(key, p[key]) && ok(p.val_accuracy))
        .map((p) => ({ p, r, arm: armOf.get(r.name) })),
    );
    spots = [];
    if (!points.length) return [empty("No complete trial to draw.")];
    const domain = padCost(
      key,
      points.map((o) => o.p[key]),
    );
    const ys = points.map((o) => o.p.val_accuracy),
      pad = 0.05 * (Math.max(...ys) - Math.min(...ys)) || 0.02;
    const f = frame(width, width > 620 ? 560 : 380, {
      title: "Fronts of all runs",
      x: (a, b) => costScale(key, domain, a, b),
      y: (a, b) => linear(Math.min(...ys) - pad, Math.max(...ys) + pad, a, b),
      xText: costTicks(key),
      yText: percentTicks,
      xLabel: costLabel(key),
      yLabel: "validation accuracy",
    });
    const end = more ? domain[0] : domain[1];
    if (view.bands)
      for (const { a, i } of shownArms())
        if (a.runs.length > 1) addBand(f, i, a.attainment[key].cost, a.attainment[key], end);
    for (const r of shownRuns()) {
      const arm = armOf.get(r.name),
        alone = arms[arm].runs.length === 1;
      const stairs = staircase(
        r.front.filter((p) => usable(key, p[key])).map((p) => [p[key], p.val_accuracy]),
        more,
      );
      if (stairs.length && (view.lines || alone || !view.bands))
        f.plot.append(
          s("path", {
            class: `run-line ${colour(arm)}${alone ? " alone" : ""}`,
            d: stepPath([...stairs, [end, stairs[stairs.length - 1][1]]], f.x, f.y),
          }),
        );
    }
    for (const o of points) {
      const px = f.x(o.p[key]),
        py = f.y(o.p.val_accuracy);
      f.plot.append(mark(o.arm % 8, 4.2, `front marked ${colour(o.arm)}`, px, py));
      spots.push({ ...o, px, py });
    }
    f.over.append(s("circle", { class: "hover-ring", r: 8, visibility: "hidden" }));
    note.textContent = many
      ? "A point is a design on the front of its run. The thick line is what at least half of an arm's runs attain; its band reaches from what all of them attain to what any of them does. Hover for the design."
      : "A point is a design on the front of its run. Give runs of the same study with other seeds to see how far they lie apart. Hover for the design.";
    return [f.svg];
  });
  redraws.push(redraw);
  host.addEventListener("pointermove", (event) => {
    const item = nearest(spots, event, host, 28),
      ring = host.querySelector(".hover-ring");
    if (!item || !ring) {
      if (ring) ring.setAttribute("visibility", "hidden");
      hideTip();
      return;
    }
    ring.setAttribute("visibility", "visible");
    ring.setAttribute("cx", item.px);
    ring.setAttribute("cy", item.py);
    const { p, r } = item;
    showTip(
      event,
      h("div", {}, h("b", {}, percent(p.val_accuracy)), `  trial ${p.trial} of ${r.name}`),
      ...data.costs.filter((k) => ok(p[k])).map((k) => h("div", {}, costPhrase(k, p[k]))),
      ...(p.student ? [h("div", {}, p.student)] : []),
      ...(p.taught_by ? [h("div", { class: "soft" }, "taught by ", p.taught_by)] : []),
    );
  });
  host.addEventListener("pointerleave", () => {
    host.querySelector(".hover-ring")?.setAttribute("visibility", "hidden");
    hideTip();
  });
  const bar = h(
    "div",
    { class: "bar" },
    many
      ? [
          check("attained by all, half, any", true, (v) => {
            view.bands = v;
            redrawAll();
          }),
          check("each run", true, (v) => {
            view.lines = v;
            redrawAll();
          }),
        ]
      : null,
    data.costs.length > 1
      ? choice(
          "cost",
          data.costs.map((k) => [k, words(k)]),
          view.cost,
          (v) => {
            view.cost = v;
            redraw();
          },
        )
      : null,
  );
  const key = legend();
  return card("Fronts", null, figureSavers(host, "fronts", key), bar, key, host, note);
}
// Arms can be hidden, so that two of many are looked at.
function legend() {
  return h(
    "div",
    { class: "legend" },
    arms.map((a, i) => {
      const node = h(
        "button",
        {
          type: "button",
          "aria-pressed": "true",
          title: a.runs.join(", "),
          onclick: () => {
            if (hidden.has(i)) hidden.delete(i);
            else hidden.add(i);
            node.setAttribute("aria-pressed", String(!hidden.has(i)));
            redrawAll();
          },
        },
        swatch(i % 8, `front marked ${colour(i)}`),
        a.name,
        a.runs.length > 1 ? h("span", { class: "soft" }, ` ${a.runs.length} runs`) : null,
      );
      return node;
    }),
  );
}

// ---- How hypervolume grew
// Of an axis, one unit: ticks are round in it.
const timeUnit = (last) =>
  [
    [1, "s"],
    [60, "min"],
    [3600, "h"],
  ].findLast(([size]) => size === 1 || last >= 2 * size);
function inUnits(size, low, high, from, to) {
  const inner = linear(low / size, high / size, from, to);
  const scale = (v) => inner(v / size);
  scale.invert = (p) => size * inner.invert(p);
  scale.ticks = (n) => inner.ticks(n).map((v) => v * size);
  scale.domain = [low, high];
  return scale;
}
function growthCard(key, title, label, text) {
  const host = h("div", { class: "chart" });
  let spots = [];
  const redraw = mount(host, (width) => {
    const drawn = shownRuns().filter((r) => r.progress.length);
    spots = [];
    if (!drawn.length) return [empty("No complete trial to draw.")];
    const all = drawn.flatMap((r) => r.progress);
    const last = Math.max(...all.map((p) => p[key])),
      high = Math.max(...all.map((p) => p.hypervolume), data.level);
    if (!(last > 0 && high > 0)) return [empty("Nothing was measured.")];
    // The first designs are far below what comes: the axis begins where most of the search is.
    const low = quantile(
      all.map((p) => p.hypervolume),
      0.12,
    );
    const pad = (high - low || high) * 0.06;
    const [size, unit] = key === "seconds" ? timeUnit(last) : [1, "MACs"];
    const f = frame(width, 330, {
      title,
      x: (a, b) => inUnits(size, 0, last * 1.02, a, b),
      y: (a, b) => linear(Math.max(0, low - pad), high + pad, a, b),
      xText: key === "seconds" ? (v) => tickText(v / size) : countTick,
      yText: tickText,
      xLabel: `${label}, ${unit}`,
      yLabel: "hypervolume",
    });
    if (data.level > 0) {
      const y = f.y(data.level);
      f.plot.append(s("line", { class: "ghost", x1: f.box.x0, x2: f.box.x1, y1: y, y2: y }));
    }
    if (view.bands)
      for (const { a, i } of shownArms()) {
        const at = a.progress[key].at;
        if (a.runs.length > 1 && at.length) addBand(f, i, at, a.progress[key], at[at.length - 1]);
      }
    for (const r of drawn) {
      const arm = armOf.get(r.name),
        alone = arms[arm].runs.length === 1;
      if (view.lines || alone || !view.bands)
        f.plot.append(
          s("path", {
            class: `run-line ${colour(arm)}${alone ? " alone" : ""}`,
            d: stepPath(
              r.progress.map((p) => [p[key], p.hypervolume]),
              f.x,
              f.y,
            ),
          }),
        );
      for (const p of r.progress) spots.push({ p, r, px: f.x(p[key]), py: f.y(p.hypervolume) });
    }
    return [f.svg];
  });
  redraws.push(redraw);
  host.addEventListener("pointermove", (event) => {
    const item = nearest(spots, event, host, 30);
    if (!item) {
      hideTip();
      return;
    }
    const { p, r } = item;
    showTip(
      event,
      h("div", {}, h("b", {}, volume(p.hypervolume)), `  ${r.name}, after trial ${p.trial}`),
      h("div", {}, `${macs(p.train_macs)} of training, ${seconds(p.seconds)}`),
      h("div", { class: "soft" }, `in the end ${volume(r.hypervolume)}`),
    );
  });
  host.addEventListener("pointerleave", hideTip);
  return card(title, text, figureSavers(host, title), host);
}

// ---- The table
function runsTable() {
  const best = [...runs].sort((a, b) => b.hypervolume - a.hypervolume);
  const columns = [
    [
      "run",
      (r) => [swatch(armOf.get(r.name) % 8, `front marked ${colour(armOf.get(r.name))}`), ` ${r.name}`],
      "",
    ],
    ["seed", (r) => String(r.seed), "num extra"],
    ["hypervolume", (r) => volume(r.hypervolume), "num"],
    ["front", (r) => String(r.front.length), "num"],
    ["best val acc", (r) => percent(r.best_accuracy), "num"],
    ["trials", (r) => String(r.complete), "num extra"],
    ["stopped", (r) => String(r.stopped), "num extra"],
    ["spent", (r) => macs(r.train_macs), "num extra"],
    ["with teacher", (r) => macs(r.train_macs_with_teachers), "num extra"],
    ["seconds", (r) => seconds(r.seconds), "num extra"],
    ["to the level", (r) => (r.to_level ? macs(r.to_level.train_macs) : DASH), "num extra"],
  ];
  const saved = [
    ["run", (r) => r.name],
    ["arm", (r) => r.arm],
    ["seed", (r) => r.seed],
    ["hypervolume", (r) => r.hypervolume],
    ["front", (r) => r.front.length],
    ["best val accuracy", (r) => r.best_accuracy],
    ["trials", (r) => r.complete],
    ["stopped", (r) => r.stopped],
    ["train MACs", (r) => r.train_macs],
    ["train MACs with teachers", (r) => r.train_macs_with_teachers],
    ["seconds", (r) => r.seconds],
    ["train MACs to the level", (r) => r.to_level?.train_macs],
  ];
  return card(
    "Runs",
    `The level is a hypervolume of ${volume(data.level)}, the lowest of the runs, which all have: how much training of trials did each need for it?`,
    tableSaver("runs", saved, best),
    scrolled(
      "runs",
      h(
        "table",
        { class: "runs" },
        h(
          "thead",
          {},
          h(
            "tr",
            {},
            columns.map(([name, , cls]) => h("th", { scope: "col", class: cls }, name)),
          ),
        ),
        h(
          "tbody",
          {},
          best.map((r) =>
            h(
              "tr",
              {},
              columns.map(([, text, cls]) => h("td", { class: cls }, text(r))),
            ),
          ),
        ),
      ),
    ),
  );
}

// ---- Head and foot
function head() {
  const lead = [...arms].sort((a, b) => b.hypervolume.median - a.hypervolume.median);
  document.getElementById("head").append(
    h("h1", {}, `${runs.length} runs compared`),
    h(
      "div",
      { class: "soft" },
      `Accuracy against ${data.costs.map(words).join(" and ")}. Hypervolumes of ${volumeOf()}, from one reference point.`,
    ),
    h(
      "div",
      { class: "tiles" },
      lead
        .slice(0, 8)
        .map((a) =>
          h(
            "div",
            { class: "tile" },
            h(
              "div",
              { class: "name with-mark" },
              swatch(arms.indexOf(a) % 8, `front marked ${colour(arms.indexOf(a))}`),
              a.name,
            ),
            h("div", { class: "value" }, volume(a.hypervolume.median)),
            h(
              "div",
              { class: "more" },
              a.runs.length > 1
                ? `hypervolume that half of ${a.runs.length} runs have; ${volume(a.hypervolume.all)} to ${volume(a.hypervolume.any)}`
                : "hypervolume, one run",
            ),
          ),
        ),
    ),
  );
  if (data.warnings.length)
    document.getElementById("head").append(
      h(
        "div",
        { class: "warnings", role: "note" },
        h("strong", {}, data.warnings.length > 1 ? "Read these first" : "Read this first"),
        h(
          "ul",
          {},
          data.warnings.map((w) => h("li", {}, w)),
        ),
      ),
    );
}
function foot() {
  const reference = Object.entries(data.reference_point)
    .map(([k, v]) => `${words(k)} ${plain(v)}`)
    .join(", ");
  document.getElementById("foot").append(
    h("h2", {}, "What is compared"),
    h(
      "dl",
      {},
      [
        ["objectives", data.objectives.map((o) => `${o.direction} ${o.name}`).join(", ")],
        ["reference point", reference],
        ...arms.map((a) => [a.name, listed(a.runs)]),
      ].map(([k, v]) => [h("dt", {}, k), h("dd", {}, v)]),
    ),
    h(
      "p",
      {},
      "An arm is a study with several seeds: everything else that its runs depend on is equal. What it attains is the empirical attainment function (Grunert da Fonseca, Fonseca and Hall, 2001). Accuracy is on the validation split. Compute and seconds are of trials, added up where several ran at once; teachers and assistants are in the table.",
    ),
  );
}

head();
document
  .getElementById("main")
  .append(
    frontsCard(),
    h(
      "div",
      { class: "row" },
      growthCard(
        "train_macs",
        "Hypervolume against compute",
        "compute spent on trials",
        "The dashed line is the level that all runs have.",
      ),
      growthCard(
        "seconds",
        "Hypervolume against time",
        "time of trials, one after the other",
        "Seconds compare on one machine with one load only, and are added up where several trials ran at once.",
      ),
    ),
    runsTable(),
  );
foot();
