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

  // The preview is of what would be submitted: a file that was chosen is sent first, which is what the button does
  // without scripts.
  const inspect = document.getElementById("inspect");
  inspect?.addEventListener("htmx:confirm", (event) => {
    const files = [...document.querySelectorAll("#job-form input[type=file]")];
    if (!files.some((each) => each.files.length)) return;
    event.preventDefault();
    document.getElementById("job-form").requestSubmit(inspect);
  });

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
