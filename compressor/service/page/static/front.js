// The slider of a front: moves the budget, and shows what it would pick. Without scripts a field and a button do that.
"use strict";

(function () {
  const form = document.getElementById("budget-form");
  const slider = document.getElementById("slider");
  const choice = document.getElementById("choice");
  if (!form || !slider || !choice) return;
  const budget = document.getElementById("budget");
  const unit = document.getElementById("unit");
  document.getElementById("slider-label").hidden = false;

  let latest = 0;
  async function show() {
    const mine = ++latest;
    const asked = new URLSearchParams(new FormData(form));
    const checked = [...choice.querySelectorAll("input[name=export]:checked")].map((each) => each.value);
    let text;
    try {
      const answer = await fetch(`${form.dataset.choice}?${asked}`, { headers: { "HX-Request": "true" } });
      text = await answer.text();
    } catch {
      return; // the service is away, or the page is left: the next move asks again
    }
    if (mine !== latest) return; // a later move is on its way
    choice.innerHTML = text;
    const boxes = [...choice.querySelectorAll("input[name=export]")];
    if (boxes.length && checked.length) for (const box of boxes) box.checked = checked.includes(box.value);
    const picked = choice.querySelector("#picked strong");
    const announce = document.getElementById("announce");
    if (picked && announce) announce.textContent = picked.textContent;
  }

  let waiting = 0;
  slider.addEventListener("input", () => {
    budget.value = slider.value;
    unit.value = "%";
    clearTimeout(waiting);
    waiting = setTimeout(show, 120);
  });
  form.addEventListener("change", (event) => {
    if (event.target === slider) return;
    if (event.target.id === "cost") form.submit();
    else show();
    if (unit.value === "%") slider.value = budget.value;
  });
})();
