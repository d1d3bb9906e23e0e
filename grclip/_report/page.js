(() => {
  const filters = document.querySelector(".filters");
  if (!filters) return;
  const buttons = [...filters.querySelectorAll("button")];
  const cases = [...document.querySelectorAll(".case")];
  const status = document.getElementById("shown");

  const show = (group) => {
    for (const button of buttons) button.setAttribute("aria-pressed", String(button.dataset.group === group));
    for (const one of cases) one.hidden = group !== "all" && one.dataset.group !== group;
    const n = cases.filter((one) => !one.hidden).length;
    status.textContent = `Showing ${n} ${n === 1 ? "query" : "queries"}.`;
  };

  for (const button of buttons) button.addEventListener("click", () => show(button.dataset.group));
  filters.hidden = false;
})();
