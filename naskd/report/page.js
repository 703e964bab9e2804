// The lower half of a report, and the order of its sections.
// ---- Tables
function sortable(columns, rows, last) {
  const body = h("tbody", { class: "pickable" });
  let by = null,
    down = false;
  const heads = columns.map((c) => {
    const arrow = h("span", { "aria-hidden": "true" }, "");
    const th = h(
      "th",
      { class: c.num ? "num" : null, scope: "col" },
      h(
        "button",
        {
          type: "button",
          onclick: () => {
            down = by === c ? !down : !!c.down;
            by = c;
            put();
          },
        },
        c.name,
        arrow,
      ),
    );
    return { c, th, arrow };
  });
  function put() {
    const value = (t) => {
      const v = by.value(t);
      return v === null || v === undefined || v === DASH ? null : v;
    };
    const order = by
      ? [...rows].sort((a, b) => {
          const x = value(a),
            y = value(b);
          if (x === null || y === null) return (x === null) - (y === null);
          return (x < y ? -1 : x > y ? 1 : 0) * (down ? -1 : 1);
        })
      : rows;
    body.replaceChildren(
      ...order.map((t) =>
        h(
          "tr",
          {
            class: t.number === selected ? "picked" : null,
            tabindex: "0",
            onclick: () => select(t.number),
            onkeydown: (e) => {
              if (e.key === "Enter") select(t.number);
            },
          },
          columns.map((c) =>
            h(
              "td",
              { class: [c.num ? "num" : "", c.strong ? "strong" : ""].join(" ").trim() || null },
              c.text(t),
            ),
          ),
        ),
      ),
    );
    for (const { c, th, arrow } of heads) {
      arrow.textContent = c === by ? (down ? " ↓" : " ↑") : "";
      if (c === by) th.setAttribute("aria-sort", down ? "descending" : "ascending");
      else th.removeAttribute("aria-sort");
    }
  }
  onSelect(() => put());
  put();
  const foot = last
    ? h(
        "tfoot",
        {},
        h(
          "tr",
          { class: "teacher-row" },
          columns.map((c) => h("td", { class: c.num ? "num" : null }, c.last ? c.last(last) : "")),
        ),
      )
    : null;
  return h(
    "div",
    { class: "scroll" },
    h(
      "table",
      {},
      h(
        "thead",
        {},
        h(
          "tr",
          {},
          heads.map((x) => x.th),
        ),
      ),
      body,
      foot,
    ),
  );
}
function tableSection() {
  const col = (name, key, text, extra = {}) => ({
    name,
    num: true,
    value: (t) => t[key],
    text: (t) => text(t[key]),
    last: (t) => text(t[key]),
    ...extra,
  });
  const columns = [
    col("trial", "number", plain, { last: () => "teacher" }),
    {
      ...col("validation", "val_accuracy", percent, { strong: true, down: true }),
      text: (t) =>
        t.replicates && t.replicates.n > 1
          ? `${withSd(t.replicates.mean, t.replicates.sd)} (${t.replicates.n})`
          : percent(t.val_accuracy),
    },
    tests.size
      ? {
          name: "test",
          num: true,
          down: true,
          value: (t) => tests.get(t.number)?.test_accuracy_mean,
          text: (t) => {
            const d = tests.get(t.number) || {};
            return withSd(d.test_accuracy_mean, d.test_accuracy_sd);
          },
          last: () => percent(data.retrained.teacher_test_accuracy),
        }
      : null,
    col("MACs", "macs", count, { strong: true }),
    col("parameters", "n_params", count),
    ...data.costs
      .filter((k) => !["macs", "n_params"].includes(k))
      .map((k) => col(words(k), k, (v) => costText(k, v))),
    {
      name: "student (width×depth)",
      value: (t) => t.student,
      text: (t) => t.student,
      last: (t) => plain(t.name),
    },
    { name: "taught by", value: (t) => t.taught_by, text: (t) => t.taught_by },
    col("agreement", "teacher_agreement", (v) => percent(v, 1), { down: true, last: null }),
    col("seconds", "wall_seconds", (v) => (ok(v) ? fixed(v, 1) : DASH), { last: null }),
  ].filter(Boolean);
  return card(
    "Designs on the front",
    front.length
      ? "Cheapest first; click a heading to sort, a row for its details. Accuracy of single trainings is optimistic: the best of many was picked on these very images."
      : null,
    front.length || teacher ? sortable(columns, front, teacher) : empty("No trial is on the front yet."),
  );
}

// ---- Retrained
function retrainedSection() {
  const r = data.retrained;
  if (!r?.designs.length) return null;
  const key = r.designs.some((d) => positive(d[data.cost])) ? data.cost : "macs";
  const usable = r.designs
    .filter((d) => positive(d[key]) && ok(d.test_accuracy_mean))
    .sort((a, b) => a[key] - b[key]);
  const host = h("div", { class: "chart" });
  let shown = [];
  mount(host, (width) => {
    if (!usable.length) return [empty("No retrained design has a test accuracy.")];
    const ys = usable
      .flatMap((d) => [
        d.test_accuracy_mean - (d.test_accuracy_sd || 0),
        d.test_accuracy_mean + (d.test_accuracy_sd || 0),
        d.val_accuracy_search,
      ])
      .filter(ok);
    if (ok(r.teacher_test_accuracy)) ys.push(r.teacher_test_accuracy);
    const low = Math.min(...ys),
      high = Math.max(...ys),
      pad = Math.max(0.05 * (high - low), 0.004);
    const f = frame(width, 340, {
      title: "Test accuracy after retraining",
      x: (a, b) => log(...padLog(usable.map((d) => d[key])), a, b),
      y: (a, b) => linear(low - pad, Math.min(high + pad, 1 + pad), a, b),
      xText: countTick,
      yText: percentTicks,
      xLabel: costLabel(key),
      yLabel: "accuracy",
    });
    if (ok(r.teacher_test_accuracy)) {
      const y = f.y(r.teacher_test_accuracy);
      f.plot.append(
        s("line", { class: "teacher-line", x1: f.box.x0, x2: f.box.x1, y1: y, y2: y }),
        s(
          "text",
          { class: "teacher-text", x: f.box.x0 + 6, y: y < f.box.y1 + 20 ? y + 15 : y - 6 },
          `teacher ${percent(r.teacher_test_accuracy)}`,
        ),
      );
    }
    const stairs = staircase(usable.map((d) => [d[key], d.test_accuracy_mean]));
    f.plot.append(
      s("path", {
        class: "test-line",
        d: stepPath([...stairs, [f.x.domain[1], stairs[stairs.length - 1][1]]], f.x, f.y),
      }),
    );
    shown = usable.map((d) => {
      const px = f.x(d[key]),
        py = f.y(d.test_accuracy_mean),
        sd = d.test_accuracy_sd || 0,
        up = f.y(d.test_accuracy_mean + sd),
        down = f.y(d.test_accuracy_mean - sd);
      if (ok(d.val_accuracy_search))
        f.plot.append(
          s("line", { class: "ghost", x1: px, x2: px, y1: f.y(d.val_accuracy_search), y2: py }),
          mark(0, 3.2, "ghost-dot", px, f.y(d.val_accuracy_search)),
        );
      f.plot.append(
        s("path", { class: "test-line", d: `M${px},${up}V${down}M${px - 4},${up}h8M${px - 4},${down}h8` }),
        mark(3, 5, "test", px, py),
      );
      return { d, px, py };
    });
    return [f.svg];
  });
  host.addEventListener("pointermove", (event) => {
    const item = nearest(shown, event, host, 26);
    if (item) showTip(event, ...trialTip(byNumber.get(item.d.number) || item.d));
    else hideTip();
  });
  host.addEventListener("pointerleave", hideTip);
  host.addEventListener("click", (event) => {
    const item = nearest(shown, event, host, 26);
    if (item) select(item.d.number);
  });
  const rows = usable.map((d) => ({
    ...d,
    sd: d.test_accuracy_sd,
    loss: ok(d.val_accuracy_search) ? d.test_accuracy_mean - d.val_accuracy_search : null,
  }));
  const num = (name, key2, text, extra = {}) => ({
    name,
    num: true,
    value: (t) => t[key2],
    text: (t) => text(t[key2]),
    ...extra,
  });
  const columns = [
    num("trial", "number", plain),
    num("MACs", "macs", count, { strong: true }),
    num("in the search", "val_accuracy_search", percent, { down: true }),
    {
      name: "test, mean ± sd",
      num: true,
      strong: true,
      down: true,
      value: (t) => t.test_accuracy_mean,
      text: (t) => withSd(t.test_accuracy_mean, t.sd),
    },
    num("change, points", "loss", (v) => (ok(v) ? points(v) : DASH)),
    num("n", "n", plain),
    { name: "on front", value: (t) => (t.on_front ? 0 : 1), text: (t) => (t.on_front ? "yes" : "no") },
  ];
  const like = smallestLikeTeacher();
  const verdict = like
    ? like.found
      ? `The smallest student whose mean is within one standard error of the teacher (${fixed(100 * like.error, formats.percent)} points, binomial on ${r.teacher_test_n} test images) is trial ${like.found.number}: ${count(like.found.macs)} MACs` +
        (teacher && positive(teacher.macs)
          ? `, ${short(teacher.macs / like.found.macs)}× fewer than the teacher.`
          : ".")
      : `No student's mean is within one standard error of the teacher (${fixed(100 * like.error, formats.percent)} points, binomial on ${r.teacher_test_n} test images).`
    : null;
  return card(
    "After retraining",
    `Fresh seeds${ok(r.seeds) ? ` (${r.seeds})` : ""}, the final schedule${ok(r.epochs) ? ` (${r.epochs} epochs)` : ""}, the sealed test split: the numbers to quote.`,
    verdict ? h("p", {}, verdict) : null,
    h(
      "div",
      { class: "legend" },
      h("span", {}, swatch(3, "test"), "test, mean ± sd over seeds"),
      h("span", {}, swatch(0, "ghost-dot", 4), "validation accuracy that the search saw"),
    ),
    h("div", { class: "row" }, host, sortable(columns, rows, null)),
  );
}

// ---- Learning curves
function curvesSection() {
  const all = complete.filter((t) => curveOf(t, "val_accuracy").length > 1);
  if (!all.length) return card("Learning curves", null, empty("This record holds no learning curves."));
  const view = { all: false, name: "val_accuracy" };
  const has = (name) => all.some((t) => curveOf(t, name).length > 1);
  const host = h("div", { class: "chart" });
  let lines = [],
    spots = [],
    hot = null;
  const costs = front.map((t) => t[data.cost]).filter(positive),
    span = costs.length ? [Math.log(Math.min(...costs)), Math.log(Math.max(...costs))] : [0, 1];
  const redraw = mount(host, (width) => {
    const some = all
      .filter((t) => t.on_front || view.all || t.number === selected)
      .map((t) => ({ t, list: curveOf(t, view.name) }))
      .filter((c) => c.list.length > 1)
      .sort((a, b) => a.t.on_front - b.t.on_front);
    if (!some.length) return [empty("No design of the front has a curve.")];
    const xs = some.flatMap((c) => c.list.map((p) => p[0])),
      ys = some.flatMap((c) => c.list.map((p) => p[1]));
    const accuracy = view.name === "val_accuracy";
    const level = accuracy && teacher && ok(teacher.val_accuracy) ? teacher.val_accuracy : null;
    const low = Math.min(...ys),
      high = Math.max(...ys, level ?? -Infinity);
    const pad = (high - low || 0.01) * 0.04;
    const f = frame(width, 320, {
      title: "Learning curves",
      x: (a, b) => linear(Math.min(...xs), Math.max(...xs), a, b),
      y: (a, b) => linear(low - pad, high + pad, a, b),
      xText: tickText,
      yText: accuracy ? percentTicks : tickText,
      xLabel: "epoch",
      yLabel: accuracy ? "validation accuracy" : "training loss",
    });
    if (level !== null)
      f.plot.append(
        s("line", { class: "teacher-line", x1: f.box.x0, x2: f.box.x1, y1: f.y(level), y2: f.y(level) }),
      );
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
    const item = nearest(spots, event, host, 30),
      number = item ? item.t.number : null;
    if (number !== hot) {
      hot = number;
      heat();
    }
    if (item)
      showTip(
        event,
        h(
          "div",
          { class: "soft" },
          `epoch ${item.p[0]}: ${view.name === "val_accuracy" ? percent(item.p[1]) : plain(item.p[1])}`,
        ),
        ...trialTip(item.t),
      );
    else hideTip();
  });
  host.addEventListener("pointerleave", () => {
    hot = null;
    heat();
    hideTip();
  });
  host.addEventListener("click", (event) => {
    const item = nearest(spots, event, host, 30);
    if (item) select(item.t.number);
  });
  return card(
    "Learning curves",
    null,
    h(
      "div",
      { class: "bar" },
      check("all trials", false, (v) => {
        view.all = v;
        redraw();
      }),
      has("loss")
        ? choice(
            "show",
            [
              ["val_accuracy", "validation accuracy"],
              ["loss", "training loss"],
            ],
            "val_accuracy",
            (v) => {
              view.name = v;
              redraw();
            },
          )
        : null,
      h(
        "span",
        { class: "soft" },
        "front, cheap ",
        h("span", { class: "gradient", "aria-hidden": "true" }),
        " dear",
      ),
    ),
    host,
    h("p", { class: "note" }, "The thick line is the selected trial, or the one under the pointer."),
  );
}

// ---- What mattered
function importanceCard() {
  const importance = Object.entries(data.importance || {}).filter(([, v]) => v && Object.keys(v).length);
  if (!importance.length)
    return card("Which choices mattered", null, empty("Importances need a few complete trials that differ."));
  return card(
    "Which choices mattered",
    "Share of an objective's variance over the whole space that each parameter explains. An estimate from the trials there are, not a cause.",
    importance.map(([name, shares]) => {
      const rows = Object.entries(shares)
          .filter((p) => ok(p[1]))
          .sort((a, b) => b[1] - a[1]),
        top = rows.slice(0, 10),
        total = rows.reduce((a, p) => a + p[1], 0) || 1,
        most = top.length ? top[0][1] || 1 : 1;
      return [
        h("h3", {}, `for ${words(name)}`),
        h(
          "div",
          { class: "imp" },
          top.map(([k, v]) => {
            const bar = h("div", { class: "fill" });
            bar.style.width = Math.max(0, (100 * v) / most).toFixed(1) + "%";
            return [
              h("div", { class: "name" }, k),
              h("div", { class: "track" }, bar),
              h("div", { class: "num" }, percent(v / total, 0)),
            ];
          }),
        ),
        rows.length > top.length
          ? h("div", { class: "note" }, `and ${rows.length - top.length} others`)
          : null,
      ];
    }),
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
  const panel = (first) => {
    const host = h("div", { class: "chart" }),
      note = h("p", { class: "note" });
    let name = first,
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
        margin: { left, right: 96, top: 4, bottom: 42 },
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
      if (item) select(item.t.number);
    });
    return [
      h(
        "div",
        { class: "bar" },
        choice("choice", options, name, (v) => {
          name = v;
          redraw();
        }),
      ),
      host,
      note,
    ];
  };
  return card(
    title,
    "Each dot is a complete trial: its accuracy less what the other trials of similar cost reach. The bar is the median. The sampler chose what to try, so a value that was tried more often late in the search looks better than it is.",
    panel(names[0]),
    names.length > 1 ? panel(names[1]) : null,
  );
}

// ---- The search itself
function progressCard() {
  const list = (data.progress || [])
    .filter((p) => ok(p.train_macs) && ok(p.hypervolume))
    .sort((a, b) => a.train_macs - b.train_macs);
  if (list.length < 2)
    return card("How the front grew", null, empty("Nothing to draw before the second complete trial."));
  const host = h("div", { class: "chart" });
  let spots = [];
  mount(host, (width) => {
    const low = list[0].hypervolume,
      high = list[list.length - 1].hypervolume,
      pad = (high - low || 0.1) * 0.08;
    const f = frame(width, 300, {
      title: "Hypervolume against compute",
      x: (a, b) => linear(0, list[list.length - 1].train_macs * 1.02, a, b),
      y: (a, b) => linear(low - pad, high + pad, a, b),
      xText: countTick,
      yText: tickText,
      xLabel: "compute spent on training, MACs (teachers included)",
      yLabel: "hypervolume",
    });
    f.plot.append(
      s("path", {
        class: "stairs",
        d: stepPath(
          list.map((p) => [p.train_macs, p.hypervolume]),
          f.x,
          f.y,
        ),
      }),
    );
    spots = list.map((p) => ({ p, px: f.x(p.train_macs), py: f.y(p.hypervolume) }));
    let previous = -Infinity;
    for (const { p, px, py } of spots) {
      if (p.hypervolume > previous + 1e-12)
        f.plot.append(s("circle", { class: "front", r: 3.6, cx: px, cy: py }));
      previous = Math.max(previous, p.hypervolume);
    }
    return [f.svg];
  });
  host.addEventListener("pointermove", (event) => {
    const item = nearest(spots, event, host, 30);
    if (item) {
      const t = byNumber.get(item.p.trial);
      showTip(
        event,
        h(
          "div",
          { class: "soft" },
          `hypervolume ${item.p.hypervolume.toFixed(4)} after ${macs(item.p.train_macs)}`,
        ),
        ...(t ? trialTip(t) : []),
      );
    } else hideTip();
  });
  host.addEventListener("pointerleave", hideTip);
  host.addEventListener("click", (event) => {
    const item = nearest(spots, event, host, 30);
    if (item) select(item.p.trial);
  });
  return card(
    "How the front grew",
    "Hypervolume of accuracy × log₁₀ cost; a dot is a trial that enlarged it.",
    host,
  );
}
function booksCard() {
  const others = trials.filter((t) => t.state !== "COMPLETE"),
    counts = data.counts || {};
  const told = { FAIL: "failed", PRUNED: "turned away or stopped", RUNNING: "running", WAITING: "waiting" };
  const rows = new Map();
  for (const t of others) {
    // Numbers differ from trial to trial; the reason is what is left without them.
    const reason = t.reason || "no reason recorded",
      key = t.state + "\0" + reason.replace(/\d[\d.,e+-]*/g, "#");
    if (!rows.has(key)) rows.set(key, { state: t.state, reason, numbers: [] });
    rows.get(key).numbers.push(t.number);
  }
  const list = [...rows.values()].sort(
    (a, b) => a.state.localeCompare(b.state) || b.numbers.length - a.numbers.length,
  );
  const links = (numbers) => [
    numbers.slice(0, 8).map((n) => [
      h(
        "button",
        {
          type: "button",
          onclick: () => {
            select(n);
            document.getElementById("details").scrollIntoView({ behavior: "smooth", block: "nearest" });
          },
        },
        String(n),
      ),
      " ",
    ]),
    numbers.length > 8 ? `and ${numbers.length - 8} more` : "",
  ];
  return card(
    "What did not finish",
    `${counts.complete ?? complete.length} complete, ${counts.failed ?? 0} failed, ${counts.turned_away ?? 0} turned away before training (they cost nothing).`,
    list.length
      ? h(
          "div",
          { class: "scroll" },
          h(
            "table",
            {},
            h(
              "thead",
              {},
              h(
                "tr",
                {},
                ["", "n", "reason (of one)", "trials"].map((n) => h("th", { scope: "col" }, n)),
              ),
            ),
            h(
              "tbody",
              {},
              list.map((r) =>
                h(
                  "tr",
                  {},
                  h("td", {}, told[r.state] || r.state),
                  h("td", { class: "num" }, r.numbers.length),
                  h("td", {}, r.reason),
                  h("td", {}, links(r.numbers)),
                ),
              ),
            ),
          ),
        )
      : empty("Every trial in this record is complete."),
  );
}
function foot() {
  const reference = Object.entries(data.reference_point || {})
    .map(([k, v]) => `${words(k)} ${plain(v)}`)
    .join(", ");
  const rows = [
    ["study", plain(data.study)],
    ["seed", plain(data.seed)],
    ["objectives", (data.objectives || []).map((o) => `${o.direction} ${o.name}`).join(", ")],
    ["reference point", reference],
    ["record", data.schema_version ? `schema ${data.schema_version}` : ""],
    ...Object.entries(data.environment || {}).map(([k, v]) => [k, plain(v)]),
  ];
  document.getElementById("foot").append(
    h("h3", {}, "Where this came from"),
    h(
      "dl",
      {},
      rows.filter((r) => r[1] !== "").map(([k, v]) => [h("dt", {}, k), h("dd", {}, v)]),
    ),
    h(
      "p",
      {},
      "Accuracy is on the validation split unless it says test. MACs: convolutions and matrix products of one forward pass of one image, training-time heads excluded; FLOPs = 2 × MACs.",
    ),
  );
}

head();
document
  .getElementById("main")
  .append(
    ...[
      frontSection(),
      tableSection(),
      retrainedSection(),
      curvesSection(),
      h("div", { class: "row" }, importanceCard(), marginalCard()),
      h("div", { class: "row" }, progressCard(), booksCard()),
    ].filter(Boolean),
  );
foot();
const wanted = Number((location.hash.match(/^#trial-(\d+)$/) || [])[1]);
const middle = front[Math.floor(front.length / 2)];
if (byNumber.has(wanted)) select(wanted);
else if (middle) {
  selected = middle.number;
  for (const listener of listeners) listener();
}
