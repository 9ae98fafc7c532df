// Questions to the server, and the button that exports the page with its models.
const alone = false;
let key = "";

async function ask(route, body, signal) {
  const headers = key ? { Authorization: `Bearer ${key}` } : {};
  if (body) headers["Content-Type"] = "application/json";
  let response;
  try {
    response = await fetch(route, { method: body ? "POST" : "GET", headers, body: body && JSON.stringify(body), signal });
  } catch (error) {
    if (signal?.aborted) throw error;
    throw new Refused(word("unreachable"));
  }
  const answer = await response.json();
  signal?.throwIfAborted();
  if (response.status === 401) askForKey(word("wrongKey"));
  if (!response.ok) throw new Refused(answer.error?.message ?? answer.error ?? String(response.status));
  return answer;
}

// What the browser saves is the whole page with the models that fit.
function offerSharing(models) {
  const button = document.getElementById("share"), state = document.getElementById("state");
  button.hidden = !models.some(({ shareable }) => shareable);
  button.onclick = async () => {
    button.disabled = true;
    state.textContent = word("sharing");
    try {
      const response = await fetch("shared.html", { headers: key ? { Authorization: `Bearer ${key}` } : {} });
      if (!response.ok) throw new Refused((await response.json()).error);
      const link = make("a", { href: URL.createObjectURL(await response.blob()), download: "bert.html" });
      link.click();
      setTimeout(() => URL.revokeObjectURL(link.href), 60000);
      state.textContent = word("shared");
    } catch (error) {
      state.textContent = error instanceof Refused ? error.message : word("unreachable");
    } finally {
      button.disabled = false;
    }
  };
}
