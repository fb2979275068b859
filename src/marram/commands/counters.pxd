from marram.commands.spec cimport integer
from marram.storage.view cimport View

cpdef incr(View view, args)
cpdef decr(View view, args)
cpdef incrby(View view, args)
cpdef decrby(View view, args)
cdef _add(View view, key, increment)
