"use strict";
// Without this script everything is shown; the filter appears only when it works.
const form = document.querySelector("form.filter");
const articles = [...document.querySelectorAll("article")];

function filter() {
  const chosen = new FormData(form);
  const study = chosen.get("study") || "", method = chosen.get("method") || "";
  for (const article of articles) {
    const methods = article.dataset.methods.split(" ");
    const fits = (!study || article.dataset.study === study) && (!method || methods.includes(method));
    article.hidden = !fits;
    document.querySelector(`nav [data-entry="${CSS.escape(article.id)}"]`).hidden = !fits;
  }
  for (const part of document.querySelectorAll("main > section, nav details")) {
    part.hidden = !articles.some(a => !a.hidden && a.dataset.study === part.dataset.study);
  }
  for (const row of document.querySelectorAll("tr[data-method]")) {
    row.classList.toggle("chosen", method !== "" && row.dataset.method === method);
  }
  const shown = articles.filter(a => !a.hidden).length;
  form.querySelector("output").textContent = `${shown} of ${articles.length} shown`;
  form.querySelector("button").hidden = !study && !method;
}

// A link to something inside a closed or hidden part opens that part.
function go() {
  const target = document.getElementById(decodeURIComponent(location.hash.slice(1)));
  if (!target) return;
  if (target.closest("[hidden]")) {
    form.reset();
    filter();
  }
  target.scrollIntoView();
}

form.hidden = false;
form.addEventListener("change", filter);
form.addEventListener("reset", () => setTimeout(filter));
form.addEventListener("submit", event => event.preventDefault());
window.addEventListener("hashchange", go);
form.reset();
filter();
go();
if (matchMedia("(max-width: 60rem)").matches) {
  for (const part of document.querySelectorAll("nav details")) part.open = false;
}
