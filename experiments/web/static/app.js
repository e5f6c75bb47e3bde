// Forms with `data-live` change the page in place, say what is new to a screen reader, and put the focus where reading
// goes on. Without this file each such form loads a page.
"use strict";

const news = document.getElementById("news");
let waiting = null; // the request that is on its way; a later request takes its place

function show(page, focus, address) {
  const next = new DOMParser().parseFromString(page, "text/html");
  const main = next.getElementById("main");
  document.getElementById("main").replaceWith(main);
  document.title = next.title;
  document.querySelector("nav").replaceWith(next.querySelector("nav"));
  if (address) history.replaceState(null, "", address);
  news.textContent = main.dataset.news;
  const place = document.getElementById(focus);
  if (place) place.focus({ preventScroll: focus !== "asked" });
  if (focus === "main") window.scrollTo(0, 0); // the whole page is new
  begin();
}

async function send(form, submitter, focus) {
  waiting?.abort();
  const mine = (waiting = new AbortController());
  const data = new URLSearchParams(new FormData(form, submitter));
  const isPost = form.method === "post";
  const address = isPost ? form.action : `${form.action}?${data}`;
  try {
    // An answer that is on its way is not taken back: it may have been written.
    const answer = await fetch(address, { method: form.method, body: isPost ? data : null, signal: isPost ? null : mine.signal });
    const page = await answer.text();
    if (!answer.headers.get("content-type")?.startsWith("text/html")) throw new Error(page);
    show(page, focus, answer.ok ? answer.url : null);
  } catch (error) {
    if (error.name !== "AbortError") news.textContent = `That did not work: ${error.message}`;
  }
}

function begin() {
  for (const form of document.querySelectorAll("form[data-live]")) {
    form.addEventListener("submit", (event) => {
      event.preventDefault();
      if (form.ariaBusy === "true") return; // a second click on the same answer
      form.ariaBusy = "true";
      send(form, event.submitter, form.dataset.live).finally(() => (form.ariaBusy = "false"));
    });
  }
  for (const form of document.querySelectorAll("form[data-at-once]")) {
    // The focus stays on the slider, so that arrow keys go on.
    form.addEventListener("change", (event) => send(form, null, event.target.id));
  }
  for (const slider of document.querySelectorAll("input[data-values]")) {
    const values = slider.dataset.values.split(" ");
    slider.addEventListener("input", () => {
      slider.setAttribute("aria-valuetext", `gamma ${values[slider.value]}`);
      slider.parentElement.querySelector("output").textContent = values[slider.value];
    });
  }
  const again = document.querySelector("[data-again]");
  if (again) setTimeout(() => again.isConnected && again.querySelector("a").click(), 1000 * again.dataset.again);
}

// Whether an element differs from what the server sent: somebody changed it before this script ran, or the browser
// kept its value from the last visit.
function isChosen(element) {
  const isOther = (option) => option.selected !== option.defaultSelected;
  return element.options ? [...element.options].some(isOther) : element.value !== element.defaultValue;
}

begin();
for (const form of document.querySelectorAll("form[data-at-once]")) {
  const chosen = [...form.querySelectorAll("input, select")].filter(isChosen);
  for (const element of chosen) element.dispatchEvent(new Event("input"));
  if (chosen.length) send(form, null, document.activeElement.id);
}
