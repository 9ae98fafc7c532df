// Puts the sections together that the served models answer.
const SECTIONS = [
  ["fill", "fill_mask", fillSection], ["next", "next_sentence", nextSection], ["classify", "classify", classifySection], ["regress", "regress", regressSection],
  ["tag", "tag", tagSection], ["answer", "answer", answerSection], ["similar", "embed", similarSection], ["attention", "attention", attentionSection],
];
const MEDIA = new Set(["classify", "regress"]); // sections that take images and recordings too
let sections = [];

function askForKey(message) {
  stored("sessionStorage", "key", "");
  document.getElementById("key").hidden = false;
  document.getElementById("state").textContent = message;
  document.getElementById("key-field").focus();
}

async function start() {
  const main = document.getElementById("main"), navigation = document.querySelector("nav"), state = document.getElementById("state");
  let models;
  try {
    ({ models } = await ask("models"));
  } catch (error) {
    if (!(error instanceof Refused)) throw error;
    state.textContent = error.message;
    return;
  }
  stored("sessionStorage", "key", key);
  document.getElementById("key").hidden = true;
  state.textContent = "";
  for (const { node } of sections) node.remove(); // a key that is asked for again
  sections = SECTIONS.flatMap(([name, question, create]) => {
    const able = models.filter((model) => model.questions.includes(question) && (model.reads === "text" || MEDIA.has(name)));
    return able.length ? [{ name, ...create(able) }] : [];
  });
  main.append(...sections.map(({ node }) => node));
  navigation.replaceChildren(...sections.map(({ name }) => make("a", { href: `#${name}`, say: name })));
  navigation.hidden = sections.length < 2;
  begin();
}

// A section asks its first question when it comes into view, so that opening the page costs little.
function begin() {
  const watch = new IntersectionObserver((entries) => {
    for (const { target, isIntersecting } of entries) {
      if (!isIntersecting) continue;
      watch.unobserve(target);
      const own = sections.find(({ node }) => node === target);
      own.begun = true;
      own.begin().catch((error) => { if (!(error instanceof Refused)) throw error; note(own.node, error.message); });
    }
  });
  sections.forEach(({ node }) => watch.observe(node));
}

document.getElementById("language").addEventListener("click", () => {
  language = language === "en" ? "zh" : "en";
  stored("localStorage", "language", language);
  translate();
  for (const own of sections) if (own.begun) own.begin().catch((error) => { if (!(error instanceof Refused)) throw error; });
});
document.getElementById("key").addEventListener("submit", (event) => {
  event.preventDefault();
  key = document.getElementById("key-field").value;
  start();
});
language = stored("localStorage", "language") ?? (navigator.language.startsWith("zh") ? "zh" : "en");
if (!(language in WORDS)) language = "en";
translate();
key = stored("sessionStorage", "key") ?? "";
if (document.body.dataset.locked && !key) askForKey("");
else start();
