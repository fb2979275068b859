# What arenas.py does: C, since it is the interpreter's C that asks.

cdef extern from *:
    """
    #include <stdint.h>
    #ifdef __linux__
    #include <sys/mman.h>

    #define MARRAM_HUGE ((size_t)2 << 20)
    #define MARRAM_STOCK (16 * MARRAM_HUGE)

    // Address space that was reserved, and of which no arena was made yet.
    static char *marram_stock;
    static size_t marram_stock_left;

    static void *marram_take_arena(void *context, size_t size) {
        (void)context;
        if (size > MARRAM_STOCK)
            return NULL;
        if (size > marram_stock_left) {
            size_t whole = MARRAM_STOCK + MARRAM_HUGE;
            char *found = mmap(NULL, whole, PROT_READ | PROT_WRITE,
                               MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);
            if (found == MAP_FAILED)
                return NULL;
            // Huge pages lie at multiples of their size: what sticks out goes back.
            size_t before = (MARRAM_HUGE - (uintptr_t)found % MARRAM_HUGE) % MARRAM_HUGE;
            if (before)
                munmap(found, before);
            if (before < MARRAM_HUGE)
                munmap(found + before + MARRAM_STOCK, MARRAM_HUGE - before);
            if (marram_stock_left)
                munmap(marram_stock, marram_stock_left);
            marram_stock = found + before;
            marram_stock_left = MARRAM_STOCK;
            (void)madvise(marram_stock, MARRAM_STOCK, MADV_HUGEPAGE);
        }
        char *arena = marram_stock;
        marram_stock += size;
        marram_stock_left -= size;
        return arena;
    }

    // CPython's own arenas are mapped as well, so this does for them, too (N1).
    static void marram_give_arena(void *context, void *arena, size_t size) {
        (void)context;
        munmap(arena, size);
    }

    static int marram_replace_arenas(void) {
        static PyObjectArenaAllocator allocator = {NULL, marram_take_arena, marram_give_arena};
        PyObject_SetArenaAllocator(&allocator);
        return 1;
    }
    #else
    static int marram_replace_arenas(void) { return 0; }
    #endif
    """
    int replace_arenas "marram_replace_arenas"()
