// The sidebar shows where the reader is.
const current = document.querySelector(".sidebar-tree .current-page");
const sidebar = document.querySelector(".sidebar-scroll");
if (current && sidebar) {
  sidebar.scrollTop += current.getBoundingClientRect().top - sidebar.clientHeight / 2;
}
