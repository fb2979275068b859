from marram.storage.view cimport View

cpdef get(View view, args)
cpdef set_(View view, args)
