// A run: its state, curves that grow while it trains, the same numbers as a table, and its examples.
const EVERY = 2000, MOST_ROWS = 24;

function runSection(modelsChanged) {
  const node = make("section", { id: "run", "aria-labelledby": "run-title" }, make("h2", { id: "run-title", say: "run" }), make("p", { class: "help", say: "runHelp" }));
  const state = make("p", { class: "state", role: "status" }), stages = make("div"), examples = make("div");
  const shown = new Map(); // by stage: what was read, and where it is drawn
  let models = null, last = null, panels = "";
  node.append(state, stages, examples, make("p", { class: "note", role: "status" }));

  async function look() {
    if (document.hidden && last) return;
    const run = await ask("run");
    for (const stage of run.stages) await read(stage);
    for (const [name, { box }] of shown) if (!run.stages.some((stage) => stage.name === name)) { box.remove(); shown.delete(name); }
    last = run;
    draw();
    if (models !== null && models !== run.models) modelsChanged();
    models = run.models;
  }

  async function read(stage) {
    if (!shown.has(stage.name)) shown.set(stage.name, { place: "", series: new Map(), dirty: true, box: make("div", { class: "stage" }) });
    const own = shown.get(stage.name);
    let more = true;
    while (more) {
      const found = await ask(`run/${encodeURIComponent(stage.name)}?after=${encodeURIComponent(own.place)}`);
      if (found.anew) own.series.clear(); // the run was resumed at an earlier step
      for (const { step, split, ...values } of found.lines) {
        for (const [metric, value] of Object.entries(values)) {
          if (typeof value !== "number") continue;
          const key = `${metric} ${split === "train" ? "train" : "held"}`;
          if (!own.series.has(key)) own.series.set(key, new Map());
          own.series.get(key).set(step, value);
        }
      }
      own.dirty ||= found.anew || found.lines.length > 0;
      own.place = found.place;
      more = found.more;
    }
    own.dirty ||= JSON.stringify(stage) !== own.described;
    own.described = JSON.stringify(stage);
  }

  const points = (own, curve, kind) => [...(own.series.get(`${curve.metric} ${kind}`) ?? [])].sort(([a], [b]) => a - b);
  const named = (curve) => WORDS[language].curves[curve.metric] ?? curve.title;
  const level = ({ level: given }) => given && [WORDS[language].levels[given[0]] ?? given[0], given[1]];
  const stageName = (name) => WORDS[language].stages[name] ?? name;

  function draw(anew = false) {
    if (!last) return;
    const text = word("runState", last.name, word(last.state));
    if (state.textContent !== text) state.textContent = text; // said aloud once
    for (const stage of last.stages) {
      const own = shown.get(stage.name);
      if (own.dirty || anew) fill(own, stage);
      own.dirty = false;
    }
    stages.append(...last.stages.map(({ name }) => shown.get(name).box).filter((box) => !box.isConnected));
    const found = JSON.stringify(last.panels);
    if (found !== panels) examples.replaceChildren(...last.panels.map(panelNode));
    panels = found;
  }

  function fill(own, stage) {
    const curves = stage.curves.map((curve) => ({ ...curve, train: points(own, curve, "train"), held: points(own, curve, "held") })).filter(({ train, held }) => train.length || held.length);
    const step = Math.max(0, ...curves.flatMap(({ train, held }) => [train.at(-1)?.[0] ?? 0, held.at(-1)?.[0] ?? 0]));
    const open = own.box.querySelector("details")?.open ?? false, scroll = own.box.querySelector(".wide")?.scrollTop ?? 0;
    const focused = own.box.contains(document.activeElement) ? document.activeElement.tagName : "";
    own.box.replaceChildren(make("h3", {}, stageName(stage.name), make("small", {}, word("stageState", word(stage.state), step, stage.steps))),
      make("div", { class: "charts" }, ...curves.map((curve) => chart(named(curve),
        [{ name: word("training"), kind: "train", points: curve.train }, { name: word("heldOut"), kind: "held", points: curve.held }], curve.percent, level(curve)))),
      ...(curves.length ? [make("details", open ? { open: true } : {}, make("summary", {}, word("numbers")), table(curves, stageName(stage.name)))] : []));
    const wide = own.box.querySelector(".wide");
    if (wide) wide.scrollTop = scroll;
    if (focused) own.box.querySelector(focused)?.focus();
  }

  function table(curves, name) {
    const columns = curves.flatMap((curve) => [["train", "training"], ["held", "heldOut"]].filter(([kind]) => curve[kind].length).map(([kind, said]) =>
      ({ title: `${named(curve)}, ${word(said)}`, values: new Map(curve[kind]), percent: curve.percent })));
    let steps = [...new Set(columns.flatMap(({ values }) => [...values.keys()]))].sort((a, b) => a - b);
    const apart = Math.ceil(steps.length / MOST_ROWS), held = new Set(curves.flatMap((curve) => curve.held.map(([step]) => step)));
    if (apart > 1) steps = steps.filter((step, index) => (steps.length - 1 - index) % apart === 0 || (held.size <= MOST_ROWS && held.has(step)));
    return make("div", { class: "wide numbers", tabindex: "0", role: "region", "aria-label": word("numbersOf", name) }, make("table", { class: "matrix" },
      make("thead", {}, make("tr", {}, make("th", { scope: "col" }, word("step")), ...columns.map(({ title }) => make("th", { scope: "col" }, title)))),
      make("tbody", {}, ...steps.map((step) => make("tr", {}, make("th", { scope: "row" }, String(step)),
        ...columns.map(({ values, percent: share }) => make("td", {}, values.has(step) ? shortNumber(values.get(step), share) : "")))))));
  }

  async function keepLooking() {
    try {
      await look();
      note(node, "");
    } catch (error) {
      if (!(error instanceof Refused)) throw error;
      note(node, error.message);
    } finally {
      setTimeout(keepLooking, EVERY);
    }
  }

  return { name: "run", node, begin: async () => { if (last) draw(true); else await keepLooking(); } };
}

// Examples that the run shows at its end.
function panelNode({ title, examples }) {
  const labels = [...new Set(examples.flatMap(({ texts }) => texts.flatMap(({ marks }) => marks.map(({ label }) => label))))];
  return make("details", {}, make("summary", {}, title), make("div", { class: "blanks" }, ...examples.map(({ texts, guesses, pictures, captions }) => make("article", {},
    ...texts.map(({ text, marks }) => marks.length ? marked(text, marks, (label) => labels.indexOf(label)) : make("p", { dir: "auto" }, text)),
    pictures.length ? picturesOf(pictures, captions) : null,
    ...guesses.map((group) => bars(group.map(({ name, probability, correct, note: remark, value }) => [name + remark, probability, correct ? "right" : "", value])))))));
}
