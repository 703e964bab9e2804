// Learning curves.
// ---- Learning curves
function curvesSection() {
  const all = complete.filter((t) => curveOf(t, "val_accuracy").length > 1);
  if (!all.length) return card("Learning curves", null, empty("This record holds no learning curves."));
  const view = remembered("curves", { all: false, name: "val_accuracy" });
  const has = (name) => all.some((t) => curveOf(t, name).length > 1);
  // What schemes have measured of their own goes by its name.
  const measures = [...new Set(all.flatMap((t) => Object.keys(t.measures || {})))];
  const titles = [
    ["val_accuracy", "validation accuracy"],
    ["loss", "training loss"],
    ...measures.map((k) => [k, k.replaceAll("_", " ")]),
  ].filter(([k]) => has(k));
  const host = h("div", { class: "chart" });
  let lines = [],
    spots = [],
    hot = null;
  const place = (t) => (isLog(data.cost) ? Math.log(t[data.cost]) : t[data.cost]);
  const costs = front.filter((t) => usable(data.cost, t[data.cost])).map(place),
    span = costs.length ? [Math.min(...costs), Math.max(...costs)] : [0, 1];
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
      yLabel: titles.find(([k]) => k === view.name)[1],
    });
    if (level !== null)
      f.plot.append(
        s("line", { class: "teacher-line", x1: f.box.x0, x2: f.box.x1, y1: f.y(level), y2: f.y(level) }),
      );
    spots = [];
    lines = some.map((c) => {
      const path = s("path", { d: pathOf(c.list, f.x, f.y) });
      if (c.t.on_front && usable(data.cost, c.t[data.cost])) {
        const share = span[1] > span[0] ? (place(c.t) - span[0]) / (span[1] - span[0]) : 0.5;
        path.style.stroke = `color-mix(in srgb, var(--cheap), var(--dear) ${(100 * share).toFixed(0)}%)`;
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
    if (item) choose(item.t.number);
  });
  return card(
    "Learning curves",
    null,
    figureSavers(host, "learning curves"),
    h(
      "div",
      { class: "bar" },
      check("all trials", view.all, (v) => {
        view.all = v;
        redraw();
      }),
      titles.length > 1
        ? choice("show", titles, view.name, (v) => {
            view.name = v;
            redraw();
          })
        : null,
      h(
        "span",
        { class: "soft" },
        moreIsBetter(data.cost) ? "front, low " : "front, cheap ",
        h("span", { class: "gradient", "aria-hidden": "true" }),
        moreIsBetter(data.cost) ? " high" : " dear",
      ),
    ),
    host,
    h("p", { class: "note" }, "The thick line is the selected trial, or the one under the pointer."),
  );
}
