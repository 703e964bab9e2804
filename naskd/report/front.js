// The chart of the front.
// ---- The front
function frontSection() {
  const keys = [...new Set([data.cost, ...data.costs, "macs", "n_params", "size_bytes"])].filter((k) =>
    complete.some((t) => usable(k, t[k])),
  );
  const names = [...new Set(complete.flatMap((t) => Object.keys(t.choices)))].filter(
    (n) => new Set(complete.map((t) => choiceOf(t, n))).size > 1,
  );
  const view = remembered("front", {
    key: keys[0] || data.cost,
    dominated: true,
    tests: true,
    by: "",
    error: false,
    zoom: null,
    limits: {},
  });
  if (!keys.includes(view.key)) view.key = keys[0] || data.cost;
  const host = h("div", {
    class: "chart",
    tabindex: "0",
    role: "group",
    "aria-label": "The front. Arrow keys walk along it.",
  });
  const legend = h("div", { class: "legend" }),
    note = h("p", { class: "note" }),
    budget = budgetControls(view, () => redraw()),
    reset = h(
      "button",
      {
        type: "button",
        hidden: true,
        onclick: () => {
          view.zoom = null;
          redraw();
        },
      },
      "Reset zoom",
    );
  let shown = [],
    spots = [],
    current = null,
    hover = null,
    drag = null;

  const groups = () => {
    if (!view.by) return null;
    const tally = new Map();
    for (const t of complete) {
      const v = choiceOf(t, view.by);
      tally.set(v, (tally.get(v) || 0) + 1);
    }
    const order = [...tally].sort((a, b) => b[1] - a[1]).map((p) => p[0]);
    const rank = new Map(order.map((v, i) => [v, order.length > 8 && i >= 7 ? 7 : i]));
    return {
      rank,
      label: (i) => (order.length > 8 && i === 7 ? `${order.length - 7} others` : order[i]),
      n: Math.min(order.length, 8),
    };
  };

  function draw(width) {
    const key = view.key,
      shows = (t) => usable(key, t[key]) && ok(t.val_accuracy);
    const stars = front.filter(shows),
      rest = view.dominated ? complete.filter((t) => !t.on_front && shows(t)) : [];
    const mine = teacher && ok(teacher.val_accuracy) ? teacher : null;
    const tested = view.tests ? complete.filter((t) => shows(t) && ok(testOf(t)?.test_accuracy_mean)) : [];
    legend.replaceChildren();
    note.textContent = "";
    spots = [];
    if (!stars.length && !rest.length) {
      shown = [];
      return [empty("No complete trial to draw yet.")];
    }
    const xs = [...stars, ...rest].map((t) => t[key]);
    if (mine && usable(key, mine[key])) xs.push(mine[key]);
    const ys = [...(stars.length ? stars : rest).map((t) => t.val_accuracy)];
    // One collapsed trial must not flatten all others into a line: the axis starts near the worst of the bulk.
    if (rest.length)
      ys.push(
        quantile(
          rest.map((t) => t.val_accuracy),
          0.12,
        ),
      );
    if (mine) ys.push(mine.val_accuracy);
    for (const t of tested) {
      const { test_accuracy_mean: mean, test_accuracy_sd: sd, labels_alone: alone } = testOf(t);
      ys.push(mean - (sd || 0), mean + (sd || 0));
      if (ok(alone?.test_accuracy_mean)) ys.push(alone.test_accuracy_mean);
    }
    const low = Math.min(...ys),
      high = Math.max(...ys),
      pad = Math.max(0.04 * (high - low), high > low ? 0.004 : 0.02);
    const domain = view.zoom || {
      x: padCost(key, xs),
      y: [Math.max(low - pad, -0.01), view.error ? 1 - 0.75 * (1 - high) : Math.min(high + pad, 1 + pad)],
    };
    const least =
      Math.min(
        ...[...stars, ...rest, ...(mine ? [mine] : [])]
          .map((t) => 1 - t.val_accuracy)
          .filter((e) => e > 1e-6),
        0.5,
      ) / 2;
    const f = frame(width, width > 620 ? 640 : 400, {
      title: "Accuracy against cost",
      x: (a, b) => costScale(key, domain.x, a, b),
      y: (a, b) =>
        view.error ? logError(domain.y[0], Math.min(domain.y[1], 1), a, b, least) : linear(...domain.y, a, b),
      xText: costTicks(key),
      yText: view.error ? percentTick : percentTicks,
      xLabel: costLabel(key),
      yLabel: `${tested.length ? "accuracy" : "validation accuracy"}${view.error ? " (logarithmic error)" : ""}`,
    });
    const limit = view.limits[key];
    if (ok(limit) && stars.length) {
      // What the budget leaves out lies in the shade.
      const px = Math.min(Math.max(f.x(limit), f.box.x0), f.box.x1),
        [x, end] = moreIsBetter(key) ? [f.box.x0, px] : [px, f.box.x1];
      f.plot.append(
        s("rect", {
          class: "beyond",
          x,
          y: f.box.y1,
          width: Math.max(end - x, 0),
          height: f.box.y0 - f.box.y1,
        }),
        s("line", { class: "limit", x1: px, x2: px, y1: f.box.y0, y2: f.box.y1 }),
      );
    }
    const g = groups();
    const cls = (t, base) => (g ? `${base} marked m${g.rank.get(choiceOf(t, view.by)) ?? 7}` : base);
    const kind = (t) => (g ? (g.rank.get(choiceOf(t, view.by)) ?? 7) : 0);
    const more = moreIsBetter(key),
      starred = stars.map((t) => [t[key], t.val_accuracy]),
      stairs = staircase(starred, more);
    if (stairs.length) {
      const reach = stairs[stairs.length - 1][0],
        end = more ? Math.min(domain.x[0], reach) : Math.max(domain.x[1], reach);
      const line = stepPath([...stairs, [end, stairs[stairs.length - 1][1]]], f.x, f.y);
      f.plot.append(
        s("path", { class: "under", d: `${line}V${f.box.y0}H${f.x(stairs[0][0])}Z` }),
        s("path", { class: "stairs", d: line }),
      );
    }
    if (mine) {
      const y = f.y(mine.val_accuracy);
      f.plot.append(s("line", { class: "teacher-line", x1: f.box.x0, x2: f.box.x1, y1: y, y2: y }));
      if (usable(key, mine[key])) f.plot.append(mark("star", 9, "teacher", f.x(mine[key]), y));
    }
    shown = [];
    for (const t of [...rest, ...stars]) {
      const px = f.x(t[key]),
        py = f.y(t.val_accuracy);
      f.plot.append(
        mark(kind(t), t.on_front ? 5.2 : 3.4, cls(t, t.on_front ? "front" : "dominated"), px, py),
      );
      if (px >= f.box.x0 - 2 && px <= f.box.x1 + 2 && py <= f.box.y0 + 2 && py >= f.box.y1 - 2)
        shown.push({ t, px, py });
    }
    spots = [...shown];
    for (const t of tested) spots.push({ t, ...drawTest(f, key, t) });
    const taken = shown.find((i) => i.t === pickOf(view));
    if (taken) f.plot.append(s("circle", { class: "taken", r: 8, cx: taken.px, cy: taken.py }));
    budget.lay(f, key);
    const ring = s("circle", { class: "ring", r: 10 }),
      halo = s("circle", { class: "hover-ring", r: 8 }),
      rect = s("rect", { class: "zoom" });
    f.over.append(ring, halo, rect);
    current = { f, ring, halo, rect };
    if (g)
      for (let i = 0; i < g.n; i++) legend.append(h("span", {}, swatch(i, `front marked m${i}`), g.label(i)));
    else
      fill(legend, {}, [
        h("span", {}, swatch(0, "front"), data.costs.length > 1 ? "front (in all objectives)" : "front"),
        rest.length ? h("span", {}, swatch(0, "dominated", 3.6), "dominated") : null,
      ]);
    fill(legend, {}, [
      taken ? h("span", {}, swatch(0, "taken", 6), "the one to take") : null,
      tested.length
        ? h(
            "span",
            {},
            swatch(3, "test"),
            tested.some((t) => ok(testOf(t).test_accuracy_sd)) ? "test, mean ± sd over seeds" : "test",
          )
        : null,
      tested.some((t) => ok(testOf(t).labels_alone?.test_accuracy_mean))
        ? h("span", {}, swatch(3, "alone", 4), "the same student with the labels alone, test")
        : null,
      mine
        ? h(
            "span",
            {},
            swatch("star", "teacher", 7),
            `teacher ${percent(mine.val_accuracy)}` +
              (usable(key, mine[key]) ? `, ${costPhrase(key, mine[key])}` : ""),
          )
        : null,
    ]);
    const outside = stars.length + rest.length - shown.length,
      texts = [];
    if (outside)
      texts.push(
        view.zoom
          ? `${outside} trials lie outside this view.`
          : `${outside} of the weakest trials lie below the axis.`,
      );
    if (stairs.length < new Set(stars.map((t) => t[key] + "/" + t.val_accuracy)).size)
      texts.push(
        "The study has other objectives than these two: points beneath the line are on the front because of those.",
      );
    texts.push(
      narrow.matches
        ? "Touch a point for its design."
        : "Hover for the design, click for its details, drag to zoom.",
    );
    note.textContent = texts.join(" ");
    reset.hidden = !view.zoom;
    rings();
    return [f.svg];
  }
  function place(node, item) {
    if (!node) return;
    node.setAttribute("visibility", item ? "visible" : "hidden");
    if (item) {
      node.setAttribute("cx", item.px);
      node.setAttribute("cy", item.py);
    }
  }
  function rings() {
    if (!current) return;
    place(
      current.ring,
      shown.find((i) => i.t.number === selected),
    );
    place(current.halo, hover);
  }
  const redraw = mount(host, draw);
  onSelect(rings);
  const at = (event) => {
    const b = host.getBoundingClientRect();
    return [event.clientX - b.left, event.clientY - b.top];
  };
  host.addEventListener("pointermove", (event) => {
    if (!current) return;
    if (drag) {
      drag.to = at(event);
      const [x0, y0] = drag.from,
        [x1, y1] = drag.to;
      for (const [name, v] of Object.entries({
        x: Math.min(x0, x1),
        y: Math.min(y0, y1),
        width: Math.abs(x1 - x0),
        height: Math.abs(y1 - y0),
      }))
        current.rect.setAttribute(name, v);
      hideTip();
      return;
    }
    hover = nearest(spots, event, host, 28);
    host.style.cursor = hover ? "pointer" : "crosshair";
    rings();
    if (hover) showTip(event, ...trialTip(hover.t));
    else hideTip();
  });
  host.addEventListener("pointerleave", () => {
    hover = null;
    rings();
    hideTip();
  });
  host.addEventListener("pointerdown", (event) => {
    if (event.button === 0 && current && event.pointerType === "mouse") {
      drag = { from: at(event), to: at(event) };
      host.setPointerCapture(event.pointerId);
    }
  });
  host.addEventListener("pointerup", () => {
    if (!drag || !current) return;
    const { from, to } = drag,
      { f } = current;
    drag = null;
    for (const name of ["width", "height"]) current.rect.setAttribute(name, 0);
    if (Math.abs(from[0] - to[0]) > 12 && Math.abs(from[1] - to[1]) > 12) {
      const clamp = (v, a, b) => Math.min(Math.max(v, a), b);
      const px = [from[0], to[0]].map((v) => clamp(v, f.box.x0, f.box.x1)).sort((a, b) => a - b),
        py = [from[1], to[1]].map((v) => clamp(v, f.box.y1, f.box.y0)).sort((a, b) => b - a);
      if (px[1] - px[0] > 4 && py[0] - py[1] > 4) {
        view.zoom = { x: px.map(f.x.invert), y: py.map(f.y.invert) };
        hover = null;
        redraw();
      }
    }
  });
  host.addEventListener("click", (event) => {
    const item = nearest(spots, event, host, 28);
    if (item) choose(item.t.number);
  });
  host.addEventListener("dblclick", () => {
    view.zoom = null;
    redraw();
  });
  host.addEventListener("keydown", (event) => {
    const step = { ArrowRight: 1, ArrowLeft: -1 }[event.key];
    if (!step || !front.length) return;
    event.preventDefault();
    const index = front.findIndex((t) => t.number === selected);
    select(front[Math.min(Math.max(index + step, 0), front.length - 1)].number);
  });
  const bar = h(
    "div",
    { class: "bar" },
    check("dominated trials", view.dominated, (v) => {
      view.dominated = v;
      view.zoom = null;
      redraw();
    }),
    complete.some((t) => ok(testOf(t)?.test_accuracy_mean))
      ? check("test accuracy", view.tests, (v) => {
          view.tests = v;
          redraw();
        })
      : null,
    check("log error", view.error, (v) => {
      view.error = v;
      redraw();
    }),
    keys.length > 1
      ? choice(
          "cost",
          keys.map((k) => [k, words(k)]),
          view.key,
          (v) => {
            view.key = v;
            view.zoom = null;
            redraw();
            budget.say();
          },
        )
      : null,
    names.length
      ? choice("mark by", [["", "nothing"], ...names.map((n) => [n, n])], view.by, (v) => {
          view.by = v;
          redraw();
        })
      : null,
    reset,
  );
  return h(
    "div",
    { class: "row wide" },
    h(
      "section",
      { class: "card", id: "front", "aria-label": "The front" },
      h("div", { class: "spread" }, h("h2", {}, "The front"), figureSavers(host, "front", legend)),
      bar,
      host,
      budget.slider,
      legend,
      note,
      budget.answer,
    ),
    detailsCard(),
  );
}

// ---- Test accuracies beside what the search saw
const testOf = (t) => tests.get(t.number);
function drawTest(f, key, t) {
  const { test_accuracy_mean: mean, test_accuracy_sd: sd, labels_alone: alone } = testOf(t);
  const px = f.x(t[key]),
    py = f.y(mean);
  f.plot.append(s("line", { class: "ghost", x1: px, x2: px, y1: f.y(t.val_accuracy), y2: py }));
  if (ok(alone?.test_accuracy_mean)) f.plot.append(mark(3, 4, "alone", px, f.y(alone.test_accuracy_mean)));
  if (ok(sd)) {
    const [up, down] = [f.y(mean + sd), f.y(mean - sd)];
    f.plot.append(
      s("path", { class: "test-line", d: `M${px},${up}V${down}M${px - 4},${up}h8M${px - 4},${down}h8` }),
    );
  }
  f.plot.append(mark(3, 4, "test", px, py));
  return { px, py };
}
