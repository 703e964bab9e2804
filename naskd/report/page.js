// The search itself, where it all came from, and the order of the sections.
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
    // It falls where a design turns out worse with a further seed.
    const low = Math.min(...list.map((p) => p.hypervolume)),
      high = Math.max(...list.map((p) => p.hypervolume)),
      pad = (high - low || 0.1) * 0.08;
    const f = frame(width, 300, {
      title: "Hypervolume against compute",
      x: (a, b) => linear(0, list[list.length - 1].train_macs * 1.02, a, b),
      y: (a, b) => linear(low - pad, high + pad, a, b),
      xText: countTick,
      yText: tickText,
      xLabel: "compute spent on trials, MACs (teachers' answers included)",
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
          `hypervolume ${volume(item.p.hypervolume)} after ${macs(item.p.train_macs)}`,
        ),
        ...(t ? trialTip(t) : []),
      );
    } else hideTip();
  });
  host.addEventListener("pointerleave", hideTip);
  host.addEventListener("click", (event) => {
    const item = nearest(spots, event, host, 30);
    if (item) choose(item.p.trial);
  });
  return card(
    "How the front grew",
    `Hypervolume of ${volumeOf()}; a dot is a trial that enlarged it.`,
    figureSavers(host, "hypervolume"),
    host,
  );
}
function unfinishedCard() {
  const others = trials.filter((t) => t.state !== "COMPLETE"),
    counts = data.counts || {};
  const told = {
    FAIL: "failed",
    RETRIED: "run again",
    PRUNED: "turned away",
    STOPPED: "stopped early",
    RUNNING: "running",
    WAITING: "waiting",
  };
  const rows = new Map();
  for (const t of others) {
    // Numbers differ from trial to trial; the reason is what is left without them.
    const reason = t.reason || "no reason recorded",
      stopped = t.state === "PRUNED" && curveOf(t, "val_accuracy").length,
      state = t.retried ? "RETRIED" : stopped ? "STOPPED" : t.state,
      key = state + "\0" + reason.replace(/\d[\d.,e+-]*/g, "#");
    if (!rows.has(key)) rows.set(key, { state, reason, numbers: [] });
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
          "aria-label": `Details of trial ${n}`,
          onclick: () => {
            choose(n);
            document.getElementById("details").scrollIntoView({ block: "nearest" });
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
    `${counts.complete ?? complete.length} complete, ${counts.failed ?? 0} failed, ${counts.stopped ? `${counts.stopped} stopped early, ` : ""}${counts.turned_away ?? 0} turned away before training (they cost nothing).`,
    tableSaver(
      "not finished",
      [
        ["state", (r) => told[r.state] || r.state],
        ["n", (r) => r.numbers.length],
        ["reason of the first", (r) => r.reason],
        ["trials", (r) => r.numbers.join(" ")],
      ],
      list,
    ),
    scrolled(
      "not finished",
      h(
        "table",
        {},
        h(
          "thead",
          {},
          h(
            "tr",
            {},
            ["state", "n", "reason (of one)", "trials"].map((n) => h("th", { scope: "col" }, n)),
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
    ),
  );
}
// ---- Where it all came from
const dated = (text) => (text ? `${text.replace("T", " ")}, local time of the machine` : "");
const joined = (parts) => parts.filter(Boolean).join(", ");
const aboutTeacher = (t) =>
  t &&
  joined([
    data.provenance?.teachers?.[t.name],
    ok(t.val_accuracy) ? `${percent(t.val_accuracy)} on validation images` : "",
    ok(t.macs) ? `${count(t.macs)} MACs` : "",
    ok(t.n_params) ? `${count(t.n_params)} parameters` : "",
    positive(t.train_macs) ? `${macs(t.train_macs)} to train` : "",
  ]);
function foot() {
  const from = data.provenance || {},
    times = data.times || {},
    images = data.images;
  const reference = Object.entries(data.reference_point || {})
    .map(([k, v]) => `${words(k)} ${plain(v)}`)
    .join(", ");
  const known = data.teachers?.length ? data.teachers : [teacher].filter(Boolean);
  const rows = [
    ["study", plain(data.study)],
    ["seed", plain(data.seed)],
    ["first trial began", dated(times.began)],
    ["last trial ended", dated(times.ended)],
    [
      "time",
      joined([
        ok(times.seconds)
          ? `${seconds(times.seconds)} from the first trial to the last, pauses included`
          : "",
        positive(times.trained_seconds) ? `${seconds(times.trained_seconds)} of training` : "",
      ]),
    ],
    [
      "images",
      images
        ? joined([
            images.kind,
            ...["train", "val", "test"]
              .filter((part) => ok(images[part]))
              .map((part) => `${images[part]} ${part}`),
            ok(images.classes) ? `${images.classes} classes` : "",
          ])
        : "",
    ],
    ["unlabelled images", data.unlabelled ? plain(data.unlabelled.used) : ""],
    [
      "left out, since they are in another split too",
      data.copies
        ? `${data.copies["val in train"] || 0} validation and ${(data.copies["test in train"] || 0) + (data.copies["test in val"] || 0)} test images`
        : "",
    ],
    [
      "students see",
      data.modality ? `${data.modality.name}, ${data.modality.labels ? "with" : "without"} labels` : "",
    ],
    ["sampler", plain(from.sampler)],
    ["stopping rule", plain(from.stopping)],
    ["budget", plain(from.budget)],
    ["objectives", (data.objectives || []).map((o) => `${o.direction} ${o.name}`).join(", ")],
    ["reference point", reference],
    ...known.map((t) => [
      t.name && t.name !== "teacher" ? `teacher ${t.name}` : "teacher",
      aboutTeacher(t) || plain(t.name),
    ]),
    ["epochs of a student", plain(from.epochs)],
    ...(data.warm_start || []).map((w) => [
      "warm start",
      `${w.run}: ${w.designs} designs, ${w.learned} learned from, ${w.first} of its front tried first`,
    ]),
    ["record", data.schema_version ? `schema ${data.schema_version}` : ""],
    ["page made by", from.written_by ? `naskd ${from.written_by}` : ""],
    ...Object.entries(data.environment || {}).map(([k, v]) => [k.replaceAll("_", " "), plain(v)]),
  ];
  const commands = from.commands || [];
  document.getElementById("foot").append(
    h("h2", {}, "Where this came from"),
    h(
      "dl",
      {},
      rows.filter((r) => r[1] !== "").map(([k, v]) => [h("dt", {}, k), h("dd", {}, v)]),
    ),
    ...(commands.length ? [h("h3", {}, "Commands"), ...commands.map(copyable)] : []),
    h(
      "p",
      {},
      "Accuracy is on the validation split unless it says test. MACs: convolutions and matrix products of one forward pass of one image, training-time heads excluded; FLOPs = 2 × MACs.",
    ),
  );
}

// The address says which design; else the one to take without a limit is shown.
const wanted = Number((location.hash.match(/^#trial-(\d+)$/) || [])[1]);
if (byNumber.has(wanted)) chosen.number = wanted;
selected = byNumber.has(chosen.number)
  ? chosen.number
  : (pickOf({ key: data.cost, limits: {} })?.number ?? null);
head();
document
  .getElementById("main")
  .append(
    ...[
      frontSection(),
      tableSection(),
      retrainedSection(),
      parallelCard(),
      h("div", { class: "row" }, slicesCard(), marginalCard()),
      importanceCard(),
      importanceByCostCard(),
      curvesSection(),
      trials.some((t) => t.state !== "COMPLETE")
        ? h("div", { class: "row" }, progressCard(), unfinishedCard())
        : progressCard(),
    ].filter(Boolean),
  );
foot();
if (byNumber.has(wanted)) opener.open();
