// A folder of runs: how far each is, with a link to its page.
document
  .getElementById("head")
  .append(
    h("h1", {}, data.title),
    h("p", { class: "soft" }, "The one that changed last first. The page follows them."),
  );
function when(secondsSince) {
  const at = new Date(1000 * secondsSince);
  const two = (n) => String(n).padStart(2, "0");
  return `${at.getFullYear()}-${two(at.getMonth() + 1)}-${two(at.getDate())} ${two(at.getHours())}:${two(at.getMinutes())}`;
}
function runsCard() {
  const rows = data.runs;
  const columns = [
    ["run", (r) => h("a", { href: `run/${encodeURIComponent(r.folder)}/` }, r.folder), (r) => r.folder, ""],
    ["study", (r) => r.name, (r) => r.name, "extra"],
    [
      "state",
      (r) => h("span", { class: `badge${r.state === "in use" ? " on" : ""}` }, r.state),
      (r) => r.state,
      "",
    ],
    ["trials", (r) => (ok(r.asked) ? `${r.trials} of ${r.asked}` : String(r.trials)), (r) => r.trials, "num"],
    ["front", (r) => `${r.front}${r.retrained ? ", tested" : ""}`, (r) => r.front, "num extra"],
    ["best val acc", (r) => percent(r.best), (r) => r.best, "num"],
    ["size", (r) => bytes(r.size_bytes), (r) => r.size_bytes, "num extra"],
    ["last change", (r) => when(r.changed), (r) => r.changed, "extra"],
  ];
  if (!rows.length) return card("Runs", null, empty("No run yet: naskd search makes one."));
  return card(
    "Runs",
    null,
    tableSaver(
      "runs",
      columns.map(([name, , value]) => [name, value]),
      rows,
    ),
    scrolled(
      "runs",
      h(
        "table",
        {},
        h(
          "thead",
          {},
          h(
            "tr",
            {},
            columns.map(([name, , , cls]) => h("th", { scope: "col", class: cls || null }, name)),
          ),
        ),
        h(
          "tbody",
          {},
          rows.map((r) =>
            h(
              "tr",
              {},
              columns.map(([, text, , cls]) => h("td", { class: cls || null }, text(r))),
            ),
          ),
        ),
      ),
    ),
    rows.filter((r) => r.problem).map((r) => h("p", { class: "note" }, `${r.folder}: ${r.problem}`)),
  );
}
document.getElementById("main").append(runsCard());
document
  .getElementById("foot")
  .append(
    h(
      "p",
      {},
      "In use: a process of this machine works on it. Done: its trials or training MACs are spent. Unfinished: not so, or its budget is in seconds. Empty: nothing was trained yet.",
    ),
  );
