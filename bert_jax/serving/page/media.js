// Images and recordings: chosen or dropped, and completed where they were masked.
function picturesOf(pictures, captions) {
  const named = (caption) => WORDS[language].pictures[caption] ?? caption ?? "";
  return make("div", { class: "pictures" }, ...pictures.map((source, index) =>
    make("figure", {}, make("img", { src: source, alt: named(captions[index]) }), captions[index] ? make("figcaption", {}, named(captions[index])) : null)));
}

// A field for an image or a recording, or for several; passes on their names, and their bytes in base64.
function fileField(kind, changed, most = 1) {
  const preview = make("div", { class: "preview" });
  const input = make("input", { type: "file", accept: `${kind}/*`, multiple: most > 1, onchange: () => read(input.files) });
  const label = most > 1 ? `${kind}s` : kind, box = make("div", { class: "drop" }, field(label in WORDS.en ? label : "file", input), preview);
  box.addEventListener("dragover", (event) => event.preventDefault());
  box.addEventListener("drop", (event) => { event.preventDefault(); read(event.dataTransfer.files); });
  async function read(list) {
    const files = [...list].slice(0, most);
    if (!files.length) return;
    preview.replaceChildren(...files.map((file) => {
      const view = kind === "image" ? make("img", { alt: file.name }) : make("audio", { controls: true, "aria-label": file.name });
      view.src = URL.createObjectURL(file);
      return view;
    }));
    changed(await Promise.all(files.map(async (file) => ({ name: file.name, content: await base64(file) }))));
  }
  return box;
}

async function base64(file) {
  let binary = "";
  const bytes = new Uint8Array(await file.arrayBuffer());
  for (let at = 0; at < bytes.length; at += 32768) binary += String.fromCharCode(...bytes.subarray(at, at + 32768));
  return btoa(binary);
}

// Half of an image or a recording is masked, as in the report of a run.
function completeSection(models) {
  const own = section("complete", models, () => build()), holder = make("div"), shown = make("div", { role: "status" });
  let file = null, builtFor = null;
  own.node.append(holder, shown, make("p", { class: "note", role: "status" }));
  const update = live(own.node, async (signal) => {
    if (!file) return;
    const { pictures, captions, note: said } = await ask("complete", { texts: file, model: own.model().name }, signal);
    shown.replaceChildren(picturesOf(pictures, captions), make("p", { class: "total" }, said));
  });

  function build() {
    const model = own.model();
    if (builtFor?.reads !== model.reads) {
      file = null;
      shown.replaceChildren();
      holder.replaceChildren(fileField(model.reads, ([{ content }]) => { file = content; update(0); }));
    }
    builtFor = model;
    update(0);
  }

  return { node: own.node, begin: async () => build() };
}
