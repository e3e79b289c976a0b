"use strict";
// Without this script everything is shown; what needs it appears only when it works.
const form = document.querySelector("form.filter");
const articles = [...document.querySelectorAll("article")];
const claims = [...document.querySelectorAll(".claim")];
const verdicts = [...document.querySelectorAll("form.verdicts")];

function has(text, words) {
  return words.every(word => text.includes(word));
}

function filter() {
  const chosen = new FormData(form);
  const study = chosen.get("study") || "", methods = chosen.getAll("method");
  const words = (chosen.get("words") || "").toLowerCase().split(/\s+/).filter(Boolean);
  for (const article of articles) {
    const its = article.dataset.methods.split(" ");
    const fits = (!study || article.dataset.study === study)
      && (!methods.length || methods.some(m => its.includes(m)))
      && has(`${article.id} ${article.textContent}`.toLowerCase(), words);
    article.hidden = !fits;
    document.querySelector(`nav [data-entry="${CSS.escape(article.id)}"]`).hidden = !fits;
  }
  for (const claim of claims) claim.hidden = !has(claim.textContent.toLowerCase(), words) || !judged(claim);
  for (const section of document.querySelectorAll(".claims")) {
    const its = claims.filter(c => section.contains(c));
    section.hidden = methods.length > 0 || (words.length > 0 && its.every(c => c.hidden));
    const picked = words.length > 0 || section.querySelector(".verdicts input:checked") !== null;
    for (const more of section.querySelectorAll(".more")) {
      more.hidden = [...more.querySelectorAll(".claim")].every(c => c.hidden);
      if (picked) more.open = true;
    }
  }
  for (const part of document.querySelectorAll("main > section, nav details")) {
    part.hidden = ![...articles, ...document.querySelectorAll(".claims")]
      .some(a => !a.hidden && a.dataset.study === part.dataset.study);
  }
  for (const part of document.querySelectorAll("main .extras, nav .extras")) {
    part.hidden = study !== "" || methods.length > 0 || words.length > 0;
  }
  for (const row of document.querySelectorAll("tr[data-method]")) {
    row.classList.toggle("chosen", methods.includes(row.dataset.method));
  }
  const shown = articles.filter(a => !a.hidden).length;
  form.querySelector("output").textContent = `${shown} of ${articles.length} shown`;
  form.querySelector("button").hidden = !study && !methods.length && !words.length;
}

function judged(claim) {
  const its = verdicts.find(v => claim.closest(".claims").contains(v));
  const picked = its ? new FormData(its).getAll("verdict") : [];
  return !picked.length || picked.includes(claim.dataset.verdict);
}

// A link to something inside a closed or hidden part opens that part.
function go() {
  const target = document.getElementById(decodeURIComponent(location.hash.slice(1)));
  if (!target) return;
  if (target.closest("[hidden]")) {
    form.reset();
    for (const v of verdicts) v.reset();
    filter();
  }
  for (let part = target.closest("details"); part; part = part.parentElement.closest("details")) part.open = true;
  if (target.matches(".claim")) target.querySelector("details").open = true;
  target.scrollIntoView();
}

async function copy(button) {
  const link = `${location.href.split("#")[0]}#${button.dataset.link}`;
  try {
    await navigator.clipboard.writeText(link);
    button.textContent = "copied";
  } catch {  // not allowed here: the address bar has it
    location.hash = button.dataset.link;
    button.textContent = "in the address bar";
  }
}

const large = document.querySelector("dialog.large");
function enlarge(event) {
  if (event.ctrlKey || event.metaKey || event.shiftKey) return;  // a new tab, as with any link
  event.preventDefault();
  const picture = large.querySelector("img"), own = event.currentTarget.querySelector("img");
  picture.src = own.src;
  picture.alt = own.alt;
  large.querySelector("a").href = event.currentTarget.href;
  large.showModal();
}

// Tables that are wider than their place say so, and stop when they are scrolled to the end.
function measure(box) {
  box.classList.toggle("wide", box.scrollWidth > box.clientWidth + 1);
  box.classList.toggle("end", box.scrollLeft + box.clientWidth >= box.scrollWidth - 1);
}
const boxes = new ResizeObserver(entries => entries.forEach(e => measure(e.target)));
for (const box of document.querySelectorAll(".scroll")) {
  boxes.observe(box);
  box.addEventListener("scroll", () => measure(box), {passive: true});
}

for (const link of document.querySelectorAll("a.figure")) link.addEventListener("click", enlarge);
large.addEventListener("click", event => event.target === large && large.close());
for (const button of document.querySelectorAll(".copy")) {
  button.hidden = false;
  button.addEventListener("click", () => copy(button));
}
for (const v of verdicts) {
  v.hidden = false;
  v.addEventListener("change", filter);
}
form.hidden = false;
form.addEventListener("input", filter);
form.addEventListener("reset", () => setTimeout(filter));
form.addEventListener("submit", event => event.preventDefault());
window.addEventListener("hashchange", go);
form.reset();
for (const v of verdicts) v.reset();
filter();
go();
if (matchMedia("(max-width: 60rem)").matches) {
  for (const part of document.querySelectorAll("nav details")) part.open = false;
}
