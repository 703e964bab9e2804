// The table of the front, and what retraining found.
// ---- Tables
// Of a column: its name, and that in a file, where accuracies are fractions; whether it is numbers, a value to sort and
// save by, its text, whether narrow screens have it.
function sortable(title, columns, rows, last) {
  const body = h("tbody", { class: "pickable" });
  const order = remembered(`table ${title}`, { by: null, down: false });
  let by = columns.find((c) => c.name === order.by) ?? null,
    down = order.down;
  const classes = (c) =>
    [c.num ? "num" : "", c.strong ? "strong" : "", c.extra ? "extra" : ""].join(" ").trim() || null;
  const heads = columns.map((c) => {
    const arrow = h("span", { "aria-hidden": "true" }, "");
    const th = h(
      "th",
      { class: classes(c), scope: "col" },
      h(
        "button",
        {
          type: "button",
          onclick: () => {
            down = by === c ? !down : !!c.down;
            by = c;
            Object.assign(order, { by: c.name, down });
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
    const sorted = by
      ? [...rows].sort((a, b) => {
          const x = value(a),
            y = value(b);
          if (x === null || y === null) return (x === null) - (y === null);
          return (x < y ? -1 : x > y ? 1 : 0) * (down ? -1 : 1);
        })
      : rows;
    body.replaceChildren(
      ...sorted.map((t) =>
        h(
          "tr",
          {
            class: t.number === selected ? "picked" : null,
            tabindex: "0",
            onclick: () => choose(t.number),
            onkeydown: (e) => {
              if (e.key === "Enter") choose(t.number);
            },
          },
          columns.map((c) => h("td", { class: classes(c) }, c.text(t))),
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
          columns.map((c) => h("td", { class: classes(c) }, c.last ? c.last(last) : "")),
        ),
      )
    : null;
  const table = h(
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
  );
  const saved = columns.flatMap((c) => [[c.saved ?? c.name, c.value], ...(c.more ?? [])]);
  return [tableSaver(title, saved, rows), scrolled(title, table)];
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
  const expects = !tests.size && front.some((t) => t.expected);
  const columns = [
    col("trial", "number", plain, { last: () => "teacher" }),
    {
      ...col("validation", "val_accuracy", percent, { strong: true, down: true }),
      text: (t) =>
        t.replicates && t.replicates.n > 1
          ? `${withSd(t.replicates.mean, t.replicates.sd)} (${t.replicates.n})`
          : percent(t.val_accuracy),
      more: [["sd of validation", (t) => t.replicates?.sd]],
    },
    expects
      ? {
          name: "expected",
          extra: true,
          num: true,
          down: true,
          value: (t) => t.expected?.mean,
          text: (t) => withSd(t.expected?.mean, t.expected?.sd),
          last: () => "",
          more: [["sd of expected", (t) => t.expected?.sd]],
        }
      : null,
    tests.size
      ? {
          name: "test",
          extra: true,
          num: true,
          down: true,
          value: (t) => tests.get(t.number)?.test_accuracy_mean,
          text: (t) => {
            const d = tests.get(t.number) || {};
            return withSd(d.test_accuracy_mean, d.test_accuracy_sd);
          },
          last: () => percent(data.retrained.teacher_test_accuracy),
          more: [
            ["sd of test", (t) => tests.get(t.number)?.test_accuracy_sd],
            ["seeds of test", (t) => tests.get(t.number)?.n],
          ],
        }
      : null,
    col("MACs", "macs", count, { strong: true }),
    col("parameters", "n_params", count, { extra: true }),
    ...otherCosts.map((k) => col(words(k), k, (v) => costText(k, v), { extra: k !== data.cost })),
    {
      name: "student (width×depth)",
      value: (t) => t.student,
      text: (t) => t.student,
      last: (t) => plain(t.name),
    },
    {
      name: "taught by",
      extra: true,
      value: (t) => t.taught_by,
      text: (t) => (ok(t.trained_in) ? `${t.taught_by} (trained in trial ${t.trained_in})` : t.taught_by),
    },
    col("agreement", "teacher_agreement", (v) => percent(v, 1), { down: true, last: null, extra: true }),
    {
      ...col("seconds", "wall_seconds", plain, { last: null, extra: true }),
      value: trainingSeconds,
      text: (t) => (ok(trainingSeconds(t)) ? fixed(trainingSeconds(t), 1) : DASH),
    },
  ].filter(Boolean);
  return card(
    "Designs on the front",
    front.length
      ? `${moreIsBetter(data.cost) ? "Best" : "Cheapest"} first; choose a heading to sort, a row for its details. Accuracy of single trainings is optimistic: the best of many was picked on these very images.${expects ? " What is expected takes that luck off, by what all trials say together." : ""}`
      : null,
    front.length || teacher
      ? sortable("front", columns, front, teacher)
      : empty("No trial is on the front yet."),
  );
}

// ---- Retrained
function retrainedSection() {
  const r = data.retrained;
  if (!r?.designs.length) return null;
  const key = r.designs.some((d) => usable(data.cost, d[data.cost])) ? data.cost : "macs",
    more = moreIsBetter(key);
  const tested = r.designs
    .filter((d) => ok(d.test_accuracy_mean))
    .sort((a, b) => (more ? b[key] - a[key] : a[key] - b[key]));
  const alone = tested.some((d) => d.labels_alone);
  const rows = tested.map((d) => ({
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
    ...otherCosts.map((k) => num(words(k), k, (v) => costText(k, v), { extra: true })),
    num("in the search", "val_accuracy_search", percent, { down: true, extra: true }),
    {
      name: "test, mean ± sd",
      num: true,
      strong: true,
      down: true,
      value: (t) => t.test_accuracy_mean,
      text: (t) => withSd(t.test_accuracy_mean, t.sd),
      more: [["sd of test", (t) => t.sd]],
    },
    num("change, points", "loss", (v) => (ok(v) ? points(v) : DASH), { extra: true, saved: "change" }),
    ...(alone
      ? [
          {
            ...num("labels alone", "alone", percent, { down: true, extra: true }),
            text: (t) => withSd(t.alone, t.labels_alone?.test_accuracy_sd),
          },
          {
            ...num("gain, points", "gain", plain, { down: true, saved: "gain" }),
            text: (t) => {
              const error = t.labels_alone?.gain_standard_error;
              const said = ok(error) ? ` ± ${fixed(100 * error, formats.percent)}` : "";
              return ok(t.gain) ? points(t.gain) + said : DASH;
            },
          },
        ]
      : []),
    num("seeds", "n", plain, { extra: true }),
    num("epochs", "epochs", plain, { extra: true }),
    {
      name: "on front",
      extra: true,
      down: true,
      value: (t) => (t.on_front ? "yes" : "no"),
      text: (t) => (t.on_front ? "yes" : "no"),
    },
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
    sortable("retrained", columns, rows, null),
  );
}
