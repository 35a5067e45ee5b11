//! An allocator that counts, for the tests that allow none. Included by each of them: an allocator is
//! the whole program's, so they are programs of their own.

use std::alloc::{GlobalAlloc, Layout, System};
use std::cell::Cell;

/// Returns how often this thread has allocated so far.
#[allow(dead_code, reason = "not every test asks")]
pub(crate) fn allocations() -> usize {
    ALLOCATIONS.get()
}

/// Returns how many bytes this thread has allocated so far beyond what it has freed.
#[allow(dead_code, reason = "not every test asks")]
pub(crate) fn live_bytes() -> usize {
    usize::try_from(LIVE_BYTES.get()).expect("it has not freed more than was allocated")
}

/// Counts the allocations of each thread; the test harness has threads of its own.
struct Counting;

thread_local! {
    static ALLOCATIONS: Cell<usize> = const { Cell::new(0) };
    static LIVE_BYTES: Cell<isize> = const { Cell::new(0) };
}

fn count() {
    // A thread that is ending has no cell any more; it is not the one that is measured.
    let _ = ALLOCATIONS.try_with(|count| count.set(count.get() + 1));
}

fn grow(bytes: usize) {
    // No layout is larger than `isize::MAX`.
    let _ = LIVE_BYTES.try_with(|live| live.set(live.get() + bytes.cast_signed()));
}

fn shrink(bytes: usize) {
    let _ = LIVE_BYTES.try_with(|live| live.set(live.get() - bytes.cast_signed()));
}

// SAFETY: every call is passed on to the system's allocator unchanged; the counters are cells
// without a destructor, so counting allocates nothing itself.
unsafe impl GlobalAlloc for Counting {
    unsafe fn alloc(&self, layout: Layout) -> *mut u8 {
        count();
        grow(layout.size());
        // SAFETY: the caller's promise is passed on.
        unsafe { System.alloc(layout) }
    }

    unsafe fn dealloc(&self, memory: *mut u8, layout: Layout) {
        shrink(layout.size());
        // SAFETY: the caller's promise is passed on.
        unsafe { System.dealloc(memory, layout) }
    }

    unsafe fn realloc(&self, memory: *mut u8, layout: Layout, size: usize) -> *mut u8 {
        count();
        shrink(layout.size());
        grow(size);
        // SAFETY: the caller's promise is passed on.
        unsafe { System.realloc(memory, layout, size) }
    }
}

#[global_allocator]
static ALLOCATOR: Counting = Counting;
