// The details of one design.
// ---- One design
function pairs(rows) {
  return h(
    "dl",
    {},
    rows.filter((r) => r && r[1] !== "" && r[1] !== DASH).map(([k, v]) => [h("dt", {}, k), h("dd", {}, v)]),
  );
}
function listing(rows) {
  const names = [...new Set(rows.flatMap((r) => Object.keys(r)))].filter((n) =>
    rows.some((r) => plain(r[n]) !== ""),
  );
  return h(
    "table",
    {},
    h(
      "thead",
      {},
      h(
        "tr",
        {},
        names.map((n) => h("th", {}, n.replaceAll("_", " "))),
      ),
    ),
    h(
      "tbody",
      {},
      rows.map((r) =>
        h(
          "tr",
          {},
          names.map((n) => h("td", {}, plain(r[n]))),
        ),
      ),
    ),
  );
}
const stageRows = (stages) =>
  stages.map((q) => ({
    block: q.block,
    "w × d": `${q.width} × ${q.depth}`,
    kernel: q.kernel,
    expand: q.expansion,
    stride: q.stride,
    SE: q.squeeze_excitation,
    ...(stages.some((s) => s.bits) ? { bits: q.bits ?? 32 } : {}),
  }));
function smallCurve(t, name, label, text) {
  const list = curveOf(t, name);
  if (list.length < 2) return null;
  const host = h("div", { class: "chart" });
  mount(host, (width) => {
    const values = list.map((p) => p[1]),
      level = name === "val_accuracy" && teacher && ok(teacher.val_accuracy) ? [teacher.val_accuracy] : [];
    const low = Math.min(...values, ...level),
      high = Math.max(...values, ...level);
    const pad = (high - low || 0.01) * 0.08;
    const f = frame(width, 165, {
      title: label,
      margin: { left: 50, bottom: 42, right: 8 },
      x: (a, b) => linear(list[0][0], list[list.length - 1][0], a, b),
      y: (a, b) => linear(low - pad, high + pad, a, b),
      xText: tickText,
      yText: text,
      xLabel: `epoch: ${label}`,
    });
    if (level.length)
      f.plot.append(
        s("line", {
          class: "teacher-line",
          x1: f.box.x0,
          x2: f.box.x1,
          y1: f.y(level[0]),
          y2: f.y(level[0]),
        }),
      );
    f.plot.append(s("path", { class: "curve plain", d: pathOf(list, f.x, f.y) }));
    return [f.svg];
  });
  return host;
}
function details(t) {
  const config = t.config || {},
    arch = config.architecture || {},
    kd = config.distillation || {},
    test = tests.get(t.number),
    rep = t.replicates || {};
  const terms = (kd.terms || []).map((q) => ({
    kind: q.kind,
    weight: q.weight,
    weighting: q.weighting,
    T: q.temperature,
    pairs: q.pairs,
    options: (q.options || []).map(([k, v]) => `${k}=${plain(v)}`).join(", "),
  }));
  return [
    h(
      "div",
      { class: "spread" },
      h(
        "h2",
        {},
        `Trial ${t.number}`,
        h(
          "span",
          { class: "badge" + (t.on_front ? " on" : "") },
          t.on_front
            ? "on the front"
            : ok(t.replicate_of)
              ? `again: trial ${t.replicate_of}`
              : t.state === "COMPLETE"
                ? "dominated"
                : t.state.toLowerCase(),
        ),
      ),
    ),
    whyShown(t),
    t.reason ? h("p", {}, t.reason) : null,
    ok(t.trained_in)
      ? h(
          "p",
          { class: "soft" },
          `Trained in trial ${t.trained_in}, whose training gives this design, too. Nothing was spent on it.`,
        )
      : null,
    (t.siblings || []).length
      ? h(
          "p",
          { class: "soft" },
          `Its training also gives trial${t.siblings.length > 1 ? "s" : ""} ${t.siblings.join(", ")}.`,
        )
      : null,
    h(
      "div",
      { class: "pair" },
      h(
        "div",
        {},
        h("div", { class: "big" }, percent(t.val_accuracy)),
        h("div", { class: "soft" }, "validation"),
      ),
      test
        ? h(
            "div",
            {},
            h("div", { class: "big" }, percent(test.test_accuracy_mean)),
            h(
              "div",
              { class: "soft" },
              `test ± ${ok(test.test_accuracy_sd) ? fixed(100 * test.test_accuracy_sd, formats.percent) : DASH} (${test.n} seeds)`,
            ),
          )
        : null,
      h(
        "div",
        {},
        h("div", { class: "big" }, count(t.macs)),
        h("div", { class: "soft" }, `MACs (${ok(t.macs) ? count(2 * t.macs) : DASH} FLOPs)`),
      ),
    ),
    pairs([
      [
        "parameters",
        ok(t.n_params) ? `${count(t.n_params)}${ok(t.size_bytes) ? `, ${bytes(t.size_bytes)}` : ""}` : "",
      ],
      ...otherCosts.filter((k) => k !== "size_bytes").map((k) => [words(k), costText(k, t[k])]),
      teacher && positive(teacher.macs) && positive(t.macs)
        ? ["beside the teacher", `${times(teacher.macs / t.macs)} MACs`]
        : null,
      t.expected ? ["expected, luck aside", withSd(t.expected.mean, t.expected.sd)] : null,
      rep.n > 1 ? ["over seeds", `${withSd(rep.mean, rep.sd)}, n = ${rep.n}`] : null,
      t.failed_again?.length
        ? ["failed with other seeds", `trials ${t.failed_again.join(", ")}, which are in no mean`]
        : null,
      ["agrees with teacher", percent(t.teacher_agreement)],
      ...Object.entries(t.measures || {})
        .filter(([k]) => !otherCosts.includes(k))
        .map(([k, v]) => [k.replaceAll("_", " "), plain(v)]),
      [
        "trained for",
        [
          ok(t.train_macs) ? macs(t.train_macs) : null,
          ok(trainingSeconds(t)) ? seconds(trainingSeconds(t)) : null,
        ]
          .filter(Boolean)
          .join(", "),
      ],
      ["seed", plain(t.seed)],
      ["design", plain(t.config_id)],
    ]),
    (arch.stages || []).length
      ? [h("h3", {}, "Student"), h("div", {}, t.student), listing(stageRows(arch.stages))]
      : null,
    t.config
      ? [
          h("h3", {}, "Taught by"),
          h("div", {}, t.taught_by),
          listing([...terms, { kind: "cross-entropy", weight: kd.ce_weight ?? 1 }]),
          (kd.assistants || []).map((a, i) =>
            h(
              "div",
              { class: "note" },
              `assistant ${i + 1}: `,
              (a.architecture?.stages || []).map((q) => `${q.block} ${q.width}×${q.depth}`).join(" → "),
            ),
          ),
        ]
      : null,
    curveOf(t, "val_accuracy").length > 1 || curveOf(t, "loss").length > 1
      ? [
          h("h3", {}, "Learning curve"),
          smallCurve(t, "val_accuracy", teacher ? "accuracy (dashed: teacher)" : "accuracy", percentTicks),
          smallCurve(t, "loss", "training loss", tickText),
        ]
      : null,
    config.training
      ? [
          h("h3", {}, "Training"),
          h(
            "div",
            {},
            Object.entries(config.training)
              .map(([k, v]) => `${k.replaceAll("_", " ")} ${plain(v)}`)
              .join(" · "),
          ),
        ]
      : null,
    t.error ? h("details", {}, h("summary", {}, "Error"), h("pre", {}, t.error)) : null,
    t.config
      ? [
          h("h3", {}, "Take it away"),
          [
            `show ${run} ${t.number}`,
            `retrain ${run} ${t.number}`,
            `export ${run} ${t.number} --format onnx`,
          ].map((rest) => copyable(`naskd ${rest}`)),
          h(
            "details",
            {},
            h("summary", {}, "Whole design as JSON"),
            h("pre", {}, JSON.stringify(t.config, null, 1)),
          ),
        ]
      : null,
  ];
}
// Nothing is chosen for the reader without a word.
function whyShown(t) {
  if (location.hash === `#trial-${t.number}` || chosen.number !== null) return null;
  return h("p", { class: "note" }, "Shown as long as you choose no other: the most accurate on the front.");
}
// Beside the front; on a narrow screen a page of its own, from which one returns.
function detailsCard() {
  const node = h("section", {
    class: "card details",
    id: "details",
    tabindex: "0",
    "aria-label": "Details of a design",
  });
  const beside = h("div", { class: "beside" });
  const sheet = h(
    "dialog",
    { class: "sheet", "aria-label": "Details of a design", onclose: closed },
    h("button", { type: "button", onclick: () => sheet.close() }, "← Back to the front"),
  );
  let pushed = false;
  const show = () => {
    const t = byNumber.get(selected);
    node.replaceChildren(
      ...(t ? details(t) : [h("h2", {}, "Details"), empty("Click a point to see its design.")])
        .flat(3)
        .filter(Boolean),
    );
    node.scrollTop = 0;
  };
  const place = () => {
    if (!narrow.matches && sheet.open) sheet.close();
    (narrow.matches ? sheet : beside).append(node);
  };
  const open = () => {
    if (!sheet.open) sheet.showModal();
    sheet.scrollTop = 0;
  };
  function closed() {
    if (!location.hash.startsWith("#trial-")) return;
    if (pushed) history.back();
    else address("#");
    pushed = false;
  }
  opener.open = () => {
    if (!narrow.matches) return;
    const hash = `#trial-${selected}`;
    if (location.hash !== hash) {
      pushed = true;
      location.hash = hash;
    }
    open();
  };
  const { signal } = drawn;
  narrow.addEventListener("change", place, { signal });
  // The browser's own way back.
  window.addEventListener(
    "hashchange",
    () => {
      if (sheet.open && !location.hash.startsWith("#trial-")) sheet.close();
    },
    { signal },
  );
  onSelect(show);
  show();
  place();
  return [beside, sheet];
}
