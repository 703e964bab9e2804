// Accuracy against one choice.
// ---- Slices
function slicesCard() {
  const title = "Accuracy by one choice";
  const axes = choiceAxes(),
    able = complete.filter((t) => ok(t.val_accuracy));
  if (able.length < 2 || !axes.length)
    return card(title, null, empty("Nothing to draw before two complete trials that chose differently."));
  const view = remembered("slice", { name: axes[0].name });
  if (!axes.some((axis) => axis.name === view.name)) view.name = axes[0].name;
  const host = h("div", { class: "chart" }),
    note = h("p", { class: "note" });
  let spots = [];
  const redraw = mount(host, (width) => {
    const axis = axes.find((a) => a.name === view.name),
      [low, high] = accuracyDomain(),
      pad = Math.max(0.05 * (high - low), 0.004);
    // What designs do not have stands to the left, apart.
    const first = axis.absent ? -0.24 : -0.04;
    const marks = axis.ticks(Math.max(3, Math.floor(width / 90)));
    const texts = new Map(marks.map((m) => [m.at, m.text]));
    const f = frame(width, 360, {
      title,
      x: (a, b) => {
        const q = linear(first, 1.04, a, b);
        q.ticks = () => [...(axis.absent ? [-0.14] : []), ...marks.map((m) => m.at)];
        return q;
      },
      y: (a, b) => linear(low - pad, Math.min(high + pad, 1 + pad), a, b),
      xText: (v) => {
        const text = v < 0 ? NOT_USED : texts.get(v),
          most = axis.wordy ? Math.max(3, Math.floor((width - 90) / (marks.length + 1) / LETTER) - 1) : 99;
        return text.length > most ? `${text.slice(0, most - 1)}…` : text;
      },
      yText: percentTicks,
      xLabel: axis.title,
      yLabel: "validation accuracy",
    });
    spots = [];
    let below = 0;
    for (const t of [...able].sort((a, b) => a.on_front - b.on_front)) {
      const at = axis.at(t),
        apart =
          axis.wordy || at === null
            ? (((t.number * 0.618034) % 1) - 0.5) * Math.min(40, width / (marks.length + 2) / 1.6)
            : 0;
      const px = f.x(at ?? -0.14) + apart,
        py = f.y(t.val_accuracy);
      if (py > f.box.y0) {
        below += 1;
        continue;
      }
      f.plot.append(mark(0, t.on_front ? 4.6 : 3.2, t.on_front ? "front" : "dominated", px, py));
      spots.push({ t, px, py });
    }
    if (axis.absent)
      f.plot.append(
        s("line", { class: "ghost", x1: f.x(-0.04), x2: f.x(-0.04), y1: f.box.y0, y2: f.box.y1 }),
      );
    const mine = spots.find((i) => i.t.number === selected);
    if (mine) f.over.append(s("circle", { class: "ring", r: 9, cx: mine.px, cy: mine.py }));
    note.textContent =
      "A dot is a complete design. Other choices differ, too, and so do costs: this shows where the sampler looked and what it found there." +
      (below ? ` ${below} of the weakest designs lie below the axis.` : "");
    return [f.svg];
  });
  onSelect(redraw);
  host.addEventListener("pointermove", (event) => {
    const item = nearest(spots, event, host, 16);
    if (item) showTip(event, ...trialTip(item.t));
    else hideTip();
  });
  host.addEventListener("pointerleave", hideTip);
  host.addEventListener("click", (event) => {
    const item = nearest(spots, event, host, 16);
    if (item) choose(item.t.number);
  });
  return card(
    title,
    null,
    figureSavers(host, "accuracy by one choice"),
    h(
      "div",
      { class: "bar" },
      choice(
        "choice",
        axes.map((axis) => [
          axis.name,
          ok(axis.share) ? `${axis.title} (${percent(axis.share, 0)})` : axis.title,
        ]),
        view.name,
        (v) => {
          view.name = v;
          redraw();
        },
      ),
    ),
    host,
    note,
  );
}
