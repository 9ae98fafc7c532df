// Puts the sections together that the served models answer.
const SECTIONS = [
  ["fill", "fill_mask", fillSection], ["complete", "fill_mask", completeSection], ["next", "next_sentence", nextSection], ["classify", "classify", classifySection], ["regress", "regress", regressSection],
  ["tag", "tag", tagSection], ["answer", "answer", answerSection], ["similar", "embed", similarSection], ["attention", "attention", attentionSection],
];
const MEDIA = new Set(["complete", "classify", "regress", "similar"]); // sections that take images and recordings
let sections = [], served = "", ended = false; // whether the run was finished from the first, so that its course comes last

function askForKey(message) {
  stored("sessionStorage", "key", "");
  document.getElementById("key").hidden = false;
  document.getElementById("state").textContent = message;
  document.getElementById("key-field").focus();
}

async function start() {
  const state = document.getElementById("state");
  const watching = "watching" in document.body.dataset;
  let models;
  try {
    ({ models } = await ask("models"));
    ended = watching && (await ask("run")).state === "finished";
  } catch (error) {
    if (!(error instanceof Refused)) throw error;
    state.textContent = error.message;
    return;
  }
  if (!alone) stored("sessionStorage", "key", key);
  document.getElementById("key").hidden = true;
  state.textContent = "";
  for (const { node } of sections) node.remove(); // a key that is asked for again
  sections = watching ? [runSection(refresh)] : [];
  show(models);
}

// Adds the sections that models answer, and keeps those that there are.
function show(models) {
  const main = document.getElementById("main"), navigation = document.querySelector("nav");
  served = JSON.stringify(models);
  if (!alone) offerSharing(models);
  const kept = sections.filter(({ name }) => name === "run");
  const rest = SECTIONS.flatMap(([name, question, create]) => {
    const able = models.filter((model) => model.questions.includes(question) && (model.reads === "text" ? name !== "complete" : MEDIA.has(name)));
    return able.length ? [{ name, ...create(able) }] : [];
  });
  for (const { name, node } of sections) if (name !== "run") node.remove();
  sections = ended ? [...rest, ...kept] : [...kept, ...rest];
  main.append(...sections.map(({ node }) => node).filter((node) => !node.isConnected));
  navigation.replaceChildren(...sections.map(({ name }) => make("a", { href: `#${name}`, say: name })));
  navigation.hidden = sections.length < 2;
  begin();
}

// Training has saved newer models: what is on the page is asked again, and there may be new sections.
async function refresh() {
  const { models } = await ask("models");
  if (JSON.stringify(models) !== served) show(models);
  else for (const own of sections) if (own.begun && own.name !== "run") own.begin().catch(refused(own));
}

const refused = (own) => (error) => { if (!(error instanceof Refused)) throw error; note(own.node, error.message); };

// A section asks its first question when it comes into view, so that opening the page costs little.
function begin() {
  const watch = new IntersectionObserver((entries) => {
    for (const { target, isIntersecting } of entries) {
      if (!isIntersecting) continue;
      watch.unobserve(target);
      const own = sections.find(({ node }) => node === target);
      own.begun = true;
      own.begin().catch(refused(own));
    }
  });
  sections.filter(({ begun }) => !begun).forEach(({ node }) => watch.observe(node));
}

document.getElementById("language").addEventListener("click", () => {
  language = language === "en" ? "zh" : "en";
  stored("localStorage", "language", language);
  translate();
  for (const own of sections) if (own.begun) own.begin().catch(refused(own));
});
document.getElementById("key").addEventListener("submit", (event) => {
  event.preventDefault();
  key = document.getElementById("key-field").value;
  start();
});
language = stored("localStorage", "language") ?? (navigator.language.startsWith("zh") ? "zh" : "en");
if (!(language in WORDS)) language = "en";
translate();
if (!alone) key = stored("sessionStorage", "key") ?? "";
if (document.body.dataset.locked && !key) askForKey("");
else start();
