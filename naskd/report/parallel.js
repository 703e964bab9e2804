// What designs chose, all choices side by side.
// ---- Parallel coordinates
function parallelCard() {
  const title = "Designs, choice by choice";
  const able = complete.filter((t) => ok(t.val_accuracy) && usable(data.cost, t[data.cost]));
  const axes = choiceAxes();
  if (able.length < 2 || !axes.length)
    return card(title, null, empty("Nothing to draw before two complete trials that chose differently."));
  const view = remembered("parallel", { from: 0, dominated: !narrow.matches, brushes: {} });
  const costs = able.map((t) => t[data.cost]),
    [low, high] = accuracyDomain();
  const ends = [
    axisOf(`cost:${data.cost}`, (t) => t[data.cost], {
      scale: isLog(data.cost) ? log : linear,
      domain:
        Math.min(...costs) < Math.max(...costs)
          ? [Math.min(...costs), Math.max(...costs)]
          : padCost(data.cost, costs),
      text: costTicks(data.cost),
      more: { title: words(data.cost), absent: false },
    }),
    axisOf("val_accuracy", (t) => t.val_accuracy, {
      scale: linear,
      domain: low < high ? [low, high] : [low - 0.01, high + 0.01],
      text: percentTicks,
      more: { title: "validation accuracy", absent: false },
    }),
  ];
  const host = h("div", { class: "chart parallel" }),
    note = h("p", { class: "note" }),
    pages = h("span", {});
  const clear = h(
    "button",
    {
      type: "button",
      onclick: () => {
        view.brushes = {};
        redraw();
      },
    },
    "Clear filters",
  );
  let current = null,
    hot = null;

  // A brush is what it lets through, so that it says the same when new trials have moved the axis.
  const lets = (axis, brush, t) => {
    const v = axis.value(t);
    if (v === undefined || v === null) return brush.absent;
    if (axis.wordy) return brush.labels.includes(v);
    // What lies beyond the end of an axis is drawn at its end.
    const at = axis.at(t);
    return at >= axis.place(brush.low) - 1e-9 && at <= axis.place(brush.high) + 1e-9;
  };
  const brushOf = (axis, a, b) => {
    const [from, to] = [Math.min(a, b), Math.max(a, b)],
      absent = axis.absent && from < -0.04;
    if (axis.wordy)
      return { absent, labels: axis.labels.filter((l) => axis.place(l) >= from && axis.place(l) <= to) };
    const inside = (p) => axis.invert(Math.min(Math.max(p, 0), 1));
    return to < 0
      ? { absent, low: Infinity, high: -Infinity }
      : { absent, low: inside(from), high: inside(to) };
  };
  const spanOf = (axis, brush) => {
    const half = axis.wordy ? 0.45 / axis.labels.length : 0;
    const places = axis.wordy
      ? brush.labels.filter((l) => axis.labels.includes(l)).map(axis.place)
      : brush.low <= brush.high
        ? [axis.place(brush.low), axis.place(brush.high)]
        : [];
    const ends = [...places.flatMap((p) => [p - half, p + half]), ...(brush.absent ? [-0.16, -0.08] : [])];
    return ends.length ? [Math.min(...ends), Math.max(...ends)] : null;
  };
  const saidOf = (axis, brush) => {
    if (axis.wordy) return [...brush.labels, ...(brush.absent ? [NOT_USED] : [])].join(", ") || "nothing";
    if (!(brush.low <= brush.high)) return brush.absent ? NOT_USED : "nothing";
    return `${plain(brush.low)} to ${plain(brush.high)}${brush.absent ? `, ${NOT_USED}` : ""}`;
  };
  const passes = (t) =>
    [...axes, ...ends].every((axis) => !view.brushes[axis.name] || lets(axis, view.brushes[axis.name], t));

  const redraw = mount(host, (width) => {
    const flat = width < 620,
      fit = flat ? 6 : Math.max(2, Math.min(9, Math.floor(width / 125) - 2));
    view.from = Math.min(view.from, Math.max(0, axes.length - 1));
    view.from -= view.from % fit;
    const some = [...axes.slice(view.from, view.from + fit), ...ends];
    const height = flat ? 74 * some.length + 16 : 420;
    const svg = s("svg", {
      width,
      height,
      viewBox: `0 0 ${width} ${height}`,
      role: "group",
      "aria-label": title,
    });
    // Axes stand side by side; on a narrow screen they lie one beneath the other.
    const step = flat
      ? 74
      : (width - 60) / Math.max(some.length - 1, 1) - (some.length > 1 ? 40 / (some.length - 1) : 0);
    const along = flat ? [64, width - 26] : [height - 66, 52];
    const bare = flat ? [20, width - 26] : along;
    const fixedAt = (i) => (flat ? 40 + i * step : 30 + i * step);
    const reach = (axis) => (axis.absent || !flat ? along : bare);
    const px = (axis, p) => reach(axis)[0] + (reach(axis)[1] - reach(axis)[0]) * p;
    const pointOf = (axis, i, t) => {
      const at = axis.at(t) ?? -0.12;
      // Equal words lie a little apart, so that many designs are seen as many.
      const apart =
        axis.wordy || at < 0
          ? (((t.number * 0.618034) % 1) - 0.5) *
            Math.min(14, (0.5 * Math.abs(along[1] - along[0])) / (axis.labels?.length || 12))
          : 0;
      const v = px(axis, at) + apart;
      return flat ? [v, fixedAt(i)] : [fixedAt(i), v];
    };
    const lines = able
      .filter((t) => view.dominated || t.on_front || t.number === selected)
      .sort((a, b) => a.on_front - b.on_front)
      .map((t) => ({ t, list: some.map((axis, i) => pointOf(axis, i, t)), on: passes(t) }));
    const drawnLines = s("g", {}),
      over = s("g", {});
    for (const line of lines) {
      line.path = s("path", {
        d: pathOf(
          line.list,
          (v) => v,
          (v) => v,
        ),
      });
      drawnLines.append(line.path);
    }
    svg.append(drawnLines, over);
    for (const [i, axis] of some.entries()) over.append(drawAxis(axis, i));
    current = { some, lines, flat, px, fixedAt, along, step };
    heat();
    say(lines, some, fit);
    return [svg];

    function drawAxis(axis, i) {
      const at = fixedAt(i),
        brush = view.brushes[axis.name],
        span = brush && spanOf(axis, brush);
      const xy = (v, off) => (flat ? { x: v, y: at + off } : { x: at + off, y: v });
      const ends = reach(axis);
      const node = s("g", {
        class: "axis-of",
        tabindex: "0",
        role: "slider",
        "data-axis": axis.name,
        "aria-label": `Filter by ${axis.title}. Arrow keys move the filter, Escape clears it.`,
        "aria-orientation": flat ? "horizontal" : "vertical",
        "aria-valuemin": 0,
        "aria-valuemax": 100,
        "aria-valuenow": span ? Math.round(50 * (span[0] + span[1])) : 50,
        "aria-valuetext": brush ? saidOf(axis, brush) : "all",
        onkeydown: (event) => keyed(event, axis),
      });
      node.append(
        s(
          "line",
          flat
            ? { class: "rail", x1: ends[0], x2: ends[1], y1: at, y2: at }
            : { class: "rail", x1: at, x2: at, y1: ends[0], y2: ends[1] },
        ),
      );
      if (span) {
        const [a, b] = span.map((p) => px(axis, Math.min(Math.max(p, -0.18), 1)));
        const from = Math.min(a, b) - 2,
          size = Math.abs(a - b) + 4;
        node.append(
          s("rect", {
            class: "brush",
            ...(flat
              ? { x: from, y: at - 8, width: size, height: 16 }
              : { x: at - 8, y: from, width: 16, height: size }),
          }),
        );
      }
      const long = Math.abs(ends[1] - ends[0]);
      const marks = axis.ticks(flat ? 4 : 6);
      const room = flat ? (axis.wordy ? long / marks.length : 90) : step - 16;
      const cut = (text, space) => {
        const most = Math.max(3, Math.floor(space / LETTER));
        return text.length > most ? `${text.slice(0, most - 1)}…` : text;
      };
      const label = (p, text, space = room) => {
        const v = px(axis, p);
        const last = !flat && i === some.length - 1;
        const place = flat
          ? { ...xy(v, 22), "text-anchor": p > 0.97 ? "end" : p < 0.03 && p >= 0 ? "start" : "middle" }
          : { x: at + (last ? -8 : 8), y: v + 4, "text-anchor": last ? "end" : "start" };
        return s("text", { class: "tick", ...place }, cut(text, space), s("title", {}, text));
      };
      for (const { at: p, text } of marks) {
        const v = px(axis, p);
        node.append(
          s(
            "line",
            flat
              ? { class: "rail", x1: v, x2: v, y1: at - 3, y2: at + 3 }
              : { class: "rail", x1: at - 3, x2: at + 3, y1: v, y2: v },
          ),
          label(p, text),
        );
      }
      if (axis.absent) node.append(label(-0.12, NOT_USED, 80));
      const share = ok(axis.share) ? ` (${percent(axis.share, 0)})` : "";
      if (flat) node.append(s("text", { class: "label", x: 6, y: at - 14 }, axis.title + share));
      else {
        const anchor = i === 0 ? "start" : i === some.length - 1 ? "end" : "middle";
        const x = i === 0 ? at - 24 : i === some.length - 1 ? at + 24 : at;
        const most = step - 6;
        // A name breaks where it has a dot.
        const words = (
          axis.title.length * LETTER > most ? axis.title.replace(/\./g, ". ") : axis.title
        ).split(" ");
        const rows = wrapped(words.join(" "), most).slice(0, 2);
        for (const [row, text] of rows.entries())
          node.append(
            s(
              "text",
              { class: "label", x, y: 16 + 14 * row, "text-anchor": anchor },
              cut(text.replace(/\. /g, "."), most),
              s("title", {}, axis.title),
            ),
          );
        if (share)
          node.append(
            s("text", { x, y: height - 8, "text-anchor": anchor }, `explains${share}`.replace(/[()]/g, "")),
          );
      }
      return node;
    }
  });
  function say(lines, some, fit) {
    const filtered = Object.keys(view.brushes).length > 0,
      kept = lines.filter((line) => line.on);
    clear.hidden = !filtered;
    const n = some.length - 2;
    const first = view.from + 1;
    const which =
      axes.length > n ? `choices ${first} to ${view.from + n} of ${axes.length}` : `all ${n} choices`;
    const names = kept.map((line) => line.t).sort((a, b) => b.val_accuracy - a.val_accuracy);
    note.textContent =
      `Drawn: ${lines.length} of ${able.length} complete designs, by ${which} that differ` +
      `${axes.some((axis) => ok(axis.share)) ? ", those first that explain most of accuracy" : ""}. ` +
      `Drag along an axis to filter` +
      (filtered
        ? `: ${kept.length} designs pass${names.length ? `, the most accurate is trial ${names[0].number} with ${percent(names[0].val_accuracy)}` : ""}.`
        : ".");
    pages.replaceChildren(
      ...(axes.length > fit
        ? [
            choice(
              "choices",
              Array.from({ length: Math.ceil(axes.length / fit) }, (_, i) => [
                String(i * fit),
                `${i * fit + 1} to ${Math.min((i + 1) * fit, axes.length)}`,
              ]),
              String(view.from),
              (v) => {
                view.from = Number(v);
                redraw();
              },
            ),
          ]
        : []),
    );
  }
  function heat() {
    for (const line of current.lines) {
      const picked = line.t.number === (hot ?? selected);
      line.path.setAttribute(
        "class",
        `strand ${picked ? "hot" : !line.on ? "off" : line.t.on_front ? "of-front" : ""}`,
      );
      if (picked) line.path.parentNode.append(line.path);
    }
  }
  function put(axis, brush) {
    if (brush) view.brushes[axis.name] = brush;
    else delete view.brushes[axis.name];
    redraw();
  }
  function keyed(event, axis) {
    const way = { ArrowUp: 1, ArrowRight: 1, ArrowDown: -1, ArrowLeft: -1 }[event.key];
    if (event.key === "Escape") put(axis, null);
    else if (way) {
      // A window of a third of the axis, or of one word.
      const half = axis.wordy ? 0.5 / axis.labels.length : 1 / 6;
      const span = view.brushes[axis.name] && spanOf(axis, view.brushes[axis.name]);
      const middle = span
        ? (span[0] + span[1]) / 2 + way * (axis.wordy ? 2 * half : 0.1)
        : way > 0
          ? half
          : 1 - half;
      const at = Math.min(Math.max(middle, axis.absent ? -0.12 : half), 1 - half);
      put(axis, at < 0 ? brushOf(axis, -0.2, -0.05) : brushOf(axis, Math.max(at - half, 0), at + half));
    } else return;
    event.preventDefault();
    [...host.querySelectorAll("[data-axis]")].find((node) => node.dataset.axis === axis.name)?.focus();
  }
  // ---- With the pointer
  let drag = null;
  const spot = (event) => {
    const box = host.getBoundingClientRect(),
      p = [event.clientX - box.left, event.clientY - box.top];
    return current.flat ? [p[1], p[0]] : p;
  };
  const axisAt = ([across, on]) => {
    const i = current.some.findIndex(
      (_, k) => Math.abs(current.fixedAt(k) - across) < (current.flat ? 22 : 16),
    );
    const axis = current.some[i];
    return i < 0 || on < 0 ? null : axis;
  };
  const placeOn = (axis, on) => {
    const [a, b] = [current.px(axis, 0), current.px(axis, 1)];
    return (on - a) / (b - a);
  };
  const under = ([across, on]) => {
    const i = Math.floor((across - current.fixedAt(0)) / current.step);
    if (i < 0 || i >= current.some.length - 1) return null;
    const share = (across - current.fixedAt(i)) / current.step,
      k = current.flat ? 0 : 1;
    let best = null,
      least = 9;
    for (const line of current.lines.filter((l) => l.on)) {
      const d = Math.abs(line.list[i][k] * (1 - share) + line.list[i + 1][k] * share - on);
      if (d < least) [best, least] = [line, d];
    }
    return best;
  };
  host.addEventListener("pointerdown", (event) => {
    if (!current || event.button !== 0) return;
    const at = spot(event),
      axis = axisAt(at);
    if (!axis) return;
    drag = { axis, from: placeOn(axis, at[1]), moved: false };
    host.setPointerCapture(event.pointerId);
  });
  host.addEventListener("pointermove", (event) => {
    if (!current) return;
    const at = spot(event);
    if (drag) {
      const to = placeOn(drag.axis, at[1]);
      if (Math.abs(to - drag.from) > 0.015) drag.moved = true;
      if (drag.moved) {
        const brush = brushOf(drag.axis, drag.from, to);
        if (!drag.axis.wordy || brush.labels.length || brush.absent) put(drag.axis, brush);
      }
      hideTip();
      return;
    }
    const line = under(at);
    host.style.cursor = axisAt(at) ? "crosshair" : line ? "pointer" : "";
    if ((line?.t.number ?? null) !== hot) {
      hot = line?.t.number ?? null;
      heat();
    }
    if (line) showTip(event, ...trialTip(line.t));
    else hideTip();
  });
  const release = () => {
    if (drag && !drag.moved && view.brushes[drag.axis.name]) put(drag.axis, null);
    const was = drag;
    drag = null;
    return was;
  };
  host.addEventListener("pointerup", (event) => {
    if (release() || !current) return;
    const line = under(spot(event));
    if (line) choose(line.t.number);
  });
  host.addEventListener("pointercancel", release);
  host.addEventListener("pointerleave", () => {
    hot = null;
    if (current) heat();
    hideTip();
  });
  onSelect(() => {
    if (current) heat();
  });
  return card(
    title,
    null,
    figureSavers(host, "choices side by side"),
    h(
      "div",
      { class: "bar" },
      check("dominated trials", view.dominated, (v) => {
        view.dominated = v;
        redraw();
      }),
      pages,
      clear,
    ),
    host,
    h(
      "div",
      { class: "legend" },
      h("span", {}, lineSwatch("strand of-front"), "front"),
      h("span", {}, lineSwatch("strand"), "dominated"),
      h("span", {}, lineSwatch("strand hot"), "selected"),
    ),
    note,
  );
}
const lineSwatch = (cls) =>
  s("svg", { viewBox: "-8 -8 16 16", "aria-hidden": "true" }, s("path", { d: "M-8,0H8", class: cls }));
