/** Arabic words of the enrolment form, which is a part of the start page itself, and of its module. */
// Used by other pages too.
export const otherLanguage: string = 'English';
export const schoolCode: string = 'رمز المدرسة';
export const shortNumber: string = 'رقم الهاتف القصير';

export const arEnrol = {
  otherLanguage,
  schoolCode,
  shortNumber,
  enrolTitle: 'تسجيل هذا الهاتف',
  enrolHow: 'الرمز من منسّق المدرسة، وصالح لمدة ربع ساعة.',
  code: 'رمز التسجيل',
  label: 'اسم للهاتف (اختياري)',
  labelHint: 'مثل: هاتف المعمل',
  enrol: 'تسجيل الهاتف',
  enrolling: 'يجري التسجيل…',
  enrolled: 'تم تسجيل الهاتف',
  shortNumberWhy: 'يظهر الرقم نفسه عند منسّق المدرسة. إن اختلف الرقمان، يُبلَّغ المنسّق.',
  start: 'بدء العمل',
  needCode: 'المطلوب رمز المدرسة ورمز التسجيل: عشرة حروف.',
  enrolLater: 'الرمز ما زال صالحًا حتى نهاية مدته. تُعاد المحاولة بالزر نفسه عند توفر الشبكة.',
  already: 'هذا الهاتف مسجَّل بالفعل',
  alreadyWhy: 'التسجيل من جديد لا يحذف ما لم يُرسَل.',
  notEnrolled: 'لم يُسجَّل الهاتف',
};

export type EnrolWords = typeof arEnrol;
