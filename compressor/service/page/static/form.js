// The form of a new job: shows only the options of the search that is chosen. Without scripts all of them are there.
"use strict";

(function () {
  const search = document.getElementById("f-search");
  if (!search) return;
  const groups = [...document.querySelectorAll("fieldset[data-method]")];

  function show() {
    for (const group of groups) {
      const wrong = group.querySelector("[aria-invalid=true]");
      group.hidden = search.value !== group.dataset.method && !wrong;
    }
  }
  search.addEventListener("change", show);
  show();

  // A mistake in a part that is folded away is unfolded when its link is followed.
  for (const link of document.querySelectorAll("#errors a")) {
    link.addEventListener("click", (event) => {
      const place = document.getElementById(decodeURIComponent(link.hash.slice(1)));
      if (!place) return;
      event.preventDefault();
      const folded = place.closest("details");
      if (folded) folded.open = true;
      place.focus();
    });
  }
})();
