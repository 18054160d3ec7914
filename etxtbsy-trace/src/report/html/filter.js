"use strict";
// Shows the groups that have all words. Without scripts, all groups are shown.
const words = document.getElementById("words");
const shown = document.getElementById("shown");
const groups = Array.from(document.querySelectorAll(".group"), function (group) {
  return { group: group, text: group.textContent.toLowerCase() };
});
function filter() {
  const wanted = words.value.toLowerCase().split(" ");
  let count = 0;
  groups.forEach(function (one) {
    const found = wanted.every(function (word) { return one.text.includes(word); });
    one.group.hidden = !found;
    count += found ? 1 : 0;
  });
  shown.textContent = count + " of " + groups.length + " groups";
}
if (words) {
  document.getElementById("filter").hidden = false;
  words.addEventListener("input", filter);
  filter();
}
