"use strict";
// Search by a picture that is dropped, pasted or chosen; the server embeds it.

async function searchBy(file) {
  tell("Searching ...");
  try {
    location.hash = `#/upload/${await store.upload(file)}`;
  } catch (error) {
    tell(error.message, true);
  }
}

function firstFile(transfer) {
  return [...(transfer?.files ?? [])][0];
}

const chooser = document.getElementById("file");
chooser.addEventListener("change", () => {
  if (chooser.files[0]) searchBy(chooser.files[0]);
  chooser.value = "";
});
addEventListener("paste", (event) => {
  const file = firstFile(event.clipboardData);
  if (file) {
    event.preventDefault();
    searchBy(file);
  }
});
addEventListener("dragover", (event) => {
  if (![...event.dataTransfer.types].includes("Files")) return;
  event.preventDefault();
  document.body.classList.add("dropping");
});
addEventListener("dragleave", (event) => {
  if (!event.relatedTarget) document.body.classList.remove("dropping");
});
addEventListener("drop", (event) => {
  document.body.classList.remove("dropping");
  const file = firstFile(event.dataTransfer);
  if (file) {
    event.preventDefault();
    searchBy(file);
  }
});
