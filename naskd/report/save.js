// Files that are made in the page: figures as SVG and PNG, tables as CSV.
function save(blob, name, ending) {
  const url = URL.createObjectURL(blob);
  const words = [data.study ?? "naskd", name].map((text) => String(text).replace(/[^\w.-]+/g, "-"));
  h("a", { href: url, download: `${words.join("-").slice(0, 120)}.${ending}` }).click();
  setTimeout(() => URL.revokeObjectURL(url), 60_000);
}
const saver = (what, label, make) =>
  h("button", { type: "button", "aria-label": `Save ${what} as ${label}`, onclick: make }, label);

// ---- Figures
const LOOK = [
  "fill",
  "stroke",
  "stroke-width",
  "stroke-dasharray",
  "opacity",
  "font-size",
  "font-family",
  "font-weight",
  "text-anchor",
  "visibility",
];
// Of a mixed colour, as every program reads it.
const plainColour = (text) =>
  text.replace(/color\(srgb ([\d.e-]+) ([\d.e-]+) ([\d.e-]+)\)/, (_, ...rgb) => {
    const whole = rgb.slice(0, 3).map((v) => Math.round(255 * Number(v)));
    return `rgb(${whole.join(", ")})`;
  });
// A copy that needs no style sheet.
function standing(node) {
  const copy = node.cloneNode(true);
  const copies = [copy, ...copy.querySelectorAll("*")];
  [node, ...node.querySelectorAll("*")].forEach((from, i) => {
    const look = getComputedStyle(from);
    for (const name of ["class", "style", "tabindex"]) copies[i].removeAttribute(name);
    for (const name of LOOK) copies[i].setAttribute(name, plainColour(look.getPropertyValue(name)));
  });
  return copy;
}
// The figure with its title and legend, on the card's colour.
function figureOf(host, title, legend) {
  const drawing = host.querySelector("svg");
  if (!drawing) return null;
  const width = Number(drawing.getAttribute("width")),
    inks = getComputedStyle(host),
    out = s("svg", { xmlns: SVG, width });
  const text = (x, y, weight, words) =>
    s(
      "text",
      {
        x,
        y,
        fill: inks.color,
        "font-family": inks.fontFamily,
        "font-size": weight > 400 ? "14px" : "12px",
        "font-weight": weight,
      },
      words,
    );
  const ground = s("rect", { width, fill: getComputedStyle(host.closest(".card") ?? host).backgroundColor });
  out.append(ground, text(10, 20, 600, title));
  const copy = standing(drawing);
  copy.setAttribute("y", 30);
  out.append(copy);
  let x = 10,
    y = 46 + Number(drawing.getAttribute("height"));
  for (const entry of legend ? legend.children : []) {
    const key = entry.querySelector("svg"),
      room = entry.textContent.length * LETTER + 36;
    if (!key || entry.getAttribute("aria-pressed") === "false") continue;
    if (x > 10 && x + room > width) {
      x = 10;
      y += 20;
    }
    const sign = standing(key);
    for (const [name, value] of Object.entries({ x, y: y - 12, width: 16, height: 16 }))
      sign.setAttribute(name, value);
    out.append(sign, text(x + 20, y, 400, entry.textContent));
    x += room;
  }
  const height = y + 12;
  for (const node of [out, ground]) node.setAttribute("height", height);
  return { text: new XMLSerializer().serializeToString(out), width, height };
}
const svgBlob = (figure) => new Blob([figure.text], { type: "image/svg+xml" });
async function pngBlob(figure, sharp = 2) {
  const image = new Image(),
    url = URL.createObjectURL(svgBlob(figure));
  await new Promise((done, failed) => {
    image.onload = done;
    image.onerror = failed;
    image.src = url;
  });
  const canvas = h("canvas", { width: sharp * figure.width, height: sharp * figure.height });
  canvas.getContext("2d").drawImage(image, 0, 0, canvas.width, canvas.height);
  URL.revokeObjectURL(url);
  return new Promise((done) => canvas.toBlob(done, "image/png"));
}
const figureSavers = (host, title, legend) => {
  const of = async (make, ending) => {
    const figure = figureOf(host, title, legend);
    if (figure) save(await make(figure), title, ending);
  };
  return h(
    "span",
    { class: "tools" },
    saver(`the figure “${title}”`, "SVG", () => of(svgBlob, "svg")),
    saver(`the figure “${title}”`, "PNG", () => of(pngBlob, "png")),
  );
};

// ---- Tables: RFC 4180; a text that a spreadsheet would compute has an apostrophe before it, as in front_csv.py.
function csvCell(value) {
  if (value === null || value === undefined || (typeof value === "number" && !Number.isFinite(value)))
    return "";
  let text = String(value);
  if (typeof value !== "number" && /^\s*[=+\-@]|^[\t\r]/.test(text)) text = `'${text}`;
  return /[",\r\n]/.test(text) ? `"${text.replaceAll('"', '""')}"` : text;
}
const csvOf = (columns, rows) =>
  [columns.map(([name]) => name), ...rows.map((row) => columns.map(([, value]) => value(row)))]
    .map((cells) => `${cells.map(csvCell).join(",")}\r\n`)
    .join("");
// Spreadsheets know UTF-8 by its mark.
const tableSaver = (title, columns, rows) =>
  h(
    "span",
    { class: "tools" },
    saver(`the table “${title}”`, "CSV", () =>
      save(new Blob(["\ufeff", csvOf(columns, rows)], { type: "text/csv" }), title, "csv"),
    ),
  );

// ---- A command to copy
function copyable(command) {
  const text = h("code", {}, command);
  const button = h(
    "button",
    {
      type: "button",
      "aria-label": `Copy: ${command}`,
      onclick: async () => {
        getSelection().selectAllChildren(text);
        // Only pages from the disk or over a safe connection have a clipboard.
        let done = false;
        try {
          await navigator.clipboard.writeText(command);
          done = true;
        } catch {
          done = document.execCommand("copy");
        }
        button.textContent = done ? "copied" : "selected";
        setTimeout(() => {
          button.textContent = "copy";
        }, 2000);
      },
    },
    "copy",
  );
  return h("div", { class: "command" }, text, button);
}
