/** The English translation of `ar-enrol.ts`. */
import type { EnrolWords } from './ar-enrol';

// Used by other pages too.
export const otherLanguage = 'العربية';
export const schoolCode = 'School';
export const shortNumber = 'Short number of the phone';

export const enEnrol: EnrolWords = {
  otherLanguage,
  schoolCode,
  shortNumber,
  enrolTitle: 'Enrol this phone',
  enrolHow: 'The code comes from the school champion and is good for a quarter of an hour.',
  code: 'Code',
  label: 'Name of the phone (optional)',
  labelHint: 'For example: lab phone',
  enrol: 'Enrol the phone',
  enrolling: 'Enrolling…',
  enrolled: 'The phone is enrolled',
  shortNumberWhy: 'The school champion sees the same number. If they differ, tell the champion.',
  start: 'Start work',
  needCode: 'Please give the school and the code: ten letters.',
  enrolLater: 'The code stays good until it runs out. Press the same button again when the network is back.',
  already: 'This phone is enrolled already',
  alreadyWhy: 'Enrolling again does not delete unsent work.',
  notEnrolled: 'The phone is not enrolled',
};
