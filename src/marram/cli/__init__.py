"""The command line: `marram COMMAND`.

Owns arguments, terminals, exit codes and messages for people; not what is done (the library's).

    main.py        the entry point: works, with a clear line, even without the extras
    app.py         the click group, its commands by name, errors as one line
    options.py     options that commands share; opening what they name
    oneshot.py     get put delete scan
    upkeep.py      checkpoint backup restore verify stats
    transfer.py    dump load; sink.py is where rows go
    redis_import.py  import, from what redis_source.py reads
    serve.py       serve
    bench.py       bench; marram.bench measures
    shell.py       shell; session.py runs its lines, with backends.py, words.py, parse.py,
                   grammar.py, completion.py, render.py, prompt.py
    progress.py    progress bars, on terminals only

Exit codes: 0 success, 1 failure, 2 bad usage, 130 interrupted.

Threading: the main thread.
"""

from __future__ import annotations
