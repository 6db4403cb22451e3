/**
 * The source language. Words of the start path only; the rest is in `ar-more.ts`.
 *
 * No gender: the teacher is addressed by verbal nouns, and a pupil's mark is a noun (حضور, غياب) because the roster
 * does not say who is a girl or a boy. `{0}`, `{1}` are numbers or names, set apart from the text's direction.
 * Six plural forms in the order zero, one, two, few (3-10), many (11-99), other.
 */
export const ar = {
  lang: 'ar',
  locale: 'ar-EG',
  dir: 'rtl',
  app: 'حضور',

  // steps of a register
  none: 'لم يُسجَّل بعد',
  saved: 'محفوظ على هذا الهاتف',
  unkept: 'في هذه الصفحة فقط',
  sent: 'تم الإرسال',
  confirmed: 'تم التأكيد',
  review: 'يحتاج مراجعة',
  saving: 'يُحفظ الآن…',

  // marks
  P: 'حضور',
  A: 'غياب',
  L: 'تأخير',
  E: 'غياب بعذر مقبول',
  U: 'غياب بدون عذر',
  X: 'انصراف بإذن',
  D: 'مهمة رسمية',
  S: 'موقوف عن الدراسة',
  minutes: ['', 'دقيقة', 'دقيقتان', '{0} دقائق', '{0} دقيقة', '{0} دقيقة'],
  reasons: { sick: 'إجازة مرضية', family: 'ظرف عائلي', travel: 'سفر', other: 'عذر آخر' } as Record<string, string>,

  // home
  today: 'فصول اليوم',
  lastDays: 'آخر {0} يومًا',
  noClasses: 'لا توجد فصول على هذا الهاتف بعد. تصل القائمة عند أول اتصال.',
  closed: 'إجازة',
  day: 'اليوم كله',
  am: 'صباحي، حصة {0}',
  pm: 'مسائي، حصة {0}',
  settings: 'الإعدادات',
  school: 'المدرسة',
  back: 'رجوع',
  close: 'إغلاق',
  pupils: 'الأسماء: {0}',

  // register
  allPresent: 'الكل حاضرون',
  restPresent: 'الباقون حاضرون',
  undoAll: 'تراجع ({0})',
  done: 'إنهاء وإرسال',
  present: 'حاضر {0}',
  absent: 'غائب {0}',
  notYet: 'لم يُسجَّل',
  notTaken: 'لم يُسجَّل {0} من {1}',
  more: 'اختيارات أخرى: {0}',
  how: 'لمسة على الاسم: غياب، ثم تأخير، ثم حضور.',
  partial: 'تُقرأ العلامات السابقة…',
  differ: 'علامتان مختلفتان',
  unknownClass: 'هذا الفصل ليس على هذا الهاتف.',
  saveFailed: 'لم يُحفظ آخر اختيار',

  // status
  waiting: ['لا توجد سجلات في الانتظار', 'سجل واحد في الانتظار', 'سجلان في الانتظار', '{0} سجلات في الانتظار', '{0} سجلًا في الانتظار', '{0} سجل في الانتظار'],
  allSent: 'كل السجلات مُرسَلة',
  nothingYet: 'لم يُرسَل شيء بعد',
  sending: 'يجري الإرسال…',
  offlineShort: 'غير متصل',
  portalShort: 'الشبكة لا توصلنا',
  busyShort: 'الخادم مشغول',
  helpShort: 'يلزم تدخّل',

  loadFailed: 'تعذّر فتح هذه الصفحة',
  loadFailedWhy: 'يلزم اتصال في المرة الأولى. التسجيل يعمل بدونها.',
  retry: 'إعادة المحاولة',
};
