// Line charts: few points, round numbers at the axes.
const CHART = { width: 520, height: 240, left: 56, right: 12, top: 10, bottom: 38 }, MOST_POINTS = 160;

// At most `most` points [step, value]: all but the first and the last are averaged in equal groups.
function thinned(points, most = MOST_POINTS) {
  if (points.length <= most) return points;
  const found = [points[0]], inner = points.length - 2, edge = (index) => 1 + Math.round((index * inner) / (most - 2));
  for (let index = 0; index < most - 2; index++) {
    const group = points.slice(edge(index), edge(index + 1)), mean = (place) => group.reduce((sum, point) => sum + point[place], 0) / group.length;
    found.push([mean(0), mean(1)]);
  }
  return [...found, points.at(-1)];
}

// Multiples of 1, 2 or 5 times a power of ten that enclose the range.
function ticks(low, high, most) {
  const power = 10 ** Math.floor(Math.log10((high - low) / most));
  const size = [1, 2, 5, 10, 20].map((factor) => factor * power).find((step) => Math.ceil(high / step) - Math.floor(low / step) <= most);
  const first = Math.floor(low / size), count = Math.ceil(high / size) - first + 1;
  return Array.from({ length: count }, (_, index) => Number(((first + index) * size).toPrecision(12)));
}

function shortNumber(value, share) {
  if (share) return percent(value);
  const size = Math.abs(value);
  if (size >= 1e6) return `${Number((value / 1e6).toPrecision(3))} M`;
  if (size >= 1e4) return `${Number((value / 1e3).toPrecision(3))} k`;
  return String(Number(value.toPrecision(size >= 1 ? 4 : 3)));
}

function axis(low, high, from, to) {
  return (value) => from + ((value - low) / (high - low || 1)) * (to - from);
}

// A figure of series { name, kind, points }, the kinds being train and held; with a reference line if `level` is [name, value].
function chart(title, series, share, level) {
  const drawn = series.filter(({ points }) => points.length).map((one) => ({ ...one, points: thinned(one.points) }));
  const { width, height, left, right, top, bottom } = CHART, all = drawn.flatMap(({ points }) => points);
  const values = [...all.map(([, value]) => value), ...(level ? [level[1]] : [])];
  let low = Math.min(...values), high = Math.max(...values);
  if (high - low <= 1e-9 * Math.max(1e-9, Math.abs(high))) [low, high] = [low - (Math.abs(low) / 10 || 1), high + (Math.abs(high) / 10 || 1)];
  const marks = ticks(low, high, 5), last = Math.max(1, ...all.map(([step]) => step)), steps = ticks(0, last, 5).filter((step) => step <= last && Number.isInteger(step));
  const x = axis(0, last, left, width - right), y = axis(marks[0], marks.at(-1), height - bottom, top);
  const now = drawn.map(({ name, points }) => `${name} ${shortNumber(points.at(-1)[1], share)}`).join(", ");
  const line = ({ kind, points }) => [
    make("path", { class: `line ${kind}`, d: points.map(([step, value], index) => `${index ? "L" : "M"}${x(step).toFixed(1)} ${y(value).toFixed(1)}`).join("") }),
    ...(kind === "held" || points.length === 1 ? points.map(([step, value]) => make("circle", { class: `point ${kind}`, cx: x(step), cy: y(value), r: 3 })) : []),
  ];
  return make("figure", { class: "chart" }, make("figcaption", {}, make("b", {}, title), " ",
    ...drawn.flatMap(({ name, kind }) => [make("span", { class: `key ${kind}` }, name), " "]), level ? make("span", { class: "key level" }, level[0]) : null),
    make("svg", { viewBox: `0 0 ${width} ${height}`, role: "img", "aria-label": word("chart", title, now) },
      ...marks.flatMap((mark) => [
        make("line", { class: "axis", x1: left, x2: width - right, y1: y(mark), y2: y(mark) }),
        make("text", { class: "tick", x: left - 7, y: y(mark) + 4, "text-anchor": "end" }, share ? `${Number((100 * mark).toPrecision(6))}%` : shortNumber(mark)),
      ]),
      ...steps.map((step) => make("text", { class: "tick", x: x(step), y: height - bottom + 17, "text-anchor": "middle" }, shortNumber(step))),
      make("text", { class: "tick", x: (left + width - right) / 2, y: height - 4, "text-anchor": "middle" }, word("step")),
      level ? make("line", { class: "level", x1: left, x2: width - right, y1: y(level[1]), y2: y(level[1]) }) : make("g"),
      ...drawn.flatMap(line)));
}
