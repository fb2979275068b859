from marram.storage.view cimport View

cpdef string_entry(View view, key)
