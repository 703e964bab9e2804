// Numbers as people read them: what naskd/report/units.py does, by the same table, which it writes into the page.
const formats = data.formats;
const DASH = formats.dash;
const ok = (v) => typeof v === "number" && Number.isFinite(v);
const positive = (v) => ok(v) && v > 0;
// Exact halves go to the even digit, as in Python; toFixed alone rounds them up.
function fixed(v, digits) {
  const long = v.toFixed(digits + 40);
  const cut = long.length - 40 - (digits ? 0 : 1);
  const down = long.slice(0, cut);
  return /^\.?50*$/.test(long.slice(cut)) && "02468".includes(down.at(-1)) ? down : v.toFixed(digits);
}
const trimmed = (text) => (text.includes(".") ? text.replace(/\.?0+$/, "") : text);
function significant(v, digits) {
  const [mantissa, exponent] = v.toExponential(digits - 1).split("e");
  if (v !== 0 && exponent < -4) return `${trimmed(mantissa)}e-${exponent.slice(1).padStart(2, "0")}`;
  return trimmed(fixed(v, Math.max(0, digits - 1 - exponent)));
}
const percent = (v, digits = formats.percent) => (ok(v) ? `${fixed(100 * v, digits)}%` : DASH);
const points = (v) => (v >= 0 ? "+" : "−") + fixed(Math.abs(100 * v), formats.percent);
const withSd = (mean, sd) =>
  ok(mean) && ok(sd)
    ? `${fixed(100 * mean, formats.percent)} ± ${fixed(100 * sd, formats.percent)}%`
    : percent(mean);
function prefixed(v) {
  let power = Math.min(Math.floor(Math.log10(Math.abs(v)) / 3), formats.prefixes.length - 1);
  if (Math.abs(v / 1000 ** power) >= formats.next && power < formats.prefixes.length - 1) power += 1;
  return [v / 1000 ** power, formats.prefixes[power]];
}
function count(v) {
  if (!ok(v)) return DASH;
  if (Math.abs(v) < formats.next || (Number.isInteger(v) && Math.abs(v) < 1000))
    return Number.isInteger(v) ? String(v) : significant(v, 3);
  const [scaled, prefix] = prefixed(v);
  const [, digits] = formats.decimals.find(([below]) => Math.abs(scaled) < below) ?? [0, 0];
  return `${fixed(scaled, digits)} ${prefix}`;
}
function short(v) {
  const [number, prefix] = count(v).split(" ");
  return trimmed(number) + (prefix ? ` ${prefix}` : "");
}
const withUnit = (v, unit) => (ok(v) ? count(v) + (Math.abs(v) >= formats.next ? unit : ` ${unit}`) : DASH);
const macs = (v) => withUnit(v, "MACs");
const bytes = (v) => withUnit(v, "B");
// A value of an objective.
function inUnit(v, unit) {
  if (!ok(v)) return DASH;
  if (unit === "fraction") return percent(v);
  if (unit === "bytes") return bytes(v);
  if (["MACs", "parameters", "bit operations"].includes(unit)) return count(v);
  const text = Math.abs(v) >= formats.next ? fixed(v, 0).replace(/\B(?=(\d{3})+$)/g, ",") : significant(v, 3);
  return unit ? `${text} ${unit}` : text;
}
// A hypervolume; with three objectives it is small.
function volume(v) {
  if (!ok(v)) return DASH;
  const [digits, least] = formats.volume;
  return v > 0 && v < least ? significant(v, 3) : fixed(v, digits);
}
function seconds(v) {
  if (!ok(v)) return DASH;
  if (v < formats.seconds) return `${fixed(v, 1)} s`;
  const whole = Number(fixed(v, 0));
  const minutes = Math.floor(whole / 60);
  return minutes < 60
    ? `${minutes} min ${whole % 60} s`
    : `${Math.floor(minutes / 60)} h ${minutes % 60} min`;
}
function plain(v) {
  if (v === null || v === undefined) return "";
  if (typeof v === "boolean") return v ? "yes" : "no";
  if (typeof v === "number" && !Number.isInteger(v)) return String(+v.toPrecision(4));
  return typeof v === "object" ? JSON.stringify(v) : String(v);
}
// Such as 50000, 50k, 1.5 M or 2e6; of fractions also 12.5%. NaN where it is no such number.
function readNumber(text) {
  // A comma between thousands, as numbers are written here; one that may be decimal is none of ours to guess.
  const thousands = /^[1-9]\d{0,2}(?:,\d{3})+(?:\.\d*)?\s*B?$/;
  const bare = thousands.test(text.trim()) ? text.trim().replaceAll(",", "") : text.trim();
  const found = bare.match(/^(\d+\.?\d*(?:e[+-]?\d+)?|\.\d+)\s*([kMGTP%]?)\s*B?$/i);
  if (!found) return Number.NaN;
  const power = ["", "k", "m", "g", "t", "p"].indexOf(found[2].toLowerCase());
  return Number(found[1]) * (found[2] === "%" ? 0.01 : 1000 ** power);
}

// ---- Ticks: a label says exactly where its tick stands, in as many digits as that needs.
const exact = (v) => +v.toPrecision(9); // without what sums of binary fractions leave behind
const tickText = (v) => String(exact(v));
function countTick(v) {
  if (Math.abs(v) < 1000) return tickText(v);
  const [scaled, prefix] = prefixed(v);
  return `${tickText(scaled)} ${prefix}`;
}
const decimals = (v) => (String(exact(v)).split(".")[1] ?? "").length;
// On an even scale all have the digits of the one that needs most, so that they line up.
const percentTicks = (v, ticks) =>
  `${exact(100 * v).toFixed(Math.max(...ticks.map((t) => decimals(100 * t))))}%`;
const pointsTick = (v) => (exact(v) === 0 ? "0" : (v > 0 ? "+" : "−") + tickText(Math.abs(100 * v)));
const percentTick = (v) => `${tickText(100 * v)}%`;
