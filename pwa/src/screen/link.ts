/** The link of an enrolment. */

/** `#e=SCHOOL.CODE`; a school's id may hold dots, a code cannot. Null for every other address. */
export function linkParts(hash: string): { school: string; code: string } | null {
  let text = '';
  try {
    text = decodeURIComponent(hash);
  } catch (malformed) {
    return null;
  }
  const found = /^#?e=(.+)\.([^.]+)$/.exec(text);
  return found && { school: found[1], code: found[2] };
}
