// Similar texts: the cosines of a handful of texts, and the plane of their first two principal components.
const MOST_TEXTS = 12;

const dot = (a, b) => a.reduce((sum, value, index) => sum + value * b[index], 0);

// The places [n][2] of centered vectors on the plane of their two greatest components, and the share of the variance that it holds.
function plane(vectors) {
  const mean = vectors[0].map((_, column) => vectors.reduce((sum, vector) => sum + vector[column], 0) / vectors.length);
  const centered = vectors.map((vector) => vector.map((value, column) => value - mean[column]));
  // The products of all pairs have the same components as the covariance, and are far fewer.
  const products = centered.map((a) => centered.map((b) => dot(a, b)));
  const variance = products.reduce((sum, row, index) => sum + row[index], 0);
  const places = vectors.map(() => [0, 0]);
  let held = 0;
  for (let component = 0; component < 2; component++) {
    let axis = products.map((_, index) => Math.sin(index + 1)), size = 0;
    for (let step = 0; step < 300; step++) {
      const next = products.map((row) => dot(row, axis));
      size = Math.sqrt(dot(next, next));
      if (size < 1e-12) break;
      axis = next.map((value) => value / size);
    }
    if (size < 1e-12) break;
    held += size;
    places.forEach((place, index) => (place[component] = axis[index] * Math.sqrt(size)));
    products.forEach((row, index) => row.forEach((_, column) => (row[column] -= size * axis[index] * axis[column])));
  }
  return { places, held: variance > 0 ? held / variance : 0 };
}

function similarSection(models) {
  const own = section("similar", models, () => begin());
  const [box, input] = textarea("lines", 6, () => update());
  const shown = make("div", { class: "pair" }), holder = make("div", {}, box);
  let files = [], reads = "text";
  own.node.append(holder, shown, make("p", { class: "note", role: "status" }));
  const update = live(own.node, async (signal) => {
    const model = own.model(), kept = reads === "text" ? await lines(model, signal) : files;
    if (kept.length < 2) {
      shown.replaceChildren();
      note(own.node, reads === "text" || kept.length ? word(reads === "text" ? "needTwo" : "needTwoFiles") : "");
      return;
    }
    const { data } = await ask("v1/embeddings", { model: model.name, input: kept.map(({ content }) => content), encoding_format: "float" }, signal);
    const vectors = data.map(({ embedding }) => embedding).map((vector) => {
      const size = Math.sqrt(dot(vector, vector)) || 1;
      return vector.map((value) => value / size);
    });
    const names = kept.map(({ name }) => name);
    shown.replaceChildren(matrix(names, vectors), map(names, vectors));
  });

  async function lines(model, signal) {
    const all = input.value.split("\n").map((line) => line.trim()).filter(Boolean), texts = all.slice(0, MOST_TEXTS);
    const readable = texts.length > 1 ? await tokensOf(model, texts, signal) : [];
    if (all.length > MOST_TEXTS) note(own.node, word("atMost", MOST_TEXTS));
    return texts.filter((_, index) => readable[index]?.length > 2).map((text) => ({ name: text, content: text }));
  }

  async function begin() {
    const model = own.model();
    if (model.reads !== reads) {
      [reads, files] = [model.reads, []];
      holder.replaceChildren(reads === "text" ? box : fileField(reads, (found) => { files = found; update(0); }, MOST_TEXTS));
    }
    if (reads === "text") input.value ||= (await examplesFor(model)).lines;
    update(0);
  }

  function matrix(texts, vectors) {
    const cosines = vectors.map((vector) => vectors.map((other) => dot(vector, other)));
    // Vectors of some models all point the same way: what counts is how their cosines differ.
    const least = Math.min(...cosines.flat()), digits = least > 0.98 ? 4 : 2;
    const rows = texts.map((text, row) => make("tr", {}, make("th", { scope: "row" }, `${row + 1} `, make("span", { class: "cut", dir: "auto" }, text)),
      ...cosines[row].map((cosine) => make("td", { "--amount": `${(100 * (cosine - least)) / Math.max(1e-9, 1 - least)}%` }, cosine.toFixed(digits)))));
    const width = texts.length > 6 ? "wide alone" : "wide"; // too many columns to stand beside the plane
    return make("div", { class: width, tabindex: "0", role: "region", "aria-label": word("cosines") },
      make("table", { class: "matrix" }, make("caption", {}, word("cosines")),
        make("thead", {}, make("tr", {}, make("td"), ...texts.map((_, index) => make("th", { scope: "col" }, String(index + 1))))), make("tbody", {}, ...rows)));
  }

  function map(texts, vectors) {
    const { places, held } = plane(vectors), most = Math.max(1e-9, ...places.flat().map(Math.abs));
    const at = (value) => 160 + (130 * value) / most;
    const dots = places.flatMap(([x, y], index) => [
      make("circle", { cx: at(x), cy: 320 - at(y), r: 11, class: "dot" }),
      make("text", { x: at(x), y: 324 - at(y), class: "dot-name" }, String(index + 1)),
    ]);
    const caption = word("plane", percent(held));
    return make("figure", {}, make("svg", { viewBox: "0 0 320 320", role: "img", "aria-label": caption },
      make("line", { x1: 10, x2: 310, y1: 160, y2: 160, class: "axis" }), make("line", { x1: 160, x2: 160, y1: 10, y2: 310, class: "axis" }), ...dots),
      make("figcaption", {}, caption));
  }

  return { node: own.node, begin };
}
