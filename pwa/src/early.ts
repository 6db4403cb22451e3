/**
 * The first script of the start page, in front of the large one: on a phone that is not enrolled it puts up the enrolment
 * form while the rest of the page is still on its way. A press of the button is kept until `screen/enrol.ts` has come.
 */
import { linkParts } from './screen/link';

const link = linkParts(location.hash);
let known: string | null = null;
try {
  known = localStorage.getItem('enrolled');
} catch (switchedOff) {
  known = null; // then the form is there for a moment, until the log has been read
}
if (link || !known) {
  document.querySelector('.scroll')!.appendChild(document.querySelector('template')!.content);
  const form = document.forms[0];
  const field = (id: string): HTMLInputElement => document.getElementById(id) as HTMLInputElement;
  if (link) {
    field('e-school').value = link.school;
    field('e-code').value = link.code;
    form.dataset.link = location.hash; // done: what is typed over it is not touched again
  }
  form.onsubmit = (event) => {
    event.preventDefault();
    const button = form.lastElementChild as HTMLButtonElement;
    button.disabled = true;
    button.textContent = button.dataset.wait!;
  };
}
