// Which choices mattered.
// ---- What mattered
function shareBars(shares, most, floor) {
  const rows = Object.entries(shares)
      .filter((p) => ok(p[1]))
      .sort((a, b) => b[1] - a[1]),
    top = rows.slice(0, most),
    // The record has the largest shares alone: what all others explain is what these leave.
    rest = 1 - top.reduce((a, p) => a + p[1], 0),
    largest = top.length ? top[0][1] || 1 : 1;
  return [
    h(
      "div",
      { class: "imp" },
      top.map(([k, v]) => {
        const bar = h("div", { class: v > (floor || 0) ? "fill" : "fill luck" });
        bar.style.width = Math.max(0, (100 * v) / largest).toFixed(1) + "%";
        return [
          h("div", { class: "name" }, k),
          h("div", { class: "track" }, bar),
          h("div", { class: "num" }, percent(v, 0)),
        ];
      }),
    ),
    rest >= 0.005 ? h("div", { class: "note" }, `all others together ${percent(rest, 0)}`) : null,
    ok(floor)
      ? h(
          "div",
          { class: "note" },
          `Luck gives a choice that does not matter up to ${percent(floor, 0)}, in 19 of 20 cases: what has no more, in gray, means nothing.`,
        )
      : null,
  ];
}
function importanceCard() {
  const importance = Object.entries(data.importance || {}).filter(([, v]) => v && Object.keys(v).length);
  if (!importance.length) {
    let why = `Importances need ${data.importance_needs} complete trials that differ.`;
    if (complete.some((t) => !t.unused))
      why =
        "Not known: trials do not say which choices their designs had a use for. Those of earlier versions never do.";
    else if (!data.importance && complete.length >= data.importance_needs) why = "Not computed yet.";
    return card("Which choices mattered", null, empty(why));
  }
  const used = data.importance_trials,
    some = used < data.counts.complete ? `${used} of ${data.counts.complete}` : used,
    from = used ? `${some} complete trials` : "the trials there are";
  return card(
    "Which choices mattered",
    `Share of an objective's variance over the whole space that each parameter explains, where designs have a use for it. An estimate from ${from}, not a cause: as many others may put another choice first.`,
    h(
      "div",
      { class: "bands" },
      importance.map(([name, shares]) =>
        h("div", {}, h("h3", {}, `for ${words(name)}`), shareBars(shares, 10, data.importance_floor?.[name])),
      ),
    ),
  );
}
function importanceByCostCard() {
  const bands = (data.importance_by_cost || []).filter((band) => Object.keys(band.shares || {}).length);
  if (!bands.length) return null;
  const unit = data.measures[data.cost].unit;
  return card(
    "Which choices mattered at which cost",
    `Share that each parameter explains of how much better or worse designs are than others of equal ${words(data.cost)}, from cheap to costly ones. An estimate from few trials each, not a cause.`,
    h(
      "div",
      { class: "bands" },
      bands.map((band) =>
        h(
          "div",
          {},
          h("h3", {}, `${inUnit(band.low, unit)} to ${inUnit(band.high, unit)}`),
          shareBars(band.shares, 6, band.floor),
          h(
            "div",
            { class: "note" },
            `${band.trials} trials; at equal cost they differ by ${fixed(100 * band.spread, 1)} points (sd)`,
          ),
        ),
      ),
    ),
  );
}
function marginalCard() {
  const title = "Better or worse at equal cost";
  if (!data.residuals)
    return card(
      title,
      null,
      empty(`A trend of accuracy over cost needs at least ${data.min_trials} complete trials.`),
    );
  const rows = data.residuals.number
    .map((n, i) => ({ t: byNumber.get(n), v: data.residuals.value[i] }))
    .filter((r) => r.t && ok(r.v));
  const differ = (n) => new Set(rows.map((r) => choiceOf(r.t, n))).size > 1;
  const names = [...new Set(rows.flatMap((r) => Object.keys(r.t.choices)))].filter(differ);
  if (!names.length) return card(title, null, empty("All trials made the same choices."));
  // A design with two kinds of knowledge stands in the rows of both; the combination is a choice of its own.
  const options = names.map((n) => [n, n]);
  if (differ("knowledge")) options.splice(1, 0, ["=knowledge", "knowledge, in combination"]);
  const valuesOf = (t, n) => {
    if (n.startsWith("=")) return [choiceOf(t, n.slice(1))];
    const v = t.choices[n] ?? "not used";
    return Array.isArray(v) ? (v.length ? v : ["not used"]) : [v];
  };
  const panel = (first, place) => {
    const host = h("div", { class: "chart" }),
      note = h("p", { class: "note" }),
      view = remembered(`at equal cost ${place}`, { name: first });
    let name = options.some(([n]) => n === view.name) ? view.name : first,
      spots = [];
    const redraw = mount(host, (width) => {
      const groups = new Map();
      for (const r of rows)
        for (const k of valuesOf(r.t, name)) {
          if (!groups.has(k)) groups.set(k, []);
          groups.get(k).push(r);
        }
      const median = (list) => {
        const v = list.map((r) => r.v).sort((a, b) => a - b);
        return (v[Math.floor((v.length - 1) / 2)] + v[Math.ceil((v.length - 1) / 2)]) / 2;
      };
      const most = [...groups]
        .map(([k, list]) => ({ k, list, median: median(list) }))
        .sort((a, b) => b.list.length - a.list.length);
      // One or two trials tell nothing: they stand last, however lucky.
      const order = most
        .slice(0, 14)
        .sort((a, b) => (a.list.length < 3) - (b.list.length < 3) || b.median - a.median);
      note.textContent = most.length > 14 ? `The 14 most frequent of ${most.length} values.` : "";
      const values = rows.map((r) => r.v),
        edge = Math.max(Math.abs(quantile(values, 0.03)), Math.abs(quantile(values, 0.97)), 0.002) * 1.1;
      const left = Math.min(190, Math.max(90, width * 0.32)),
        height = order.length * 30 + 50;
      const f = frame(width, height, {
        title,
        margin: { left, right: 96, top: 4 },
        x: (a, b) => {
          const q = linear(-edge, edge, a, b),
            ticks = q.ticks;
          q.ticks = () => ticks(5);
          return q;
        },
        y: (a, b) => {
          const q = linear(order.length - 0.5, -0.5, a, b);
          q.ticks = () => [];
          return q;
        },
        xText: pointsTick,
        yText: plain,
        xLabel: "accuracy points against designs of equal cost",
      });
      f.plot.append(s("line", { class: "zero", x1: f.x(0), x2: f.x(0), y1: f.box.y0, y2: f.box.y1 }));
      spots = [];
      order.forEach((g, i) => {
        const limit = Math.floor(left / 6.6),
          text = g.k.length > limit ? g.k.slice(0, limit - 1) + "…" : g.k;
        f.svg.append(
          s(
            "text",
            { class: "label", x: left - 8, y: f.y(i) + 4, "text-anchor": "end" },
            text,
            s("title", {}, g.k),
          ),
        );
        f.svg.append(
          s("text", { x: f.box.x1 + 8, y: f.y(i) + 4 }, `${points(g.median)}  n=${g.list.length}`),
        );
        g.list.forEach((r, j) => {
          const v = Math.min(Math.max(r.v, -edge), edge),
            px = f.x(v),
            py = f.y(i) + (((j * 0.618034) % 1) - 0.5) * 17;
          f.plot.append(
            s("circle", {
              class: r.t.number === selected ? "dot mine" : "dot",
              r: r.t.number === selected ? 4.5 : 2.8,
              cx: px,
              cy: py,
            }),
          );
          spots.push({ ...r, px, py });
        });
        f.plot.append(
          s("line", {
            class: "median",
            x1: f.x(g.median),
            x2: f.x(g.median),
            y1: f.y(i) - 11,
            y2: f.y(i) + 11,
          }),
        );
      });
      return [f.svg];
    });
    onSelect(redraw);
    host.addEventListener("pointermove", (event) => {
      const item = nearest(spots, event, host, 14);
      if (item)
        showTip(
          event,
          h("div", { class: "soft" }, `${points(item.v)} points against its peers`),
          ...trialTip(item.t),
        );
      else hideTip();
    });
    host.addEventListener("pointerleave", hideTip);
    host.addEventListener("click", (event) => {
      const item = nearest(spots, event, host, 14);
      if (item) choose(item.t.number);
    });
    return [
      h(
        "div",
        { class: "bar" },
        choice("choice", options, name, (v) => {
          name = v;
          view.name = v;
          redraw();
        }),
        figureSavers(host, `at equal cost ${place}`),
      ),
      host,
      note,
    ];
  };
  return card(
    title,
    "Each dot is a complete trial: its accuracy less what the other trials of similar cost reach. The bar is the median. The sampler chose what to try, so a value that was tried more often late in the search looks better than it is.",
    panel(names[0], 1),
    names.length > 1 ? panel(names[1], 2) : null,
  );
}
