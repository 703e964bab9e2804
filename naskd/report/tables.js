// The table of the front, and what retraining found.
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
    ...otherCosts.map((k) => col(words(k), k, (v) => costText(k, v))),
    {
      name: "student (width×depth)",
      value: (t) => t.student,
      text: (t) => t.student,
      last: (t) => plain(t.name),
    },
    {
      name: "taught by",
      value: (t) => t.taught_by,
      text: (t) => (ok(t.trained_in) ? `${t.taught_by} (trained in trial ${t.trained_in})` : t.taught_by),
    },
    col("agreement", "teacher_agreement", (v) => percent(v, 1), { down: true, last: null }),
    col("seconds", "wall_seconds", (v) => (ok(v) ? fixed(v, 1) : DASH), { last: null }),
  ].filter(Boolean);
  return card(
    "Designs on the front",
    front.length
      ? `${moreIsBetter(data.cost) ? "Best" : "Cheapest"} first; click a heading to sort, a row for its details. Accuracy of single trainings is optimistic: the best of many was picked on these very images.`
      : null,
    front.length || teacher ? sortable(columns, front, teacher) : empty("No trial is on the front yet."),
  );
}

// ---- Retrained
function retrainedSection() {
  const r = data.retrained;
  if (!r?.designs.length) return null;
  const key = r.designs.some((d) => usable(data.cost, d[data.cost])) ? data.cost : "macs",
    more = moreIsBetter(key);
  const drawn = r.designs
    .filter((d) => usable(key, d[key]) && ok(d.test_accuracy_mean))
    .sort((a, b) => (more ? b[key] - a[key] : a[key] - b[key]));
  const host = h("div", { class: "chart" });
  let shown = [];
  mount(host, (width) => {
    if (!drawn.length) return [empty("No retrained design has a test accuracy.")];
    const ys = drawn
      .flatMap((d) => [
        d.test_accuracy_mean - (d.test_accuracy_sd || 0),
        d.test_accuracy_mean + (d.test_accuracy_sd || 0),
        d.val_accuracy_search,
        d.labels_alone?.test_accuracy_mean,
      ])
      .filter(ok);
    if (ok(r.teacher_test_accuracy)) ys.push(r.teacher_test_accuracy);
    const low = Math.min(...ys),
      high = Math.max(...ys),
      pad = Math.max(0.05 * (high - low), 0.004);
    const f = frame(width, 340, {
      title: "Test accuracy after retraining",
      x: (a, b) => {
        const values = drawn.map((d) => d[key]);
        return costScale(key, padCost(key, values), a, b);
      },
      y: (a, b) => linear(low - pad, Math.min(high + pad, 1 + pad), a, b),
      xText: costTicks(key),
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
    const means = drawn.map((d) => [d[key], d.test_accuracy_mean]),
      stairs = staircase(means, more);
    f.plot.append(
      s("path", {
        class: "test-line",
        d: stepPath([...stairs, [f.x.domain[more ? 0 : 1], stairs[stairs.length - 1][1]]], f.x, f.y),
      }),
    );
    shown = drawn.map((d) => {
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
      const alone = d.labels_alone?.test_accuracy_mean;
      if (ok(alone)) f.plot.append(mark(3, 4, "alone", px, f.y(alone)));
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
  const alone = drawn.some((d) => d.labels_alone);
  const rows = drawn.map((d) => ({
    ...d,
    alone: d.labels_alone?.test_accuracy_mean,
    gain: d.labels_alone?.gain,
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
    ...otherCosts.map((k) => num(words(k), k, (v) => costText(k, v))),
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
    ...(alone
      ? [
          {
            ...num("labels alone", "alone", percent, { down: true }),
            text: (t) => withSd(t.alone, t.labels_alone?.test_accuracy_sd),
          },
          {
            ...num("gain, points", "gain", plain, { down: true }),
            text: (t) => {
              const error = t.labels_alone?.gain_standard_error;
              const said = ok(error) ? ` ± ${fixed(100 * error, formats.percent)}` : "";
              return ok(t.gain) ? points(t.gain) + said : DASH;
            },
          },
        ]
      : []),
    num("seeds", "n", plain),
    num("epochs", "epochs", plain),
    { name: "on front", value: (t) => (t.on_front ? 0 : 1), text: (t) => (t.on_front ? "yes" : "no") },
  ];
  const like = smallestLikeTeacher();
  const error = like
    ? `(${fixed(100 * like.error, formats.percent)} points, binomial on ${r.n_test} test images)`
    : "";
  const verdict = like
    ? like.found
      ? `The smallest student whose mean is within one standard error of the teacher ${error} is trial ${like.found.number}: ${count(like.found.macs)} MACs` +
        (teacher && positive(teacher.macs)
          ? `, ${times(teacher.macs / like.found.macs)} than the teacher.`
          : ".")
      : like.atChance
        ? "The teacher is no better than chance on the test images: nothing is compared with it."
        : `No student's mean is within one standard error of the teacher ${error}.`
    : null;
  return card(
    "After retraining",
    `Fresh seeds${ok(r.seeds) ? ` (${r.seeds})` : ""}, the final schedule${ok(r.epochs) ? ` (${r.epochs} epochs)` : ""}, the sealed test split: the numbers to quote.`,
    verdict ? h("p", {}, verdict) : null,
    r.earlier.length
      ? h(
          "p",
          {},
          `Retrained earlier: ${r.earlier.map((d) => `trial ${d.number}, ${withSd(d.test_accuracy_mean, d.test_accuracy_sd)} n = ${d.n}, ${d.epochs} epochs`).join("; ")}.`,
        )
      : null,
    h(
      "div",
      { class: "legend" },
      h("span", {}, swatch(3, "test"), "test, mean ± sd over seeds"),
      h("span", {}, swatch(0, "ghost-dot", 4), "validation accuracy that the search saw"),
      alone ? h("span", {}, swatch(3, "alone", 4), "the same student with the labels alone, test") : null,
    ),
    h("div", { class: "row" }, host, sortable(columns, rows, null)),
  );
}
